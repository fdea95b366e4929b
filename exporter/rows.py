"""One row of a table of metrics, and the family it makes of what was observed. What is unknown has no number."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from exporter.status import NodeStatus

T = TypeVar("T")
Family = GaugeMetricFamily | CounterMetricFamily
Sample = tuple[tuple[str, ...], float]
"""The values of the labels, and the value."""


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One metric: how it is called and described, and how its samples come from what was observed."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[T], Iterable[Sample]]
    type: Literal["gauge", "counter"] = "gauge"

    def family(self, observed: Sequence[T]) -> Family:
        """Make the family of all that was observed."""
        kind = CounterMetricFamily if self.type == "counter" else GaugeMetricFamily
        family = kind(self.name, self.help, labels=self.labels)
        for one in observed:
            for labels, value in self.samples(one):
                family.add_metric(labels, value)
        return family


def number(read: Callable[[NodeStatus], float | None]) -> Callable[[NodeStatus], Iterable[Sample]]:
    """Give one sample a node, none where the number is not known."""

    def samples(status: NodeStatus) -> Iterator[Sample]:
        value = read(status)
        if value is not None:
            yield (status.node,), float(value)

    return samples
