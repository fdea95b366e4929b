"""The loop with no Prometheus, in processes of its own: what it updates, what it leaves, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.config import load
from remediate.decision import Reason, Request, Trigger
from remediate.journal import Outcome
from remediate.remediation import Remediation
from remediate.report import Report
from remediate.steps import hold
from remediate.watch import rounds
from tests.remediate.conftest import NEW, OLD, Stage, as_json, wait_until
from tests.remediate.test_invariants import program as killed
from tests.simulators.node import Node

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]
PROGRAM = [sys.executable, "-c", "from remediate.cli import main; main()"]


@contextmanager
def started(stage: Stage, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program beside the test; what is left of it in the end is killed."""
    command = [*PROGRAM, arguments[0], "--config.file", str(stage.write()), *arguments[1:]]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def downloads(stage: Stage) -> int:
    return len(stage.host.requests("/asset/"))


def ended(process: subprocess.Popen[str], seconds: float = 90) -> tuple[int, str, str]:
    said, problems = process.communicate(timeout=seconds)
    assert "Traceback" not in problems
    return process.returncode, said, problems


def test_what_is_down_and_too_old_is_updated_as_by_an_alert(stage: Stage) -> None:
    result = stage.cli("watch", "--once")
    said = f"alpha: updated, {OLD} -> {NEW} (watch, below_minimum): alpha is left stopped (asked_to_stop)\n"
    assert (result.exit_code, result.stdout) == (0, said)
    stage.assert_updated()
    again = stage.cli("watch", "--once")
    assert (again.exit_code, again.stdout) == (0, "")
    assert json.loads(stage.status_file.read_text())["runs"][0]["trigger"] == "watch"


def test_a_running_node_is_never_touched(stage: Stage) -> None:
    stage.versions.set(minimum="1.0.0")
    with Node(stage.binary, stage.root / "alpha") as node:
        node.api(stage.nodes[0]["api"])
        stage.versions.set(minimum=NEW)
        assert stage.cli("watch", "--once", "--json").stdout == ""
        assert node.process.poll() is None
        stage.assert_untouched()


def test_a_node_that_is_not_too_old_is_let_be(stage: Stage) -> None:
    stage.versions.set(minimum="1.0.0")
    before = len(stage.host.requests("/"))
    assert stage.cli("watch", "--once").stdout == ""
    assert len(stage.host.requests("/")) == before
    stage.assert_untouched()


def test_once_ends_with_the_code_of_what_was_done(stage: Stage) -> None:
    stage.versions.set(url="https://elsewhere.example/{version}.zip")
    refused = stage.cli("watch", "--once", "--json")
    assert refused.exit_code == 3
    (line,) = refused.stdout.splitlines()
    assert json.loads(line)["reason"] == Reason.FOREIGN_URL
    stage.versions.set(url="")
    stage.host.set(behaviour="status:500")
    assert stage.cli("watch", "--once").exit_code == 1


def test_what_was_interrupted_is_recovered_and_told(stage: Stage) -> None:
    killed(stage, "run", "--yes", "alpha", kill_at=20)
    stage.versions.set(minimum="1.0.0")
    result = stage.cli("watch", "--once")
    assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
    assert result.stdout.startswith("alpha: undone")
    stage.assert_untouched()


def test_what_cannot_be_recovered_yet_is_told_and_keeps_no_other_node_waiting(stage: Stage) -> None:
    stage.add("beta", binary=str(shutil.copytree(stage.folder, stage.root / "other") / "storagenode"))
    killed(stage, "run", "--yes", "alpha", kill_at=20)
    away = stage.folder.rename(stage.root / "away")
    result = stage.cli("watch", "--once")
    assert result.exit_code == 4
    assert [line.split(",")[0].split(":")[:2] for line in result.stdout.splitlines()] == [
        ["alpha", " not finished"],
        ["beta", " updated"],
    ]
    assert stage.cli("watch", "--once").stdout.count("\n") == 1
    away.rename(stage.folder)
    said = stage.cli("watch", "--once").stdout.splitlines()
    assert [line.split(",")[0] for line in said] == ["alpha: undone", "alpha: updated"]


def test_a_fault_of_ours_with_one_node_keeps_no_other_waiting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage.add("beta", binary=str(shutil.copytree(stage.folder, stage.root / "other") / "storagenode"))
    run = Remediation.run

    def faulty(self: Remediation, request: Request) -> Report:
        if request.node == "alpha":
            raise RuntimeError("a fault")
        return run(self, request)

    monkeypatch.setattr(Remediation, "run", faulty)
    with stage.assembly() as assembly:
        (report,) = next(rounds(load(stage.config_file), assembly, lambda: False))
        assert report.node == "beta"
    assert [record.message for record in caplog.records if record.exc_info] == ["run broke off"]


