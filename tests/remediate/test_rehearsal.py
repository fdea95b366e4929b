"""The day the minimum rises: as a table, and by the command on a real node; nothing is changed by it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from exporter.allowed import STORAGENODE, AllowedVersions, UpdateState
from exporter.status import DAY, NodeStatus, ServiceState
from exporter.version import NodeVersion
from remediate.decision import Reason
from remediate.history import History, Pause
from remediate.rehearsal import crashed, decision_of_that_day, raised, scenes
from remediate.rules import Rules
from tests.exporter.test_metrics import NODE_ID
from tests.remediate.conftest import NEW, OLD, Stage, as_json
from tests.remediate.test_preflight import node
from tests.simulators.node import Node

NOW = 1_800_000_000.0
DAY_X = NodeVersion(1, 106, 2)


def versions(status: NodeStatus) -> tuple[str, str]:
    assert isinstance(status.allowed, AllowedVersions)
    process = status.allowed.processes[STORAGENODE]
    return str(process.minimum.version), str(process.suggested.version)


@pytest.mark.parametrize(
    ("minimum", "expected", "state"),
    [
        ("1.104.5", ("1.104.5", "1.106.2"), UpdateState.WAITING),
        ("1.105.0", ("1.105.0", "1.106.2"), UpdateState.WAITING),
        ("1.106.2", ("1.106.2", "1.106.2"), UpdateState.BELOW_MINIMUM),
        ("1.107.0", ("1.107.0", "1.107.0"), UpdateState.BELOW_MINIMUM),
        ("1.103.0", ("1.103.0", "1.106.2"), UpdateState.WAITING),
    ],
)
def test_the_day(minimum: str, expected: tuple[str, str], state: UpdateState) -> None:
    then = raised(node("1.105.1"), NodeVersion.parse(minimum))
    assert versions(then) == expected
    assert then.verdict.state is state


def test_what_the_server_says_of_a_version_counts_then_too() -> None:
    status = node("1.105.1")
    assert isinstance(status.allowed, AllowedVersions)
    process = status.allowed.processes[STORAGENODE]
    process = replace(process, suggested=replace(process.suggested, url="https://elsewhere.test/x.zip"))
    status = replace(status, allowed=replace(status.allowed, processes={STORAGENODE: process}))
    minimum, decision = decision_of_that_day(status, History(), Rules(), NOW)
    assert (minimum, decision.reason) == (DAY_X, Reason.FOREIGN_URL)


def test_a_server_that_contradicts_itself_is_not_put_right() -> None:
    found, decision = decision_of_that_day(node("1.107.1", "1.108.3"), History(), Rules(), NOW)
    assert (str(found), decision.reason) == ("1.108.3", Reason.INCONSISTENT_SERVER)


def test_the_scenes() -> None:
    running, other = node("1.105.1"), node("1.105.1")
    states = {when: {name: each.service.state for name, each in seen.items()} for when, seen in _scenes(running, other)}
    up = ServiceState.RUNNING
    assert list(states.values()) == [
        {"n": up, "other": up},
        {"n": ServiceState.CRASHED, "other": up},
        {"n": ServiceState.STOPPED, "other": up},
    ]
    assert [when for when, _ in _scenes(crashed(running), other)] == ["as it is now"]


def _scenes(one: NodeStatus, other: NodeStatus) -> list[tuple[str, dict[str, NodeStatus]]]:
    return list(scenes({"n": one, "other": other}, "n", DAY_X))


PAUSED = History(pauses=(Pause(None, 0, None, "why"),), failures=(NOW, NOW, NOW), last_end=NOW)


@pytest.mark.parametrize(
    ("installed", "rules", "history", "minimum", "reason"),
    [
        ("1.105.1", {}, History(), "1.106.2", Reason.BELOW_MINIMUM),
        ("1.103.1", {}, History(), "1.104.5", Reason.BELOW_MINIMUM),
        ("1.106.2", {}, History(), "1.107.0", Reason.BELOW_MINIMUM),
        ("1.105.1", {"never_install": ["==1.106.2"]}, History(), "1.106.2", Reason.NEVER_INSTALL),
        ("1.106.2", {"never_install": [">=1.107"]}, History(), "1.107.0", Reason.NEVER_INSTALL),
        ("1.103.1", {"never_install": ["==1.106.2"]}, History(), "1.104.5", Reason.BELOW_MINIMUM),
        ("1.105.1", {"dry_run": True}, PAUSED, "1.106.2", Reason.DRY_RUN),
        # what passes, or is known and a person's to end
        ("1.105.1", {}, PAUSED, "1.106.2", Reason.BELOW_MINIMUM),
        (
            "1.105.1",
            {"windows": [{"days": ["mon"], "start": "02:00", "end": "02:01", "time_zone": "UTC"}]},
            History(),
            "1.106.2",
            Reason.BELOW_MINIMUM,
        ),
        ("1.105.1", {}, History(last_minimum=(NodeVersion(1, 90), NOW)), "1.106.2", Reason.INCONSISTENT_SERVER),
        ("1.105.1", {}, History(last_minimum=(NodeVersion(1, 90), NOW - 99 * DAY)), "1.106.2", Reason.BELOW_MINIMUM),
    ],
)
def test_the_next_time_the_minimum_rises(
    installed: str, rules: Mapping[str, Any], history: History, minimum: str, reason: Reason
) -> None:
    found, decision = decision_of_that_day(node(installed), history, Rules.model_validate(rules), NOW)
    assert (str(found), decision.reason) == (minimum, reason)


def rehearse(stage: Stage, *arguments: str, minimum: str = NEW) -> tuple[int, str]:
    """Run the command, which changes nothing, and tell what it says of the one node."""
    before = stage.entries()
    result = stage.cli("plan", "--as-if-minimum", minimum, *arguments, "alpha")
    assert stage.entries() == before
    return result.exit_code, result.stdout


@pytest.fixture
def allowed_now(stage: Stage) -> Stage:
    """A node that is not below the minimum today."""
    stage.versions.set(minimum=OLD, suggested=NEW)
    stage.nodes[0]["node_id"] = NODE_ID
    return stage


def test_a_node_that_is_down_already(allowed_now: Stage) -> None:
    code, said = rehearse(allowed_now)
    lines = said.splitlines()
    assert (code, lines[:2]) == (0, [f"alpha, once the minimum is {NEW}:", "  as it is now:"])
    assert f"{OLD} -> {NEW} (below_minimum)" in lines[2]
    assert len([line for line in lines if line[:7].strip().rstrip(".").isdigit()]) == 12, said
    assert "leave alpha stopped (asked_to_stop)" in said
    allowed_now.assert_untouched()
    assert allowed_now.cli("plan", "alpha").stdout.startswith("alpha: update"), "and today a person may, as it is due"


def test_a_node_that_runs_is_left_alone_until_it_does_not(allowed_now: Stage) -> None:
    with Node(allowed_now.binary, allowed_now.root / "alpha") as running:
        running.api(allowed_now.nodes[0]["api"])
        code, said = rehearse(allowed_now)
        (told,) = [as_json(allowed_now.cli("plan", "--json", "--as-if-minimum", NEW, "alpha"))]
        assert running.process.poll() is None
    assert code == 0
    assert said.startswith(
        f"alpha, once the minimum is {NEW}:\n"
        "  while it runs:\n"
        "    alpha: nothing to do (running): a running node is left to the official updater\n"
        "  once it has gone down, and is too old to start:\n"
        f"    alpha: update {allowed_now.binary}, {OLD} -> {NEW} (below_minimum)\n"
    )
    assert "    10. start alpha\n" in said
    assert said.endswith(
        "  once somebody has stopped it, the same but:\n     10. leave alpha stopped (asked_to_stop)\n"
    )
    assert [scene["plan"]["decision"] for scene in told["scenes"]] == ["skip", "proceed", "proceed"]
    assert [len(scene["plan"]["steps"]) for scene in told["scenes"]] == [0, 12, 12]
    allowed_now.assert_untouched()


def test_what_holds_it_back_is_said_and_what_would_follow_without_it(allowed_now: Stage) -> None:
    allowed_now.rules |= {
        "windows": [{"days": ["mon"], "start": "02:00", "end": "02:00", "time_zone": "UTC"}],
        "dry_run": True,
    }
    allowed_now.cli("pause", "--reason", "new disk")
    code, said = rehearse(allowed_now)
    assert code == 0
    assert "alpha: nothing to do (paused): everything is paused: new disk\n    but for that:\n    alpha: update" in said
    allowed_now.cli("resume")
    allowed_now.rules.pop("windows")
    _, said = rehearse(allowed_now)
    assert f"alpha: nothing to do (dry_run): {NEW} would be installed (below_minimum), and nothing started\n" in said
    assert " 10. leave alpha stopped (asked_to_stop)\n" in said
    allowed_now.rules["never_install"] = [f"=={NEW}"]
    code, said = rehearse(allowed_now)
    assert (code, said.count("never_install"), "but for that" in said) == (3, 1, False)
    # a version that failed before, and one that is beyond belief
    allowed_now.rules = {}
    allowed_now.versions.set(minimum=NEW)
    allowed_now.publish(allowed_now.old)
    assert allowed_now.run().exit_code == 1
    allowed_now.versions.set(minimum=OLD)
    code, said = rehearse(allowed_now)
    assert (code, "refused (known_bad)" in said) == (3, True)
    code, said = rehearse(allowed_now, minimum="1.190.0")
    assert (code, "refused (inconsistent_server): the minimum jumped from" in said) == (3, True)
    allowed_now.assert_untouched()


def test_a_minimum_that_it_meets(allowed_now: Stage) -> None:
    assert rehearse(allowed_now, minimum=OLD)[0] == 0
    code, said = rehearse(allowed_now, minimum="1.100.0")
    assert (code, "nothing to do (only_due)" in said) == (0, True), said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--as-if-minimum", "latest", "alpha"], "not a version"),
        (["--as-if-minimum", NEW, "--to", "suggested", "alpha"], "no other option goes with it"),
        (["--as-if-minimum", NEW, "--stop-running", "alpha"], "no other option goes with it"),
        (["--as-if-minimum", NEW, "beta"], "there is no 'beta'"),
        (["--as-if-minimum", NEW], "Missing argument"),
    ],
)
def test_2_usage(stage: Stage, arguments: list[str], said: str) -> None:
    result = stage.cli("plan", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.slow
def test_doctor_warns_before_that_day(allowed_now: Stage) -> None:
    """Nothing is wrong today: the node may start, and needs no update."""

    def found() -> dict[str, str]:
        told = as_json(allowed_now.cli("doctor", "--json", "alpha"))
        return {each["severity"]: each["what"] for each in told["findings"] if each["check"] == "that_day"}

    assert found() == {}
    allowed_now.rules["never_install"] = [f"=={NEW}"]
    assert found() == {
        "endangers": f"once the minimum is {NEW}, the node cannot be helped:"
        f" {NEW} is =={NEW}, which the rules say never to install"
    }
    allowed_now.rules = {"dry_run": True}
    assert list(found()) == ["note"]
    allowed_now.rules = {}
    allowed_now.versions.set(url="https://elsewhere.test/storagenode.zip")
    assert list(found()) == ["endangers"]
