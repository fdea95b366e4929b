"""The alert rules, by promtool; and that its tests notice when a rule is wrong."""

import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from tests.alerts.shipped import AHEAD_TEST, RULES, RULES_TEST, rules
from tests.labs.prometheus import Prometheus, promtool

pytestmark = pytest.mark.prometheus


def test_rules_are_clean() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("tests", [RULES_TEST, AHEAD_TEST])
def test_rules_do_what_they_promise(tests: Path) -> None:
    promtool("test", "rules", tests)


LAST = "last_over_time(storagenode_deadlocked[10m])"
BELOW = "last_over_time(storagenode_below_minimum[10m])"
NEAR, NOT_REACHED = "StorageNodeNearMinimum", "StorageNodeNotReached"
DEADLOCKED, MINIMUM, MISSING = "StorageNodeDeadlocked", "StorageNodeBelowMinimum", "StorageNodeRemediationMissing"


@pytest.mark.parametrize(
    ("alert", "right", "wrong"),
    [
        (DEADLOCKED, LAST, "storagenode_deadlocked"),
        (DEADLOCKED, LAST, "max_over_time(storagenode_deadlocked[10m])"),
        (DEADLOCKED, LAST, "last_over_time(storagenode_deadlocked[5m])"),
        (DEADLOCKED, LAST, "last_over_time(storagenode_deadlocked[20m])"),
        (DEADLOCKED, "== 1", ">= 0"),
        (DEADLOCKED, "for: 1m", "for: 2m"),
        (DEADLOCKED, "for: 1m", "for: 0s"),
        (DEADLOCKED, "for: 1m", "for: 1m\n        keep_firing_for: 5m"),
        (DEADLOCKED, "offline-update", "online-update"),
        (DEADLOCKED, "{instance=%q, process=", "{process="),
        (MINIMUM, BELOW, "storagenode_below_minimum"),
        (MINIMUM, f"unless on (job, instance, node) {LAST} == 1", ""),
        (MINIMUM, "unless on", "and on"),
        (MINIMUM, "severity:", "value: '{{ $value }}'\n          severity:"),
        (MISSING, f"{LAST} == 1", f"{LAST} == 0"),
        (MISSING, LAST, "storagenode_deadlocked"),
        (MISSING, "unless on (node) (", "unless ("),
        (MISSING, "in_progress == 1", "in_progress == 0"),
        (MISSING, "> 3600", "> 36000"),
        (MISSING, "storagenode_remediation_last_success_timestamp_seconds", "vector(0)"),
        (MISSING, "storagenode_remediation_last_failure_timestamp_seconds", "vector(0)"),
        (MISSING, '>= on (node) max by (node) (ALERTS_FOR_STATE{alertname="StorageNodeDeadlocked"})', "> 0"),
        (MISSING, "for: 30m", "for: 29m"),
        (
            NEAR,
            "last_over_time(storagenode_minor_releases_above_minimum[10m])",
            "storagenode_minor_releases_above_minimum",
        ),
        (NEAR, "== 0", "<= 1"),
        (NEAR, "waiting|due", "waiting|due|current"),
        (NEAR, "waiting|due", "waiting|due|below_minimum"),
        (NEAR, "waiting|due", "waiting|due|unknown"),
        (NEAR, "waiting|due", "waiting"),
        (NEAR, "waiting|due", "due"),
        (NEAR, 'due"}[10m]', 'due"}[4m]'),
        (NEAR, "for: 1d", "for: 23h"),
        (NEAR, "max without (basis)", "sum without (basis)"),
        (NEAR, "max without (basis)", "min without (basis)"),
        (
            NEAR,
            "storagenode_disqualification_timestamp_seconds[10m]",
            "storagenode_disqualification_timestamp_seconds[4m]",
        ),
        (NEAR, "and on (job, instance) up == 0", ""),
        (NEAR, "and on (job, instance) up == 0", "and on (job, instance) up == 1"),
        (NEAR, "max[1h]", "max[30s]"),
        (NOT_REACHED, ">= 4 *", "> 4 *"),
        (NOT_REACHED, "< 3 *", "<= 3 *"),
        (NOT_REACHED, " < 3 * 86400", ""),
        (NOT_REACHED, "severity: info", "severity: warning"),
        (NOT_REACHED, "- 18 * 86400", "- 17 * 86400"),
        (NOT_REACHED, "severity:", "value: '{{ $value }}'\n          severity:"),
    ],
)
def test_promtool_test_notices_a_wrong_rule(alert: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert_noticed(alert, right, wrong, AHEAD_TEST if alert in (NEAR, NOT_REACHED) else RULES_TEST, tmp_path)


def assert_noticed(alert: str, right: str, wrong: str, tests: Path, folder: Path) -> None:
    """Demand that promtool's tests fail, for the alerts they see, once something of an alert's rule is wrong."""
    before, name, rest = RULES.read_text().partition(f"- alert: {alert}\n")
    assert right in rest.partition("- alert:")[0], "what is recorded belongs to the alert before"
    (folder / RULES.name).write_text(before + name + rest.replace(right, wrong, 1))
    shutil.copy(tests, folder)
    done = promtool("test", "rules", folder / tests.name, check=False)
    assert done.returncode == 1
    assert "got:" in done.stdout + done.stderr, "it failed for another reason than the alerts it saw"


def test_every_alert_has_its_words_and_its_runbook() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        assert rule["alert"].startswith("StorageNode")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert re.fullmatch(r"[A-Z][^{]+\.", rule["annotations"]["summary"]), (
            "a summary heads a group: nothing of one node"
        )
        severities = {"critical", "warning"} | ({"info", "emergency"} if rule["alert"] == NOT_REACHED else set())
        assert rule["labels"]["severity"] in severities
        assert not any("{{" in value for value in rule["labels"].values())
        assert rule["annotations"]["runbook_url"].endswith(f"/alerts/runbooks/{rule['alert']}.md")
        assert (RULES.parent / "runbooks" / f"{rule['alert']}.md").is_file()


def test_only_the_wait_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(rules(StorageNodeDeadlocked="0s"))
    promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / RULES.name)
    shipped, rewritten = (yaml.safe_load(text) for text in (RULES.read_text(), rules(StorageNodeDeadlocked="0s")))
    assert shipped != rewritten
    shipped["groups"][0]["rules"][0]["for"] = "0s"
    assert shipped == rewritten


def test_rules_in_a_real_prometheus(tmp_path: Path) -> None:
    """It keeps ALERTS_FOR_STATE, and a cure ends the alert with the next scrape."""
    (tmp_path / RULES.name).write_text(rules(StorageNodeDeadlocked="0s", StorageNodeRemediationMissing="2s"))
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
            running.wait_alert("StorageNodeRemediationMissing", "n1", "inactive", timeout=4)
            running.wait_alert("StorageNodeDeadlocked", "n1", timeout=0)
            deadlocked.labels("n1").set(0)
            running.wait_alert("StorageNodeDeadlocked", "n1", "inactive", timeout=4)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
