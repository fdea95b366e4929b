"""What came of a request, in words, in JSON and as an exit code."""

from dataclasses import replace

import pytest

from exporter.status import ServiceState
from remediate.decision import Proceed, Reason, Refuse, Skip
from remediate.journal import Outcome
from remediate.report import Plan, Report, history_text, run_text, worst
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
    assert history_text([]) == "no runs yet"
    assert history_text([RUN, RUN]).splitlines() == [f"1970-01-01 00:00:00Z  {run_text(RUN)}"] * 2
