"""I1 to I6 of the design, on the real program: killed at every journal line, at writes and renames, and asked again.

The binary is hashed after each kill, the run recovered (the recovery killed as well), and recovered once more.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from remediate.decision import Reason, Trigger
from remediate.journal import Outcome, facts
from remediate.rules import Start
from tests.labs import install
from tests.remediate.conftest import NEW, OLD, Stage, wait_until
from tests.remediate.test_plan import ORDER
from tests.simulators import build
from tests.simulators.node import Node

pytestmark = pytest.mark.slow

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
PROGRAM = """
import os, signal
from remediate import store
from remediate.services.process import ProcessControl
from remediate.steps import start
start._STAYS_UP_SECONDS = 0.1
ProcessControl.ends_unseen_seconds = float(os.environ.get("ENDS_UNSEEN", 0))
kill_at, seen, note, finish = int(os.environ.get("KILL_AT", 0)), 0, store.Store.note, store.Store.finish

def dying(real):
    def step(*arguments):
        global seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return step

store.Store.note, store.Store.finish = dying(note), dying(finish)
from remediate.cli import main
main()
"""
MOMENTS = 2 * (2 * len(ORDER) + 1)
"""Before and after each of the two journal lines of each step, and of the end."""


def program(stage: Stage, *arguments: str, kill_at: int = 0, strace: Sequence[str] = ()) -> int:
    """Run the real program; -9 when it was killed."""
    command = [
        *strace,
        sys.executable,
        "-c",
        PROGRAM,
        arguments[0],
        "--config.file",
        str(stage.write()),
        *arguments[1:],
    ]
    environment = {**os.environ, "KILL_AT": str(kill_at)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode


def whole(stage: Stage) -> str:
    """I1: the path names the old binary or the new one, whole and executable; say which."""
    assert stage.binary.stat().st_mode & 0o111 == 0o111
    return {build.sha256(stage.old): "old", build.sha256(stage.new): "new"}[stage.installed]


def assert_ended(stage: Stage, node: str | None = None) -> None:
    """I3: finished or undone, nothing left over, nothing open. With several nodes, of this one."""
    with stage.assembly() as assembly:
        assert assembly.store.open_runs() == []
        (run,) = assembly.store.runs(node=node)
        assert not facts(run.journal).held
        assert not facts(run.journal).stopped
    if whole(stage) == "new":
        stage.assert_updated()
        assert run.outcome in (Outcome.UPDATED, Outcome.UNCONFIRMED)
    else:
        stage.assert_untouched()
        assert run.outcome is Outcome.UNDONE


def reset(stage: Stage) -> None:
    stage.end()
    for name in stage.entries():
        (stage.folder / name).unlink()
    stage.install(stage.old)
    shutil.rmtree(stage.state_dir, ignore_errors=True)


@pytest.mark.parametrize("kill_at", range(1, MOMENTS + 1, 1 if EXHAUSTIVE else 5))
def test_i1_i3_killed_at_a_journal_line(stage: Stage, kill_at: int) -> None:
    start = "always" if kill_at % 2 else "never"
    assert program(stage, "run", "--yes", "--start", start, "alpha", kill_at=kill_at) == -signal.SIGKILL
    first = whole(stage)
    # A recovery that is killed itself, somewhere, and then one that is not.
    assert program(stage, "recover", kill_at=2 + kill_at % 7) in (-signal.SIGKILL, 0, 1)
    assert whole(stage) == first
    code = program(stage, "recover")
    assert code in (0, 1)
    assert whole(stage) == first, "recovery neither swaps nor takes back"
    assert_ended(stage)
    before = stage.entries(), stage.binary.stat().st_ino
    assert program(stage, "recover") == 0
    assert (stage.entries(), stage.binary.stat().st_ino) == before
    assert stage.running() is (first == "new" and start == "always")


@pytest.mark.parametrize(
    ("call", "counts"),
    [("rename,renameat,renameat2", (1,)), ("link,linkat", (1,)), ("fsync", (1, 3)), ("fchmod", (1,))],
)
def test_i1_i3_killed_at_a_system_call(stage: Stage, call: str, counts: tuple[int, ...]) -> None:
    """Only calls on the binary's folder count, so that a kill is where a power cut would hurt."""
    install({"strace": "strace"})
    for count in counts:
        reset(stage)
        paths = [stage.folder, stage.binary, stage.folder / ".storagenode.keeper-new"]
        strace = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={call}"]
        strace += ["-e", f"inject={call}:signal=KILL:when={count}"]
        strace += [part for path in paths for part in ("-P", str(path))]
        code = program(stage, "run", "--yes", "alpha", strace=strace)
        first = whole(stage)
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL, 0), code
        if code == 0:
            assert count > 1, f"{call} is never called"
            break
        assert program(stage, "recover") in (0, 1)
        assert whole(stage) == first
        assert_ended(stage)


