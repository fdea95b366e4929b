"""Every cell of the table: trigger, service state, update state and rules, and the reason that must come out."""

from dataclasses import replace
from datetime import time
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.allowed import STORAGENODE, AllowedVersions, Process, Release, UpdateState, Verdict
from exporter.config import Config
from exporter.status import (
    DOWN,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    RunningNode,
    ServiceState,
    ServiceStatus,
)
from exporter.version import NodeVersion
from remediate.decision import Decision, Proceed, Reason, Refuse, Request, Skip, Trigger, decide
from remediate.history import History, Pause
from remediate.rules import Rules, Start
from remediate.rules import rules as read_rules
from remediate.starting import StartDecision, StartReason, decide_start
from remediate.window import Window

V = NodeVersion.parse
NOW = 1_800_000_000.0
DAY = 86400.0
RULES = Rules()
NOTHING = Failure(FailureReason.UNREACHABLE, "nobody answers")


def process(minimum: str = "1.104.5", suggested: str = "1.110.1", url: str = "") -> Process:
    return Process(
        minimum=Release(version=V(minimum), url=url),
        suggested=Release(version=V(suggested), url=""),
        seed=bytes(32),
        cursor=bytes(32),
    )


def allowed(of: Process | None = None) -> AllowedVersions:
    return AllowedVersions(processes={STORAGENODE: of or process()}, fetched=NOW)


def service(state: ServiceState, exit_code: int | None = 1) -> ServiceStatus:
    return ServiceStatus(state=state, detail=f"it is {state}", exit_code=exit_code)


def installed(version: str = "1.102.3", *, release: bool = True) -> InstalledVersion:
    return InstalledVersion(version=V(version), release=release, device=1, inode=2)


def answer(version: str) -> RunningNode:
    return RunningNode(version=V(version), node_id="", allowed_version=None, started=None, last_contact=None)


BELOW = Verdict(UpdateState.BELOW_MINIMUM, V("1.104.5"))
VERDICTS = {
    UpdateState.CURRENT: ("1.110.1", Verdict(UpdateState.CURRENT)),
    UpdateState.WAITING: ("1.105.0", Verdict(UpdateState.WAITING)),
    UpdateState.DUE: ("1.105.0", Verdict(UpdateState.DUE, V("1.110.1"))),
    UpdateState.BELOW_MINIMUM: ("1.102.3", BELOW),
    UpdateState.UNKNOWN: ("1.105.0", Verdict(UpdateState.UNKNOWN, reason="the node ID is not known")),
}


def status(
    state: ServiceState = ServiceState.STOPPED, update: UpdateState = UpdateState.BELOW_MINIMUM, **changes: Any
) -> NodeStatus:
    version, verdict = VERDICTS[update]
    made = NodeStatus(
        node="alpha",
        manager="systemd",
        service=service(state),
        installed=installed(version),
        running=NOTHING,
        allowed=allowed(),
        verdict=verdict,
    )
    return replace(made, **changes)


def asked(trigger: Trigger = Trigger.ALERT, **what: Any) -> Request:
    return Request(node="alpha", trigger=trigger, **what)


def judge(request: Request, of: NodeStatus, *, history: History | None = None, rules: Rules = RULES) -> Decision:
    return decide(request, {"alpha": of}, history or History(), rules, NOW)