def test_it_looks_again_and_again_and_asks_the_server_once_in_refresh(stage: Stage) -> None:
    stage.cli("pause")
    before = len(stage.versions.requests("/"))
    with started(stage, "watch", "--every", "1s", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["reason"] == Reason.PAUSED
        time.sleep(3.5)
        process.send_signal(signal.SIGTERM)
        assert ended(process)[:2] == (0, "")
    assert len(stage.versions.requests("/")) - before == 2, "one for the look, one for what was decided on"
    (decided,) = as_json(stage.cli("history", "--json"))["decisions"]
    assert (decided["reason"], decided["count"]) == (Reason.PAUSED, 1)


def test_a_node_that_goes_down_later_is_seen(stage: Stage) -> None:
    stage.versions.set(minimum="1.0.0")
    with stage.assembly() as assembly:
        config = load(stage.config_file).model_copy(update={"refresh": timedelta(0)})
        looks = rounds(config, assembly, lambda: False)
        assert next(looks) == []
        stage.versions.set(minimum=NEW)
        (report,) = next(looks)
        assert report.run is not None
        assert report.run.outcome is Outcome.UPDATED
        assert next(looks) == []


def test_beside_the_worker_one_at_a_time(stage: Stage) -> None:
    with stage.assembly() as assembly, assembly.store.lock():
        result = stage.cli("watch", "--once")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "left for the next time" in result.stderr
    stage.assert_untouched()


def test_beside_a_worker_at_work(stage: Stage) -> None:
    stage.host.set(behaviour="slow:200000")
    (stage.spool / "alpha").touch()
    before = downloads(stage)
    with started(stage, "work") as worker:
        wait_until(lambda: downloads(stage) > before)
        for _ in range(3):
            result = stage.cli("watch", "--once")
            assert (result.exit_code, result.stdout) == (0, "")
        stage.host.set(behaviour="ok")
        assert ended(worker)[0] == 0
    assert stage.cli("watch", "--once").stdout == ""
    assert len(as_json(stage.cli("history", "--json"))["runs"]) == 1
    stage.assert_updated()


@pytest.mark.parametrize("command", [["watch", "--every", "1h"], ["watch", "--once"], ["work", "--json"]])
@pytest.mark.parametrize("times", [1, 8])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_to_end_is_undone(stage: Stage, command: list[str], times: int, number: int) -> None:
    """And the next node's is not begun."""
    stage.host.set(behaviour="slow:1000")
    stage.add("beta", binary=str(shutil.copytree(stage.folder, stage.root / "other") / "storagenode"))
    for node in ("alpha", "beta"):
        (stage.spool / node).touch()
    before = downloads(stage)
    with started(stage, *command) as process:
        wait_until(lambda: downloads(stage) > before)
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.02)
        code, said, _ = ended(process)
        assert time.monotonic() - began < 30  # the download would take 380
    assert code == 0
    assert "interrupted" in said
    stage.assert_untouched()
    with stage.assembly() as assembly:
        assert assembly.store.open_runs() == []
        (run,) = assembly.store.runs()
        assert (run.outcome, run.detail) == (Outcome.INTERRUPTED, "it was told to end")
    if command[0] == "work":
        assert sorted(os.listdir(stage.spool)) == ["alpha", "beta"], "what was interrupted is still asked for"


@pytest.mark.parametrize("command", [["watch", "--every", "1h"], ["work"], ["run", "--yes", "alpha"]])
def test_a_look_that_is_to_end_ends(stage: Stage, command: list[str]) -> None:
    stage.versions.set(behaviour="hang")
    (stage.spool / "alpha").touch()
    asked = len(stage.versions.requests("/"))
    with started(stage, *command) as process:
        wait_until(lambda: len(stage.versions.requests("/")) > asked)
        process.send_signal(signal.SIGTERM)
        code, _, problems = ended(process)
    assert code == (1 if command[0] == "run" else 0)
    assert ("error: interrupted before alpha\n" in problems) is (command[0] == "run")
    if command[0] == "work":
        assert os.listdir(stage.spool) == ["alpha"], "it is worked next time"


@pytest.mark.parametrize("moment", ["release", "release, done"])
@pytest.mark.parametrize("recovering", [False, True])
def test_an_end_that_is_interrupted_is_brought_to_an_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, moment: str, recovering: bool
) -> None:
    if recovering:
        killed(stage, "run", "--yes", "alpha", kill_at=20)
    release, calls = hold.release, []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1 and moment == "release":
            raise KeyboardInterrupt
        done = release(*arguments)  # type: ignore[arg-type]
        if len(calls) == 1:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(hold, "release", interrupted)
    stage.host.set(behaviour="status:503")
    (run,) = stage.recover() if recovering else [stage.ran(trigger=Trigger.WATCH)]
    assert (run.outcome, run.detail, len(calls)) == (Outcome.UNDONE, "the run was interrupted", 2)
    stage.assert_untouched()


def test_a_watch_that_waits_ends_at_once(stage: Stage) -> None:
    with started(stage, "watch", "--every", "1h") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("alpha: updated")
        time.sleep(0.2)
        looked = len(stage.versions.requests("/"))
        process.send_signal(signal.SIGTERM)
        assert ended(process)[:2] == (0, "")
    assert len(stage.versions.requests("/")) == looked, "no other look"


def test_ctrl_c_does_not_go_on_to_the_next_node(stage: Stage) -> None:
    other = Path(shutil.copytree(stage.folder, stage.root / "other")) / "storagenode"
    stage.add("beta", binary=str(other))
    stage.host.set(behaviour="slow:20000")
    before = downloads(stage)
    with started(stage, "run", "--yes", "alpha", "beta") as process:
        wait_until(lambda: downloads(stage) > before)
        process.send_signal(signal.SIGINT)
        code, said, problems = ended(process)
    assert code == 1
    assert said.count("\n") == 1
    assert said.startswith("alpha: interrupted")
    assert problems.endswith("error: interrupted before beta\n")
    with stage.assembly() as assembly:
        assert [run.node for run in assembly.store.runs()] == ["alpha"]
    assert other.read_bytes() == stage.old.read_bytes()


def test_a_person_is_answered_while_a_watch_waits(stage: Stage) -> None:
    stage.cli("pause")
    with started(stage, "watch", "--every", "1h") as process:
        assert process.stdout is not None
        assert "paused" in process.stdout.readline()
        assert stage.cli("run", "--yes", "alpha").exit_code == 0
    stage.assert_updated()


def test_triggers_have_their_own_count(stage: Stage) -> None:
    stage.cli("watch", "--once")
    (listed,) = as_json(stage.cli("history", "--json"))["runs"]
    assert listed["trigger"] == Trigger.WATCH
