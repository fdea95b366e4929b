"""What came of a request, in words, in JSON and as an exit code."""

import json
from dataclasses import replace

import pytest

from exporter.status import ServiceState
from remediate.decision import Proceed, Reason, Refuse, Skip
from remediate.history import Pause
from remediate.journal import Decided, Entry, Event, Outcome
from remediate.report import (
    Plan,
    Report,
    history_json,
    history_text,
    pauses_json,
    pauses_text,
    run_in_full,
    run_json,
    run_text,
    worst,
)
from tests.remediate.test_plan import RUN, STARTS, SUBJECT, TARGET, make

PROCEED = Proceed(target=TARGET, reason=Reason.BELOW_MINIMUM, starts=STARTS)
SKIP = Skip(Reason.CURRENT, "1.104.5 is installed")
REFUSE = Refuse(Reason.MASKED, "somebody forbade it")


@pytest.mark.parametrize(
    ("report", "code", "text"),
    [
        (Report("alpha", SKIP), 0, "alpha: nothing to do (current): 1.104.5 is installed"),
        (Report("alpha", REFUSE), 3, "alpha: refused (masked): somebody forbade it"),
        (
            Report("alpha", PROCEED, replace(RUN, outcome=Outcome.LATER, finished=1.0, detail="answered 500")),
            1,
            "alpha: later, 1.102.3 -> 1.104.5 (alert, below_minimum): answered 500",
        ),
        (
            Report("alpha", PROCEED, RUN),
            4,
            "alpha: not finished: something is still held, 1.102.3 -> 1.104.5 (alert, below_minimum)",
        ),
    ],
)
def test_a_report(report: Report, code: int, text: str) -> None:
    assert (report.exit_code, str(report)) == (code, text)
    assert report.as_json()["exit_code"] == code


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((), 0), ((0, 0), 0), ((0, 3), 3), ((3, 1), 1), ((1, 4, 0), 4), ((2, 1), 2)],
)
def test_the_worst_exit_code(codes: tuple[int, ...], expected: int) -> None:
    assert worst(codes) == expected


def test_a_plan_names_every_node_of_the_binary() -> None:
    steps = make({"alpha": ServiceState.STOPPED})
    text = str(Plan("alpha", PROCEED, SUBJECT, steps))
    assert text.startswith("alpha: update /opt/storj/storagenode, 1.102.3 -> 1.104.5 (below_minimum)\n")
    assert "beta, gamma" in text
    assert text.count("\n") == 1 + len(steps)
    assert str(Plan("alpha", SKIP, None, ())) == str(Report("alpha", SKIP))
    assert Plan("alpha", REFUSE, None, ()).exit_code == 3


def test_a_history() -> None:
    assert history_text([], []) == "no runs yet"
    ended = replace(RUN, id=2, outcome=Outcome.LATER, started=60.0, finished=61.0, detail="answered 500")
    decided = [
        Decided("alpha", "proceed", "below_minimum", 2, 60.0, ""),
        Decided("alpha", "skip", "current", 12, 70.0, "it is"),
        Decided("gamma-2", "refuse", "masked", 1, 80.0, "somebody forbade it"),
    ]
    assert history_text([ended, RUN], decided).splitlines() == [
        "RUN  STARTED               NODE   TRIGGER  VERSIONS            OUTCOME       DETAIL",
        "2    1970-01-01 00:01:00Z  alpha  alert    1.102.3 -> 1.104.5  later         answered 500",
        "1    1970-01-01 00:00:00Z  alpha  alert    1.102.3 -> 1.104.5  not finished",
        "",
        "NODE     DECISION  REASON   TIMES  LAST                  DETAIL",
        "gamma-2  refuse    masked   1      1970-01-01 00:01:20Z  somebody forbade it",
        "alpha    skip      current  12     1970-01-01 00:01:10Z  it is",
    ]


def test_a_history_for_programs() -> None:
    decided = Decided("alpha", "skip", "current", 12, 70.0, "it is")
    content = json.loads(history_json([RUN], [decided]))
    assert content["runs"] == [json.loads(json.dumps(run_json(RUN)))]
    assert content["runs"][0]["finished"] is None
    assert content["decisions"] == [
        {"node": "alpha", "decision": "skip", "reason": "current", "count": 12, "last": 70.0, "detail": "it is"}
        | {"program": "storagenode"}
    ]


def test_a_run_in_full() -> None:
    entry = Entry(step="fetch", event=Event.FAILED, at=5.0, data={"outcome": "later", "detail": "answered 500"})
    ended = replace(RUN, journal=(entry,), outcome=Outcome.LATER, finished=6.0, detail="answered 500")
    lines = run_in_full(ended).splitlines()
    assert lines[0] == run_text(ended)
    assert lines[1].split() == ["binary", str(SUBJECT.binary)]
    assert lines[2].split(maxsplit=1) == ["nodes", ", ".join(SUBJECT.nodes)]
    assert lines[-2:] == [
        '  1970-01-01 00:00:05Z  fetch    failed  outcome="later" detail="answered 500"',
        "  1970-01-01 00:00:06Z  later",
    ]
    assert run_in_full(RUN).splitlines()[-1] == "  not finished: something is still held"


def test_pauses() -> None:
    assert pauses_text([]) == "nothing is paused"
    pauses = [Pause(None, 1.0, None, "holidays"), Pause("alpha", 1.0, 60.0, "new disk")]
    assert pauses_text(pauses).splitlines() == [
        "everything is paused until `resume`: holidays",
        "alpha is paused until 1970-01-01 00:01:00Z: new disk",
    ]
    assert json.loads(pauses_json(pauses))[0] == {"node": None, "since": 1.0, "until": None, "reason": "holidays"}
