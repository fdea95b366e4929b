import json
import logging
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.allowed import STORAGENODE, AllowedVersions
from exporter.sources.version_server import VersionServer
from exporter.status import Failure, FailureReason
from exporter.version import NodeVersion
from tests.exporter.hostile import Clock, server
from tests.simulators.version_server import VersionServer as Simulator

REFRESH = timedelta(minutes=5)
MAX_AGE = timedelta(hours=24)


def source(
    url: str, clock: Clock, *, cache_dir: Path | None = None, fresh: bool = False, refresh: timedelta = REFRESH
) -> VersionServer:
    return VersionServer(url, refresh=refresh, max_age=MAX_AGE, cache_dir=cache_dir, fresh=fresh, clock=clock)


def minimum(found: AllowedVersions | Failure) -> NodeVersion:
    assert isinstance(found, AllowedVersions), found
    return found.processes[STORAGENODE].minimum.version


def reason(found: AllowedVersions | Failure) -> FailureReason:
    assert isinstance(found, Failure), found
    return found.reason


def test_it_is_fetched_at_most_once_in_the_refresh_interval() -> None:
    clock = Clock()
    with Simulator(minimum="1.104.5") as simulator:
        allowed = source(simulator.url, clock)
        first = allowed.read(5)
        assert minimum(first) == NodeVersion(1, 104, 5)
        assert isinstance(first, AllowedVersions)
        assert first.fetched == clock.now
        simulator.set(minimum="1.105.0")
        clock.now += 299
        assert allowed.read(5) is first
        assert len(simulator.requests()) == 1
        clock.now += 2
        assert minimum(allowed.read(5)) == NodeVersion(1, 105)