def expected(trigger: Trigger, state: ServiceState, update: UpdateState) -> tuple[type[Decision], Reason]:
    """The table of design 6, written down once more."""
    by_service: dict[ServiceState, tuple[type[Decision], Reason]] = {
        ServiceState.MASKED: (Refuse, Reason.MASKED),
        ServiceState.ABSENT: (Refuse, Reason.ABSENT),
        ServiceState.UNKNOWN: (Refuse, Reason.SERVICE_UNKNOWN),
        ServiceState.STARTING: (Skip, Reason.IN_TRANSITION),
        ServiceState.STOPPING: (Skip, Reason.IN_TRANSITION),
    }
    if state in by_service:
        return by_service[state]
    person = trigger is Trigger.PERSON
    running: tuple[type[Decision], Reason] = (Refuse if person else Skip, Reason.RUNNING)
    by_update: dict[UpdateState, tuple[type[Decision], Reason]] = {
        UpdateState.CURRENT: (Skip, Reason.CURRENT),
        UpdateState.WAITING: (Skip, Reason.WAITING),
        UpdateState.DUE: (Proceed, Reason.DUE) if person else (Skip, Reason.ONLY_DUE),
        UpdateState.BELOW_MINIMUM: (Proceed, Reason.BELOW_MINIMUM),
        UpdateState.UNKNOWN: (Refuse, Reason.UPDATE_STATE_UNKNOWN),
    }
    kind, reason = by_update[update]
    return running if kind is Proceed and state is ServiceState.RUNNING else (kind, reason)


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_cell_of_trigger_service_update_and_start_rule(trigger: Trigger, start: Start) -> None:
    for state, update in product(ServiceState, UpdateState):
        found = judge(asked(trigger), status(state, update), rules=Rules(start=start))
        assert (type(found), found.reason) == expected(trigger, state, update), (state, update)
        if isinstance(found, Proceed):
            assert found.target == VERDICTS[update][1].target
            assert set(found.starts) == {"alpha"}
        else:
            assert found.detail


CLOSED = Window(start=time(3), end=time(4), time_zone="UTC")
"""NOW is at 08:00 UTC."""
HINDRANCES: dict[Reason, tuple[dict[str, Any], dict[str, Any], type[Decision], str]] = {
    # in the order in which they are named, with what they are in the rules or the history, and what else is said
    Reason.NEVER_INSTALL: ({"never_install": ("==1.104.*", "==1.110.*")}, {}, Refuse, "is =="),
    Reason.KNOWN_BAD: ({}, {"known_bad": {V("1.104.5"): "it hung", V("1.110.1"): "it hung"}}, Refuse, "it hung"),
    Reason.PAUSED: ({}, {"pauses": (Pause(None, NOW - 1, NOW + 1, "a new disk"),)}, Skip, "2027-01-15 08:00Z: a new"),
    Reason.CIRCUIT_OPEN: ({}, {"failures": (1.0, 2.0, 3.0)}, Refuse, "`resume`"),
    Reason.COOLING_DOWN: ({}, {"last_end": NOW - 1799}, Skip, "0:30:00"),
    Reason.OUTSIDE_WINDOWS: ({"windows": (CLOSED,)}, {}, Skip, "daily 03:00-04:00 UTC"),
    Reason.DRY_RUN: ({"dry_run": True}, {}, Skip, "1.104.5 would be installed (below_minimum), and "),
}
FOR_EVERYBODY = {Reason.NEVER_INSTALL}


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("size", range(len(HINDRANCES) + 1))
def test_the_whole_product_with_rules_and_history(trigger: Trigger, size: int) -> None:
    for hindering in combinations(HINDRANCES, size):
        rules, history = RULES, History()
        for reason in hindering:
            of_rules, of_history, _, _ = HINDRANCES[reason]
            rules, history = rules.model_copy(update=of_rules), replace(history, **of_history)
        counting = [reason for reason in hindering if trigger is not Trigger.PERSON or reason in FOR_EVERYBODY]
        for state, update in product(ServiceState, UpdateState):
            found = judge(asked(trigger), status(state, update), history=history, rules=rules)
            kind, reason = expected(trigger, state, update)
            if kind is Proceed and counting:
                reason = counting[0]
                _, _, kind, words = HINDRANCES[reason]
                assert words in found.detail
            assert (type(found), found.reason) == (kind, reason), (hindering, state, update)


def test_every_reason_is_met_in_these_tests() -> None:
    text = Path(__file__).read_text()
    elsewhere = {Reason.STILL_HELD}  # not decided, but found out before: test_remediation.py
    elsewhere |= {Reason.UPDATER_TOO_OLD, Reason.UPDATER_BLOCKED, Reason.NO_UPDATER}  # of updaters: test_healing.py
    assert {reason for reason in Reason if f"Reason.{reason.name}" not in text} <= elsewhere


