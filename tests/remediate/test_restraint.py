"""`pause`, `resume`, the circuit and the cool-down, by the real command line and over the end of a process."""

import json
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.version import NodeVersion
from remediate import published
from remediate.decision import Reason, Trigger
from remediate.journal import Inode, Outcome, Subject
from remediate.metrics import families
from remediate.spool import Spool
from remediate.store import Store
from tests.remediate.acting import DAY, HOUR, Clock, ask
from tests.remediate.conftest import NEW, Stage, as_json, wait_until
from tests.simulators import build

pytestmark = pytest.mark.usefixtures("impatient")


def reason_for(stage: Stage, node: str = "alpha") -> str:
    """Ask as an alert does, and say what was decided."""
    (stage.spool / node).touch()
    (report,) = as_json(stage.cli("work", "--json"))
    return str(report["reason"])


def metric(stage: Stage, name: str, node: str = "alpha") -> float:
    known = families(published.read(stage.status_file), [], [each["name"] for each in stage.nodes])
    samples = [sample for family in known for sample in family.samples]
    (value,) = (
        sample.value
        for sample in samples
        if sample.name == f"storagenode_remediation_{name}" and sample.labels["node"] == node
    )
    return float(value)


def failed(store: Store, binary: Path, outcome: Outcome = Outcome.FAILED, nodes: tuple[str, ...] = ("alpha",)) -> None:
    subject = Subject(binary=binary, nodes=nodes, updaters=(), installed=NodeVersion.parse("1.102.3"), old=Inode(1, 2))
    target = NodeVersion.parse(NEW)
    run = store.begin(
        node=nodes[0],
        trigger=Trigger.ALERT,
        reason=Reason.BELOW_MINIMUM,
        subject=subject,
        target=target,
        starts={},
        seen={},
    )
    store.finish(run.id, outcome, "it did not work")


def test_a_paused_node_is_left_alone_by_alerts_and_a_person_is_heard(stage: Stage) -> None:
    paused = stage.cli("pause", "alpha", "--reason", "new disk")
    assert (paused.exit_code, paused.stdout) == (0, "alpha is paused until `resume`: new disk\n")
    assert metric(stage, "paused") == 1
    assert reason_for(stage) == Reason.PAUSED
    assert "alpha is paused: new disk" in stage.cli("history").stdout
    (found,) = as_json(stage.cli("history", "--json"))["decisions"]
    assert (found["reason"], found["count"]) == (Reason.PAUSED, 1)
    assert stage.cli("watch", "--once").stdout == "alpha: nothing to do (paused): alpha is paused: new disk\n"
    stage.assert_untouched()
    assert stage.cli("run", "--yes", "alpha").exit_code == 0
    stage.assert_updated()


def test_resume_ends_a_pause(stage: Stage) -> None:
    stage.cli("pause", "alpha")
    assert stage.cli("resume", "alpha").stdout == "nothing is paused\n"
    assert metric(stage, "paused") == 0
    assert reason_for(stage) == Reason.BELOW_MINIMUM
    stage.assert_updated()


def test_everything_paused_is_everything(stage: Stage) -> None:
    stage.add("beta")
    stage.cli("pause", "--reason", "holidays")
    assert (metric(stage, "paused"), metric(stage, "paused", "beta")) == (1, 1)
    assert reason_for(stage, "beta") == Reason.PAUSED
    left = stage.cli("resume", "alpha")
    assert (left.exit_code, left.stdout) == (0, "everything is paused until `resume`: holidays\n")
    assert reason_for(stage) == Reason.PAUSED
    stage.cli("pause", "beta")
    assert stage.cli("resume").stdout == "nothing is paused\n"
    assert reason_for(stage) == Reason.BELOW_MINIMUM


def test_nodes_of_one_binary_are_paused_together(stage: Stage) -> None:
    stage.add("beta")
    stage.cli("pause", "beta", "--reason", "why not")
    assert reason_for(stage, "alpha") == Reason.PAUSED, "its update would be one of beta's binary"
    assert metric(stage, "paused", "alpha") == 1
    stage.assert_untouched()


