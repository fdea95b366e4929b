"""The steps of an update, and of every recovery: from each place a run can be cut off, with each set of files found."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from exporter.status import ServiceState
from exporter.version import NodeVersion
from remediate import planned
from remediate.decision import Proceed, Reason, Request, Trigger
from remediate.journal import Entry, Event, Inode, Outcome, Run, Subject, facts
from remediate.plan import Found, plan, recovery
from remediate.planned import Step
from remediate.rules import Rules, VerifyMode
from remediate.starting import StartDecision, StartReason
from tests.remediate.test_decision import status
from tests.steps import STEPS

OLD, NEW, COPY, OTHER = Inode(1, 10), Inode(1, 20), Inode(1, 30), Inode(1, 40)
SUBJECT = Subject(
    binary=Path("/opt/storj/storagenode"),
    nodes=("alpha", "beta", "gamma"),
    updaters=("updater.service",),
    installed=NodeVersion.parse("1.102.3"),
    old=OLD,
)
STARTS = {
    "alpha": StartDecision(True, StartReason.TOO_OLD_TO_START),
    "beta": StartDecision(False, StartReason.ASKED_TO_STOP),
}
TARGET = NodeVersion.parse("1.104.5")
RUN = Run(
    id=1,
    node="alpha",
    trigger=Trigger.ALERT,
    reason=Reason.BELOW_MINIMUM,
    subject=SUBJECT,
    target=TARGET,
    starts=STARTS,
    started=0.0,
)
HELD: dict[str, dict[str, list[int]]] = {"updater.service": {}}
STAGED = {"staged": {"device": NEW.device, "inode": NEW.inode}}
DATA: dict[tuple[str, Event], dict[str, Any]] = {
    ("hold", Event.INTENT): {"held": HELD},
    ("extract", Event.DONE): STAGED,
    ("confirm", Event.INTENT): {"stop": ["alpha"]},
    ("confirm", Event.DONE): {"down": {"alpha": None}},
    ("start", Event.DONE): {"results": {"alpha": ["updated", "it runs"], "beta": ["updated", "left"]}},
}
ORDER = tuple(STEPS)


def entry(step: str, event: Event) -> Entry:
    return Entry(step=step, event=event, at=0.0, data=DATA.get((step, event), {}))


JOURNAL = tuple(entry(step, event) for step in ORDER for event in (Event.INTENT, Event.DONE))


def make(states: dict[str, ServiceState], request: Request | None = None, **rules: Any) -> tuple[Step, ...]:
    statuses = {name: status(state, node=name) for name, state in states.items()}
    starts = dict.fromkeys(states, STARTS["alpha"])
    decision = Proceed(target=TARGET, reason=Reason.BELOW_MINIMUM, starts=starts)
    asked = request or Request(node="alpha", trigger=Trigger.ALERT)
    return plan(decision, asked, SUBJECT, statuses, "storagenode_linux_arm.zip", Rules(**rules))


def test_the_steps_are_those_of_the_design_in_their_order() -> None:
    steps = make({"alpha": ServiceState.STOPPED})
    assert tuple(step.name for step in steps) == ORDER
    fetch = next(step for step in steps if isinstance(step, planned.Fetch))
    base = "https://github.com/storj/storj/releases/download"
    assert fetch == planned.Fetch(f"{base}/v1.104.5/storagenode_linux_arm.zip", local=False)
    verify = next(step for step in steps if isinstance(step, planned.Verify))
    assert verify.digest_url == "https://api.github.com/repos/storj/storj/releases/tags/v1.104.5"
    assert all(str(step) for step in steps)


def test_a_local_archive_is_vouched_for_by_the_person() -> None:
    request = Request(node="alpha", trigger=Trigger.PERSON, artifact="/a.zip", sha256="0" * 64)
    steps = make({"alpha": ServiceState.STOPPED}, request, verify="require")
    assert planned.Fetch("/a.zip", local=True) in steps
    (verify,) = [step for step in steps if isinstance(step, planned.Verify)]
    assert verify.sha256 == "0" * 64
    assert "given" in str(verify)


@pytest.mark.parametrize("mode", VerifyMode)
def test_verify_says_what_vouches(mode: VerifyMode) -> None:
    (verify,) = [step for step in make({"alpha": ServiceState.STOPPED}, verify=mode) if step.name == "verify"]
    assert ("only TLS" in str(verify)) is (mode is VerifyMode.TLS)


@pytest.mark.parametrize(
    ("states", "stop"),
    [
        ({"alpha": ServiceState.STOPPED}, ()),
        ({"alpha": ServiceState.CRASHED}, ()),
        ({"alpha": ServiceState.CRASH_LOOPING}, ("alpha",)),
        ({"alpha": ServiceState.RUNNING}, ("alpha",)),
        ({"alpha": ServiceState.STOPPED, "beta": ServiceState.CRASH_LOOPING}, ("beta",)),
        ({"alpha": ServiceState.CRASH_LOOPING, "beta": ServiceState.CRASHED}, ("alpha",)),
    ],
)
def test_what_is_stopped_first(states: dict[str, ServiceState], stop: tuple[str, ...]) -> None:
    (confirm,) = [step for step in make(states) if isinstance(step, planned.Confirm)]
    assert confirm.stop == stop


def prefixes() -> Iterator[tuple[Entry, ...]]:
    """Every journal a cut can leave: each prefix, and each with a failure at its end."""
    for length in range(len(JOURNAL) + 1):
        yield JOURNAL[:length]
        if length and JOURNAL[length - 1].event is Event.INTENT:
            yield (*JOURNAL[:length], replace(JOURNAL[length - 1], event=Event.FAILED, data={}))


FOUND = [
    Found(binary=binary, staged=staged, backup=backup)
    for binary, staged, backup in product((OLD, NEW, OTHER, None), (None, NEW, OTHER), (None, OLD, COPY, OTHER))
]


def named(steps: tuple[Step, ...]) -> list[str]:
    return [step.name for step in steps]


@pytest.mark.parametrize("journal", list(prefixes()), ids=lambda journal: f"{len(journal)}")
def test_recovery_from_every_cut_with_every_set_of_files(journal: tuple[Entry, ...]) -> None:
    run = replace(RUN, journal=journal)
    known = facts(journal)
    for found in FOUND:
        steps, outcome = recovery(run, found)
        names = named(steps)
        ends = [name for name in names if name != "prune"]
        assert ends[-1] == "release", "whatever was held is put back at the end"
        assert not {"hold", "fetch", "extract", "confirm", "swap"} & set(names), "nothing new is begun"
        swapped = known.staged is not None and found.binary == known.staged
        if swapped:
            assert outcome is Outcome.UPDATED
            assert names[0] == "seal"
            assert "discard" not in names, "a new binary in place is never taken back, nor its backup removed"
            assert "restore" not in names
        else:
            assert not {"seal", "start", "prune"} & set(names)
            expected = {OLD: Outcome.UNDONE, None: Outcome.FAILED}.get(found.binary, Outcome.SUPERSEDED)
            assert outcome is expected
            discarded = [name for step in steps if isinstance(step, planned.Discard) for name in step.names]
            assert (SUBJECT.staged in discarded) is (found.staged is not None)
            assert SUBJECT.binary.name not in discarded
            kept = found.backup is None or found.binary is None
            assert (SUBJECT.backup in discarded) is not kept, "the last copy of a binary is never removed"
            restored = [node for step in steps if isinstance(step, planned.Restore) for node in step.nodes]
            assert restored == list(known.stopped)
        started = [node for step in steps if isinstance(step, planned.Start) for node in step.nodes]
        assert set(started) <= {"alpha"}, "what was decided to be left is never started"
        assert set(started).isdisjoint(known.started), "what was started is not started twice"
        if swapped and "alpha" not in known.started:
            assert started == ["alpha"]


@pytest.mark.parametrize("journal", list(prefixes()), ids=lambda journal: f"{len(journal)}")
def test_recovery_is_idempotent_and_may_itself_be_cut(journal: tuple[Entry, ...]) -> None:
    for found in FOUND:
        first, outcome = recovery(replace(RUN, journal=journal), found)
        files, seen = found, journal
        for step in first:
            seen = (*seen, entry(step.name, Event.INTENT))
            again, same = recovery(replace(RUN, journal=seen), files)
            assert same is outcome
            assert set(named(again)) <= set(named(first))
            seen = (*seen, entry(step.name, Event.DONE))
            if isinstance(step, planned.Discard):
                staged = None if SUBJECT.staged in step.names else files.staged
                backup = None if SUBJECT.backup in step.names else files.backup
                files = Found(binary=files.binary, staged=staged, backup=backup)
        again, same = recovery(replace(RUN, journal=seen), files)
        assert same is outcome
        assert not {"discard", "restore"} & set(named(again))
        assert not [step for step in again if isinstance(step, planned.Start) and step.nodes]
        assert not facts(seen).held
        assert not facts(seen).stopped
