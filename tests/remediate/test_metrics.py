import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporter.commandline import Program
from exporter.config import Config
from exporter.version import NodeVersion
from remediate import published
from remediate.decision import Decision, Proceed, Reason, Refuse, Skip, Trigger
from remediate.journal import Outcome
from remediate.metrics import RemediationCollector
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from remediate.rules import Rules
from remediate.spool import Spool
from remediate.store import Store
from remediate.webhook import Webhook
from remediate.worker import Publisher
from tests.documents import ROOT
from tests.labs import install
from tests.remediate.test_plan import RUN, SUBJECT
from tests.remediate.test_store import begin

EMPTY = """\
# HELP storagenode_remediation_runs_total Runs that ended, of the node or of its updater, by what asked for them and \
how.
# TYPE storagenode_remediation_runs_total counter
# HELP storagenode_remediation_decisions_total What was decided for a node, or for its updater, and why.
# TYPE storagenode_remediation_decisions_total counter
# HELP storagenode_remediation_updater_held Whether the official updater is held stopped for a run (0 or 1).
# TYPE storagenode_remediation_updater_held gauge
storagenode_remediation_updater_held{node="n1"} 0.0
storagenode_remediation_updater_held{node="n2"} 0.0
# HELP storagenode_remediation_in_progress Whether a run is under way, or was interrupted and waits to be recovered \
(0 or 1).
# TYPE storagenode_remediation_in_progress gauge
storagenode_remediation_in_progress{node="n1"} 0.0
storagenode_remediation_in_progress{node="n2"} 0.0
# HELP storagenode_remediation_circuit_open Whether runs failed three times within a day, so that nothing is done \
unasked until `resume` (0 or 1).
# TYPE storagenode_remediation_circuit_open gauge
storagenode_remediation_circuit_open{node="n1"} 0.0
storagenode_remediation_circuit_open{node="n2"} 0.0
# HELP storagenode_remediation_paused Whether somebody has paused all that is done unasked (0 or 1).
# TYPE storagenode_remediation_paused gauge
storagenode_remediation_paused{node="n1"} 0.0
storagenode_remediation_paused{node="n2"} 0.0
# HELP storagenode_remediation_last_success_timestamp_seconds When a run last ended with the node updated.
# TYPE storagenode_remediation_last_success_timestamp_seconds gauge
# HELP storagenode_remediation_last_failure_timestamp_seconds When a run last failed, or ended needing a person.
# TYPE storagenode_remediation_last_failure_timestamp_seconds gauge
# HELP storagenode_remediation_last_run_duration_seconds How long the last run took.
# TYPE storagenode_remediation_last_run_duration_seconds gauge
"""
PENDING = """\
# HELP storagenode_remediation_pending Whether a request waits in the spool for the worker (0 or 1).
# TYPE storagenode_remediation_pending gauge
storagenode_remediation_pending{node="n1"} 0.0
storagenode_remediation_pending{node="n2"} 0.0
"""
FULL = """\
# HELP storagenode_remediation_runs_total Runs that ended, of the node or of its updater, by what asked for them and \
how.
# TYPE storagenode_remediation_runs_total counter
storagenode_remediation_runs_total{node="n1",outcome="done",program="storagenode",trigger="alert"} 2.0
# HELP storagenode_remediation_decisions_total What was decided for a node, or for its updater, and why.
# TYPE storagenode_remediation_decisions_total counter
storagenode_remediation_decisions_total{decision="proceed",node="n1",program="storagenode",reason="below_minimum"} 3.0
# HELP storagenode_remediation_updater_held Whether the official updater is held stopped for a run (0 or 1).
# TYPE storagenode_remediation_updater_held gauge
storagenode_remediation_updater_held{node="n1"} 1.0
storagenode_remediation_updater_held{node="n2"} 0.0
# HELP storagenode_remediation_in_progress Whether a run is under way, or was interrupted and waits to be recovered \
(0 or 1).
# TYPE storagenode_remediation_in_progress gauge
storagenode_remediation_in_progress{node="n1"} 0.0
storagenode_remediation_in_progress{node="n2"} 1.0
# HELP storagenode_remediation_circuit_open Whether runs failed three times within a day, so that nothing is done \
unasked until `resume` (0 or 1).
# TYPE storagenode_remediation_circuit_open gauge
storagenode_remediation_circuit_open{node="n1"} 1.0
storagenode_remediation_circuit_open{node="n2"} 0.0
# HELP storagenode_remediation_paused Whether somebody has paused all that is done unasked (0 or 1).
# TYPE storagenode_remediation_paused gauge
storagenode_remediation_paused{node="n1"} 0.0
storagenode_remediation_paused{node="n2"} 1.0
# HELP storagenode_remediation_last_success_timestamp_seconds When a run last ended with the node updated.
# TYPE storagenode_remediation_last_success_timestamp_seconds gauge
storagenode_remediation_last_success_timestamp_seconds{node="n1"} 1.79e+09
# HELP storagenode_remediation_last_failure_timestamp_seconds When a run last failed, or ended needing a person.
# TYPE storagenode_remediation_last_failure_timestamp_seconds gauge
storagenode_remediation_last_failure_timestamp_seconds{node="n1"} 1.78e+09
# HELP storagenode_remediation_last_run_duration_seconds How long the last run took.
# TYPE storagenode_remediation_last_run_duration_seconds gauge
storagenode_remediation_last_run_duration_seconds{node="n1"} 2.5
# HELP storagenode_remediation_pending Whether a request waits in the spool for the worker (0 or 1).
# TYPE storagenode_remediation_pending gauge
storagenode_remediation_pending{node="n1"} 0.0
storagenode_remediation_pending{node="n2"} 1.0
# HELP storagenode_remediation_worker_last_seen_timestamp_seconds When the worker last published its status file.
# TYPE storagenode_remediation_worker_last_seen_timestamp_seconds gauge
storagenode_remediation_worker_last_seen_timestamp_seconds 1.79e+09
"""
PUBLISHED = Published(
    worker_last_seen=1_790_000_000,
    runs=(RunCount(node="n1", trigger="alert", outcome="done", count=2),),
    decisions=(DecisionCount(node="n1", decision="proceed", reason="below_minimum", count=3),),
    nodes=(
        NodePublished(
            node="n1",
            updater_held=True,
            circuit_open=True,
            paused=True,
            paused_until=1_000_000_000,
            last_success=1_790_000_000,
            last_failure=1_780_000_000,
            last_run_duration=2.5,
        ),
        NodePublished(node="n2", in_progress=True, paused=True),
    ),
)