def test_i2_what_is_stopped_is_on_record_before_it_is_stopped(stage: Stage) -> None:
    """Killed after each line until the node has been stopped for the update: then recovery starts it again."""
    stage.versions.set(minimum="1.0.0")
    confirm = 2 * 2 * ORDER.index("confirm")
    with Node(stage.binary, stage.root / "alpha") as node:
        node.api(stage.nodes[0]["api"])
        # After the intent of the step that stops it; it has not been stopped yet.
        arguments = ("run", "--yes", "--stop-running", "alpha")
        assert program(stage, *arguments, kill_at=confirm + 2) == -signal.SIGKILL
        assert node.process.poll() is None
        with stage.assembly() as assembly:
            (run,) = assembly.store.open_runs()
            assert facts(run.journal).stopped == ("alpha",)
        assert program(stage, "recover") == 1
        assert node.process.poll() is None, "it runs, so nothing is to be done"
        assert_ended(stage)
        shutil.rmtree(stage.state_dir)
        # Before the end of that step is on record; it has been stopped.
        assert program(stage, *arguments, kill_at=confirm + 3) == -signal.SIGKILL
        assert node.process.wait(60) == 0
    assert not stage.running()
    assert program(stage, "recover") == 1
    assert stage.running()
    assert_ended(stage)


def test_i2_a_node_that_ends_only_after_we_were_killed_is_started_again(stage: Stage) -> None:
    """It was asked to end, and takes its time: that a bare process is ending nobody can see."""
    stage.versions.set(minimum="1.0.0")
    command = [sys.executable, "-c", PROGRAM]
    with Node(stage.binary, stage.root / "alpha") as node:
        node.api(stage.nodes[0]["api"])
        node.process.send_signal(signal.SIGSTOP)  # what it is told from now on, it hears later
        asking = ["run", "--config.file", str(stage.write()), "--yes", "--stop-running", "--to", NEW, "alpha"]
        with subprocess.Popen([*command, *asking], stderr=subprocess.DEVNULL, text=True) as run:
            wait_until(lambda: asked_to_end(node.process.pid), 60)
            run.kill()
        recovering = [*command, "recover", "--config.file", str(stage.config_file)]
        waits = {**os.environ, "ENDS_UNSEEN": "600"}
        with subprocess.Popen(recovering, stdout=subprocess.PIPE, text=True, env=waits) as recover:
            with pytest.raises(subprocess.TimeoutExpired):
                recover.wait(1.5)
            node.process.send_signal(signal.SIGCONT)
            assert node.process.wait(60) == 0
            assert recover.wait(60) == 1
    assert stage.running()
    assert_ended(stage)