def test_nodes_of_other_binaries_are_not(stage: Stage) -> None:
    stage.add("beta", binary=str(stage.root / "elsewhere"))
    stage.cli("pause", "beta")
    assert metric(stage, "paused", "alpha") == 0
    assert reason_for(stage) == Reason.BELOW_MINIMUM


@pytest.mark.slow
def test_a_pause_ends_by_itself_in_every_process(stage: Stage) -> None:
    assert stage.cli("pause", "alpha", "--for", "1h").exit_code == 0
    program = [sys.executable, "-c", "from remediate.cli import main; main()", "work", "--json"]
    command = [*program, "--config.file", str(stage.write())]
    (stage.spool / "alpha").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0]["reason"] == Reason.PAUSED
    before = time.time()
    (pause,) = as_json(stage.cli("pause", "alpha", "--for", "2s", "--reason", "a moment", "--json"))
    assert (pause["node"], pause["reason"], round(pause["until"] - pause["since"])) == ("alpha", "a moment", 2)
    assert before <= pause["since"] <= time.time()
    time.sleep(max(0, pause["until"] - time.time()))
    assert metric(stage, "paused") == 0, "with nobody at work"
    assert reason_for(stage) == Reason.BELOW_MINIMUM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pause", "beta"], "nodes: there is no 'beta', expected one of: alpha"),
        (["resume", "beta"], "nodes: there is no 'beta', expected one of: alpha"),
        (["pause", "--for", "3"], "expected a duration such as 30s, 5m or 1h30m"),
        (["pause", "--for", ""], "expected a duration"),
        (["pause", "--for", "0s"], "expected 1s at least and 3650d at most"),
        (["pause", "--for", "99999w"], "expected 1s at least and 3650d at most"),
        (["pause", "--for", "9" * 30 + "w"], "expected a shorter duration"),
        (["pause", "alpha", "beta"], "unexpected extra argument"),
        (["watch", "--every", "0s"], "expected 1s at least"),
        (["history", "--run", "9" * 30], "is not in the range"),
    ],
)
def test_what_cannot_be_meant(stage: Stage, arguments: list[str], said: str) -> None:
    result = stage.cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    with stage.assembly() as assembly:
        assert assembly.store.pauses() == []


def test_resume_forgives_one_binary_and_no_other(stage: Stage) -> None:
    other = stage.root / "elsewhere"
    stage.add("beta", binary=str(other))
    stage.rules["cool_down"] = "1h"
    stage.write()
    binaries = (stage.binary, other)
    with closing(Store(stage.state_dir)) as store:
        for binary, node in zip(binaries, ("alpha", "beta"), strict=True):
            store.mark_bad(binary, NodeVersion.parse(NEW), "it hung")
            for _ in range(3):
                failed(store, binary, nodes=(node,))
    assert reason_for(stage) == Reason.KNOWN_BAD
    stage.cli("resume", "alpha")
    with closing(Store(stage.state_dir)) as store:
        mine, others = (store.history(binary, ()) for binary in binaries)
    assert (mine.known_bad, mine.circuit_open, mine.failures, mine.last_end) == ({}, False, (), None)
    assert (len(others.known_bad), others.circuit_open, others.last_end is None) == (1, True, False)
    assert (metric(stage, "circuit_open"), metric(stage, "circuit_open", "beta")) == (0, 1)
    assert reason_for(stage) == Reason.BELOW_MINIMUM
    stage.cli("resume")
    with closing(Store(stage.state_dir)) as store:
        assert not store.history(other, ()).circuit_open
    assert len(as_json(stage.cli("history", "--json"))["runs"]) == 7, "forgiven is not forgotten"


