"""What is done about an official updater: how old it is, what it left, who asks, and the reason that must come out."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from exporter.allowed import STORAGENODE, STORAGENODE_UPDATER, AllowedVersions, Process, Release
from exporter.commandline import Program
from exporter.status import Failure, InstalledVersion, ServiceState
from remediate.decision import Decision, Proceed, Reason, Refuse, Request, Skip, Trigger
from remediate.healing import Block, Updater, decide_healing, needs_healing
from remediate.history import History, Pause
from remediate.rules import Rules
from tests.remediate.conftest import Stage, as_json
from tests.remediate.test_decision import NOTHING, NOW, V, installed, process, service

STALE = Block(path=Path("/opt/storagenode.1.110.1"), why="it is left")
OWN_FAULT = Block(path=Path("/srv/last-failed-update.storagenode.json"), why="exit 1", version_is_to_blame=True)
BELOW, BEFORE_OFFLINE, TODAY = "1.104.5", "1.105.0", "1.106.0"
"""Below the minimum; allowed, and before 1.106; and the first that is neither."""
MINIMUM, SUGGESTED = "1.105.0", "1.110.1"


def updater(version: str | Failure = TODAY, *blocks: Block, **changes: Any) -> Updater:
    found: InstalledVersion | Failure = version if isinstance(version, Failure) else installed(version)
    made = Updater(
        unit="storagenode-updater.service",
        service=service(ServiceState.RUNNING),
        binary=Path("/opt/storagenode-updater"),
        installed=found,
        units=("storagenode-updater.service",),
        nodes=("alpha",),
        blocks=blocks,
    )
    return replace(made, **changes)


def allowed(of: Process | None = None) -> AllowedVersions:
    """Give what the version server says; of the node, that no updater is to be judged by."""
    mine = of or process(MINIMUM, SUGGESTED)
    return AllowedVersions(processes={STORAGENODE: process("1.1.0", "1.1.0"), STORAGENODE_UPDATER: mine}, fetched=NOW)


def judge(
    of: Updater,
    trigger: Trigger = Trigger.PERSON,
    *,
    by: AllowedVersions | Failure | None = None,
    history: History | None = None,
    rules: Rules | None = None,
    **asked: Any,
) -> Decision:
    request = Request(node="alpha", trigger=trigger, program=Program.UPDATER, **asked)
    return decide_healing(request, of, by or allowed(), history or History(), rules or Rules(), NOW)


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("blocks", [(), (STALE,), (OWN_FAULT,), (STALE, OWN_FAULT)])
def test_every_age_and_block_and_trigger(trigger: Trigger, blocks: tuple[Block, ...]) -> None:
    removed = {str(each.path): each.why for each in blocks if trigger is Trigger.PERSON or each is STALE}
    for version, target in (
        (BELOW, MINIMUM),
        ("1.104.9", MINIMUM),
        (BEFORE_OFFLINE, SUGGESTED),
        ("1.105.9", SUGGESTED),
    ):
        found = judge(updater(version, *blocks), trigger)
        assert found == Proceed(target=V(target), reason=Reason.UPDATER_TOO_OLD, starts={}, blocks=removed)
        assert needs_healing(updater(version, *blocks), allowed())
    for version in (TODAY, SUGGESTED, "1.200.0"):
        found = judge(updater(version, *blocks), trigger)
        if removed:
            assert found == Proceed(target=V(version), reason=Reason.UPDATER_BLOCKED, starts={}, blocks=removed)
        else:
            assert (type(found), found.reason) == (Skip, Reason.CURRENT)
        assert needs_healing(updater(version, *blocks), allowed()) is (STALE in blocks)


def test_its_service_may_be_in_any_state_that_is_known() -> None:
    expected: dict[ServiceState, tuple[type[Decision], Reason]] = {
        ServiceState.MASKED: (Refuse, Reason.MASKED),
        ServiceState.ABSENT: (Refuse, Reason.ABSENT),
        ServiceState.UNKNOWN: (Refuse, Reason.SERVICE_UNKNOWN),
        ServiceState.STARTING: (Skip, Reason.IN_TRANSITION),
        ServiceState.STOPPING: (Skip, Reason.IN_TRANSITION),
    }
    for state, trigger in product(ServiceState, Trigger):
        found = judge(updater(BELOW, STALE, service=service(state)), trigger)
        assert (type(found), found.reason) == expected.get(state, (Proceed, Reason.UPDATER_TOO_OLD))


def test_what_is_not_known_is_refused() -> None:
    assert judge(updater(NOTHING, STALE)).reason is Reason.INSTALLED_UNKNOWN
    assert judge(updater(BELOW, STALE), by=NOTHING).reason is Reason.ALLOWED_UNKNOWN
    without = replace(allowed(), processes={STORAGENODE: process()})
    assert judge(updater(BELOW, STALE), by=without).reason is Reason.ALLOWED_UNKNOWN
    assert not any(needs_healing(updater(BELOW, STALE), each) for each in (NOTHING, without))
    assert not needs_healing(updater(NOTHING, STALE), allowed())
    other = updater(BELOW, installed=installed(BELOW, release=False))
    assert judge(other, Trigger.ALERT).reason is Reason.DEVELOPMENT_BUILD
    assert isinstance(judge(other), Proceed)


def test_where_nothing_newer_is_suggested_it_stays() -> None:
    placeholder = allowed(process("0.0.1", "0.0.1"))
    for trigger in Trigger:
        assert judge(updater(BELOW), trigger, by=placeholder, history=seen("1.104.5")).reason is Reason.CURRENT
        blocked = judge(updater(BELOW, STALE), trigger, by=placeholder, history=seen("1.104.5"))
        assert (type(blocked), blocked.reason) == (Proceed, Reason.UPDATER_BLOCKED)


def seen(minimum: str) -> History:
    return History(last_minimum=(V(minimum), NOW))


def test_a_minimum_that_is_not_to_be_believed_moves_nothing_unasked() -> None:
    jumped, crossed = allowed(process("1.130.0", "1.131.0")), allowed(process("1.107.0", "1.106.0"))
    for by, history in ((jumped, seen("1.104.5")), (crossed, History())):
        assert judge(updater(BELOW), Trigger.WATCH, by=by, history=history).reason is Reason.INCONSISTENT_SERVER
        assert isinstance(judge(updater(BELOW), by=by, history=history), Proceed)


def test_the_suggested_version_is_no_matter_of_a_placeholder_for_a_minimum() -> None:
    found = judge(updater(BELOW), Trigger.ALERT, by=allowed(process("0.0.1", SUGGESTED)), history=seen("1.104.5"))
    assert isinstance(found, Proceed)
    assert found.target == V(SUGGESTED)


def test_a_person_names_another_version() -> None:
    assert judge(updater(TODAY), to=SUGGESTED) == Proceed(target=V(SUGGESTED), reason=Reason.REQUESTED, starts={})
    assert judge(updater(TODAY), to="minimum").reason is Reason.DOWNGRADE
    assert judge(updater(TODAY), to="1.104.0").reason is Reason.TARGET_BELOW_MINIMUM
    assert judge(updater(TODAY), to=TODAY).reason is Reason.CURRENT
    assert judge(updater(TODAY, STALE), to=TODAY).reason is Reason.UPDATER_BLOCKED
    assert judge(updater(TODAY), by=NOTHING, to="suggested").reason is Reason.ALLOWED_UNKNOWN


@pytest.mark.parametrize(
    ("reason", "rules", "history"),
    [
        (Reason.NEVER_INSTALL, {"never_install": ("==1.105.0", "==1.106.0")}, {}),
        (Reason.KNOWN_BAD, {}, {"known_bad": {V(MINIMUM): "it hung", V(TODAY): "it hung"}}),
        (Reason.PAUSED, {}, {"pauses": (Pause(None, NOW - 1, NOW + 1, "a new disk"),)}),
        (Reason.CIRCUIT_OPEN, {}, {"failures": (1.0, 2.0, 3.0)}),
        (Reason.COOLING_DOWN, {}, {"last_end": NOW - 60}),
        (Reason.DRY_RUN, {"dry_run": True}, {}),
    ],
)
def test_what_holds_a_run_back_holds_this_one_back(
    reason: Reason, rules: dict[str, Any], history: dict[str, Any]
) -> None:
    found = judge(updater(BELOW, STALE), Trigger.WATCH, rules=Rules(**rules), history=History(**history))
    assert found.reason is reason
    assert found.detail
    of_target = reason in (Reason.NEVER_INSTALL, Reason.KNOWN_BAD)
    blocked = judge(updater(TODAY, STALE), Trigger.WATCH, rules=Rules(**rules), history=History(**history))
    assert isinstance(blocked, Proceed) is of_target, "a file that is removed is of no version"


def test_a_dry_run_says_what_would_be_removed() -> None:
    found = judge(updater(TODAY, STALE), Trigger.ALERT, rules=Rules(dry_run=True))
    assert found.detail == "/opt/storagenode.1.110.1 would be removed (updater_blocked)"


def test_another_address_for_its_archive_is_refused() -> None:
    at = "https://github.com/storj/storj/releases/download/v1.105.0/storagenode-updater_{os}_{arch}.zip"
    for url, reason in ((at, Reason.UPDATER_TOO_OLD), (at.replace("-updater_", "_"), Reason.FOREIGN_URL)):
        told = replace(process(MINIMUM, SUGGESTED), minimum=Release(version=V(MINIMUM), url=url))
        assert judge(updater(BELOW), by=allowed(told)).reason is reason


def test_on_the_command_line(stage: Stage) -> None:
    """Here is no systemd, and so no updater."""
    refused = stage.cli("run", "--yes", "--updater", "alpha")
    assert (refused.exit_code, "alpha's updater: refused (no_updater)" in refused.stdout) == (3, True), refused.output
    (planned,) = [stage.cli("plan", "--updater", "--json", "alpha")]
    assert (planned.exit_code, as_json(planned)["program"], as_json(planned)["steps"]) == (3, "storagenode-updater", [])
    (counted,) = as_json(stage.cli("history", "--json"))["decisions"]
    assert (counted["program"], counted["reason"]) == ("storagenode-updater", "no_updater")
    assert "alpha's updater  refuse    no_updater" in stage.cli("history").stdout
    for option in (["--stop-running"], ["--start", "always"]):
        wrong = stage.cli("run", "--yes", "--updater", *option, "alpha")
        assert (wrong.exit_code, "--updater lets the node alone" in wrong.output) == (2, True)
    stage.assert_untouched()
