"""How fast the minimum rises: learned from what was seen, and not spoiled by what a server got wrong."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.allowed import STORAGENODE, AllowedVersions
from exporter.cache import Cache
from exporter.cadence import Cadence, Minimums, Seen, cadence
from exporter.sources.version_server import VersionServer
from exporter.status import DAY
from exporter.version import NodeVersion
from tests.exporter.hostile import Clock
from tests.exporter.test_metrics import ALLOWED
from tests.simulators.version_server import VersionServer as Simulator

URL = "https://version.test"
USUAL = Cadence(14.0)


def seen(*raises: tuple[int, float]) -> list[Seen]:
    """Minors of major release 1, and the days when they were seen."""
    return [(NodeVersion(1, minor), days * DAY) for minor, days in raises]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], USUAL),
        (seen((100, 0)), USUAL),
        (seen((100, 0), (101, 1), (102, 41)), USUAL),
        # the first is no raise: what counts are 30 days from 101 to 103
        (seen((100, 0), (101, 1), (102, 11), (103, 31)), Cadence(15.0, 1, 3)),
        (seen((100, 0), (103, 1), (104, 29), (106, 43)), Cadence(14.0, 3, 3)),
        # too short a time says nothing
        (seen((100, 0), (101, 1), (102, 2), (103, 28)), USUAL),
        (seen((100, 0), (101, 1), (102, 2), (103, 29)), Cadence(14.0, 1, 3)),
        # what is no release's pace is left out, with its time
        (seen((100, 0), (101, 1), (102, 15), (120, 16), (121, 30), (122, 44)), Cadence(14.0, 1, 4)),
        (seen((100, 0), (150, 1), (151, 31), (152, 61), (153, 91)), Cadence(30.0, 1, 3)),
        # long not seen, and then much at once
        (seen((100, 0), (101, 1), (102, 15), (122, 295), (123, 309)), Cadence(14.0, 20, 4)),
        ([*seen((100, 0), (101, 1), (102, 15)), (NodeVersion(2, 103), 43 * DAY)], USUAL),
        # a clock that was set back
        (seen((100, 0), (101, 50), (102, 40), (103, 54), (104, 68)), Cadence(14.0, 1, 3)),
    ],
)
def test_the_pace(history: list[Seen], expected: Cadence) -> None:
    assert cadence(history) == expected


def test_it_says_where_it_comes_from() -> None:
    assert str(USUAL) == "one in 14 days, upstream's usual pace"
    assert str(Cadence(20.4, 1, 4)) == "one in 20 days, as 4 raises seen say"
    assert str(Cadence(14.0, 3, 4)) == "one in 14 days and up to 3 at once, as 4 raises seen say"


def document(minimum: str, fetched: float, suggested: str = "1.999") -> AllowedVersions:
    process = ALLOWED.processes[STORAGENODE]
    process = replace(
        process,
        minimum=replace(process.minimum, version=NodeVersion.parse(minimum)),
        suggested=replace(process.suggested, version=NodeVersion.parse(suggested)),
    )
    return AllowedVersions(processes={STORAGENODE: process}, fetched=fetched)


@pytest.mark.parametrize(
    ("minimums", "expected"),
    [
        (["1.100.3", "1.100.3", "1.101.2", "1.101.2"], [("1.100.3", 0.0), ("1.101.2", 2.0)]),
        (["1.100.3", "1.100.5", "1.100.1"], [("1.100.3", 0.0)]),
        # a slip of the finger that is put right
        (["1.100.3", "1.900.3", "1.100.3", "1.101.0"], [("1.100.3", 0.0), ("1.101.0", 3.0)]),
        (["1.900.3", "1.100.3"], [("1.100.3", 1.0)]),
        (["1.100.3", "1.101.3", "1.100.4"], [("1.100.3", 0.0)]),
        # one that contradicts itself: its suggested version is 1.999
        (["1.100.3", "2.0.0"], [("1.100.3", 0.0)]),
    ],
)
def test_what_is_remembered(minimums: list[str], expected: list[tuple[str, float]], tmp_path: Path) -> None:
    noted = Minimums(Cache(tmp_path), URL)
    for at, minimum in enumerate(minimums):
        noted.note(document(minimum, float(at)))
    assert [(str(version), when) for version, when in noted.seen] == expected
    assert Minimums(Cache(tmp_path), URL).seen == noted.seen
    assert Minimums(Cache(tmp_path), "https://other.test").seen == []


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    noted = Minimums(Cache(tmp_path), URL)
    for minor in range(70):
        noted.note(document(f"1.{minor}", minor * DAY))
    assert [version.minor for version, _ in Minimums(Cache(tmp_path), URL).seen] == list(range(10, 70))


@pytest.mark.parametrize(
    "kept",
    [
        *[[], "x", {"url": URL}, {"url": URL, "seen": [1]}, {"url": URL, "seen": [["latest", 1.0]]}],
        *[{"url": URL, "seen": [["1.2.3", "now"]]}, {"url": URL, "seen": [[1, 1.0]]}, {"url": URL, "seen": [[[], []]]}],
    ],
)
def test_what_was_kept_may_be_damaged(kept: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "minimums.json").write_text(json.dumps({"format": 1, "kept": kept}))
    noted = Minimums(Cache(tmp_path), URL)
    assert noted.seen == []
    assert [record.message for record in caplog.records] == ["what was kept is damaged and not used"]
    noted.note(document("1.2.3", 0.0))
    assert len(Minimums(Cache(tmp_path), URL).seen) == 1


def test_the_version_server_is_learned_from(tmp_path: Path) -> None:
    clock = Clock()
    with Simulator(minimum="1.100.3", suggested="1.200.0") as simulator:
        source = VersionServer(
            simulator.url,
            refresh=timedelta(minutes=5),
            max_age=timedelta(days=1),
            cache_dir=tmp_path,
            clock=clock,
        )
        for minor in (100, 101, 102, 103):
            simulator.set(minimum=f"1.{minor}.3")
            for _ in range(3):
                source.read(5)
                clock.now += 5 * DAY
        assert cadence(Minimums(Cache(tmp_path), simulator.url).seen) == Cadence(15.0, 1, 3)