def test_a_dry_run_says_what_would_be_started() -> None:
    crashed = status(service=service(ServiceState.CRASHED))
    assert judge(asked(), crashed, rules=Rules(dry_run=True)).detail.endswith("and alpha started")
    assert judge(asked(), status(), rules=Rules(dry_run=True)).detail.endswith("and nothing started")


def test_a_release_candidate_is_what_its_release_is() -> None:
    rules = Rules(never_install=(">=1.106,<1.107",))
    for to, reason in (("1.106.2-rc.1", Reason.NEVER_INSTALL), ("1.107.0", Reason.REQUESTED)):
        assert judge(asked(Trigger.PERSON, to=to), status(), rules=rules).reason is reason


def test_a_person_may_stop_a_running_node() -> None:
    running = status(ServiceState.RUNNING)
    found = judge(asked(Trigger.PERSON, stop_running=True), running)
    assert isinstance(found, Proceed)
    assert found.starts == {"alpha": StartDecision(True, StartReason.WAS_RUNNING)}


@pytest.mark.parametrize(
    ("runs", "to", "kind"),
    [
        ("1.104.6", None, Refuse),
        ("1.104.6", "minimum", Refuse),
        ("1.104.6", "suggested", Proceed),
        ("1.110.2", "suggested", Refuse),
        ("1.104.6", "1.104.5", Proceed),  # who names the version has thought of it
        ("1.104.5", None, Proceed),
        ("1.102.3", None, Proceed),
        (None, None, Proceed),
    ],
)
def test_a_running_node_is_not_stopped_for_a_version_below_the_one_it_runs(
    runs: str | None, to: str | None, kind: type[Decision]
) -> None:
    """Somebody has put an old binary under it: its databases are those of the newer one."""
    of = replace(status(ServiceState.RUNNING), running=answer(runs) if runs else NOTHING)
    found = judge(asked(Trigger.PERSON, stop_running=True, to=to), of)
    assert isinstance(found, kind)
    if isinstance(found, Refuse):
        assert found.reason is Reason.DOWNGRADE
        assert f"below the running {runs}; --to {runs} " in found.detail
    down = replace(of, service=service(ServiceState.CRASHED))
    assert isinstance(judge(asked(), down), Proceed), "what answers is not known to be this node"


START_TABLE = [
    # state, last exit, below the minimum, rule -> start, reason
    (ServiceState.STOPPED, 0, True, Start.IF_CRASHED, False, StartReason.ASKED_TO_STOP),
    (ServiceState.STOPPED, 1, True, Start.IF_CRASHED, False, StartReason.ASKED_TO_STOP),
    (ServiceState.CRASHED, 1, True, Start.IF_CRASHED, True, StartReason.TOO_OLD_TO_START),
    (ServiceState.CRASH_LOOPING, 1, True, Start.IF_CRASHED, True, StartReason.TOO_OLD_TO_START),
    (ServiceState.CRASHED, 1, False, Start.IF_CRASHED, False, StartReason.OTHER_CAUSE),
    (ServiceState.CRASHED, 2, True, Start.IF_CRASHED, False, StartReason.OTHER_CAUSE),
    (ServiceState.CRASHED, 0, True, Start.IF_CRASHED, False, StartReason.OTHER_CAUSE),
    (ServiceState.CRASHED, None, True, Start.IF_CRASHED, False, StartReason.OTHER_CAUSE),  # a signal, memory perhaps
    (ServiceState.CRASH_LOOPING, 203, True, Start.IF_CRASHED, False, StartReason.OTHER_CAUSE),
    (ServiceState.RUNNING, None, True, Start.IF_CRASHED, True, StartReason.WAS_RUNNING),
    (ServiceState.RUNNING, None, True, Start.ALWAYS, True, StartReason.WAS_RUNNING),
    (ServiceState.RUNNING, None, True, Start.NEVER, False, StartReason.RULE_NEVER),
    (ServiceState.STOPPED, 0, True, Start.ALWAYS, True, StartReason.RULE_ALWAYS),
    (ServiceState.CRASHED, None, False, Start.ALWAYS, True, StartReason.RULE_ALWAYS),
    (ServiceState.CRASHED, 1, True, Start.NEVER, False, StartReason.RULE_NEVER),
    (ServiceState.CRASH_LOOPING, 1, True, Start.NEVER, False, StartReason.RULE_NEVER),
]


