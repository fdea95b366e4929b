"""The node API and the version server as an enemy would run them: a Failure or a reading, and always valid metrics."""

import gc
import json
import os
import socket
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from exporter.allowed import AllowedVersions, DocumentError, parse_document
from exporter.metrics import families
from exporter.observe import verdict
from exporter.sources import http, node_api
from exporter.status import (
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
from exporter.web import OPEN, create_app, metrics_route
from tests.exporter.hostile import Piece, answer, server
from tests.labs.prometheus import Prometheus, Target, program
from tests.serving import exporting, serving

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream"
API: dict[str, Any] = json.loads((UPSTREAM / "1.162.3" / "api_sno.json").read_text())
DOCUMENT: dict[str, Any] = json.loads((UPSTREAM / "1.162.3" / "version_document.json").read_text())
EXAMPLES = 2000 if os.environ.get("EXHAUSTIVE") == "1" else 25
SCRAPES = 1000 if os.environ.get("EXHAUSTIVE") == "1" else 24
INSTALLED = InstalledVersion(version=NodeVersion(1, 104, 5), release=True, device=1, inode=1)
NASTY = (
    "\n",
    '"',
    "\\",
    '\\n"} 1\n',
    "\x00",
    "\x7f",
    "\u2028",
    "é",
    "\ud800",
    "-" * 5000,
    "{{",
    "v1.2.3\n# HELP x",
    "%s",
)

odd_text = st.one_of(
    st.sampled_from(NASTY), st.text(), st.from_regex(r"v?[0-9]{1,30}\.[0-9]{1,4}\.[0-9]{1,4}(-rc)?\n?")
)
odd_number = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**30), 2**63, 2**64, float("nan"), float("inf"), -0.0, 1e308]),
)
odd_value = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_number, odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=8,
)


