"""From the spool to runs, one after the other, and what is published of them meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from remediate.background import working
from remediate.decision import Reason
from remediate.journal import Outcome
from remediate.spool import Spool
from remediate.worker import work
from tests.remediate.conftest import NEW, Stage, wait_until
from tests.remediate.test_invariants import PROGRAM
from tests.simulators import build

pytestmark = pytest.mark.usefixtures("impatient")


def published(stage: Stage) -> Any:
    return json.loads(stage.status_file.read_text())


def worked(stage: Stage) -> list[Any]:
    with stage.assembly() as assembly:
        names = [node["name"] for node in stage.nodes]
        return list(work(Spool(stage.spool), names, assembly.remediation, assembly.publisher.publish))


def test_a_request_is_worked_and_removed(stage: Stage) -> None:
    Spool(stage.spool).put("alpha")
    (report,) = worked(stage)
    assert report.run.outcome is Outcome.UPDATED
    assert os.listdir(stage.spool) == []
    status = published(stage)
    assert status["runs"] == [
        {"node": "alpha", "program": "storagenode", "trigger": "alert", "outcome": "updated", "count": 1}
    ]
    assert status["decisions"] == [
        {"node": "alpha", "program": "storagenode", "decision": "proceed", "reason": "below_minimum", "count": 1},
    ]
    (node,) = status["nodes"]
    assert (node["in_progress"], node["updater_held"], node["last_failure"]) == (False, False, None)
    assert node["last_success"] > 0


@pytest.mark.slow
def test_a_run_under_way_is_published_as_such(stage: Stage, tmp_path: Path) -> None:
    stage.publish(build.node(NEW, tmp_path / "large", pad=1 << 20))
    stage.host.set(behaviour="slow:300000")
    Spool(stage.spool).put("alpha")
    command = [sys.executable, "-c", PROGRAM, "work", "--config.file", str(stage.write())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        wait_until(lambda: stage.status_file.exists() and published(stage)["nodes"][0]["in_progress"])
        assert os.listdir(stage.spool) == ["alpha"], "what comes again falls on it"
        assert worker.wait(60) == 0
    assert published(stage)["nodes"][0]["in_progress"] is False
    assert os.listdir(stage.spool) == []


def test_a_node_that_cannot_be_helped_keeps_no_other_waiting(stage: Stage) -> None:
    stage.add("beta", binary=str(stage.root / "nowhere"))
    for name in ("beta", "alpha"):
        Spool(stage.spool).put(name)
    first, second = worked(stage)
    assert {first.node: first.decision.reason, second.node: second.decision.reason} == {
        "beta": Reason.INSTALLED_UNKNOWN,
        "alpha": Reason.BELOW_MINIMUM,
    }
    assert os.listdir(stage.spool) == []
    stage.assert_updated()


def test_what_was_interrupted_is_recovered_with_no_request(stage: Stage) -> None:
    command = [sys.executable, "-c", PROGRAM, "run", "--yes", "--config.file", str(stage.write()), "alpha"]
    subprocess.run(command, env={**os.environ, "KILL_AT": "20"}, capture_output=True, check=False)
    with stage.assembly() as assembly:
        assert assembly.store.open_runs()
    assert worked(stage) == []
    with stage.assembly() as assembly:
        assert assembly.store.open_runs() == []
    stage.assert_untouched()
    assert published(stage)["nodes"][0]["in_progress"] is False


def test_a_status_file_that_cannot_be_written_keeps_no_node_from_its_update(stage: Stage) -> None:
    stage.status_file = stage.root / "nowhere/status.json"
    Spool(stage.spool).put("alpha")
    assert worked(stage)[0].run.outcome is Outcome.UPDATED


def test_without_systemd_one_process_does_both(stage: Stage) -> None:
    from exporter.config import load
    from remediate.rules import rules

    config = load(stage.write())
    spool = Spool(stage.spool)
    with working(config, rules(config, source="test"), spool):
        spool.put("alpha")
        wait_until(lambda: not spool.pending())
    stage.assert_updated()


def test_many_that_publish_at_once_never_leave_half_a_file(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    with stage.assembly() as first, stage.assembly() as second:
        first.publisher.publish()
        threads = [
            Thread(target=lambda each=each: [each.publisher.publish() for _ in range(30)]) for each in (first, second)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert json.loads(stage.status_file.read_text())["nodes"][0]["node"] == "alpha"
        for thread in threads:
            thread.join()
    assert [record.message for record in caplog.records] == []
