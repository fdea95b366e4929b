"""Nodes made up for the boards: as many as wanted, in every state, and a Prometheus that sees them."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prometheus_client import Metric

from exporter import metrics as node_metrics
from exporter.allowed import UpdateState, Verdict
from exporter.status import DAY, ServiceState, ServiceStatus
from exporter.updaterlog import UpdaterLog
from remediate import metrics as remediation_metrics
from remediate.journal import Outcome
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from tests.alerts.shipped import RULES, unslowed
from tests.fleet import MINIMUM, NEW, OLD, counted, document, node, page, serving, updater
from tests.labs.prometheus import Prometheus

States = dict[str, tuple[ServiceState, UpdateState]]
STATES: States = {
    "n01": (ServiceState.RUNNING, UpdateState.CURRENT),
    "n02": (ServiceState.CRASH_LOOPING, UpdateState.BELOW_MINIMUM),
    "n03": (ServiceState.RUNNING, UpdateState.BELOW_MINIMUM),
    "n04": (ServiceState.STARTING, UpdateState.WAITING),
    "n05": (ServiceState.UNKNOWN, UpdateState.UNKNOWN),
    "n06": (ServiceState.STOPPED, UpdateState.DUE),
    "n07": (ServiceState.STOPPING, UpdateState.CURRENT),
    "n08": (ServiceState.CRASHED, UpdateState.CURRENT),
    "n09": (ServiceState.MASKED, UpdateState.CURRENT),
    "n10": (ServiceState.ABSENT, UpdateState.UNKNOWN),
}
"""One node in each service state, and one in each update state."""
WORST_FIRST = ["n02", "n03", "n08", "n05", "n10", "n06", "n04", "n07", "n09", "n01"]


def fleet(count: int) -> States:
    """Return so many nodes: one that is well; those of STATES; or those, and the rest well or waiting."""
    well = (ServiceState.RUNNING, UpdateState.CURRENT), (ServiceState.RUNNING, UpdateState.WAITING)
    if count < len(STATES):
        return {f"n{number:02}": well[0] for number in range(1, count + 1)}
    return STATES | {f"n{number:02}": well[number % 2] for number in range(len(STATES) + 1, count + 1)}


@contextmanager
def shown(states: States, folder: Path) -> Iterator[Prometheus]:
    """Give a Prometheus that has the rules, and has scraped both programs, as they are with these nodes, twice."""
    rules = folder / RULES.name
    rules.write_text(unslowed())
    with ExitStack() as stack:
        pages = {"storagenode": nodes(states), "storagenode-remediate": page([*_remediation(states), *counted()])}
        targets = {job: stack.enter_context(serving({"/metrics": text}.__getitem__)) for job, text in pages.items()}
        with Prometheus(targets, rule_files=[rules]) as running:
            for job in targets:
                running.wait_query(f'count_over_time(up{{job="{job}"}}[1m]) >= 3 and up{{job="{job}"}} == 1', 90)
            yield running


def nodes(states: States) -> bytes:
    """Return the exporter's page; the nodes are a second apart, and what has crashed was last reached two days ago."""
    now = time.time()
    well = updater(now, UpdaterLog(last_check=now - 60, last_update=now - 9 * DAY, last_failure=now - 20 * DAY))
    return page(
        node_metrics.families(
            [
                node(
                    name,
                    now - number,
                    ServiceStatus(state=service, detail="", since=now - number, exit_code=1, restarts=2),
                    document(MINIMUM, NEW, now),
                    installed=OLD,
                    running=None if service is ServiceState.STOPPED else OLD,
                    contact=now - number - 2 * DAY * (service is ServiceState.CRASHED),
                    updater=well,
                    verdict=Verdict(update),
                )
                for number, (name, (service, update)) in enumerate(states.items())
            ]
        )
    )


def _remediation(states: States) -> Iterator[Metric]:
    """Yield what `serve` exports when the first node has had one run of each outcome, and the second is in one."""
    first, *others = states
    published = Published(
        worker_last_seen=time.time(),
        runs=tuple(RunCount(node=first, trigger="alert", outcome=outcome, count=1) for outcome in Outcome),
        decisions=(DecisionCount(node=first, decision="proceed", reason="below_minimum", count=3),),
        nodes=(
            NodePublished(node=first, last_success=time.time(), last_failure=time.time() - 9, last_run_duration=2.5),
            *(NodePublished(node=name, in_progress=True, updater_held=True) for name in others[:1]),
        ),
    )
    return remediation_metrics.families(published, others[:1], list(states))
