"""A made-up fleet: what its exporters and webhooks say, and whom its Alertmanager asks for.

The families are those of the programs; only what was observed is made up. Prometheus scrapes every host by its name, an
exporter and a webhook each; that all of them are one server here, it does not see.
"""

import json
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from exporter import metrics as node_metrics
from exporter.allowed import STORAGENODE, AllowedVersions, Process, Release, UpdateState, Verdict, judge
from exporter.status import (
    DAY,
    DOWN,
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
    UpdaterStatus,
)
from exporter.updaterlog import UpdaterLog
from exporter.version import NodeVersion
from remediate import metrics as remediation_metrics
from remediate.published import DecisionCount, NodePublished, Published, RunCount

_NODE_ID = "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"
_OLD, _MINIMUM, _BEFORE, _NEW = (NodeVersion(1, minor, 3) for minor in (158, 160, 161, 162))
_UNSEEN = Failure(FailureReason.UNREACHABLE, "connection refused")
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
        for host in range(self.hosts):
            numbers = range(host * self.nodes, (host + 1) * self.nodes)
            statuses = [_status(number, self._began, deadlocked=number % one_in == 0) for number in numbers]
            yield f"/storagenode/{host}", _text(node_metrics.families(statuses))
            yield f"/storagenode-remediate/{host}", _text(_remediation(statuses, self._began))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Answer the scrapes, and take what Alertmanager sends; yield `http://HOST:PORT`."""
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, fleet._texts[self.path])

            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fleet.messages += 1
                for alert in payload["alerts"]:
                    fleet.asked.setdefault(alert["labels"]["node"], time.monotonic())
                self._answer(202, b"")

            def _answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                with suppress(BrokenPipeError, ConnectionResetError):  # who scrapes has waited long enough
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 4096

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()


def name(number: int) -> str:
    """Name a node."""
    return f"node{number:05}"


@cache
def _document(now: float) -> AllowedVersions:
    process = Process(
        minimum=Release(version=_MINIMUM, url=""),
        suggested=Release(version=_NEW, url=""),
        seed=bytes(range(32)),
        cursor=bytes(32),
    )
    return AllowedVersions(processes={STORAGENODE: process, "storagenode-updater": process}, fetched=now)


@cache
def _verdict(installed: NodeVersion, now: float, due: bool) -> Verdict:
    """Judge; the rollout has reached none of them but those that are due."""
    found = judge(installed, _document(now).processes[STORAGENODE], _NODE_ID)
    return Verdict(UpdateState.DUE, _NEW) if due else found


def _kind(number: int, deadlocked: bool) -> tuple[ServiceState, NodeVersion, NodeVersion | None]:
    """Say in which state a node is, what is installed, and what runs."""
    if deadlocked:
        return (ServiceState.CRASH_LOOPING, ServiceState.CRASHED, ServiceState.STOPPED)[number % 3], _OLD, None
    match number % 100:
        case 1 | 2:
            return ServiceState.RUNNING, _OLD, _OLD
        case 3 | 4:
            return ServiceState.RUNNING, _NEW, _BEFORE
        case 5:
            return ServiceState.STOPPED, _BEFORE, None
        case 6:
            return ServiceState.CRASH_LOOPING, _NEW, None
        case 7:
            return ServiceState.UNKNOWN, _BEFORE, _BEFORE
        case rest if rest < 12:
            return ServiceState.RUNNING, _MINIMUM, _MINIMUM
        case rest if rest < 60:
            return ServiceState.RUNNING, _BEFORE, _BEFORE
        case _:
            return ServiceState.RUNNING, _NEW, _NEW


def _status(number: int, now: float, *, deadlocked: bool) -> NodeStatus:
    state, installed, running = _kind(number, deadlocked)
    is_down = state in DOWN
    since = now - 3600 if is_down else now - 9 * DAY
    program = InstalledVersion(version=installed, release=True, device=1, inode=number)
    contact = since if is_down else now - 60
    log = UpdaterLog(last_check=now - 600, last_update=now - 9 * DAY, last_failure=now - 20 * DAY, version=_BEFORE)
    service = ServiceStatus(state=ServiceState.RUNNING, detail="")
    updater = UpdaterStatus(
        unit="storagenode-updater.service",
        service=service,
        installed=replace(program, version=_BEFORE),
        log=log,
        leftovers=(),
        rejected=None,
        interval_seconds=900.0,
        server="https://version.storj.io",
        server_is_ours=True,
        looked=now,
    )
    return NodeStatus(
        node=name(number),
        manager="systemd",
        service=replace(service, state=state, since=since, exit_code=1 if is_down else None, restarts=number % 3),
        installed=program,
        running=RunningNode(
            version=running, node_id=_NODE_ID, allowed_version=None, started=since, last_contact=contact
        )
        if running
        else _UNSEEN,
        allowed=_document(now),
        verdict=_verdict(installed, now, due=not deadlocked and number % 100 in _DUE),
        node_id=_NODE_ID,
        last_contact=contact,
        clock=Clock(contact, Basis.STOPPED if is_down else Basis.CONTACT, now),
        updater=updater,
        durations=dict.fromkeys(Source, 0.02),
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


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _text(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return generate_latest(registry)
