"""The alert rules: that they do what they promise, by promtool, and that each can be acted on."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from exporter.updaterlog import Blocked
from tests.alerts import test_wrong_rules_on_keepers, test_wrong_rules_on_nodes
from tests.alerts.mutated import name_of, run_alone
from tests.alerts.shipped import RULES, RULES_TESTS, rules
from tests.labs.prometheus import Prometheus, promtool

SEVERITIES = {
    "StorageNodeDeadlocked": ["critical"],
    "StorageNodeBelowMinimum": ["warning"],
    "StorageNodeNearMinimum": ["warning"],
    "StorageNodeUpdateDue": ["warning"],
    "StorageNodeRestartPending": ["warning"],
    "StorageNodeAllowedVersionsStale": ["warning"],
    "StorageNodeVersionServerInconsistent": ["warning"],
    "StorageNodeCrashLooping": ["warning"],
    "StorageNodeUnknown": ["warning"],
    "StorageNodeGone": ["warning"],
    "StorageNodeNotReached": ["info", "warning", "critical", "emergency"],
    "StorageNodeUpdaterBlocked": ["warning"],
    "StorageNodeUpdaterDown": ["warning"],
    "StorageNodeUpdaterSilent": ["warning"],
    "StorageNodeUpdaterOutdated": ["warning"],
    "StorageNodeUpdaterAsksElsewhere": ["warning"],
    "StorageNodeRemediationMissing": ["critical"],
    "StorageNodeRemediationFailed": ["critical"],
    "StorageNodeRemediationCircuitOpen": ["warning"],
    "StorageNodeRemediationPaused": ["info"],
    "StorageNodeUpdaterHeld": ["warning"],
    "StorageNodeWorkerNotSeen": ["critical"],
    "StorageNodeExporterDown": ["critical", "critical"],
    "StorageNodeWebhookDown": ["warning", "warning"],
    "StorageNodeAlertsNotDelivered": ["warning", "info"],
    "StorageNodeWatchdog": ["none"],
}
"""By what a person must do: `critical` now, `warning` soon, `info` nothing."""
REMEDIED = {"StorageNodeDeadlocked", "StorageNodeUpdaterBlocked", "StorageNodeUpdaterOutdated"}
"""What the webhook takes."""
WITHOUT_NODE = {
    "StorageNodeAllowedVersionsStale",
    "StorageNodeVersionServerInconsistent",
    "StorageNodeWorkerNotSeen",
    "StorageNodeExporterDown",
    "StorageNodeWebhookDown",
    "StorageNodeAlertsNotDelivered",
    "StorageNodeWatchdog",
}
OURS = "https://example.invalid/storagenode-keeper/alerts/runbooks"
BOARDS = "https://grafana.example.invalid/d"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
RULES_OF_ALL: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES_OF_ALL if "alert" in rule]


@pytest.mark.prometheus
def test_rules_are_clean() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.prometheus
@pytest.mark.parametrize("tests", RULES_TESTS, ids=lambda path: path.name)
def test_rules_do_what_they_promise(tests: Path) -> None:
    promtool("test", "rules", tests)


@pytest.mark.prometheus
@pytest.mark.parametrize("name", sorted({name_of(rule) for rule in RULES_OF_ALL}))
def test_a_rule_is_right_where_it_is_tested_alone(name: str, tmp_path: Path) -> None:
    """Else what is noticed once something of it is wrong would be noticed anyway."""
    assert run_alone(name, RULES.read_text(), tmp_path).returncode == 0
    wrong = [*test_wrong_rules_on_nodes.WRONG, *test_wrong_rules_on_keepers.WRONG]
    assert name in {rule for rule, _, _ in wrong}, "no wrong rule of this name is tried"


def test_there_are_these_alerts_and_no_others() -> None:
    severities: dict[str, list[str]] = {}
    for rule in ALERTS:
        severities.setdefault(rule["alert"], []).append(rule["labels"]["severity"])
    assert severities == SEVERITIES
    assert {rule["alert"] for rule in ALERTS if "remediation" in rule["labels"]} == REMEDIED
    assert {rule["labels"].get("remediation") for rule in ALERTS} == {None, "offline-update"}


def test_only_what_waits_anyway_is_looked_at_every_two_minutes() -> None:
    """And what is looked at more often does not ask what is recorded there: a restart would begin its wait anew."""
    slow = [rule for group in GROUPS if "interval" in group for rule in group["rules"]]
    quick = [rule for rule in RULES_OF_ALL if rule not in slow]
    assert {group["interval"] for group in GROUPS if "interval" in group} == {"2m"}
    unhurried = re.compile("[0-9]+[hd]|([5-9]|[0-9]{2})m")
    for rule in slow:
        # How long it has lasted is what NotReached is about: hours.
        assert "record" in rule or rule["alert"] == "StorageNodeNotReached" or unhurried.fullmatch(rule["for"]), rule
    recorded = {rule["record"] for rule in slow if "record" in rule}
    assert [rule for rule in quick for name in recorded if name in rule["expr"]] == []
    assert {"StorageNodeDeadlocked", "StorageNodeWatchdog"} < {name_of(rule) for rule in quick}


@pytest.mark.parametrize("rule", ALERTS, ids=name_of)
def test_every_alert_has_its_words_its_runbook_and_its_board(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert re.fullmatch(r"[A-Z][^{]+\.", rule["annotations"]["summary"]), "a summary heads a group: nothing of one node"
    assert rule["annotations"]["description"][-1] != "\n"
    assert rule["annotations"]["runbook_url"] == f"{OURS}/{rule['alert']}.md"
    assert (RULES.parent / "runbooks" / f"{rule['alert']}.md").is_file()
    nowhere = rule["alert"] in WITHOUT_NODE or rule["alert"] == "StorageNodeGone"  # its board has nothing of it
    board = "storagenode-fleet" if nowhere else "storagenode-node?var-node={{ $labels.node }}"
    assert rule["annotations"]["dashboard_url"] == f"{BOARDS}/{board}"
    assert ("{{ $labels.node }}" in rule["annotations"]["description"]) == (rule["alert"] not in WITHOUT_NODE)
    templated = {name for name, value in rule["labels"].items() if "{{" in value}
    assert templated <= {"host"}, "a label that changes makes a new alert"
    assert "$value" not in str(rule["labels"])


def test_the_runbook_has_every_way_for_an_updater_to_be_blocked() -> None:
    text = (RULES.parent / "runbooks/StorageNodeUpdaterBlocked.md").read_text()
    assert [kind for kind in Blocked if f"| `{kind}` |" not in text or f"`{kind}`: " not in text] == []


@pytest.mark.prometheus
def test_only_how_long_is_waited_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(rules(StorageNodeDeadlocked="0s"))
    promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / RULES.name)
    shipped, rewritten = (yaml.safe_load(text) for text in (RULES.read_text(), rules(StorageNodeDeadlocked="0s")))
    assert shipped != rewritten
    (rule,) = (rule for rule in shipped["groups"][0]["rules"] if name_of(rule) == "StorageNodeDeadlocked")
    rule["for"] = "0s"
    assert {group.pop("interval", None) for group in shipped["groups"]} == {None, "2m"}
    assert shipped == rewritten


@pytest.mark.prometheus
def test_rules_in_a_real_prometheus(tmp_path: Path) -> None:
    """It keeps ALERTS_FOR_STATE and what is recorded, and a cure ends the alert with the next scrape."""
    (tmp_path / RULES.name).write_text(
        rules(
            StorageNodeDeadlocked="0s",
            StorageNodeRemediationMissing="2s",
            StorageNodeRemediationFailed="0s",
            StorageNodeWebhookDown="0s",
        )
    )
    registry = CollectorRegistry()
    deadlocked = Gauge("storagenode_deadlocked", "", ["node"], registry=registry)
    failure = Gauge("storagenode_remediation_last_failure_timestamp_seconds", "", ["node"], registry=registry)
    deadlocked.labels("n1").set(1)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        address = f"127.0.0.1:{server.server_port}"
        with Prometheus({"storagenode": address}, rule_files=[tmp_path / RULES.name]) as running:
            running.wait_alert("StorageNodeDeadlocked", "n1")
            missing = running.wait_alert("StorageNodeRemediationMissing", "n1")
            assert "remediation" not in missing["labels"]
            failure.labels("n1").set(time.time())
            running.wait_alert("StorageNodeRemediationMissing", "n1", "inactive")
            failed = running.wait_alert("StorageNodeRemediationFailed", "n1")
            assert "not been well since" in failed["annotations"]["description"]
            running.wait_alert("StorageNodeDeadlocked", "n1", timeout=0)
            deadlocked.labels("n1").set(0)
            running.wait_alert("StorageNodeDeadlocked", "n1", "inactive")
            assert "host" not in running.wait_alert("StorageNodeWebhookDown")["labels"], "there is no target of it"
            running.wait_alert("StorageNodeWatchdog")
            groups = running.get("/api/v1/rules")["data"]["groups"]
            assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
