"""A fleet made up for the boards: as many nodes as wanted, in every state, and what the three programs export of it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from threading import Thread

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter import metrics as node_metrics
from exporter.allowed import AllowedVersions, UpdateState, Verdict, parse_document
from exporter.status import (
    DAY,
    Basis,
    Clock,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    RunningNode,
    ServiceState,
    ServiceStatus,
    Source,
)
from exporter.version import NodeVersion
from remediate import metrics as remediation_metrics
from remediate.journal import Outcome
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from remediate.spool import Spool
from remediate.webhook import Webhook
from tests.exporter.test_updater import UPDATER
from tests.grafana.boards import ROOT
from tests.labs.prometheus import Prometheus

STATES = {
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
NODE_ID = "12vha9oTFnerxYRgeQ2BZqoFrLrnmmf5UWTCY2jA77dG3JN2sdZ"


def fleet(count: int) -> dict[str, tuple[ServiceState, UpdateState]]:
    """Return so many nodes: one that is well; those of STATES; or those, and the rest well or waiting."""
    well = (ServiceState.RUNNING, UpdateState.CURRENT), (ServiceState.RUNNING, UpdateState.WAITING)
    if count < len(STATES):
        return {f"n{number:02}": well[0] for number in range(1, count + 1)}
    return STATES | {f"n{number:02}": well[number % 2] for number in range(len(STATES) + 1, count + 1)}


@contextmanager
def shown(states: dict[str, tuple[ServiceState, UpdateState]], rules: Path) -> Iterator[Prometheus]:
    """Give a Prometheus that evaluates the rules and has scraped both programs, as they are with these nodes, twice."""
    webhook = Webhook(Spool(Path(gettempdir())), list(states))
    with _serve(_nodes(states)) as nodes, _serve([*_remediation(states), *_counted(webhook)]) as remediation:
        targets = {"storagenode": nodes, "storagenode-remediate": remediation}
        with Prometheus(targets, rule_files=[rules]) as running:
            for job in targets:
                running.wait_query(f'count_over_time(up{{job="{job}"}}[1m]) >= 3 and up{{job="{job}"}} == 1', 90)
            yield running


def _nodes(states: dict[str, tuple[ServiceState, UpdateState]]) -> Iterator[Metric]:
    now = time.time()
    document = parse_document((ROOT / "tests/data/upstream/1.162.3/version_document.json").read_bytes(), fetched=now)
    return node_metrics.families(
        [_status(node, *state, document, now - number) for number, (node, state) in enumerate(states.items())]
    )


def _status(node: str, service: ServiceState, update: UpdateState, document: AllowedVersions, now: float) -> NodeStatus:
    version = NodeVersion.parse("1.104.5")
    running = RunningNode(version=version, node_id="", allowed_version=None, started=now, last_contact=now)
    return NodeStatus(
        node=node,
        manager="systemd",
        node_id=NODE_ID,
        service=ServiceStatus(state=service, detail="", since=now, exit_code=1, restarts=2),
        installed=InstalledVersion(version=version, release=True, device=1, inode=1),
        running=Failure(FailureReason.UNREACHABLE, "") if service is ServiceState.STOPPED else running,
        allowed=document,
        verdict=Verdict(update),
        last_contact=now,
        clock=Clock(now - 2 * DAY * (service is ServiceState.CRASHED), Basis.CONTACT, now),
        durations=dict.fromkeys(Source, 0.01),
        updater=UPDATER,
    )


def _remediation(states: dict[str, tuple[ServiceState, UpdateState]]) -> Iterator[Metric]:
    """Yield what `serve` exports when the first node has had one run of each outcome, and the second is in one."""
    first, *others = states
    published = Published(
        worker_last_seen=time.time(),
        runs=tuple(RunCount(node=first, trigger="alert", outcome=outcome, count=1) for outcome in Outcome),
        decisions=(DecisionCount(node=first, decision="proceed", reason="below_minimum", count=3),),
        nodes=(
            NodePublished(node=first, last_success=time.time(), last_failure=time.time() - 9, last_run_duration=2.5),
            *(NodePublished(node=node, in_progress=True, updater_held=True) for node in others[:1]),
        ),
    )
    return remediation_metrics.families(published, others[:1], list(states))


def _counted(webhook: Webhook) -> Iterator[Metric]:
    yield from webhook.requests.collect()
    yield from webhook.alerts.collect()


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self.families


@contextmanager
def _serve(families: Iterable[Metric]) -> Iterator[str]:
    """Serve the families, written out once: Prometheus asks each second, and 200 nodes are 12,000 lines."""
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    page = generate_latest(registry)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
