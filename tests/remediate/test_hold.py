"""What somebody else has done to the binary meanwhile, seen and put right at the end of a run."""

import os
import signal
import threading
import time

import pytest

from remediate.decision import Trigger
from remediate.journal import Inode, Outcome
from remediate.rules import Start
from remediate.steps import hold
from tests.remediate.conftest import OLD, Stage
from tests.remediate.test_invariants import program
from tests.simulators import build

pytestmark = pytest.mark.slow

BACKUP = f"storagenode.old.v{OLD}"


@pytest.mark.parametrize("kill_at", [3, 26, 38], ids=["nothing-done-yet", "staged", "swapped"])
def test_recovery_puts_back_what_a_killed_updater_has_renamed_away(stage: Stage, kill_at: int) -> None:
    """Killed together, in a power cut: the updater between its two renamings, and we."""
    assert program(stage, "run", "--yes", "alpha", kill_at=kill_at) == -signal.SIGKILL
    was = stage.installed
    stage.binary.rename(stage.binary.with_name(BACKUP))
    (run,) = stage.recover()
    assert stage.installed == was
    if was == build.sha256(stage.old):
        assert run.outcome is Outcome.UNDONE
        stage.assert_untouched()
    else:
        assert run.outcome is Outcome.UPDATED
        stage.assert_updated()


def test_only_a_file_that_we_know_is_put_back(stage: Stage) -> None:
    status = stage.binary.stat()
    old = Inode(status.st_dev, status.st_ino)
    backup = stage.binary.with_name(BACKUP)
    os.link(stage.binary, backup)
    assert hold.mend(stage.binary, [old]) == [], "nothing is missing"
    stage.binary.unlink()
    assert hold.mend(stage.binary, [Inode(old.device, old.inode + 1)]) == []
    other = stage.binary.with_name("storagenode.of.old")
    backup.rename(other)
    assert hold.mend(stage.binary, [old]) == []
    other.rename(backup)
    assert hold.mend(stage.binary, [old]) == [str(backup)]
    stage.assert_untouched()
    assert hold.mend(stage.root / "gone/storagenode", [old]) == []


def test_an_old_binary_that_is_back_is_not_called_updated(stage: Stage) -> None:
    """As an updater of before 1.106 does, that was started and overlooked."""

    def take_back() -> None:
        while not stage.running():
            time.sleep(0.01)
        kept = stage.binary.with_name(f".storagenode.keeper-old-{OLD}")
        os.link(kept, stage.binary.with_name(BACKUP))
        stage.binary.with_name(BACKUP).rename(stage.binary)

    thread = threading.Thread(target=take_back)
    thread.start()
    run = stage.ran(start=Start.ALWAYS)
    thread.join()
    assert (run.outcome, run.detail) == (Outcome.ABANDONED, "somebody has put the old binary back")
    stage.assert_untouched()


def test_a_binary_that_is_taken_away_meanwhile_is_nobodys_failure(stage: Stage) -> None:
    """It was an updater's between its two renamings, that was killed there; nothing is held against the version."""
    stage.host.set(behaviour="slow:200000")
    asked = len(stage.host.requests("/asset/"))

    def take_away() -> None:
        while len(stage.host.requests("/asset/")) == asked:
            time.sleep(0.01)
        stage.binary.rename(stage.binary.with_name(BACKUP))

    thread = threading.Thread(target=take_away)
    thread.start()
    run = stage.ran(trigger=Trigger.ALERT)
    thread.join()
    assert (run.outcome, run.detail) == (Outcome.ABANDONED, f"{stage.binary}: somebody has changed it meanwhile")
    stage.assert_untouched()
