"""The runbooks: each for its alert, of one form, and every command in them run on a host in the state it is about."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from remediate.journal import Outcome
from tests.alerts.shipped import RULES
from tests.documents import blocks
from tests.labs.systemd import Container
from tests.runbooks import of_monitoring, of_nodes, of_remediation, of_updaters
from tests.runbooks.book import HEADINGS, RUNBOOKS, SILENCE, fill, placeholders, rules, run
from tests.runbooks.monitored import Monitored, until

NAMES = sorted(path.stem for path in RUNBOOKS.glob("StorageNode*.md"))
NODES = (
    *("deadlocked", "below", "loops", "near", "due", "pending", "unknown", "gone", "away", "stale", "between"),
    *("blocked", "unguarded", "outdated", "silent", "elsewhere", "held"),
    *("failed", "thrice", "missed", "paused", "waits", "healthy", "asked", "tried"),
)
STATES: dict[str, Callable[[Monitored], None]] = {
    "StorageNodeDeadlocked": of_nodes.deadlocked,
    "StorageNodeBelowMinimum": of_nodes.below_minimum,
    "StorageNodeCrashLooping": of_nodes.crash_looping,
    "StorageNodeNearMinimum": of_nodes.near_minimum,
    "StorageNodeUpdateDue": of_nodes.update_due,
    "StorageNodeRestartPending": of_nodes.restart_pending,
    "StorageNodeUnknown": of_nodes.unknown,
    "StorageNodeGone": of_nodes.gone,
    "StorageNodeNotReached": of_nodes.not_reached,
    "StorageNodeAllowedVersionsStale": of_nodes.allowed_versions_stale,
    "StorageNodeVersionServerInconsistent": of_nodes.inconsistent,
    "StorageNodeUpdaterBlocked": of_updaters.blocked,
    "StorageNodeUpdaterDown": of_updaters.down,
    "StorageNodeUpdaterOutdated": of_updaters.outdated,
    "StorageNodeUpdaterSilent": of_updaters.silent,
    "StorageNodeUpdaterAsksElsewhere": of_updaters.asks_elsewhere,
    "StorageNodeUpdaterHeld": of_updaters.held,
    "StorageNodeRemediationFailed": of_remediation.failed,
    "StorageNodeRemediationCircuitOpen": of_remediation.circuit_open,
    "StorageNodeRemediationMissing": of_remediation.missing,
    "StorageNodeRemediationPaused": of_remediation.paused,
    "StorageNodeWorkerNotSeen": of_remediation.worker_not_seen,
    "StorageNodeExporterDown": of_monitoring.exporter_down,
    "StorageNodeWebhookDown": of_monitoring.webhook_down,
    "StorageNodeAlertsNotDelivered": of_monitoring.not_delivered,
    "StorageNodeWatchdog": of_monitoring.watchdog,
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    with Container() as container, Monitored(container, tmp_path_factory.mktemp("monitored"), NODES) as host:
        for block in blocks("runbooks", RUNBOOKS / "README.md"):
            for line in block.commands:
                run(host, line)
        yield host


@pytest.mark.e2e
@pytest.mark.systemd
@pytest.mark.prometheus
@pytest.mark.parametrize("name", NAMES)
def test_its_commands_find_the_state_and_mend_it(host: Monitored, name: str) -> None:
    STATES[name](host)
    assert host.tracebacks() == []


@pytest.mark.e2e
@pytest.mark.systemd
@pytest.mark.prometheus
def test_the_whole_way_is_tried_as_the_document_on_alerting_says(host: Monitored) -> None:
    with host.installed("tried") as node:
        node.install().start()
        host.watch(node, webhook=True)
        said = [
            "".join(run(host, fill(line, {"NODE": node.name})) for line in block.commands)
            for block in blocks("alerting")
            if not block.commands[0].startswith("storagenode-remediate")
        ]
        assert len(said) == 5
        rules = host.container.path("/etc/prometheus/storagenode.rules.yml").read_text()
        assert "https://example.invalid" not in rules
        assert "https://grafana.example.invalid" not in rules
        assert "/alerts/runbooks/StorageNodeDeadlocked.md" in rules
        assert "storagenode-remediate,people\n" in said[1]
        assert "StorageNodeTest" in said[2]
        until(lambda: "current" in host.remediate("history", node.name), "the worker has looked")
        ((told,),) = (block.commands for block in blocks("alerting") if block.commands[0].startswith("storagenode"))
        assert "skip" in run(host, fill(told, {"NODE": node.name}))
        assert node.runs() == []


def test_there_is_one_for_each_alert() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule} == set(NAMES)
    assert set(STATES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_form_of_all(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    severities = list(dict.fromkeys(rule["labels"]["severity"] for rule in rules(name)))
    said = "Four severities" if len(severities) > 1 else severities[0].capitalize().replace("None", "Severity none")
    assert text.splitlines()[2].startswith(f"{said}")
    assert f"| [{name}]({name}.md) | {', '.join(severities)} |" in (RUNBOOKS / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_it_silences_itself_for_a_time_and_says_why(name: str) -> None:
    (line,) = [
        line
        for block in blocks("runbooks", RUNBOOKS / f"{name}.md")
        for line in block.commands
        if line.startswith("amtool silence add")
    ]
    assert re.search(r' --duration=\d+[hd] --comment="[^"]+"$', line)
    if name != "StorageNodeWatchdog":
        assert name in line
    block = blocks("runbooks", RUNBOOKS / f"{name}.md")[-1]
    assert (block.heading, block.commands) == (SILENCE, [line])


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_what_is_to_be_filled_in_is_explained(path: Path) -> None:
    for block in blocks("runbooks", path):
        words = set(re.findall(r"\b[A-Z]{3,}\b", block.text))
        assert words - placeholders() - {"ALERTS"} == set(), f"{path.name}:{block.line}"


def test_every_way_to_fail_is_explained() -> None:
    text = (RUNBOOKS / "StorageNodeRemediationFailed.md").read_text()
    said = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert said == {outcome for outcome in Outcome if outcome.exit_code != 0}
