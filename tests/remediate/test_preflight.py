"""May a node be down for so many days? The sums as a table, and the command on a real node."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.allowed import STORAGENODE, AllowedVersions, UpdateState, Verdict, judge
from exporter.cadence import Cadence
from exporter.status import (
    DAY,
    Basis,
    Clock,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    ServiceState,
    ServiceStatus,
)
from exporter.version import NodeVersion
from remediate.preflight import Answer, Item, Preflight, exit_code, preflight
from tests import schemas
from tests.exporter.test_metrics import ALLOWED, RUNNING
from tests.remediate.conftest import NEW, OLD, Stage, as_json
from tests.simulators.node import Node

NOW = 1_800_000_000.0
USUAL = Cadence(14.0)
FAST = Cadence(7.0, 2, 5)
NOTHING = Failure(FailureReason.TIMEOUT, "no answer within 2 s")
YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN


def allowed(minimum: str, suggested: str) -> AllowedVersions:
    process = ALLOWED.processes[STORAGENODE]
    process = replace(
        process,
        minimum=replace(process.minimum, version=NodeVersion.parse(minimum)),
        suggested=replace(process.suggested, version=NodeVersion.parse(suggested)),
    )
    return replace(ALLOWED, processes={STORAGENODE: process})


def node(
    installed: str, /, minimum: str = "1.104.5", suggested: str = "1.106.2", *, due: bool = False, **changes: Any
) -> NodeStatus:
    """Make a node that runs, and was reached just now."""
    version, document = NodeVersion.parse(installed), allowed(minimum, suggested)
    process = replace(document.processes[STORAGENODE], cursor=b"\xff" * 32 if due else bytes(32))
    status = replace(
        RUNNING,
        node="n",
        installed=InstalledVersion(version=version, release=True, device=1, inode=2),
        allowed=document,
        verdict=judge(version, process, RUNNING.node_id),
        clock=Clock(NOW - 600, Basis.CONTACT, NOW),
    )
    return replace(status, **changes)


def item(about: str, judged: Preflight) -> Item:
    (found,) = (each for each in judged.items if each.about == about)
    return found


@pytest.mark.parametrize(
    ("status", "days", "pace", "answer", "words"),
    [
        (node("1.106.2"), 14, USUAL, YES, "2 minor releases above the minimum 1.104.5, which may rise by 1 in 14 days"),
        (node("1.106.2"), 14, USUAL, YES, "1 left, and enough"),
        (node("1.106.2"), 15, USUAL, YES, "rise by 2 in 15 days (one in 14 days, upstream's usual pace): none left, "),
        (node("1.106.2"), 29, USUAL, NO, "rise by 3 in 29 days (one in 14 days, upstream's usual pace): 1 too few"),
        (node("1.106.2"), 1, FAST, YES, "rise by 2 in 1 day (one in 7 days and up to 2 at once, as 5 raises seen say)"),
        (node("1.105.1"), 1, FAST, NO, "1 too few"),
        (node("1.105.1"), 1, USUAL, YES, "1.105.1 is 1 minor release above"),
        (node("1.104.5"), 1, USUAL, NO, "1.104.5 is 0 minor releases above"),
        # of the same minor release a later patch is out, and that is what the minimum rises to
        (node("1.106.1"), 15, USUAL, NO, "none left, and 1.106.2 is the one to be allowed then"),
        (node("1.106.1"), 14, USUAL, YES, "1 left"),
        (node("1.104.4"), 1, USUAL, NO, "1.104.4 is below the minimum 1.104.5: once down, it cannot start"),
        (node("2.0.0"), 1, USUAL, UNKNOWN, "another major release"),
        (node("1.106.2", installed=NOTHING), 1, USUAL, UNKNOWN, "the installed version is not known: timeout: no"),
        (node("1.106.2", allowed=NOTHING), 1, USUAL, UNKNOWN, "the minimum is not known: timeout"),
    ],
)
def test_the_version(status: NodeStatus, days: int, pace: Cadence, answer: Answer, words: str) -> None:
    judged = preflight(status, days, pace, NOW)
    found = item("version", judged)
    assert found.answer is answer, found
    assert words in found.sum


def test_a_development_build_is_exempt() -> None:
    build = InstalledVersion(version=NodeVersion(1), release=False, device=1, inode=2)
    judged = preflight(node("1.106.2", installed=build, allowed=NOTHING), 5, USUAL, NOW)
    assert (judged.answer, item("version", judged).answer) == (YES, YES)


def clock(days: float) -> dict[str, Any]:
    return {"clock": Clock(NOW - days * DAY, Basis.CONTACT, NOW)}


@pytest.mark.parametrize(
    ("changes", "days", "answer", "words"),
    [
        (clock(0), 1, YES, "suspended after about 12 days, 11 days to spare; earlier outages"),
        (clock(0), 11, YES, "1 day to spare"),
        (clock(0), 12, NO, "after about 12 days it is suspended"),
        (clock(0), 29, NO, "after about 12 days it is suspended"),
        (clock(0), 30, NO, "from 30 days on it is disqualified for good"),
        (clock(3), 8, YES, "not reached for 3 days already, that makes 11 days; suspended after about 12 days, 1 day"),
        (clock(3), 9, NO, "that makes 12 days; after about 12 days it is suspended"),
        (clock(29), 1, NO, "not reached for 29 days already, that makes 30 days; from 30 days on"),
        (clock(-1), 1, YES, "11 days to spare"),
        ({"clock": Clock(NOW - 5 * DAY, Basis.STOPPED, NOW)}, 1, UNKNOWN, "since 2027-01-10 08:00 UTC at least, but"),
        ({"clock": Clock(NOW - 5 * DAY, Basis.STOPPED, NOW)}, 7, NO, "5 days already, that makes 12 days"),
        ({"clock": None}, 1, UNKNOWN, "nothing tells when a satellite last reached it"),
    ],
)
def test_the_clocks(changes: dict[str, Any], days: int, answer: Answer, words: str) -> None:
    judged = preflight(node("1.120.1", suggested="1.120.1", **changes), days, USUAL, NOW)
    assert item("version", judged).answer is YES
    assert item("clocks", judged).answer is answer
    assert words in item("clocks", judged).sum
    assert judged.answer is answer


PAUSE = 'storagenode-remediate pause n --for 11d --reason "…", if nothing is to touch it meanwhile'
DOWN: dict[str, Any] = {"service": ServiceStatus(state=ServiceState.STOPPED, detail="")}
RUN, TOO_OLD = "storagenode-remediate run", "too old to start by then: storagenode-remediate run n"


@pytest.mark.parametrize(
    ("status", "rollout", "first"),
    [
        (node("1.106.2"), "nothing newer than what is installed", []),
        (
            node("1.105.1"),
            "has not reached this node yet",
            [f"{RUN} --stop-running --to suggested n, ahead of the rollout: 1.106.2 is 2 minor releases above the"],
        ),
        (
            node("1.105.1", due=True),
            "holds 1.106.2 for this node now",
            [f"{RUN} --stop-running n: 1.106.2 is 2 minor"],
        ),
        (node("1.105.1", due=True, **DOWN), "holds 1.106.2", [f"{RUN} n: 1.106.2 is 2 minor releases"]),
        (
            node("1.103.1", suggested="1.105.0"),
            "holds 1.104.5 for this node now",
            [
                f"{RUN} --stop-running --to suggested n: 1.105.0 is 1 minor release above the minimum",
                f"reckon with it being even so {TOO_OLD}",
            ],
        ),
        (node("1.105.1", suggested="1.105.1"), "nothing newer", [f"reckon with it being {TOO_OLD}"]),
        (
            node("1.106.2", verdict=Verdict(UpdateState.UNKNOWN, reason="no node ID")),
            "not known: no node ID",
            [],
        ),
        (node("1.106.2", **clock(9)), "nothing newer", ["let it be down for a shorter time"]),
    ],
)
def test_what_to_do_first(status: NodeStatus, rollout: str, first: Sequence[str]) -> None:
    judged = preflight(status, 11, Cadence(7.0), NOW)
    assert item("rollout", judged).answer is None, "what the rollout holds decides nothing"
    assert rollout in item("rollout", judged).sum
    *before, last = judged.first
    assert [each[: len(words)] for each, words in zip(before, first, strict=True)] == list(first)
    assert last == PAUSE


def test_the_worst_of_several() -> None:
    judged = [preflight(status, 1, USUAL, NOW) for status in (node("1.106.2"), node("1.104.5"), node("2.0.0"))]
    assert [each.answer for each in judged] == [YES, NO, UNKNOWN]
    assert (exit_code(judged[:1]), exit_code(judged), exit_code([judged[0], judged[2]])) == (0, 1, 4)
    both = preflight(node("1.104.5", clock=None), 1, USUAL, NOW)
    assert both.answer is NO, "what is certain does not wait for what is not known"


def test_as_people_read_it() -> None:
    assert str(preflight(node("1.105.1", due=True), 20, USUAL, NOW)) == (
        "n: no, it should not be down for 20 days\n"
        "  version  no       1.105.1 is 1 minor release above the minimum 1.104.5, which may rise by 2 in 20 days"
        " (one in 14 days, upstream's usual pace): 1 too few\n"
        "  rollout  -        it holds 1.106.2 for this node now\n"
        "  clocks   no       after about 12 days it is suspended\n"
        "  Do first: storagenode-remediate run --stop-running n: 1.106.2 is 2 minor releases above the minimum\n"
        "  Do first: let it be down for a shorter time\n"
        '  Do first: storagenode-remediate pause n --for 20d --reason "…", if nothing is to touch it meanwhile'
    )


def test_the_schema_is_that_of_what_is_printed() -> None:
    assert schemas.path("preflight").read_text() == schemas.schema("preflight"), "run: python -m tests.schemas"
    judged = [preflight(status, 1, USUAL, NOW) for status in (node("1.106.2"), node("1.104.5"), node("2.0.0"))]
    printed = json.dumps([each.as_json() for each in judged])
    adapter = schemas.PRINTED["preflight"]
    assert json.loads(adapter.dump_json(adapter.validate_json(printed))) == json.loads(printed)


def keep(stage: Stage, name: str, kept: object) -> Path:
    """Put something where the exporter keeps what it has seen."""
    stage.exporter_dir.mkdir(exist_ok=True)
    path = stage.exporter_dir / name
    path.write_text(json.dumps({"format": 1, "kept": kept}))
    return path


def test_a_node_that_is_down(stage: Stage) -> None:
    stage.versions.set(minimum="1.100.3", suggested=NEW)
    unknown = stage.cli("preflight", "--days", "7", "alpha")
    assert unknown.exit_code == 4
    assert f"{OLD} is 2 minor releases above the minimum 1.100.3, which may rise by 1 in 7 days" in unknown.stdout
    assert "but nothing tells when a satellite last reached it before" in unknown.stdout
    last = time.time() - 6 * DAY
    keep(stage, "last-contact.json", {"alpha": {"since": last, "basis": "contact", "known": time.time() - 60}})
    seen = [[f"1.{minor}.1", minor * 7 * DAY] for minor in range(90, 99)]
    keep(stage, "minimums.json", {"url": stage.versions.url, "seen": seen})
    before = {path: path.read_bytes() for path in stage.exporter_dir.iterdir()}
    known = stage.cli("preflight", "--days", "7")
    assert known.exit_code == 1
    assert (
        "yes      1.102.3 is 2 minor releases above the minimum 1.100.3, which may rise by 1 in 7 days" in known.stdout
    )
    assert "(one in 7 days, as 8 raises seen say): 1 left, and enough" in known.stdout
    assert "no       not reached for 6 days already, that makes 13 days; after about 12 days" in known.stdout
    assert {path: path.read_bytes() for path in stage.exporter_dir.iterdir()} == before, "it only reads there"
    assert not stage.state_dir.exists()
    stage.assert_untouched()


def test_a_node_that_runs(stage: Stage) -> None:
    stage.versions.set(minimum=OLD, suggested=NEW)
    with Node(stage.binary, stage.root / "alpha") as running:
        running.api(stage.nodes[0]["api"])
        result = stage.cli("preflight", "--days", "3", "--json", "alpha")
        assert running.process.poll() is None
    assert result.exit_code == 1
    (judged,) = as_json(result)
    assert judged["answer"] == "no"
    assert [(each["about"], each["answer"]) for each in judged["items"]][:2] == [("version", "no"), ("rollout", None)]
    assert judged["first"][0].startswith("storagenode-remediate run --stop-running alpha: ")


def test_nothing_is_known(stage: Stage) -> None:
    stage.versions.set(behaviour="status:503")
    result = stage.cli("preflight", "--days", "1")
    assert result.exit_code == 4
    assert "alpha: not known whether it may be down for 1 day" in result.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["--days", "0"], ["--days", "x"], ["--days", "nan"], ["--days", "1", "beta"], ["--days", "3651"]]
)
def test_2_usage(stage: Stage, arguments: list[str]) -> None:
    result = stage.cli("preflight", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