def asked_to_end(pid: int) -> bool:
    """Whether SIGTERM waits for a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["ShdPnd"], 16) & 1 << signal.SIGTERM - 1)


def test_i2_what_cannot_be_put_back_stays_on_record(stage: Stage) -> None:
    """Killed while an updater was held, and now there is no systemd to start it: nothing else is begun meanwhile."""
    stage.nodes[0]["updater_service"] = "systemd:updater.service"
    assert program(stage, "run", "--yes", "alpha") == 1, "it cannot be told whether the updater is at work"
    del stage.nodes[0]["updater_service"]
    assert program(stage, "run", "--yes", "alpha", kill_at=7) == -signal.SIGKILL
    with sqlite3.connect(stage.state_dir / "store.sqlite") as store:
        held = '{"held": {"updater.service": {}}}'
        changed = store.execute("UPDATE journal SET data = ? WHERE step = 'hold' AND data != '{}' AND run = 2", (held,))
        assert changed.rowcount
    for _ in range(2):
        assert program(stage, "recover") == 4
        with stage.assembly() as assembly:
            (run,) = assembly.store.open_runs()
            assert set(facts(run.journal).held) == {"updater.service"}
        report = stage.run(trigger=Trigger.ALERT)
        assert report.decision.reason is Reason.STILL_HELD
        assert report.exit_code == 4
    assert program(stage, "work") == 1, "nothing is asked for, but it has to be started again, to try again"
    stage.assert_untouched()


def test_i3_a_folder_that_is_gone_is_waited_for(stage: Stage) -> None:
    assert program(stage, "run", "--yes", "alpha", kill_at=20) == -signal.SIGKILL
    away = stage.root / "away"
    stage.folder.rename(away)
    assert program(stage, "recover") == 4
    away.rename(stage.folder)
    assert program(stage, "recover") == 1
    assert_ended(stage)


def add_elsewhere(stage: Stage) -> Path:
    """Configure one more node, of a binary in another folder."""
    elsewhere = stage.root / "elsewhere" / "storagenode"
    elsewhere.parent.mkdir()
    shutil.copy(stage.old, elsewhere)
    stage.add("beta", binary=str(elsewhere))
    return elsewhere


def test_i3_a_folder_that_is_gone_keeps_its_own_nodes_waiting_and_no_others(stage: Stage) -> None:
    elsewhere = add_elsewhere(stage)
    assert program(stage, "run", "--yes", "alpha", kill_at=20) == -signal.SIGKILL
    away = stage.root / "away"
    stage.folder.rename(away)
    assert stage.ran(node="beta", trigger=Trigger.ALERT).outcome is Outcome.UPDATED
    assert build.sha256(elsewhere) == build.sha256(stage.new)
    refused = stage.run(trigger=Trigger.ALERT)
    assert (refused.decision.reason, refused.exit_code) == (Reason.STILL_HELD, 4)
    stage.nodes[0]["name"] = "renamed"
    assert stage.run(node="renamed", trigger=Trigger.ALERT).decision.reason is Reason.STILL_HELD
    stage.nodes[0]["name"] = "alpha"
    away.rename(stage.folder)
    assert program(stage, "recover") == 1
    assert_ended(stage, "alpha")
    assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.UPDATED


def test_i3_every_run_that_was_interrupted_is_recovered(stage: Stage) -> None:
    elsewhere = add_elsewhere(stage)
    assert program(stage, "run", "--yes", "alpha", kill_at=20) == -signal.SIGKILL
    away = stage.root / "away"
    stage.folder.rename(away)
    assert program(stage, "run", "--yes", "beta", kill_at=20) == -signal.SIGKILL
    away.rename(stage.folder)
    assert [run.node for run in stage.recover()] == ["alpha", "beta"]
    assert os.listdir(elsewhere.parent) == ["storagenode"]
    assert_ended(stage, "alpha")


def test_i3_somebody_else_has_replaced_the_binary_since(stage: Stage, tmp_path: Path) -> None:
    assert program(stage, "run", "--yes", "alpha", kill_at=20) == -signal.SIGKILL
    other = build.node("1.110.0", tmp_path / "other")
    stage.install(other)
    (run,) = stage.recover()
    assert (run.outcome, run.exit_code) == (Outcome.SUPERSEDED, 0)
    assert stage.installed == build.sha256(other)
    assert stage.entries() == ["storagenode"]


def test_i3_the_last_copy_of_a_binary_is_never_removed(stage: Stage) -> None:
    swap_done = 2 * (2 * ORDER.index("swap") + 1) + 1
    assert program(stage, "run", "--yes", "alpha", kill_at=swap_done) == -signal.SIGKILL
    assert whole(stage) == "new"
    stage.binary.unlink()
    (run,) = stage.recover()
    assert (run.outcome, run.exit_code) == (Outcome.FAILED, 1)
    assert "no longer there" in run.detail
    assert stage.entries() == [f".storagenode.keeper-old-{OLD}"]


def test_i4_what_failed_by_itself_is_remembered_for_alerts_only(stage: Stage, tmp_path: Path) -> None:
    good = stage.archive.read_bytes()
    stage.publish(build.node("1.104.4", tmp_path / "wrong"))
    assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.BAD_VERSION
    stage.archive.write_bytes(good)
    for trigger in (Trigger.ALERT, Trigger.WATCH):
        refused = stage.run(trigger=trigger)
        assert (refused.decision.reason, refused.run) == (Reason.KNOWN_BAD, None)
        assert "is 1.104.4, expected 1.104.5" in str(refused)
    stage.assert_untouched()
    assert stage.ran().outcome is Outcome.UPDATED


def test_i4_what_failed_for_the_networks_sake_is_tried_again(stage: Stage) -> None:
    stage.host.set(behaviour="truncate")
    assert [stage.ran(trigger=Trigger.ALERT).outcome for _ in range(2)] == [Outcome.LATER] * 2
    stage.host.set(behaviour="ok")
    assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.UPDATED


@pytest.mark.parametrize("trigger", Trigger)
def test_i5_the_installed_version_never_goes_down(stage: Stage, tmp_path: Path, trigger: Trigger) -> None:
    newer = build.node("1.110.0", tmp_path / "newer")
    stage.install(newer)
    for minimum, suggested in ((NEW, NEW), ("1.0.0", NEW), (NEW, "1.105.0")):
        stage.versions.set(minimum=minimum, suggested=suggested)
        assert stage.run(trigger=trigger).run is None
    if trigger is Trigger.PERSON:
        assert stage.run(to="1.109.0").decision.reason is Reason.DOWNGRADE
    assert stage.installed == build.sha256(newer)


def test_i5_a_new_binary_that_fails_to_start_is_not_taken_back(stage: Stage, tmp_path: Path) -> None:
    crashing = build.node(NEW, tmp_path / "crashing", misbehave="crash")
    stage.publish(crashing)
    assert stage.ran(start=Start.ALWAYS).outcome is Outcome.START_FAILED
    assert stage.recover() == []
    assert stage.installed == build.sha256(crashing)


def test_i6_a_flood_of_requests_is_one_run(stage: Stage) -> None:
    """Many at once, while a slow download lasts, of alerts and of people."""
    stage.host.set(behaviour="slow:1000000")
    before = len(stage.host.requests("/asset/"))
    (stage.spool / "alpha").touch()
    command = [sys.executable, "-c", PROGRAM]
    arguments = ["--config.file", str(stage.write())]
    several = [["work", *arguments], ["run", *arguments, "--yes", "alpha"], ["work", *arguments]]
    crowd = [
        subprocess.Popen([*command, *each], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for each in several
    ]
    ends = [(process.communicate(timeout=120), process.returncode) for process in crowd]
    assert {code for _, code in ends} <= {0, 3}
    assert not any("Traceback" in said[1] for said, _ in ends)
    assert program(stage, "work") == 0
    with stage.assembly() as assembly:
        (run,) = assembly.store.runs()
    assert run.outcome is Outcome.UPDATED
    assert len(stage.host.requests("/asset/")) == before + 1
    stage.assert_updated()
