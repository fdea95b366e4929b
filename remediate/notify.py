"""Telling somebody what was done, or that a person is needed: a program of the operator's choice gets the report."""

import json
import logging
import subprocess
import time
from collections.abc import Sequence

from exporter.status import DAY
from remediate.decision import Reason, Refuse
from remediate.report import Report
from remediate.store import Store

logger = logging.getLogger(__name__)

_TIME_LIMIT = 60.0
_KEEP_TRYING = DAY
_OF_A_VERSION = frozenset({Reason.KNOWN_BAD, Reason.NEVER_INSTALL, Reason.DRY_RUN})
"""Their details name it, and change with nothing else."""
_WELL = frozenset({Reason.RUNNING, Reason.CURRENT})


def tell(argv: Sequence[str], store: Store, report: Report | None = None, *, now: float | None = None) -> None:
    """Tell of each run that nobody asked for, once, and of a decision that needs a person, once until it changes.

    What could not be told is told the next time: of a run, for a day.
    """
    with store.alone("telling"):
        for run in store.untold((time.time() if now is None else now) - _KEEP_TRYING):
            if not _deliver(argv, Report.of(run)):
                return  # a program that hangs takes its time once, not for each
            store.mark_told(run)
        if report is None:
            return
        if (need := _need(report)) is not None:
            if store.said(report.node, report.program) != need and _deliver(argv, report):
                store.say(report.node, report.program, need)
        elif report.decision.reason in _WELL:
            store.say(report.node, report.program, None)


def _need(report: Report) -> str | None:
    """Say for what a person is needed, in words that change when that does."""
    if report.run is not None:
        return Reason.STILL_HELD if report.run.finished is None else None
    reason, detail = report.decision.reason, report.decision.detail
    if not isinstance(report.decision, Refuse) and reason is not Reason.DRY_RUN:
        return None
    return f"{reason}: {detail}" if reason in _OF_A_VERSION else reason


def _deliver(argv: Sequence[str], report: Report) -> bool:
    """Run the program; what it prints goes to our log's stream, so that nothing of it has to be read."""
    text = json.dumps(report.as_json(), indent=2)
    try:
        done = subprocess.run(argv, input=text.encode(), stdout=2, stderr=2, timeout=_TIME_LIMIT, check=False)
        problem = f"exit status {done.returncode}" if done.returncode else None
    except OSError as error:
        problem = error.strerror
    except subprocess.TimeoutExpired:  # its text has the arguments, a token among them perhaps
        problem = f"did not end within {_TIME_LIMIT} s"
    if problem is not None:
        logger.error("notification failed", extra={"node": report.node, "program": argv[0], "problem": problem})
    return problem is None
