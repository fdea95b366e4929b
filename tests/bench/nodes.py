"""A large fleet: what its exporters and webhooks say, and whom its Alertmanager asks for.

Prometheus scrapes every host by its name, an exporter and a webhook each; that all of them are one server here, it does
not see.
"""

import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Metric

from exporter import metrics as node_metrics
from exporter.allowed import AllowedVersions, UpdateState, Verdict
from exporter.status import DAY, DOWN, NodeStatus, ServiceState, ServiceStatus
from exporter.updaterlog import UpdaterLog
from exporter.version import NodeVersion
from remediate import metrics as remediation_metrics
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from tests.fleet import BEFORE, MINIMUM, NEW, OLD, document, node, page, serving, updater

_DUE = range(20, 23)
"""Of a hundred nodes."""
PORTS = {"storagenode": 19651, "storagenode-remediate": 19652}


class Fleet:
    """Hosts with some nodes each, of which one in a hundred is deadlocked, and some are otherwise not well."""

    def __init__(self, hosts: int, nodes: int) -> None:
        self.hosts, self.nodes = hosts, nodes
        self.asked: dict[str, float] = {}
        """The nodes that have come to the webhook, and when they first did, monotonic."""
        self.messages = 0
        """The messages that they came in."""
        self._began = time.time()
        self._texts = dict(self._exposed(100))

    def rise(self) -> None:
        """Let every node be deadlocked at once."""
        self._texts = dict(self._exposed(1))

    def jobs(self, url: str) -> dict[str, dict[str, Any]]:
        """Return the scrape configs, by job."""
        return {job: self._job(job, urllib.parse.urlsplit(url).netloc) for job in PORTS}

    def _job(self, job: str, here: str) -> dict[str, Any]:
        number = {"source_labels": ["__address__"], "regex": r"host(\d+):.*"}
        relabel = [
            {"source_labels": ["__address__"], "target_label": "instance"},
            number | {"target_label": "__metrics_path__", "replacement": f"/{job}/$1"},
            {"target_label": "__address__", "replacement": here},
        ]
        targets = [f"host{number}:{PORTS[job]}" for number in range(self.hosts)]
        return {"static_configs": [{"targets": targets}], "relabel_configs": relabel}

    def _exposed(self, one_in: int) -> Iterator[tuple[str, bytes]]:
        allowed = document(MINIMUM, NEW, self._began)
        for host in range(self.hosts):
            numbers = range(host * self.nodes, (host + 1) * self.nodes)
            statuses = [_status(number, self._began, allowed, deadlocked=number % one_in == 0) for number in numbers]
            yield f"/storagenode/{host}", page(node_metrics.families(statuses))
            yield f"/storagenode-remediate/{host}", page(_remediation(statuses, self._began))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Answer the scrapes, and take what Alertmanager sends; yield `http://HOST:PORT`."""
        with serving(lambda path: self._texts[path], self._take) as address:
            yield f"http://{address}"

    def _take(self, payload: dict[str, Any]) -> None:
        self.messages += 1
        for alert in payload["alerts"]:
            self.asked.setdefault(alert["labels"]["node"], time.monotonic())


def name(number: int) -> str:
    """Name a node."""
    return f"node{number:05}"


def _kind(number: int, deadlocked: bool) -> tuple[ServiceState, NodeVersion, NodeVersion | None]:
    """Say in which state a node is, what is installed, and what runs."""
    if deadlocked:
        return (ServiceState.CRASH_LOOPING, ServiceState.CRASHED, ServiceState.STOPPED)[number % 3], OLD, None
    match number % 100:
        case 1 | 2:
            return ServiceState.RUNNING, OLD, OLD
        case 3 | 4:
            return ServiceState.RUNNING, NEW, BEFORE
        case 5:
            return ServiceState.STOPPED, BEFORE, None
        case 6:
            return ServiceState.CRASH_LOOPING, NEW, None
        case 7:
            return ServiceState.UNKNOWN, BEFORE, BEFORE
        case rest if rest < 12:
            return ServiceState.RUNNING, MINIMUM, MINIMUM
        case rest if rest < 60:
            return ServiceState.RUNNING, BEFORE, BEFORE
        case _:
            return ServiceState.RUNNING, NEW, NEW


def _status(number: int, now: float, allowed: AllowedVersions, *, deadlocked: bool) -> NodeStatus:
    state, installed, running = _kind(number, deadlocked)
    is_down = state in DOWN
    since = now - 3600 if is_down else now - 9 * DAY
    log = UpdaterLog(last_check=now - 600, last_update=now - 9 * DAY, last_failure=now - 20 * DAY, version=BEFORE)
    exit_code = 1 if is_down else None
    return node(
        name(number),
        now,
        ServiceStatus(state=state, detail="", since=since, exit_code=exit_code, restarts=number % 3),
        allowed,
        installed=installed,
        running=running,
        contact=since if is_down else now - 60,
        updater=updater(now, log),
        # The rollout has reached none of the others.
        verdict=Verdict(UpdateState.DUE, NEW) if not deadlocked and number % 100 in _DUE else None,
    )


def _remediation(statuses: list[NodeStatus], now: float) -> Iterable[Metric]:
    """Tell of a host of which a node in eight has once been deadlocked."""
    names = [status.node for status in statuses]
    healed = [node for node in names if int(node[-5:]) % 8 == 0]
    published = Published(
        worker_last_seen=now - 60,
        runs=tuple(RunCount(node=node, trigger="alert", outcome="updated", count=2) for node in healed),
        decisions=tuple(
            DecisionCount(node=node, decision="proceed", reason="below_minimum", count=2) for node in healed
        ),
        nodes=tuple(
            NodePublished(node=node, last_success=now - 5 * DAY, last_run_duration=20)
            if node in healed
            else NodePublished(node=node)
            for node in names
        ),
    )
    return remediation_metrics.families(published, [], names)
