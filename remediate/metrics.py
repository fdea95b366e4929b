"""What the worker has published, and what waits in the spool, as metrics: one table."""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from remediate.published import NodePublished, Published, read
from remediate.spool import Spool

logger = logging.getLogger(__name__)

_NODE_GAUGES: tuple[tuple[str, str, Callable[[NodePublished], float | None]], ...] = (
    (
        "updater_held",
        "Whether the official updater is held stopped for a run (0 or 1).",
        lambda node: node.updater_held,
    ),
    (
        "in_progress",
        "Whether a run is under way, or was interrupted and waits to be recovered (0 or 1).",
        lambda node: node.in_progress,
    ),
    (
        "circuit_open",
        "Whether runs failed three times within a day, so that nothing is done unasked until `resume` (0 or 1).",
        lambda node: node.circuit_open,
    ),
    (
        "paused",
        "Whether somebody has paused all that is done unasked (0 or 1).",
        lambda node: node.paused and (node.paused_until is None or time.time() < node.paused_until),
    ),
    (
        "last_success_timestamp_seconds",
        "When a run last ended with the node updated.",
        lambda node: node.last_success,
    ),
    (
        "last_failure_timestamp_seconds",
        "When a run last failed, or ended needing a person.",
        lambda node: node.last_failure,
    ),
    (
        "last_run_duration_seconds",
        "How long the last run took.",
        lambda node: node.last_run_duration,
    ),
)
_PREFIX = "storagenode_remediation_"


def families(published: Published | None, pending: Collection[str] | None, nodes: Collection[str]) -> Iterator[Metric]:
    """Turn what is known into metric families, a 0 for each configured node of which nothing has been heard.

    `pending` is None when the spool could not be read.
    """
    runs = CounterMetricFamily(
        f"{_PREFIX}runs",
        "Runs that ended, of the node or of its updater, by what asked for them and how.",
        labels=["node", "program", "trigger", "outcome"],
    )
    decisions = CounterMetricFamily(
        f"{_PREFIX}decisions",
        "What was decided for a node, or for its updater, and why.",
        labels=["node", "program", "decision", "reason"],
    )
    states = {node: NodePublished(node=node) for node in nodes}
    if published is not None:
        for run in published.runs:
            runs.add_metric([run.node, run.program, run.trigger, run.outcome], run.count)
        for decision in published.decisions:
            labels = [decision.node, decision.program, decision.decision, decision.reason]
            decisions.add_metric(labels, decision.count)
        states |= {state.node: state for state in published.nodes}
    yield runs
    yield decisions
    for name, help_text, value in _NODE_GAUGES:
        family = GaugeMetricFamily(_PREFIX + name, help_text, labels=["node"])
        for node, state in states.items():
            if (number := value(state)) is not None:
                family.add_metric([node], number)
        yield family
    if pending is not None:
        waiting = GaugeMetricFamily(
            f"{_PREFIX}pending", "Whether a request waits in the spool for the worker (0 or 1).", labels=["node"]
        )
        for node in nodes:
            waiting.add_metric([node], node in pending)
        yield waiting
    if published is not None:
        yield GaugeMetricFamily(
            f"{_PREFIX}worker_last_seen_timestamp_seconds",
            "When the worker last published its status file.",
            value=published.worker_last_seen,
        )


class RemediationCollector:
    """Read the status file and the spool at each scrape."""

    def __init__(self, spool: Spool, nodes: Collection[str], status_file: Path) -> None:
        self._spool = spool
        self._nodes = tuple(nodes)
        self._status_file = status_file

    def collect(self) -> Iterator[Metric]:
        """Yield the families; a spool that cannot be read costs its own family, with a warning."""
        pending: Collection[str] | None = None
        try:
            pending = self._spool.pending()
        except OSError as error:
            logger.warning("spool cannot be read", extra={"error": str(error)})
        yield from families(read(self._status_file), pending, self._nodes)