@pytest.mark.slow
def test_three_failures_open_the_circuit_until_somebody_closes_it(stage: Stage, tmp_path: Path) -> None:
    clock = Clock()
    for number in (5, 6, 7):
        version = f"1.104.{number}"
        build.bad_archive(build.BadArchive.NOT_ELF, stage.new, stage.releases / version / build.ASSET)
        stage.versions.set(minimum=version, suggested=version)
        report = ask(stage, clock)
        assert report.run is not None
        assert report.run.outcome is Outcome.BAD_VERSION, str(report)
        assert metric(stage, "circuit_open") == (number == 7)
        clock.now += HOUR
    good = build.node("1.104.8", tmp_path / "good")
    stage.publish(good, "1.104.8")
    stage.versions.set(minimum="1.104.8", suggested="1.104.8")
    for later in (0.0, HOUR, DAY, 30 * DAY):
        clock.now += later
        report = ask(stage, clock, Trigger.WATCH)
        assert (report.decision.name, report.decision.reason) == ("refuse", Reason.CIRCUIT_OPEN)
    assert metric(stage, "circuit_open") == 1
    stage.assert_untouched()
    assert "refuse    circuit_open" in stage.cli("history").stdout
    assert stage.cli("resume", "alpha").exit_code == 0
    assert metric(stage, "circuit_open") == 0
    report = ask(stage, clock)
    assert report.run is not None
    assert report.run.outcome is Outcome.UPDATED
    assert build.sha256(stage.binary) == build.sha256(good)


def test_failures_on_different_days_do_not_open_it(stage: Stage) -> None:
    clock = Clock()
    with closing(Store(stage.state_dir, now=clock)) as store:
        for _ in range(10):
            failed(store, stage.binary)
            clock.now += 0.6 * DAY
        assert not store.history(stage.binary, ()).circuit_open
        failed(store, stage.binary)
        failed(store, stage.binary)
        assert store.history(stage.binary, ()).circuit_open


@pytest.mark.parametrize("outcome", [Outcome.LATER, Outcome.ABANDONED, Outcome.UPDATED, Outcome.UNCONFIRMED])
def test_what_is_nobodys_fault_does_not_open_it(stage: Stage, outcome: Outcome) -> None:
    with closing(Store(stage.state_dir)) as store:
        for _ in range(5):
            failed(store, stage.binary, outcome)
        assert not store.history(stage.binary, ()).circuit_open


def test_a_dry_run_decides_tells_and_does_nothing(stage: Stage) -> None:
    stage.rules["dry_run"] = True
    before: Any = stage.entries()
    assert reason_for(stage) == Reason.DRY_RUN
    assert stage.entries() == before
    assert f"{NEW} would be installed (below_minimum), and nothing started" in stage.cli("history").stdout
    stage.assert_untouched()


def ended_while_it_fetches(stage: Stage, number: signal.Signals) -> None:
    """Have a worker work off the request, and end it in the middle of its download."""
    Spool(stage.spool).put("alpha")
    command = [sys.executable, "-c", "from remediate.cli import main; main()", "work"]
    before = len(stage.host.requests("/asset/"))
    with subprocess.Popen([*command, "--config.file", str(stage.write())], stderr=subprocess.DEVNULL) as worker:
        wait_until(lambda: len(stage.host.requests("/asset/")) > before)
        worker.send_signal(number)
        worker.wait(timeout=60)


@pytest.mark.slow
def test_being_told_to_end_is_nobodys_fault_and_is_tried_again_at_once(stage: Stage) -> None:
    """Three reboots in a day, each in the middle of a download."""
    stage.rules["cool_down"] = "30m"
    stage.host.set(behaviour="stall")
    for _ in range(3):
        ended_while_it_fetches(stage, signal.SIGTERM)
    stage.host.set(behaviour="ok")
    assert stage.cli("work").exit_code == 0
    stage.assert_updated()
    with closing(Store(stage.state_dir)) as store:
        assert [run.outcome for run in store.runs()] == [Outcome.UPDATED, *[Outcome.INTERRUPTED] * 3]


@pytest.mark.slow
def test_being_killed_in_the_middle_three_times_opens_the_circuit(stage: Stage) -> None:
    """Perhaps it is the new version that brings the worker down."""
    stage.host.set(behaviour="stall")
    for _ in range(3):
        ended_while_it_fetches(stage, signal.SIGKILL)
    stage.host.set(behaviour="ok")
    assert stage.cli("recover").exit_code == 1
    assert reason_for(stage) == Reason.CIRCUIT_OPEN
    stage.assert_untouched()
