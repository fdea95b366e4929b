"""Whole runs on a bare process, against servers and archives that misbehave: what comes of it, and what stays."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter.version import NodeVersion
from remediate.decision import Proceed, Reason, Refuse, Request, Trigger
from remediate.files import dress
from remediate.journal import Event, Outcome, Run, facts
from remediate.rules import Start
from remediate.steps import probe as probing
from tests.remediate.conftest import NEW, OLD, TARGET, Stage, wait_until
from tests.remediate.test_plan import ORDER
from tests.simulators import build
from tests.simulators.node import Node

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


def steps_done(run: Run) -> list[str]:
    return [entry.step for entry in run.journal if entry.event is Event.DONE]


def assert_failed(stage: Stage, run: Run, outcome: Outcome, *said: str, given: bool = False) -> None:
    """One clear line, the old binary in place, nothing left, nothing held, the version to blame only if it is."""
    assert run.outcome is outcome, run.detail
    for text in said:
        assert text in run.detail
    assert "\n" not in run.detail
    assert "Errno" not in run.detail
    assert "object at 0x" not in run.detail
    assert len(run.detail) < 400
    stage.assert_untouched()
    assert not facts(run.journal).held
    assert steps_done(run)[-1] == "release"
    with stage.assembly() as assembly:
        bad = assembly.store.history(stage.binary, ()).known_bad
        assert (TARGET in bad) is (outcome is Outcome.BAD_VERSION and not given)
        assert assembly.store.open_runs() == []
    assert not list(stage.state_dir.glob("tmp*"))


def test_a_stopped_node_is_updated_and_left_stopped(stage: Stage) -> None:
    run = stage.ran(trigger=Trigger.ALERT)
    assert run.outcome is Outcome.UPDATED, run.detail
    assert tuple(steps_done(run)) == ORDER
    assert "left stopped" in run.detail
    stage.assert_updated()
    assert not stage.running()
    assert build.sha256(stage.folder / f".storagenode.keeper-old-{OLD}") == build.sha256(stage.old)


def test_a_node_that_is_to_be_started_runs_the_target(stage: Stage) -> None:
    run = stage.ran(start=Start.ALWAYS)
    assert (run.outcome, run.detail) == (Outcome.UPDATED, f"alpha runs {NEW}")
    stage.assert_updated()
    assert stage.running()


@pytest.mark.parametrize("bad", build.BadArchive)
def test_a_bad_archive_is_the_versions_fault(stage: Stage, bad: build.BadArchive) -> None:
    build.bad_archive(bad, stage.new, stage.archive)
    run = stage.ran(trigger=Trigger.ALERT)
    # An empty zip file has no local header to begin with, so it is no zip file to the download yet.
    assert_failed(stage, run, Outcome.LATER if bad is build.BadArchive.EMPTY else Outcome.BAD_VERSION)
    if run.outcome is Outcome.BAD_VERSION:
        again = stage.run(trigger=Trigger.ALERT)
        assert again.decision.reason is Reason.KNOWN_BAD
        assert run.detail in str(again)


@pytest.mark.parametrize(
    ("misbehave", "release", "version", "said"),
    [
        ("exit1", True, NEW, "does not say its version"),
        ("hang", True, NEW, "did not print its version within"),
        ("endless", True, NEW, "ended with"),
        ("says:9.9.9", True, NEW, "is 9.9.9, expected 1.104.5"),
        ("", False, NEW, "development build"),
        ("", True, "1.104.4", "is 1.104.4, expected 1.104.5"),
        ("", True, "1.104.5-rc", "is 1.104.5-rc, expected 1.104.5"),
        ("says:nonsense", True, NEW, "not a version"),
    ],
)
def test_a_program_that_does_not_say_the_target_is_the_versions_fault(
    stage: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    misbehave: str,
    release: bool,
    version: str,
    said: str,
) -> None:
    monkeypatch.setattr(probing, "_PROBE_SECONDS", 0.5)
    stage.publish(build.node(version, tmp_path / "bad", release=release, misbehave=misbehave))
    assert_failed(stage, stage.ran(), Outcome.BAD_VERSION, said)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: anybody else runs it as himself")
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o500])
def test_a_binary_that_only_its_owner_may_run_is_updated_too(stage: Stage, mode: int) -> None:
    stage.binary.chmod(mode)
    stage.folder.chmod(0o700)
    run = stage.ran()
    assert run.outcome is Outcome.UPDATED, run.detail
    assert stage.binary.stat().st_mode & 0o7777 == mode


def local(stage: Stage, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "given.zip"
    return {"artifact": str(shutil.copy(stage.archive, path)), "sha256": build.sha256(path)}


def test_a_local_archive_needs_no_server_at_all(stage: Stage, tmp_path: Path) -> None:
    given = local(stage, tmp_path)
    stage.versions.set(behaviour="status:500")
    stage.host.set(behaviour="status:500", digests="status:500")
    assert isinstance(stage.run(**given).decision, Refuse)
    assert stage.ran(**given, to=NEW).outcome is Outcome.UPDATED
    stage.assert_updated()


@pytest.mark.parametrize(
    ("damage", "outcome", "said"),
    [
        ("digest", Outcome.FAILED, "wrong digest"),
        ("program", Outcome.BAD_VERSION, "is 1.104.4, expected 1.104.5"),
        ("archive", Outcome.FAILED, "not a zip archive"),
        ("gone", Outcome.FAILED, "cannot be read"),
    ],
)
def test_what_a_person_brings_along_is_not_held_against_the_version(
    stage: Stage, tmp_path: Path, damage: str, outcome: Outcome, said: str
) -> None:
    given = local(stage, tmp_path)
    path = Path(given["artifact"])
    match damage:
        case "digest":
            given["sha256"] = "0" * 64
        case "program":
            given["sha256"] = build.archive(build.node("1.104.4", tmp_path / "other"), path)
        case "archive":
            path.write_text("no archive")
        case "gone":
            path.unlink()
    assert_failed(stage, stage.ran(**given), outcome, said, given=True)
    assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.UPDATED, "the true release is as good as ever"


def test_a_running_node_is_stopped_and_started_again_when_a_person_says_so(stage: Stage) -> None:
    stage.versions.set(minimum="1.0.0")
    with Node(stage.binary, stage.root / "alpha") as node:
        node.api(stage.nodes[0]["api"])
        assert stage.run().decision.reason is Reason.RUNNING
        run = stage.ran(stop_running=True)
        assert (run.outcome, run.detail) == (Outcome.UPDATED, f"alpha runs {NEW}")
        assert node.process.wait(60) == 0
    assert stage.running()


def test_a_running_node_is_stopped_and_left_when_a_person_says_so(stage: Stage) -> None:
    stage.versions.set(minimum="1.0.0")
    with Node(stage.binary, stage.root / "alpha") as node:
        node.api(stage.nodes[0]["api"])
        run = stage.ran(stop_running=True, start=Start.NEVER)
        assert run.outcome is Outcome.UPDATED, run.detail
        assert node.process.wait(60) == 0
    assert not stage.running()
    stage.assert_updated()


def test_what_was_stopped_for_an_update_that_failed_is_started_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.versions.set(minimum="1.0.0")

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("remediate.files.Directory.rename", refuse)
    with Node(stage.binary, stage.root / "alpha") as node:
        node.api(stage.nodes[0]["api"])
        run = stage.ran(stop_running=True)
        assert_failed(stage, run, Outcome.FAILED, "cannot swap: Input/output error")
        assert node.process.wait(60) == 0
    assert stage.running()


def test_a_node_that_somebody_starts_meanwhile_is_left_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.versions.set(minimum="1.0.0")
    started: list[Node] = []

    def start_it(fd: int, *, like: int) -> None:
        dress(fd, like=like)
        started.append(Node(stage.binary, stage.root / "alpha"))
        started[0].api(stage.nodes[0]["api"])

    monkeypatch.setattr("remediate.steps.swap.dress", start_it)
    run = stage.ran(to=NEW)
    with started[0] as node:
        assert_failed(stage, run, Outcome.ABANDONED, "alpha is running")
        assert run.exit_code == 3
        assert node.process.poll() is None


def test_nodes_that_share_a_binary_are_one_update(stage: Stage) -> None:
    stage.add("beta")
    stage.add("gamma")
    stage.versions.set(minimum="1.0.0")
    with Node(stage.binary, stage.root / "beta") as beta:
        beta.api(stage.nodes[1]["api"])
        stage.versions.set(minimum=NEW)
        run = stage.ran(start=Start.ALWAYS)
        assert run.outcome is Outcome.UPDATED, run.detail
        assert run.subject.nodes == ("alpha", "beta", "gamma")
        assert set(run.starts) == {"alpha", "gamma"}
        assert beta.process.poll() is None, "a running node is not touched"
        assert stage.running("alpha")
        assert stage.running("gamma")
        assert stage.run(node="gamma").decision.reason is Reason.CURRENT


def test_a_binary_behind_a_symlink_is_replaced_where_it_is(stage: Stage) -> None:
    link = stage.root / "link"
    link.symlink_to(stage.binary)
    stage.nodes[0]["binary"] = str(link)
    assert stage.ran().outcome is Outcome.UPDATED
    assert link.readlink() == stage.binary
    stage.assert_updated()


def test_a_node_that_does_not_stay_up_is_for_a_person(stage: Stage, tmp_path: Path) -> None:
    stage.publish(build.node(NEW, tmp_path / "crashing", misbehave="crash"))
    run = stage.ran(start=Start.ALWAYS)
    assert run.outcome is Outcome.START_FAILED
    assert "did not stay up" in run.detail
    assert run.exit_code == 4
    assert build.sha256(stage.binary) == build.sha256(tmp_path / "crashing")


def test_a_node_without_its_storage_is_not_started(stage: Stage) -> None:
    (stage.root / "alpha/storage/storage-dir-verification").unlink()
    run = stage.ran(start=Start.ALWAYS)
    assert run.outcome is Outcome.START_FAILED
    assert "storage-dir-verification: No such file" in run.detail
    stage.assert_updated()
    assert not stage.running()


HOSTILE_CONFIGS = [
    b'storage.path: "/x\\0y"\n',
    b"[" * 10_000,
    b"when: 2024-13-45\nstorage.path: /tmp\n",
    b"\xff\xfe\x00",
    b"- a list\n",
    b"storage.path: 7\n",
    b"storage.path: /proc/self/mem\n",
    b"number: " + b"9" * 5000 + b"\n",
]


@pytest.mark.parametrize("content", HOSTILE_CONFIGS, ids=range(len(HOSTILE_CONFIGS)))
def test_nothing_in_the_nodes_own_configuration_breaks_a_run(stage: Stage, content: bytes) -> None:
    stage.rules["confirm_timeout"] = "1s"
    shutil.rmtree(stage.root / "alpha/storage")
    (stage.root / "alpha/config.yaml").write_bytes(content)
    run = stage.ran(start=Start.ALWAYS)
    assert run.outcome is Outcome.START_FAILED, run.detail
    assert "was not started" in run.detail
    stage.assert_updated()


@pytest.mark.parametrize("trap", ["fifo", "loop", "directory"])
def test_nothing_in_place_of_the_nodes_own_configuration_breaks_a_run(stage: Stage, trap: str) -> None:
    shutil.rmtree(stage.root / "alpha/storage")
    config = stage.root / "alpha/config.yaml"
    config.unlink()
    match trap:
        case "fifo":
            os.mkfifo(config)
        case "loop":
            (stage.root / "alpha/storage").symlink_to("storage")
        case "directory":
            config.mkdir()
    assert stage.ran(start=Start.ALWAYS).outcome is Outcome.START_FAILED


def test_an_inconsistent_server_moves_nothing_and_is_not_believed(stage: Stage) -> None:
    assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.UPDATED  # from here on a minimum is known
    stage.install(stage.old)
    (stage.folder / f".storagenode.keeper-old-{OLD}").unlink()
    stage.versions.set(minimum="99.0.0", suggested="99.0.0")
    for _ in range(2):
        found = stage.run(trigger=Trigger.ALERT)
        assert found.decision.reason is Reason.INCONSISTENT_SERVER
        assert found.exit_code == 3
    stage.assert_untouched()


def test_a_shape_of_server_that_helps_nobody(stage: Stage) -> None:
    for behaviour in ("status:500", "html", "huge", "empty", "latest", "close", "redirect"):
        stage.versions.set(behaviour=behaviour)
        found = stage.run(trigger=Trigger.ALERT)
        assert found.decision.reason is Reason.ALLOWED_UNKNOWN, behaviour
    stage.assert_untouched()


def test_the_same_request_many_times_is_one_run(stage: Stage) -> None:
    reports = [stage.run(trigger=Trigger.ALERT) for _ in range(5)]
    assert [report.decision.reason for report in reports] == [Reason.BELOW_MINIMUM, *[Reason.CURRENT] * 4]
    with stage.assembly() as assembly:
        assert len(assembly.store.runs()) == 1


def test_plan_lists_the_steps_that_run_takes(stage: Stage) -> None:
    with stage.assembly() as assembly:
        planned = assembly.remediation.plan(Request(node="alpha", trigger=Trigger.PERSON))
        assert assembly.store.runs() == []
    assert isinstance(planned.decision, Proceed)
    assert planned.decision.target == NodeVersion.parse(NEW)
    stage.assert_untouched()
    assert [step.name for step in planned.steps] == steps_done(stage.ran())


def test_an_interrupt_puts_everything_back(stage: Stage) -> None:
    """Ctrl-C, in a process of its own."""
    stage.host.set(behaviour="slow:10000")
    command = ["run", "--config.file", str(stage.write()), "--yes", "alpha"]
    program = [sys.executable, "-c", "from remediate.cli import main; main()", *command]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_until(lambda: stage.host.requests("/asset/")[-1:] and stage.host.requests("/asset/")[-1].done is None)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "interrupted" in said
    assert "Traceback" not in said
    stage.assert_untouched()