def places(document: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the way to each value in a document."""
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*path, key))


def changed(document: Any, path: Sequence[str], value: object) -> Any:
    """Copy a document with one value put in another's place."""
    return {**document, path[0]: changed(document[path[0]], path[1:], value)} if path else value


def mutated(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Give the document with values of any kind in place of some, and sometimes bytes of any kind in its text."""

    def text(changes: list[tuple[tuple[str, ...], object]]) -> bytes:
        found: Any = document
        for path, value in changes:
            with_path: Any = found
            for key in path[:-1]:
                with_path = with_path.get(key) if isinstance(with_path, dict) else None
            if path and isinstance(with_path, dict) and path[-1] in with_path:
                found = changed(found, path, value)
            elif not path and len(changes) == 1:
                found = value
        return json.dumps(found).encode()

    changes = st.lists(st.tuples(st.sampled_from(sorted(places(document))), odd_value), min_size=1, max_size=3)
    whole = changes.map(text)
    spoilt = st.tuples(whole, st.floats(0, 1), st.binary(max_size=6)).map(lambda spoil: with_bytes(*spoil))
    return st.one_of(whole, spoilt)


def with_bytes(text: bytes, share: float, put: bytes) -> bytes:
    """Put bytes somewhere into a text."""
    at = int(share * len(text))
    return text[:at] + put + text[at:]


class Patient:
    """A server whose next answer is set, so that each example is a real one over HTTP without a server of its own."""

    def __init__(self) -> None:
        self.body = b""
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(answer(self.body))
                except OSError:
                    continue

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    made = Patient()
    yield made
    made.close()


def exposed(running: RunningNode | Failure, allowed: AllowedVersions | Failure) -> bytes:
    """Give the metrics of a node that was told this, having parsed them back, in both formats."""
    for said in (running, allowed):
        if isinstance(said, Failure):
            assert len(said.detail) < 500
            assert said.detail.isprintable()
    node_id = running.node_id if isinstance(running, RunningNode) else None
    status = NodeStatus(
        node="n1",
        manager="systemd",
        service=ServiceStatus(state=ServiceState.STOPPED, detail=""),
        installed=INSTALLED,
        running=running,
        allowed=allowed,
        verdict=verdict(INSTALLED, allowed, node_id),
        node_id=node_id,
        last_contact=running.last_contact if isinstance(running, RunningNode) else None,
        durations=dict.fromkeys(Source, 0.0),
    )
    registry = CollectorRegistry()
    registry.register(_Once(status))
    text: bytes = generate_latest(registry)
    found = [sample for family in parse(text.decode()) for sample in family.samples]
    assert all(sample.name.startswith("storagenode_") for sample in found)
    mine = [sample for sample in found if "node" in sample.labels]
    assert {sample.labels["node"] for sample in mine} == {"n1"}
    assert len(mine) <= 60
    assert len(found) == len([line for line in text.decode().split("\n") if line and not line.startswith("#")])
    assert list(parse_openmetrics(generate_openmetrics(registry).decode()))  # type: ignore[no-untyped-call]
    return text


class _Once:
    def __init__(self, status: NodeStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Any]:
        return iter(families([self._status]))


quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=os.environ.get("EXHAUSTIVE") != "1",
)


@quick
@given(body=mutated(API))
def test_whatever_the_node_api_says_the_metrics_are_valid(patient: Patient, body: bytes) -> None:
    patient.body = body
    running = node_api.read(patient.address, 5)
    assert isinstance(running, RunningNode) or running.reason is FailureReason.MALFORMED, running
    exposed(running, Failure(FailureReason.UNREACHABLE, "not asked"))


@quick
@given(body=mutated(DOCUMENT))
def test_whatever_the_version_server_says_the_metrics_are_valid(body: bytes) -> None:
    try:
        allowed: AllowedVersions | Failure = parse_document(body, fetched=1_790_000_000.0)
    except DocumentError as error:
        allowed = Failure(FailureReason.MALFORMED, str(error))
    running = RunningNode(
        version=INSTALLED.version, node_id=API["nodeID"], allowed_version=None, started=None, last_contact=None
    )
    exposed(running, allowed)
    if isinstance(allowed, Failure):
        assert verdict(INSTALLED, allowed, None).state == "unknown"


DEEP = b'{"a":' * 100_000
ENDLESS: list[Piece] = [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", *[b"[" * 65536] * 64]


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (ENDLESS, FailureReason.TOO_LARGE),
        ([answer(DEEP)], FailureReason.MALFORMED),
        ([answer(b"[" * 900_000)], FailureReason.MALFORMED),
        ([answer(b'{"version": ' + b"9" * 900_000 + b"}")], FailureReason.MALFORMED),
        ([answer(b"\xff\xfe{}")], FailureReason.MALFORMED),
        ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000], FailureReason.UNREACHABLE),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000], FailureReason.UNREACHABLE),
        (
            [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"],
            FailureReason.HTTP_STATUS,
        ),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000], FailureReason.TIMEOUT),
        ([b"\x16\x03\x01" * 1000], FailureReason.UNREACHABLE),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nContent-Type: application/json\r\n\r\n{}"],
            FailureReason.MALFORMED,
        ),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{"],
            FailureReason.UNREACHABLE,
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value),
)
def test_enemies(pieces: list[Piece], reason: FailureReason) -> None:
    began = time.monotonic()
    with server(pieces) as (address, _):
        found = node_api.read(address, 1)
        assert time.monotonic() - began < 30
    assert isinstance(found, Failure)
    assert found.reason in (reason, FailureReason.UNREACHABLE, FailureReason.TIMEOUT), found
    exposed(found, found)


@contextmanager
def slow_tls() -> Iterator[str]:
    """Take connections, and trickle the beginning of a TLS answer."""
    with server([b"\x16\x03\x03\x40\x00", *TRICKLE * 50]) as (address, _):
        yield f"https://{address}/"


TRICKLE: list[Piece] = [b"\x16", 0.1]


def test_a_slow_tls_handshake_costs_the_time_limit() -> None:
    began = time.monotonic()
    with slow_tls() as url:
        found = http.get(url, 0.5)
        assert time.monotonic() - began < 30
    assert isinstance(found, Failure)
    assert found.reason in (FailureReason.TIMEOUT, FailureReason.UNREACHABLE)


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    bodies = [DEEP, b"[" * 900_000, json.dumps(API | {"version": "x" * 800_000}).encode(), json.dumps(API).encode()]
    patient = Patient()

    def scrape(number: int) -> None:
        patient.body = bodies[number % len(bodies)]
        running = node_api.read(patient.address, 5)
        exposed(running, Failure(FailureReason.MALFORMED, "so it is"))

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    try:
        tracemalloc.start()
        for number in range(8):
            scrape(number)
        before = held()
        for number in range(SCRAPES):
            scrape(number)
        assert held() - before < 300_000
    finally:
        tracemalloc.stop()
        patient.close()


@pytest.mark.prometheus
def test_a_real_prometheus_takes_the_worst_of_it(tmp_path: Path) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    for name in ("storagenode", "storagenode-updater"):
        document["processes"][name]["suggested"]["version"] = "v9999999.999999.999999-rc.1"
    document["processes"].update(
        {f"{nasty}": document["processes"]["storagenode"] for nasty in NASTY if nasty != "\ud800"}
    )
    try:
        allowed: AllowedVersions | Failure = parse_document(json.dumps(document).encode(), fetched=1_790_000_000.0)
    except DocumentError as error:
        allowed = Failure(FailureReason.MALFORMED, str(error))
    running = RunningNode(
        version=NodeVersion(1, 2, 3), node_id='"\n\\', allowed_version=None, started=1e300, last_contact=-1.0
    )
    (tmp_path / "metrics").write_bytes(exposed(running, allowed))
    with (tmp_path / "metrics").open("rb") as file:
        done = subprocess.run([program("promtool"), "check", "metrics"], stdin=file, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


NODES = ["_", "0", "A." + "-" * 62, "a..b", "__name__"]
"""Names at the edges of what a configuration may say."""
PRE_RELEASE = "v1.2.3-" + "a-.Z0" * 18
LABELS = [
    *(text for text in NASTY if text != "\ud800"),
    "",
    " \t",
    "\r\n",
    "\\n",
    'a"b\\c\nd',
    "\U0001f4a5",
]
"""What UTF-8 can say, and a label so hold."""


@contextmanager
def hostile_exporter(folder: Path) -> Iterator[str]:
    """Run the exporter among sources that say the worst that it takes, or more than that."""
    binary = folder / "storagenode"
    said = f"\udcff\nRelease build\nVersion: {PRE_RELEASE} \nVersion: {NASTY[3]}"
    binary.write_bytes(f"#!/bin/sh\nprintf %s '{said}'\n".encode(errors="surrogateescape"))
    binary.chmod(0o755)
    document = changed(DOCUMENT, ("processes", "storagenode", "suggested", "version"), f"{PRE_RELEASE}\n")
    for text in LABELS:
        document["processes"][text] = document["processes"]["storagenode"]
    spoilt = {"version": f"{PRE_RELEASE}\n", "nodeID": LABELS[-2], "allowedVersion": "0.0.0"}
    with ExitStack() as stack:
        bodies = [json.dumps(API | spoilt).encode(), b"\xff\xfe{}", json.dumps(API | {"version": LABELS}).encode()]
        apis = [stack.enter_context(server([answer(body)]))[0] for body in bodies]
        versions, _ = stack.enter_context(server([answer(json.dumps(document).encode())]))
        nodes = [
            {"name": name, "service": "process", "binary": str(binary), "api": apis[at % len(apis)]}
            for at, name in enumerate(NODES)
        ]
        settings = {"nodes": nodes, "version_server": f"http://{versions}", "state_dir": str(folder / "state")}
        yield stack.enter_context(exporting(folder, settings))[1]


@pytest.mark.prometheus
def test_a_running_prometheus_is_told_what_was_said_and_stumbles_over_nothing(tmp_path: Path) -> None:
    def collect(timeout: float | None, nodes: Collection[str]) -> CollectorRegistry:
        """Say what no source gets into a label by itself, so that only the exposition is in between."""
        registry = CollectorRegistry()
        gauge = Gauge("storagenode_version_info", "x\n\\", ["node", "version"], registry=registry)
        for text in LABELS:
            gauge.labels(text, text).set(1)
        return registry

    with ExitStack() as stack:
        targets: dict[str, Target] = {
            "sources": f"{stack.enter_context(hostile_exporter(tmp_path))}/metrics",
            "labels": f"{stack.enter_context(serving(create_app([metrics_route(collect)], OPEN)))}/metrics",
        }
        prometheus = stack.enter_context(Prometheus(targets))
        assert prometheus.wait_query("count(up == 1) == 2"), prometheus.get("/api/v1/targets")
        found = prometheus.query('storagenode_version_info{job="labels"}')
        texts = [(each["metric"].get("node", ""), each["metric"].get("version", "")) for each in found]
        assert sorted(texts) == sorted((text, text) for text in LABELS)
        assert {each["metric"]["node"] for each in prometheus.query("storagenode_up")} == set(NODES)
        found = prometheus.query('storagenode_version_info{job="sources"}')
        versions = {(each["metric"]["node"], each["metric"]["source"], each["metric"]["version"]) for each in found}
        as_read = PRE_RELEASE.removeprefix("v")
        assert versions == {
            *((node, "installed", as_read) for node in NODES),
            *((node, "running", as_read) for node in (NODES[0], NODES[3])),
        }
        allowed = prometheus.query('storagenode_allowed_version_info{process="storagenode", kind="suggested"}')
        assert [each["metric"]["version"] for each in allowed] == [as_read]
        assert {each["metric"]["process"] for each in prometheus.query("storagenode_allowed_version_number")} == {
            "storagenode",
            "storagenode-updater",
        }
        assert {
            (each["health"], each["lastError"]) for each in prometheus.get("/api/v1/targets")["data"]["activeTargets"]
        } == {("up", "")}
        assert prometheus.query("min_over_time(up[1m]) == 0") == []
