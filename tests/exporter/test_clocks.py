"""The clocks of a node that nobody reaches: what they are counted from, and what is said at each age."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.cache import Cache
from exporter.check import Level, advice, level
from exporter.checked import checked
from exporter.clocks import Clocks, follow
from exporter.status import (
    DAY,
    Basis,
    Clock,
    Failure,
    FailureReason,
    RunningNode,
    ServiceState,
    ServiceStatus,
)
from exporter.version import NodeVersion
from tests.exporter.test_metrics import DOWN, RUNNING, samples

NOW = 1_800_000_000.0
HOUR = 3600.0
REFUSED = Failure(FailureReason.UNREACHABLE, "nobody answers")
HANGS = Failure(FailureReason.TIMEOUT, "no answer within 2 s")
KNOWN = Clock(NOW - 10 * DAY, Basis.CONTACT, NOW - 15)
LONG_AGO = replace(KNOWN, known=NOW - HOUR - 1)
STOPPED, CRASHED, LOOPING = ServiceState.STOPPED, ServiceState.CRASHED, ServiceState.CRASH_LOOPING


def service(state: ServiceState, since: float | None = None) -> ServiceStatus:
    return ServiceStatus(state=state, detail="", since=since)


def says(contact: float | None, started: float | None = None) -> RunningNode:
    return RunningNode(version=NodeVersion(1), node_id="", allowed_version=None, started=started, last_contact=contact)


def contact(since: float) -> Clock:
    return Clock(since, Basis.CONTACT, NOW)


def stopped(since: float) -> Clock:
    return Clock(since, Basis.STOPPED, NOW)


GOES_ON = replace(KNOWN, known=NOW)


@pytest.mark.parametrize(
    ("before", "seen", "running", "expected"),
    [
        # the node says so, whatever was known
        (None, service(ServiceState.RUNNING), says(NOW - 60), contact(NOW - 60)),
        (KNOWN, service(ServiceState.RUNNING), says(NOW - 60), contact(NOW - 60)),
        (LONG_AGO, service(ServiceState.UNKNOWN), says(NOW - 60), contact(NOW - 60)),
        # it stopped while it was watched, or was stopped within the hour after
        (KNOWN, service(STOPPED, NOW - 5), REFUSED, GOES_ON),
        (KNOWN, service(STOPPED), REFUSED, GOES_ON),
        (LONG_AGO, service(STOPPED, NOW - 2), REFUSED, GOES_ON),
        # it may have gone on meanwhile
        (replace(KNOWN, known=NOW - HOUR - 2), service(STOPPED, NOW - 1), REFUSED, stopped(NOW - 1)),
        (LONG_AGO, service(STOPPED), REFUSED, stopped(NOW)),
        (LONG_AGO, service(ServiceState.MASKED, NOW), REFUSED, stopped(NOW)),
        (LONG_AGO, service(ServiceState.ABSENT), REFUSED, stopped(NOW)),
        # nothing was known
        (None, service(STOPPED, NOW - 3 * DAY), REFUSED, stopped(NOW - 3 * DAY)),
        (None, service(STOPPED), REFUSED, stopped(NOW)),
        (None, service(STOPPED, NOW + 9), REFUSED, stopped(NOW)),
        (None, service(CRASHED, NOW - 5), REFUSED, stopped(NOW - 5)),
        # a loop, and a start by hand that fails, end anew each time
        (KNOWN, service(LOOPING, NOW - 1), REFUSED, GOES_ON),
        (KNOWN, service(CRASHED, NOW - 1), REFUSED, GOES_ON),
        (replace(KNOWN, basis=Basis.STOPPED), service(CRASHED, NOW - 1), REFUSED, stopped(KNOWN.since)),
        # up, and nobody has reached it since
        (KNOWN, service(ServiceState.RUNNING), says(None, NOW - 5), GOES_ON),
        (None, service(ServiceState.RUNNING), says(None, NOW - 5 * HOUR), stopped(NOW - 5 * HOUR)),
        (replace(KNOWN, known=NOW - DAY), service(ServiceState.RUNNING), says(None, NOW - 5), stopped(NOW - 5)),
        (replace(KNOWN, known=NOW - DAY), service(ServiceState.RUNNING), says(None), stopped(NOW)),
        # it may be reached, or not
        (None, service(ServiceState.RUNNING, NOW - 9), HANGS, None),
        (KNOWN, service(ServiceState.RUNNING, NOW - 9), REFUSED, KNOWN),
        (KNOWN, service(ServiceState.STARTING, NOW - 9), REFUSED, KNOWN),
        (KNOWN, service(ServiceState.UNKNOWN), HANGS, KNOWN),
        # a process that we may not see, but nobody answers for it any more
        (KNOWN, service(ServiceState.UNKNOWN), REFUSED, GOES_ON),
        (LONG_AGO, service(ServiceState.UNKNOWN), REFUSED, LONG_AGO),
        (None, service(ServiceState.UNKNOWN), REFUSED, None),
        # clocks that were set back, a little and a lot
        (replace(KNOWN, known=NOW + 60), service(STOPPED, NOW - 9), REFUSED, GOES_ON),
        (Clock(NOW + 9 * DAY, Basis.CONTACT, NOW + 9 * DAY), service(STOPPED, NOW - 9), REFUSED, stopped(NOW - 9)),
    ],
)
def test_what_is_counted_from(
    before: Clock | None, seen: ServiceStatus, running: RunningNode | Failure, expected: Clock | None
) -> None:
    assert follow(before, seen, running, NOW) == expected


def test_the_deadlines() -> None:
    assert (KNOWN.suspended - KNOWN.since, KNOWN.disqualified - KNOWN.since) == (12 * DAY, 30 * DAY)


def watch(clocks: Clocks, *looks: tuple[float, ServiceStatus, RunningNode | Failure]) -> list[Clock | None]:
    """Return the clock at each look."""
    return [clocks.follow("n", seen, running, at)[0] for at, seen, running in looks]


def test_a_node_that_loops_for_days_is_counted_from_its_last_contact(tmp_path: Path) -> None:
    clocks = Clocks(Cache(tmp_path))
    end = NOW + 11 * DAY
    watch(clocks, (NOW, service(ServiceState.RUNNING), says(NOW - 60)))
    at = NOW + 60
    while at < end:
        (clock,) = watch(clocks, (at, service(LOOPING, at - 1), REFUSED))
        assert clock == Clock(NOW - 60, Basis.CONTACT, at)
        at += HOUR / 2
    # the exporter is started anew, and somebody tries to start the node by hand
    clocks.save(at_once=True)
    again = Clocks(Cache(tmp_path))
    (first, second) = watch(
        again, (end, service(CRASHED, end - 5), REFUSED), (end + 60, service(ServiceState.RUNNING), HANGS)
    )
    assert first == Clock(NOW - 60, Basis.CONTACT, end)
    assert second == first, "whether it is reached now is not known at once"
    (third,) = watch(again, (end + HOUR + 1, service(ServiceState.RUNNING), HANGS))
    assert third is None, "nor does it stay so"


def test_what_was_known_is_the_last_contact_also_when_the_node_is_out_of_sight(tmp_path: Path) -> None:
    clocks = Clocks(Cache(tmp_path))
    clocks.follow("n", service(ServiceState.RUNNING), says(NOW), NOW)
    assert clocks.follow("n", service(ServiceState.RUNNING), HANGS, NOW + 5 * DAY) == (None, NOW)
    assert clocks.follow("n", service(STOPPED, NOW + 5 * DAY), REFUSED, NOW + 6 * DAY) == (
        Clock(NOW + 5 * DAY, Basis.STOPPED, NOW + 6 * DAY),
        None,
    )


def kept(folder: Path) -> Any:
    return json.loads((folder / "last-contact.json").read_text())["kept"]


def test_what_was_kept_by_an_earlier_version_is_used(tmp_path: Path) -> None:
    (tmp_path / "last-contact.json").write_text(json.dumps({"format": 1, "kept": {"n": NOW, "other": NOW}}))
    clocks = Clocks(Cache(tmp_path))
    assert watch(clocks, (NOW + 2 * DAY, service(STOPPED, NOW + 60), REFUSED)) == [
        Clock(NOW, Basis.CONTACT, NOW + 2 * DAY)
    ]
    clocks.save()
    assert kept(tmp_path)["n"] == {"since": NOW, "basis": "contact", "known": NOW + 2 * DAY}
    assert kept(tmp_path)["other"] == {"since": NOW, "basis": "contact", "known": NOW}


@pytest.mark.parametrize(
    "damaged",
    ["soon", {}, {"since": 1.0, "basis": "guess", "known": 1.0}, {"since": "1", "basis": "contact", "known": 1.0}],
)
def test_what_makes_no_sense_is_said_and_costs_no_other(
    damaged: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"since": NOW - 5 * DAY, "basis": "stopped", "known": NOW}
    (tmp_path / "last-contact.json").write_text(json.dumps({"format": 1, "kept": {"n": good, "other": damaged}}))
    clocks = Clocks(Cache(tmp_path))
    assert [record.message for record in caplog.records] == ["what was kept is damaged and not used"]
    assert watch(clocks, (NOW + 9, service(LOOPING, NOW), REFUSED)) == [Clock(NOW - 5 * DAY, Basis.STOPPED, NOW + 9)]


def test_who_only_reads_writes_nothing(tmp_path: Path) -> None:
    clocks = Clocks(Cache(tmp_path, keep=False))
    watch(clocks, (NOW, service(STOPPED), REFUSED))
    clocks.save(at_once=True)
    assert list(tmp_path.iterdir()) == []


LAST = "last contact 2027-01-15 08:00 UTC"
AGES = [
    (0, None),
    (4 * HOUR - 1, None),
    (4 * HOUR, f"Not reached for 4 hours ({LAST}). Suspended in about 12 days, disqualified for good in 30 days."),
    (DAY, f"Not reached for 24 hours ({LAST}). Suspended in about 11 days, disqualified for good in 29 days."),
    (3 * DAY, f"Not reached for 3 days ({LAST}). Suspended in about 9 days, disqualified for good in 27 days."),
    (10 * DAY, f"Not reached for 10 days ({LAST}). Suspended in about 2 days, disqualified for good in 20 days."),
    (11 * DAY, f"Not reached for 11 days ({LAST}). Suspended in about 24 hours, disqualified for good in 19 days."),
    (12 * DAY, f"Not reached for 12 days ({LAST}). Suspended by now; disqualified for good in 18 days."),
    (25 * DAY, f"Not reached for 25 days ({LAST}). Suspended by now; disqualified for good in 5 days."),
    (30 * DAY - 1, f"Not reached for 30 days ({LAST}). Suspended by now; disqualified for good in 0 hours."),
    (30 * DAY, f"Not reached for 30 days ({LAST}). Suspended by now, and any day disqualified for good."),
    (99 * DAY, f"Not reached for 99 days ({LAST}). Suspended by now, and any day disqualified for good."),
]


@pytest.mark.parametrize(("age", "said"), AGES)
def test_what_check_says_at_each_age(age: float, said: str | None) -> None:
    for status in (DOWN, RUNNING):
        aged = replace(status, clock=Clock(NOW, Basis.CONTACT, NOW + age))
        lines = [line for line in advice(aged) if "reached" in line]
        assert lines == ([] if said is None else [said])
        unwell = status is DOWN or said is not None
        assert (level(aged) is not Level.WELL) == unwell


def test_a_lower_bound_is_called_one() -> None:
    aged = replace(DOWN, clock=Clock(NOW, Basis.STOPPED, NOW + 5 * DAY))
    assert any(
        line.startswith("Not reached for 5 days (at least: down since 2027-01-15 08:00 UTC).") for line in advice(aged)
    )


def test_metrics_and_json() -> None:
    aged = replace(DOWN, clock=Clock(NOW, Basis.STOPPED, NOW + 5 * DAY))
    assert [line for line in samples(aged) if "basis" in line] == [
        'storagenode_suspension_timestamp_seconds{basis="stopped",node="down"} 1.8010368e+09',
        'storagenode_disqualification_timestamp_seconds{basis="stopped",node="down"} 1.802592e+09',
    ]
    described = checked(aged).clock
    assert described is not None
    assert (described.since, described.basis) == (NOW, Basis.STOPPED)
    assert (described.suspended, described.disqualified) == (NOW + 12 * DAY, NOW + 30 * DAY)
    assert checked(DOWN).clock is None
    assert not [line for line in samples(DOWN) if "basis" in line]