@pytest.mark.parametrize(("state", "code", "below", "rule", "start", "reason"), START_TABLE)
def test_start_rule(
    state: ServiceState, code: int | None, below: bool, rule: Start, start: bool, reason: StartReason
) -> None:
    update = UpdateState.BELOW_MINIMUM if below else UpdateState.DUE
    found = decide_start(status(state, update, service=service(state, code)), rule)
    assert found == StartDecision(start, reason)


def test_what_a_person_asks_for_a_start_goes_before_the_rule() -> None:
    found = judge(asked(Trigger.PERSON, start=Start.ALWAYS), status(), rules=Rules(start=Start.NEVER))
    assert isinstance(found, Proceed)
    assert found.starts["alpha"].reason is StartReason.RULE_ALWAYS


@pytest.mark.parametrize(
    ("minimum", "last", "days", "believed"),
    [
        ("1.104.5", None, 0, True),
        ("1.114.0", "1.104.5", 0, True),
        ("1.115.0", "1.104.5", 0, False),
        ("1.115.0", "1.104.5", 13.9, False),
        ("1.115.0", "1.104.5", 14, True),
        ("1.130.0", "1.104.5", 14 * 16, True),
        ("1.131.0", "1.104.5", 14 * 16, False),
        ("2.0.0", "1.104.5", 365, False),
        ("1.50.0", "1.104.5", 0, True),
        ("0.9.0", "1.104.5", 0, False),
        ("99.0.0", "1.104.5", 0, False),
        ("1.115.0", "1.104.5", -1000, False),  # the clock went backwards: no credit, no exception
        ("1.114.0", "1.104.5", -1000, True),
    ],
)
def test_how_far_a_minimum_may_jump(minimum: str, last: str | None, days: float, believed: bool) -> None:
    before = (V(last), NOW - days * DAY) if last else None
    document = process(minimum, minimum)
    assert (History(last_minimum=before).inconsistency(document, NOW) is None) is believed
    of = status(
        allowed=allowed(document), verdict=Verdict(UpdateState.BELOW_MINIMUM, V(minimum)), installed=installed("0.1.0")
    )
    history = History(last_minimum=before)
    assert isinstance(judge(asked(), of, history=history), Proceed if believed else Refuse)
    assert isinstance(judge(asked(Trigger.PERSON), of, history=history), Proceed)


@pytest.mark.parametrize("trigger", Trigger)
def test_a_minimum_above_the_suggested_version(trigger: Trigger) -> None:
    found = judge(asked(trigger), status(allowed=allowed(process("1.110.0", "1.105.0"))))
    if trigger is Trigger.PERSON:
        assert isinstance(found, Proceed)
    else:
        assert (type(found), found.reason) == (Refuse, Reason.INCONSISTENT_SERVER)
        assert "1.110.0 is above the suggested 1.105.0" in str(found)


OURS = "https://github.com/storj/storj/releases/download/v1.104.5/storagenode_{os}_{arch}.zip"


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize(
    ("url", "foreign"),
    [
        ("", False),
        (OURS, False),
        (OURS.replace("github.com", "github.com.example.com"), True),
        (OURS.replace("https", "http"), True),
        (OURS.replace("v1.104.5", "v1.104.6"), True),
        ("https://github.com/storj/storj/releases/download/v1.104.5/../v9/storagenode_{os}_{arch}.zip", True),
    ],
)
def test_a_foreign_url_is_refused_to_everybody(trigger: Trigger, url: str, foreign: bool) -> None:
    found = judge(asked(trigger), status(allowed=allowed(process(url=url))))
    assert (found.reason is Reason.FOREIGN_URL) is foreign
    assert isinstance(found, Refuse if foreign else Proceed)


def test_a_foreign_url_says_nothing_about_a_local_archive() -> None:
    of = status(allowed=allowed(process(url="https://elsewhere.example/x.zip")))
    assert isinstance(judge(asked(Trigger.PERSON, artifact="/a.zip", sha256="0" * 64), of), Proceed)


