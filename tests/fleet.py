"""Nodes that are made up, for a Prometheus to see: only what was observed of them is; the rest is the programs' own."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from exporter.allowed import STORAGENODE, AllowedVersions, Process, Release, Verdict, judge
from exporter.status import (
    Basis,
    Clock,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    Rejected,
    RunningNode,
    ServiceState,
    ServiceStatus,
    Source,
    UpdaterStatus,
)
from exporter.updaterlog import UpdaterLog
from exporter.version import NodeVersion
from remediate.spool import Spool
from remediate.webhook import AlertResult, Webhook

OLD, MINIMUM, BEFORE, NEW = (NodeVersion(1, minor, 3) for minor in (158, 160, 161, 162))
"""A release that will be too old, the lowest that is not then, and the suggested ones, of before and of now."""
NODE_ID = "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"
SEED = bytes(range(32))
_DENIED = Failure(FailureReason.DENIED, "its binary may not be run: permission denied")
_UNREACHED = Failure(FailureReason.UNREACHABLE, "connection refused")


def document(minimum: NodeVersion, suggested: NodeVersion, fetched: float, cursor: float = 0) -> AllowedVersions:
    """Return what the version server says, to storagenode and to its updater; the cursor from 0 to 1."""
    process = Process(
        minimum=Release(version=minimum, url=""),
        suggested=Release(version=suggested, url=""),
        seed=SEED,
        cursor=round(cursor * (2**256 - 1)).to_bytes(32),
    )
    return AllowedVersions(processes={STORAGENODE: process, "storagenode-updater": process}, fetched=fetched)


def updater(
    now: float,
    log: UpdaterLog,
    *,
    state: ServiceState = ServiceState.RUNNING,
    version: NodeVersion = BEFORE,
    rejected: Rejected | None = None,
) -> UpdaterStatus:
    """Return how an updater is."""
    return UpdaterStatus(
        unit="storagenode-updater.service",
        service=ServiceStatus(state=state, detail=""),
        installed=_program(version),
        log=log,
        leftovers=(),
        rejected=rejected,
        interval_seconds=900.0,
        server="https://version.storj.io",
        server_is_ours=True,
        looked=now,
    )


def node(
    name: str,
    now: float,
    service: ServiceStatus,
    allowed: AllowedVersions,
    *,
    installed: NodeVersion | None,
    running: NodeVersion | None,
    contact: float,
    updater: UpdaterStatus | None,
    node_id: str = NODE_ID,
    verdict: Verdict | None = None,
) -> NodeStatus:
    """Return how a node is: a binary, with an updater, that may not be looked at, or an API that is not reached: None.

    The verdict is upstream's, unless it is given.
    """
    api = RunningNode(
        version=running or BEFORE, node_id=node_id, allowed_version=None, started=service.since, last_contact=contact
    )
    return NodeStatus(
        node=name,
        manager="systemd",
        service=service,
        installed=_program(installed) if installed else _DENIED,
        running=api if running else _UNREACHED,
        allowed=allowed,
        verdict=verdict or judge(installed or BEFORE, allowed.processes[STORAGENODE], node_id),
        node_id=node_id,
        last_contact=contact,
        clock=Clock(contact, Basis.CONTACT, now),
        updater=updater or _DENIED,
        durations=dict.fromkeys(Source, 0.01),
    )


def _program(version: NodeVersion) -> InstalledVersion:
    return InstalledVersion(version=version, release=True, device=1, inode=1)


def counted(asked: int = 0, done: int = 0) -> list[Metric]:
    """Return what a webhook counts that was asked for so many runs, and told so often that an alert is over."""
    webhook = _webhook()
    for code, result, total in (("202", AlertResult.ACCEPTED, asked), ("200", AlertResult.RESOLVED, done)):
        for counter in (webhook.requests.labels(code), webhook.alerts.labels(result)):
            counter.reset()
            counter.inc(total)
    return [*webhook.requests.collect(), *webhook.alerts.collect()]


@cache
def _webhook() -> Webhook:
    return Webhook(Spool(Path(gettempdir())), [])


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def page(families: Iterable[Metric]) -> bytes:
    """Write families out, once: Prometheus asks each second, and 200 nodes are 12,000 lines."""
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return generate_latest(registry)


@contextmanager
def serving(answer: Callable[[str], bytes], take: Callable[[Any], None] | None = None) -> Iterator[str]:
    """Answer a scrape by its path, and take what Alertmanager sends; yield HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, answer(self.path))

        def do_POST(self) -> None:
            assert take is not None, "nothing is sent here"
            take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
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
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
