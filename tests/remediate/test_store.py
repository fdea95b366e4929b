"""What is on record stays on record, and one at a time holds the lock."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.commandline import Program
from exporter.version import NodeVersion
from remediate.decision import Proceed, Reason, Skip
from remediate.journal import Event, Outcome, Run
from remediate.report import history_text
from remediate.store import BusyError, Store
from tests.remediate.test_plan import RUN, SUBJECT, TARGET


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        Clock.now += 1
        return Clock.now


def begin(store: Store, run: Run = RUN) -> Run:
    return store.begin(
        node=run.node,
        trigger=run.trigger,
        reason=run.reason,
        subject=run.subject,
        target=run.target,
        starts=run.starts,
        seen={"alpha": "crash_looping"},
    )


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path, now=Clock())
    run = begin(store)
    assert (run.subject, run.starts, run.target, run.outcome) == (SUBJECT, RUN.starts, TARGET, None)
    store.note(run.id, "extract", Event.DONE, {"staged": {"device": 1, "inode": 2**63 - 1}})
    store.close()
    again = Store(tmp_path, now=Clock())
    (found,) = again.open_runs()
    assert found.subject == SUBJECT
    assert found.seen == {"alpha": "crash_looping"}
    assert found.journal[0].data == {"staged": {"device": 1, "inode": 2**63 - 1}}
    again.finish(run.id, Outcome.UPDATED, "it runs")
    assert again.open_runs() == []
    (ended,) = again.runs()
    assert (ended.outcome, ended.detail, ended.exit_code) == (Outcome.UPDATED, "it runs", 0)
    assert ended.finished is not None
    assert ended.finished > ended.started


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(5):
        store.finish(begin(store).id, Outcome.LATER, "")
    assert [run.id for run in store.runs(limit=3)] == [5, 4, 3]
    assert [run.id for run in store.runs(node="alpha")] == [5, 4, 3, 2, 1]
    assert [run.id for run in store.runs(node="beta")] == [5, 4, 3, 2, 1], "it is the binary of all three"
    assert store.runs(node="delta") == []


def test_what_later_decisions_need_is_kept_for_each_binary(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.mark_bad(Path("/a"), TARGET, "it hung")
    store.mark_bad(Path("/a"), TARGET, "it hung again")
    store.believe(NodeVersion.parse("1.100.0"), 5.0)
    store.believe(TARGET, 6.0)
    assert store.history(Path("/a"), ()).known_bad == {TARGET: "it hung again"}
    assert store.history(Path("/b"), ()).known_bad == {}
    assert store.history(Path("/b"), ()).last_minimum == (TARGET, 6.0)


def test_counts(tmp_path: Path) -> None:
    store = Store(tmp_path, now=Clock())
    for _ in range(2):
        store.count("alpha", Program.STORAGENODE, Skip(Reason.CURRENT, "it is"))
    store.count("alpha", Program.STORAGENODE, Proceed(target=TARGET, reason=Reason.DUE, starts={}))
    counts = [(each.node, each.decision, each.reason, each.count) for each in store.decisions()]
    assert counts == [("alpha", "proceed", "due", 1), ("alpha", "skip", "current", 2)]
    assert "updater" not in history_text([], store.decisions())
    assert store.last_ends("alpha") == (None, None, None)
    for outcome in (Outcome.UPDATED, Outcome.LATER, Outcome.LATER):
        store.finish(begin(store).id, outcome, "")
    begin(store)
    assert store.run_counts() == [
        ("alpha", "storagenode", "alert", "later", 2),
        ("alpha", "storagenode", "alert", "updated", 1),
    ]
    success, failure, duration = store.last_ends("alpha")
    assert success is not None
    assert failure is not None
    assert success < failure
    assert duration == 1


def test_one_holds_the_lock_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    code = "import sys, time, pathlib; from remediate.store import Store\n"
    code += "with Store(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    store = Store(tmp_path)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="another run is in progress"), store.lock():
            pass
        other.send_signal(signal.SIGKILL)
    with store.lock(), pytest.raises(BusyError), store.lock():
        pass
    with store.lock():
        pass


def test_the_store_is_its_owners_alone(tmp_path: Path) -> None:
    Store(tmp_path / "a/b")
    assert stat.S_IMODE(os.stat(tmp_path / "a/b").st_mode) == 0o700


def test_what_was_said_of_an_updater_is_not_said_of_its_node(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.say("alpha", Program.UPDATER, "known_bad")
    assert (store.said("alpha", Program.STORAGENODE), store.said("alpha", Program.UPDATER)) == (None, "known_bad")
    store.say("alpha", Program.STORAGENODE, "masked")
    store.say("alpha", Program.UPDATER, None)
    assert (store.said("alpha", Program.STORAGENODE), store.said("alpha", Program.UPDATER)) == ("masked", None)
