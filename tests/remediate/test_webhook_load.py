"""The webhook under load and under attack, as the program that is installed: what it stores, and what it holds on to.

`make bench` has the figures; the worker, where one is needed, is the program as well, started as systemd would.
"""

import copy
import http.client
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediate.webhook import MAX_BODY_BYTES, MAX_VALUES, REMEDIATION
from tests.bench.measure import peak_mib, resident_mib, threads
from tests.bench.webhook import load
from tests.remediate.conftest import Stage, wait_until
from tests.remediate.test_webhook import RECORDED, alert, payload
from tests.serving import Stopwatch, connect, receive_until, receiving, slow_clients

pytestmark = pytest.mark.slow

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
NODES = ["n1", "n2", "n3"]
UNIT = Path(__file__).parents[2] / "packaging/systemd/storagenode-remediate-webhook.service"
PROGRAM = Path(sys.executable).parent / "storagenode-remediate"
LARGE = 200 << 20
KEPT_MIB, KEPT_OF_LARGE_MIB = 8, 56
"""What may stay resident of what has come, and of large bodies, of which 24 MiB are taken in at a time: the allocator's
own, however many there were."""


def allowed(key: str) -> int:
    """A limit that the unit as shipped sets."""
    (found,) = re.findall(rf"^{key}=(\d+)M?$", UNIT.read_text(), re.MULTILINE)
    return int(found)


class Served:
    """The program that serves, as seen from outside."""

    kept_mib = KEPT_MIB

    def __init__(self, pid: int, url: str, folder: Path) -> None:
        self.pid, self.url, self.spool, self.log = pid, url, folder / "spool", folder / "serve.log"
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

    def post(self, body: bytes) -> int:
        self._connection.request("POST", "/alertmanager", body)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def stored(self) -> set[str]:
        """Take the requests away, and name them."""
        names = set(os.listdir(self.spool))
        for name in names:
            (self.spool / name).unlink()
        return names

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def head(self, body: str) -> bytes:
        """The head of a request, but for the line about its body."""
        return f"POST /alertmanager HTTP/1.1\r\nHost: {self.url}\r\n{body}\r\n\r\n".encode()

    def whole(self, body: bytes) -> bytes:
        return self.head(f"Content-Length: {len(body)}") + body


@contextmanager
def unharmed(pid: int, url: str, folder: Path) -> Iterator[Served]:
    """Afterwards it serves as before, and holds neither connections nor threads nor memory; nothing broke inside."""
    served = Served(pid, url, folder)
    for _ in range(20):
        assert served.post(payload(alert("n1"))) in (200, 202)
    served.stored()
    wait_until(lambda: threads(pid) <= 9)
    before = served.descriptors(), threads(pid), resident_mib(pid)
    yield served
    wait_until(lambda: served.descriptors() <= before[0] and threads(pid) == before[1], 60)
    assert resident_mib(pid) < before[2] + served.kept_mib
    watch = Stopwatch()
    assert served.post(payload(alert("n1", status="resolved"))) == 200
    assert watch.seconds < 10
    said = served.log.read_text()
    assert "Traceback" not in said, said[-3000:]
    assert peak_mib(pid) < allowed("MemoryMax")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "spool").mkdir()
    nodes = [{"name": node, "service": "process", "binary": str(tmp_path / node)} for node in NODES]
    where = {"spool": str(tmp_path / "spool"), "status_file": str(tmp_path / "status.json")}
    with receiving(tmp_path, {"nodes": nodes, "remediation": where}) as running, unharmed(*running, tmp_path) as one:
        yield one


def test_a_hundred_requests_a_second(tmp_path: Path) -> None:
    loaded = load(tmp_path, seconds=60 if EXHAUSTIVE else 4)  # fails unless each is stored when it is answered
    assert loaded.after_mib < loaded.before_mib + 4
    assert loaded.threads < allowed("TasksMax")
    assert median(loaded.requests) < 0.25 + 5 * median(loaded.bare), "a disk that others use is slow for all"


