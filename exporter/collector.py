"""What a scrape asks: observe all nodes now, within the time the scraper gives."""

from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from exporter.metrics import families
from exporter.observe import Observer

_LONGEST_SECONDS = 2.0
_MARGIN_SECONDS = 0.5
_SHORTEST_SECONDS = 0.1


class NodeCollector:
    """Collects the metrics of some nodes; what cannot be seen is in the metrics, and raises nothing."""

    def __init__(self, observer: Observer, timeout: float, nodes: Collection[str]) -> None:
        self._observer = observer
        self._timeout = timeout
        self._nodes = frozenset(nodes)

    def collect(self) -> Iterator[Metric]:
        """Observe, within the timeout, and turn what was seen into families."""
        yield from families(self._observer.observe_all(self._timeout, self._nodes))


def registry(observer: Observer, scrape_timeout: float | None, nodes: Collection[str]) -> CollectorRegistry:
    """Make the registry of one scrape; its answer has to be on its way half a second before the scraper gives up."""
    left = _LONGEST_SECONDS if scrape_timeout is None else scrape_timeout - _MARGIN_SECONDS
    made = CollectorRegistry()
    made.register(NodeCollector(observer, max(min(left, _LONGEST_SECONDS), _SHORTEST_SECONDS), nodes))
    return made