def exposition(folder: Path, *others: Webhook) -> str:
    registry = CollectorRegistry()
    registry.register(RemediationCollector(Spool(folder / "spool"), ["n1", "n2"], folder / "status.json"))
    for webhook in others:
        registry.register(webhook.requests)
        registry.register(webhook.alerts)
    return generate_latest(registry).decode()


def test_before_anything_has_happened(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    assert exposition(tmp_path) == EMPTY + PENDING


def test_everything(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    Spool(tmp_path / "spool").put("n2")
    (tmp_path / "spool" / "stranger").touch()
    published.write(tmp_path / "status.json", PUBLISHED)
    assert exposition(tmp_path) == FULL


def test_a_spool_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert exposition(tmp_path) == EMPTY
    assert [record.message for record in caplog.records] == ["spool cannot be read"]


def proceed(reason: Reason) -> Proceed:
    return Proceed(target=NodeVersion(1, 104, 5), reason=reason, starts={})


RUNS = (
    (Program.STORAGENODE, Trigger.ALERT, Outcome.UPDATED),
    (Program.STORAGENODE, Trigger.ALERT, Outcome.LATER),
    (Program.STORAGENODE, Trigger.PERSON, Outcome.UPDATED),
    (Program.UPDATER, Trigger.ALERT, Outcome.UPDATED),
    (Program.UPDATER, Trigger.ALERT, Outcome.HEALED),
)
DECISIONS: tuple[tuple[Program, Decision], ...] = (
    (Program.STORAGENODE, proceed(Reason.BELOW_MINIMUM)),
    (Program.STORAGENODE, proceed(Reason.REQUESTED)),
    (Program.STORAGENODE, Skip(Reason.CURRENT, "")),
    (Program.STORAGENODE, Skip(Reason.RUNNING, "")),
    (Program.STORAGENODE, Skip(Reason.PAUSED, "")),
    (Program.STORAGENODE, Skip(Reason.COOLING_DOWN, "")),
    (Program.STORAGENODE, Refuse(Reason.ALLOWED_UNKNOWN, "")),
    (Program.UPDATER, proceed(Reason.UPDATER_TOO_OLD)),
    (Program.UPDATER, proceed(Reason.UPDATER_BLOCKED)),
    (Program.UPDATER, Skip(Reason.CURRENT, "")),
)
"""What a node has that was healed in many a way, as was its updater."""


def test_the_series_that_the_remediation_of_a_node_costs(tmp_path: Path) -> None:
    """The exporter's 60 are counted where its metrics are: tests/exporter/test_updater_metrics.py."""
    (tmp_path / "spool").mkdir()
    node = {"name": "alpha", "service": "process", "binary": str(SUBJECT.binary)}
    rules = Rules(status_file=tmp_path / "status.json")
    with closing(Store(tmp_path / "store")) as store:
        for _ in range(3):
            for program, trigger, outcome in RUNS:
                run = replace(RUN, trigger=trigger, subject=replace(SUBJECT, program=program))
                store.finish(begin(store, run).id, outcome, "")
            for program, decision in DECISIONS:
                store.count("alpha", program, decision)
        store.pause("alpha", lasting=None, reason="")
        begin(store)
        Publisher(Config.model_validate({"nodes": [node]}), rules, store).publish()
    registry = CollectorRegistry()
    registry.register(RemediationCollector(Spool(tmp_path / "spool"), ["alpha"], rules.status_file))
    lines = [line for line in generate_latest(registry).decode().splitlines() if 'node="alpha"' in line]
    assert len(lines) == 8 + len(RUNS) + len(DECISIONS), "\n".join(lines)
    said = "at most 60 series of the exporter and 8 of the webhook"
    assert said in " ".join((ROOT / "docs/reference/metrics.md").read_text().split())


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    install({"promtool": "prometheus"})
    (tmp_path / "spool").mkdir()
    published.write(tmp_path / "status.json", PUBLISHED)
    text = exposition(tmp_path, Webhook(Spool(tmp_path / "spool"), ["n1", "n2"]))
    assert "storagenode_webhook_requests_total" in text
    said = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