@contextmanager
def worked(stage: Stage) -> Iterator[list[int]]:
    """Start the worker's program whenever a request waits, one at a time, until none does and the block has ended.

    Yields the exit codes of those that have ended.
    """
    ended = threading.Event()
    codes: list[int] = []
    said = ""

    def path_unit() -> None:
        nonlocal said
        command: list[str | Path] = [PROGRAM, "work", f"--config.file={stage.config_file}"]
        while os.listdir(stage.spool) or not ended.wait(0.01):
            if os.listdir(stage.spool):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                codes.append(done.returncode)
                if done.returncode:
                    said = done.stderr
                    break

    thread = threading.Thread(target=path_unit)
    thread.start()
    try:
        yield codes
    finally:
        ended.set()
        thread.join()
    assert set(codes) == {0}, said[-3000:]


@pytest.mark.parametrize("release", ["ok", "status:503"])
def test_fifty_at_once_and_ten_thousand_over_time_are_one_run(stage: Stage, release: str) -> None:
    stage.rules["cool_down"] = "1h"
    stage.host.set(behaviour=release)
    config = yaml.safe_load(stage.write().read_text())
    at_once, over_time = 50, 10_000 if EXHAUSTIVE else 300
    asked = payload(alert("alpha"))
    together = threading.Barrier(at_once)
    with receiving(stage.root, config) as running, unharmed(*running, stage.root) as served:

        def one(_: int) -> int:
            client = Served(*running, stage.root)
            together.wait()
            return client.post(asked)

        def share(_: int) -> set[int]:
            client = Served(*running, stage.root)
            answered = {client.post(asked) for _ in range(over_time // 4)}
            while set(rounds) <= {0} and len(rounds) < 4:  # the first may outlast them all
                answered.add(client.post(asked))
                time.sleep(0.05)
            return answered

        with worked(stage) as rounds, ThreadPoolExecutor(at_once) as pool:
            assert set(pool.map(one, range(at_once))) == {202}
            assert set().union(*pool.map(share, range(4))) == {202}
        assert served.stored() == set()
    with stage.assembly() as assembly:
        (run,) = assembly.store.runs()
        reasons = {decided.reason for decided in assembly.store.decisions("alpha")}
    if release == "ok":
        stage.assert_updated()
        assert run.outcome == "updated"
        assert reasons == {"below_minimum", "current"}
    else:
        stage.assert_untouched()
        assert run.outcome == "later"
        assert reasons == {"below_minimum", "cooling_down"}


odd = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(),
        st.sampled_from(["firing", "resolved", "4", REMEDIATION, *NODES, 10**400, "../n1", "n1\0", "$(reboot)", "\n"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
name = st.one_of(st.sampled_from(NODES), st.sampled_from(["N1", "n1 ", "n11", "../n1", "n1\0", ".n1", ""]), st.text())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a document, as what it is in and under which key."""
    keyed = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(keyed):
        yield value, key
        yield from places(inner)


@st.composite
def payloads(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Give a recorded payload with alerts of many kinds, and something changed or left out; is it spoilt JSON?"""
    recording = RECORDED[draw(st.sampled_from(sorted(RECORDED)))]
    document = copy.deepcopy(recording[draw(st.sampled_from(["firing", "resolved"]))])
    (recorded,) = document["alerts"]
    document["alerts"] = [
        copy.deepcopy(recorded)
        | {
            "status": draw(st.sampled_from(["firing", "firing", "resolved"])),
            "labels": recorded["labels"]
            | {"node": draw(name), "remediation": draw(st.sampled_from([REMEDIATION, REMEDIATION, "reboot", ""]))},
        }
        for _ in range(draw(st.integers(0, 4)))
    ]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        inside, key = draw(st.sampled_from(list(places(document))))
        if draw(st.booleans()):
            inside[key] = draw(odd)
        else:
            del inside[key]
    text = json.dumps(document).encode()
    if not draw(st.sampled_from([False, False, True])):
        return text, False
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=6)) + text[at + draw(st.integers(0, 6)) :], True


def expected(document: Any) -> set[str] | None:
    """What a payload asks for, said in another way than the program says it; None where it is no payload."""
    try:
        assert document["version"] == "4"
        assert isinstance(document["alerts"], list)
        asked = set()
        for each in document["alerts"]:
            status, labels = each["status"], each["labels"]
            assert status in ("firing", "resolved")
            assert isinstance(labels, dict)
            node, remediation = labels.get("node"), labels.get("remediation")
            assert all(value is None or isinstance(value, str) for value in (node, remediation))
            if status == "firing" and remediation == REMEDIATION and node in NODES:
                asked.add(node)
    except (AssertionError, KeyError, TypeError, IndexError):
        return None
    return asked


@settings(
    max_examples=10_000 if EXHAUSTIVE else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=not EXHAUSTIVE,
)
@given(generated=payloads())
def test_generated_payloads_store_what_they_ask_for_and_no_more(served: Served, generated: tuple[bytes, bool]) -> None:
    body, spoilt = generated
    try:
        asked = expected(json.loads(body.decode(errors="strict")))
    except (ValueError, RecursionError):
        asked = None
    code = served.post(body)
    if not (spoilt and code == 400):  # Python takes some JSON that is none
        assert code == (400 if asked is None else 202 if asked else 200)
    assert served.stored() == (asked if code == 202 else set())


def send(url: str, head: bytes, piece: bytes, count: int) -> bytes:
    """Send on and on, whatever is answered meanwhile; return the answer, as far as it came."""
    answer = b""
    with connect(url) as client, suppress(OSError):
        client.settimeout(60)
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(head)
            for _ in range(count):
                if select.select([client], [], [], 0)[0]:
                    answer += client.recv(65536)
                client.sendall(piece)
        answer += receive_until(client, b"bytes\n")
    return answer


@pytest.mark.parametrize("at_once", [8] if EXHAUSTIVE else [2])
def test_bodies_of_200_mebibytes(served: Served, at_once: int) -> None:
    piece = bytes(1 << 20)
    kinds = [
        (served.head(f"Content-Length: {LARGE}"), piece),
        (served.head("Transfer-Encoding: chunked"), b"100000\r\n" + piece + b"\r\n"),
    ]
    served.kept_mib = KEPT_OF_LARGE_MIB
    before = peak_mib(served.pid)
    with ThreadPoolExecutor(at_once) as pool:
        sent = [pool.submit(send, served.url, *kinds[number % 2], LARGE >> 20) for number in range(at_once)]
        answers = [each.result() for each in sent]
    assert all(answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 503 ")) for answer in answers), answers
    assert answers[0].startswith(b"HTTP/1.1 413 ")
    assert peak_mib(served.pid) < before + 64
    assert served.stored() == set()


def filled(item: bytes, begin: bytes, end: bytes, values: int = 0) -> bytes:
    """As many of an item as a body may hold, or as there may be values."""
    count = (MAX_BODY_BYTES - len(begin) - len(end)) // (len(item) + 1)
    if values:
        count = min(count, (MAX_VALUES - 20) // values)
    return begin + b",".join([item] * count) + end


ALERTS = b'{"version":"4","alerts":[', b"]}"
ELSE = b'{"version":"4","alerts":[],"else":[', b"]}"
LABELS = b'{"version":"4","alerts":[{"status":"firing","labels":{', b"}}]}"
WORST = {
    "lists in lists": (b"[" * 190 + b"]" * 190, *ELSE, 191),
    "lists of one": (b"[1]", *ELSE, 2),
    "objects in objects": (b'{"":' * 190 + b"1" + b"}" * 190, *ELSE, 191),
    "objects of one": (b'{"":1}', *ELSE, 2),
    "alerts that are none": (b"1", *ALERTS, 1),
    "alerts that say nothing": (b'{"status":"firing","labels":{}}', *ALERTS, 4),
    "alerts for a node": (b'{"status":"firing","labels":{"node":"n1","remediation":"offline-update"}}', *ALERTS, 5),
    "labels that are numbers": (b'"a":1', *LABELS, 1),
    "labels": (b'"aaaa":"aaaaaaa"', *LABELS, 1),
    "no object": (b"1", b"[", b"]", 1),
    "a version of many": (b"1", b'{"alerts":[],"version":[', b"]}", 1),
}


@pytest.mark.parametrize(
    "kind", WORST if EXHAUSTIVE else ["lists in lists", "alerts that are none", "alerts for a node"]
)
def test_the_worst_that_fits_into_a_body(served: Served, kind: str) -> None:
    item, begin, end, values = WORST[kind]
    many, most = filled(item, begin, end), filled(item, begin, end, values)
    served.kept_mib = KEPT_OF_LARGE_MIB

    def post(body: bytes) -> int:
        return Served(served.pid, served.url, served.spool.parent).post(body)

    with ThreadPoolExecutor(2) as pool:
        codes = set(pool.map(post, [most] * (12 if EXHAUSTIVE else 4)))
    asking, saying = kind == "alerts for a node", kind.startswith(("lists", "objects", "labels", "alerts that say"))
    assert codes == {202 if asking else 200 if saying else 400}
    assert served.stored() == ({"n1"} if asking else set())
    if len(many) > len(most):
        watch = Stopwatch()
        assert served.post(many) == 400
        assert watch.seconds < 10
        assert served.stored() == set()


def test_slow_senders(served: Served) -> None:
    begin = served.head("Content-Length: 999") + b"{"
    with slow_clients(served.url, 100, begin), slow_clients(served.url, 100, begin[:30]):
        watch = Stopwatch()
        assert served.post(payload(alert("n2"))) == 202
        assert watch.seconds < 8  # they are let go after 10
    assert served.stored() == {"n2"}


@pytest.mark.skipif(not EXHAUSTIVE, reason="takes 40 s: with EXHAUSTIVE=1")
def test_slow_senders_are_not_waited_for_for_ever(served: Served) -> None:
    begin = served.head("Content-Length: 999") + b"{"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(served.url)) for _ in range(200)]
        given_up = time.monotonic() + 45
        sent = 0
        open_still = list(clients)
        while open_still and time.monotonic() < given_up:
            for number, client in enumerate(clients):
                # Half of them do not even come to the end of the head.
                if client in open_still and sent < (20 if number % 2 else len(begin) + 900):
                    with suppress(OSError):
                        client.sendall(begin[: len(begin)] if not number % 2 and sent == 0 else b"x")
            sent += 1
            for client in select.select(open_still, [], [], 0.5)[0]:
                with suppress(ConnectionResetError):
                    if client.recv(65536):
                        continue
                open_still.remove(client)
        assert not open_still, f"{len(open_still)} of 200 are still waited for"
    assert served.stored() == set()


def test_large_bodies_that_do_not_end(served: Served) -> None:
    served.kept_mib = KEPT_OF_LARGE_MIB
    body = payload(alert("n1"), padding="x" * (MAX_BODY_BYTES - 4096))
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(served.url)) for _ in range(40)]
        with ThreadPoolExecutor(8) as pool:

            def begin(client: socket.socket) -> None:
                with suppress(BrokenPipeError, ConnectionResetError):
                    client.sendall(served.whole(body)[:-1])

            list(pool.map(begin, clients))
        wait_until(lambda: len(select.select(clients, [], [], 0)[0]) >= 30)
        refused = select.select(clients, [], [], 0)[0]
        assert all(client.recv(65536).startswith(b"HTTP/1.1 503 ") for client in refused)
        assert 30 <= len(refused) < 40
        assert resident_mib(served.pid) < 150
        assert served.post(payload(alert("n2"))) == 202
    assert served.stored() == {"n2"}
    wait_until(lambda: served.post(body) == 202)


def ends(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        receive_until(client, b"never")


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("end", [ends, resets, socket.socket.close], ids=["half-closed", "reset", "closed"])
def test_connections_that_end_early(served: Served, end: Callable[[socket.socket], None]) -> None:
    if EXHAUSTIVE:  # a thousand connections that end within a second are there at the same time
        served.kept_mib = KEPT_OF_LARGE_MIB
    whole = served.whole(payload(alert("n3")))
    for length in (*(range(len(whole)) if EXHAUSTIVE else (0, 1, 40, len(whole) - 900, len(whole) - 1)),):
        with connect(served.url) as client:
            client.sendall(whole[:length])
            end(client)
    assert served.post(payload(alert("n2"))) == 202
    assert served.stored() == {"n2"}, "what did not come whole asks for nothing"
    with connect(served.url) as client:
        client.sendall(whole)
        end(client)
    time.sleep(0.2)
    assert served.stored() <= {"n3"}