def test_many_at_once_share_one_fetch() -> None:
    with Simulator(minimum="1.104.5") as simulator:
        allowed = source(simulator.url, Clock())
        found: list[AllowedVersions | Failure] = []
        threads = [threading.Thread(target=lambda: found.append(allowed.read(5))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [minimum(one) for one in found] == [NodeVersion(1, 104, 5)] * 20
        assert len(simulator.requests()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("hang", FailureReason.TIMEOUT),
        ("trickle", FailureReason.TIMEOUT),
        ("html", FailureReason.MALFORMED),
        ("status:500", FailureReason.HTTP_STATUS),
        ("status:404", FailureReason.HTTP_STATUS),
        ("redirect", FailureReason.HTTP_STATUS),
        ("huge", FailureReason.TOO_LARGE),
        ("empty", FailureReason.MALFORMED),
        ("latest", FailureReason.MALFORMED),
        ("close", FailureReason.UNREACHABLE),
    ],
)
def test_a_bad_answer_is_a_failure_until_there_is_a_good_one_to_fall_back_on(
    behaviour: str, expected: FailureReason, tmp_path: Path
) -> None:
    clock = Clock()
    patience = 2 if expected is FailureReason.TIMEOUT else 20
    with Simulator(minimum="1.104.5", behaviour=behaviour) as simulator:
        allowed = source(simulator.url, clock, cache_dir=tmp_path)
        assert reason(allowed.read(patience)) is expected
        simulator.set(behaviour="ok")
        clock.now += 31
        assert minimum(allowed.read(5)) == NodeVersion(1, 104, 5)
        simulator.set(behaviour=behaviour, minimum="1.105.0")
        clock.now += 301
        began = time.monotonic()
        assert minimum(allowed.read(patience)) == NodeVersion(1, 104, 5)
        assert time.monotonic() - began < patience  # in time for those who wait for it
        # And what is fallen back on survives a restart, but not for ever.
        again = source(simulator.url, clock, cache_dir=tmp_path)
        assert minimum(again.read(0.5)) == NodeVersion(1, 104, 5)
        clock.now += MAX_AGE.total_seconds()
        stale = again.read(0.5)
        assert reason(stale) is FailureReason.STALE
        assert "24 hours ago" in str(stale)


def test_after_a_failure_the_server_has_half_a_minute_of_peace() -> None:
    clock = Clock()
    with Simulator(behaviour="status:500") as simulator:
        allowed = source(simulator.url, clock)
        for _ in range(5):
            assert reason(allowed.read(5)) is FailureReason.HTTP_STATUS
        clock.now += 29
        allowed.read(5)
        assert len(simulator.requests()) == 1
        clock.now += 2
        allowed.read(5)
        assert len(simulator.requests()) == 2


def test_who_waits_for_a_hanging_fetch_is_busy_or_gets_the_last_known_good() -> None:
    clock = Clock()
    with Simulator(minimum="1.104.5") as simulator:
        allowed = source(simulator.url, clock)
        assert minimum(allowed.read(5)) == NodeVersion(1, 104, 5)
        simulator.set(behaviour="hang")
        clock.now += 301
        found: list[AllowedVersions | Failure] = []
        threads = [threading.Thread(target=lambda: found.append(allowed.read(0.5))) for _ in range(10)]
        for thread in threads:
            thread.start()
        assert reason(allowed.read(0.1)) is FailureReason.BUSY
        for thread in threads:
            thread.join()
        assert [minimum(one) for one in found] == [NodeVersion(1, 104, 5)] * 10


def test_a_document_on_disk_is_fresh_for_as_long_as_one_in_memory(tmp_path: Path) -> None:
    clock = Clock()
    with Simulator(minimum="1.104.5") as simulator:
        source(simulator.url, clock, cache_dir=tmp_path).read(5)
        clock.now += 100
        assert minimum(source(simulator.url, clock, cache_dir=tmp_path).read(5)) == NodeVersion(1, 104, 5)
        assert len(simulator.requests()) == 1
        # Not of another server, and not from the future.
        with Simulator(minimum="1.106.0") as other:
            assert minimum(source(other.url, clock, cache_dir=tmp_path).read(5)) == NodeVersion(1, 106)
    clock.now -= 1000
    with server([]) as (address, _):
        pass
    assert reason(source(f"http://{address}", clock, cache_dir=tmp_path).read(5)) is FailureReason.UNREACHABLE


def test_a_clock_set_back_does_not_make_a_document_young() -> None:
    clock = Clock()
    with Simulator(minimum="1.104.5") as simulator:
        allowed = source(simulator.url, clock)
        allowed.read(5)
        clock.now -= 5000
        simulator.set(behaviour="status:500")
        stale = allowed.read(5)
        assert reason(stale) is FailureReason.STALE
        assert "last fetched in the future" in str(stale)


def test_fresh_is_always_fetched_and_never_anything_else(tmp_path: Path) -> None:
    clock = Clock()
    with Simulator(minimum="1.104.5") as simulator:
        source(simulator.url, clock, cache_dir=tmp_path).read(5)
        before = sorted(tmp_path.iterdir())
        fresh = source(simulator.url, clock, cache_dir=tmp_path, fresh=True)
        assert minimum(fresh.read(5)) == NodeVersion(1, 104, 5)
        simulator.set(minimum="1.105.0")
        assert minimum(fresh.read(5)) == NodeVersion(1, 105)
        simulator.set(behaviour="status:500")
        assert reason(fresh.read(5)) is FailureReason.HTTP_STATUS
        assert reason(fresh.read(5)) is FailureReason.HTTP_STATUS
        assert len(simulator.requests()) == 5
        simulator.set(behaviour="ok")
        assert minimum(fresh.read(5)) == NodeVersion(1, 105)
    assert sorted(tmp_path.iterdir()) == before
    (kept,) = before
    assert "1.104.5" in kept.read_text()


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"\xff", b"[" * 100_000, b"{}", b'{"url": 1}', b'{"url": "URL", "fetched": 1.0, "document": "{}"}'],
        *[b'{"url": "URL", "fetched": "now", "document": "{}"}', b'{"url": "URL", "fetched": NaN, "document": "{}"}'],
    ],
)
def test_what_was_kept_may_be_damaged(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with Simulator(minimum="1.104.5") as simulator:
        kept_as = b'{"format": 1, "kept": %s}' % content.replace(b"URL", simulator.url.encode())
        (tmp_path / "allowed-versions.json").write_bytes(kept_as)
        assert minimum(source(simulator.url, Clock(), cache_dir=tmp_path).read(5)) == NodeVersion(1, 104, 5)
        kept = json.loads((tmp_path / "allowed-versions.json").read_text())
        assert "1.104.5" in kept["kept"]["document"]
    assert [record.message for record in caplog.records] == ["what was kept is damaged and not used"]


def test_a_directory_that_cannot_be_used_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    (tmp_path / "file").touch()
    with Simulator(minimum="1.104.5") as simulator, caplog.at_level(logging.WARNING):
        allowed = source(simulator.url, clock, cache_dir=tmp_path / "file")
        for _ in range(3):
            assert minimum(allowed.read(5)) == NodeVersion(1, 104, 5)
            clock.now += 301
    assert [record.message for record in caplog.records] == ["cannot keep what was seen over a restart"]
