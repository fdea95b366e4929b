import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from exporter.sources.node_api import read
from exporter.status import Failure, FailureReason, RunningNode
from exporter.version import NodeVersion
from tests.exporter.hostile import Piece, answer, server

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream"
REAL: dict[str, Any] = json.loads((UPSTREAM / "1.162.3" / "api_sno.json").read_text())


def real(**changes: object) -> bytes:
    return answer(json.dumps(REAL | changes).encode())


def failure(*pieces: Piece, timeout: float = 60) -> Failure:
    with server(pieces) as (address, _):
        found = read(address, timeout)
    assert isinstance(found, Failure), found
    return found


@pytest.mark.parametrize("release", ["1.104.5", "1.162.3"])
def test_the_answer_of_a_real_node(release: str) -> None:
    body = (UPSTREAM / release / "api_sno.json").read_bytes()
    with server([answer(body)]) as (address, requests):
        found = read(address, 5)
    assert isinstance(found, RunningNode)
    assert found.version == NodeVersion.parse(release)
    assert found.node_id == "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"
    # The outdated node had no version server, and says so by 0.0.0.
    assert found.allowed_version == (None if release == "1.104.5" else NodeVersion(1, 162, 3))
    assert found.last_contact is None  # never, in the words of Go: the year 1
    assert found.started is not None
    assert found.started > 1_795_000_000
    assert requests[0].startswith(b"GET /api/sno/ HTTP/1.1\r\n")
    assert f"Host: {address}".encode() in requests[0]


def test_where_no_address_is_known_nobody_is_asked() -> None:
    found = read(None, 5)
    assert isinstance(found, Failure)
    assert found.reason is FailureReason.NOT_FOUND


def test_times_have_nanoseconds() -> None:
    with server([real(lastPinged="2026-11-23T06:47:54.381159596Z", startedAt="2026-11-23T07:47:54+01:00")]) as (at, _):
        found = read(at, 5)
    assert isinstance(found, RunningNode)
    assert found.last_contact == pytest.approx(1795416474.381159)
    assert found.started == 1795416474.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": "latest"}, "version"),
        ({"version": 1.104}, "version"),
        ({"version": None}, "version"),
        ({"allowedVersion": ""}, "allowedVersion"),
        ({"nodeID": 5}, "nodeID"),
        ({"nodeID": "x" * 101}, "nodeID"),
        ({"startedAt": "yesterday"}, "startedAt"),
        ({"startedAt": 1795416474}, "startedAt"),
        ({"startedAt": "2026-11-23T06:47:54"}, "startedAt"),
        ({"lastPinged": float("nan")}, "lastPinged"),
    ],
)
def test_wrong_types_are_malformed(changes: dict[str, object], field: str) -> None:
    found = failure(real(**changes))
    assert found.reason is FailureReason.MALFORMED
    assert field in found.detail


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b'"text"', b"{\xff}", b"[" * 200_000, json.dumps(REAL).encode()[:-1]]
)
def test_what_is_no_such_document_is_malformed(body: bytes) -> None:
    assert failure(answer(body)).reason is FailureReason.MALFORMED


def test_a_web_page_is_malformed_whatever_its_status() -> None:
    found = failure(answer(b"<!doctype html>", content_type="text/html"))
    assert found.reason is FailureReason.MALFORMED
    assert "found text/html, expected application/json" in found.detail


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "204 No Content", "301 Moved"])
def test_any_other_status_is_a_failure_and_nothing_is_followed(status: str) -> None:
    with server([answer(json.dumps(REAL).encode())]) as (elsewhere, asked):
        moved = f"HTTP/1.1 {status}\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n".encode()
        found = failure(moved)
        assert asked == []
    assert found.reason is FailureReason.HTTP_STATUS
    assert f"answered {status[:3]}" in found.detail


def test_more_than_a_mebibyte_is_too_large() -> None:
    assert failure(answer(b" " * (2 << 20))).reason is FailureReason.TOO_LARGE
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert failure(chunked, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 40).reason is FailureReason.TOO_LARGE
    assert isinstance(read_of(answer(json.dumps(REAL).encode().ljust(1 << 20))), RunningNode)


def read_of(*pieces: Piece) -> RunningNode | Failure:
    with server(pieces) as (address, _):
        return read(address, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pieces",
    [
        [60.0],
        [b"HTTP/1.1 200 OK\r\n", 60.0],
        [piece for byte in real() for piece in (bytes([byte]), 0.05)],
        [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", *[b" ", 0.05] * 1000],
        # Complete as it is, but for the deadline nobody could tell whether more was to come.
        [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(REAL).encode(), 60.0],
    ],
    ids=["hang", "hang-in-head", "trickle", "trickle-body", "no-end"],
)
def test_time_is_limited_in_all(pieces: Sequence[Piece]) -> None:
    began = time.monotonic()
    assert failure(*pieces, timeout=0.4).reason is FailureReason.TIMEOUT
    assert 0.35 < time.monotonic() - began < 30


@pytest.mark.parametrize(
    "pieces",
    [[b""], [b"nonsense\r\n\r\n"], [b"\x00" * 100_000], [b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"]],
)
def test_what_is_not_http_is_unreachable(pieces: Sequence[Piece]) -> None:
    assert failure(*pieces).reason is FailureReason.UNREACHABLE


def test_an_answer_cut_short_is_unreachable() -> None:
    assert failure(real()[:-10]).reason is FailureReason.UNREACHABLE


def test_nobody_there_is_unreachable() -> None:
    with server([]) as (address, _):
        pass
    found = read(address, 1)
    assert isinstance(found, Failure)
    assert found.reason is FailureReason.UNREACHABLE
    assert "Connection refused" in found.detail
    assert isinstance(read("host.invalid:1", 1), Failure)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert isinstance(read_of(real()), RunningNode)