@pytest.mark.parametrize("trigger", Trigger)
def test_a_known_bad_version_is_for_a_person_to_try(trigger: Trigger) -> None:
    history = History(known_bad={V("1.104.5"): "it hung"})
    found = judge(asked(trigger), status(), history=history)
    if trigger is Trigger.PERSON:
        assert isinstance(found, Proceed)
    else:
        assert (type(found), found.reason) == (Refuse, Reason.KNOWN_BAD)
        assert "it hung" in found.detail
    other = History(known_bad={V("1.104.4"): "it hung"})
    assert isinstance(judge(asked(trigger), status(), history=other), Proceed)


@pytest.mark.parametrize(
    ("to", "version", "kind", "reason"),
    [
        ("1.104.5", "1.102.3", Proceed, Reason.REQUESTED),
        ("1.106.0", "1.102.3", Proceed, Reason.REQUESTED),
        ("1.104.4", "1.102.3", Refuse, Reason.TARGET_BELOW_MINIMUM),
        ("1.106.0", "1.106.0", Skip, Reason.CURRENT),
        ("1.106.0", "1.107.0", Refuse, Reason.DOWNGRADE),
        ("1.106.0-rc", "1.106.0", Refuse, Reason.DOWNGRADE),
        ("minimum", "1.102.3", Proceed, Reason.REQUESTED),
        ("minimum", "1.105.0", Refuse, Reason.DOWNGRADE),
        ("suggested", "1.105.0", Proceed, Reason.REQUESTED),
        ("suggested", "1.110.1", Skip, Reason.CURRENT),
    ],
)
def test_a_person_names_the_target(to: str, version: str, kind: type[Decision], reason: Reason) -> None:
    found = judge(asked(Trigger.PERSON, to=to), status(installed=installed(version)))
    assert (type(found), found.reason) == (kind, reason)


def test_a_remediation_needs_a_document_but_for_an_artifact_of_a_named_version() -> None:
    blind = status(allowed=NOTHING, verdict=Verdict(UpdateState.UNKNOWN, reason="no document"))
    for trigger in Trigger:
        assert judge(asked(trigger), blind).reason is Reason.ALLOWED_UNKNOWN
    named = {"to": "1.104.5"}
    local = {"artifact": "/a.zip", "sha256": "0" * 64}
    assert judge(asked(Trigger.PERSON, **named), blind).reason is Reason.ALLOWED_UNKNOWN
    assert judge(asked(Trigger.PERSON, **local), blind).reason is Reason.ALLOWED_UNKNOWN
    assert judge(asked(Trigger.PERSON, to="minimum", **local), blind).reason is Reason.ALLOWED_UNKNOWN
    assert isinstance(judge(asked(Trigger.PERSON, **named, **local), blind), Proceed)


def test_what_the_binary_does_not_say() -> None:
    silent = status(installed=NOTHING, verdict=Verdict(UpdateState.UNKNOWN, reason="?"))
    for trigger in Trigger:
        assert judge(asked(trigger), silent).reason is Reason.INSTALLED_UNKNOWN


def test_a_development_build_is_for_a_person_to_replace() -> None:
    verdict = Verdict(UpdateState.UNKNOWN, reason="a development build")
    of = status(installed=installed(release=False), verdict=verdict)
    assert judge(asked(), of).reason is Reason.DEVELOPMENT_BUILD
    assert judge(asked(Trigger.WATCH), of).reason is Reason.DEVELOPMENT_BUILD
    assert judge(asked(Trigger.PERSON), of).reason is Reason.UPDATE_STATE_UNKNOWN
    assert isinstance(judge(asked(Trigger.PERSON, to="1.104.5"), of), Proceed)


def test_nodes_that_share_the_binary_are_started_each_by_its_own_state() -> None:
    def like(name: str, state: ServiceState, code: int | None = 1) -> NodeStatus:
        return status(state, node=name, service=service(state, code))

    statuses = {
        "alpha": like("alpha", ServiceState.STOPPED),
        "looping": like("looping", ServiceState.CRASH_LOOPING),
        "crashed": like("crashed", ServiceState.CRASHED),
        "killed": like("killed", ServiceState.CRASHED, None),
        "running": like("running", ServiceState.RUNNING),
        "unknown": like("unknown", ServiceState.UNKNOWN),
        "masked": like("masked", ServiceState.MASKED),
    }
    found = decide(asked(), statuses, History(), RULES, NOW)
    assert isinstance(found, Proceed)
    assert {name: each.reason for name, each in found.starts.items()} == {
        "alpha": StartReason.ASKED_TO_STOP,
        "looping": StartReason.TOO_OLD_TO_START,
        "crashed": StartReason.TOO_OLD_TO_START,
        "killed": StartReason.OTHER_CAUSE,
    }


versions = st.builds(
    NodeVersion, st.integers(0, 3), st.integers(0, 200), st.integers(0, 9), st.sampled_from(["", "rc"])
)
failures = st.builds(Failure, st.sampled_from(FailureReason), st.text(max_size=5))
releases = st.builds(Release, version=versions, url=st.sampled_from(["", OURS, "x"]))
documents = st.builds(
    Process, minimum=releases, suggested=releases, seed=st.just(bytes(32)), cursor=st.just(bytes(32))
).map(allowed)
statuses_ = st.builds(
    NodeStatus,
    node=st.just("alpha"),
    manager=st.just("systemd"),
    service=st.builds(
        ServiceStatus,
        state=st.sampled_from(ServiceState),
        detail=st.just("d"),
        exit_code=st.none() | st.integers(0, 255),
    ),
    installed=st.builds(InstalledVersion, version=versions, release=st.booleans(), device=st.just(1), inode=st.just(1))
    | failures,
    running=versions.map(str).map(answer) | st.just(NOTHING),
    allowed=documents | failures,
    verdict=st.builds(Verdict, st.sampled_from(UpdateState), st.none() | versions),
)
asks = st.builds(Request, node=st.just("alpha"), trigger=st.sampled_from([Trigger.ALERT, Trigger.WATCH])) | st.builds(
    Request,
    node=st.just("alpha"),
    trigger=st.just(Trigger.PERSON),
    to=st.none() | st.sampled_from(["minimum", "suggested"]) | versions.map(str),
    start=st.none() | st.sampled_from(Start),
    stop_running=st.booleans(),
    artifact=st.none() | st.just("/a.zip"),
)
histories = st.builds(
    History,
    known_bad=st.dictionaries(versions, st.text(max_size=3), max_size=2),
    last_minimum=st.none() | st.tuples(versions, st.floats(0, 2e9)),
)


@given(asks, statuses_, histories, st.sampled_from(Start), st.floats(0, 4e9))
@settings(max_examples=400, deadline=None)
def test_decide_never_raises_and_never_breaks_its_promises(
    request: Request, of: NodeStatus, history: History, start: Start, now: float
) -> None:
    found = decide(request, {"alpha": of}, history, Rules(start=start), now)
    if not isinstance(found, Proceed):
        return
    automatic = request.trigger is not Trigger.PERSON
    if of.service.state is ServiceState.RUNNING and isinstance(of.running, RunningNode):
        assert found.target >= of.running.version or str(found.target) == request.to
    assert isinstance(of.installed, InstalledVersion)
    assert found.target > of.installed.version
    assert of.service.state in DOWN or (request.stop_running and of.service.state is ServiceState.RUNNING)
    if automatic:
        assert of.installed.release
        assert of.verdict.state is UpdateState.BELOW_MINIMUM
        assert of.service.state in DOWN
        assert found.target not in history.known_bad
        assert isinstance(of.allowed, AllowedVersions)
    if automatic and start is Start.IF_CRASHED and of.service.state is ServiceState.STOPPED:
        assert not found.starts["alpha"].start


def test_the_rules_are_read_from_the_configuration() -> None:
    node = {"name": "alpha", "service": "systemd:a.service", "binary": "/x"}
    config = Config.model_validate({"nodes": [node], "remediation": {"start": "never", "confirm_timeout": "1h"}})
    assert read_rules(config, source="c.yml").start is Start.NEVER
