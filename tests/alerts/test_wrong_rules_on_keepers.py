"""A wrong rule on the updater, on what is done, or on who watches is noticed by promtool's tests."""

from pathlib import Path

import pytest

from tests.alerts.mutated import assert_noticed

pytestmark = pytest.mark.prometheus

BLOCKED, DOWN, SILENT = "StorageNodeUpdaterBlocked", "StorageNodeUpdaterDown", "StorageNodeUpdaterSilent"
OUTDATED, ELSEWHERE, HELD = "StorageNodeUpdaterOutdated", "StorageNodeUpdaterAsksElsewhere", "StorageNodeUpdaterHeld"
MISSING, FAILED, CIRCUIT = (f"StorageNodeRemediation{what}" for what in ("Missing", "Failed", "CircuitOpen"))
PAUSED, WORKER = "StorageNodeRemediationPaused", "StorageNodeWorkerNotSeen"
EXPORTER, WEBHOOK = "StorageNodeExporterDown", "StorageNodeWebhookDown"
NOT_DELIVERED, WATCHDOG = "StorageNodeAlertsNotDelivered", "StorageNodeWatchdog"
LAST = "last_over_time(storagenode_deadlocked[10m])"
CHECK = "last_over_time(storagenode_updater_last_check_timestamp_seconds[10m])"
INTERVAL = "last_over_time(storagenode_updater_check_interval_seconds[10m])"
STATE = "last_over_time(storagenode_updater_service_state"
SEEN = "last_over_time(storagenode_remediation_worker_last_seen_timestamp_seconds[10m])"
FAILURE = "last_over_time(storagenode_remediation_last_failure_timestamp_seconds[10m])"
AGAIN = 'or on (job, instance, node) last_over_time(ALERTS{alertname="StorageNodeRemediationFailed"}[1h])'
RUNNING = 'last_over_time(storagenode_service_state{state="running"}[10m])'

WRONG = [
    (BLOCKED, "last_over_time(storagenode_updater_blocked[10m])", "storagenode_updater_blocked"),
    (BLOCKED, "== 1", ">= 0"),
    (BLOCKED, "for: 15m", "for: 14m"),
    (BLOCKED, "for: 15m", "for: 16m"),
    (BLOCKED, '"last_failed"', '"left_over"'),
    (DOWN, RUNNING, 'storagenode_service_state{state="running"}'),
    (DOWN, "without (manager, state)", "without (manager)"),
    (DOWN, f'and on (job, instance, node) {STATE}{{state="running"}}[10m]) == 0', ""),
    (DOWN, 'state=~"starting|unknown"', 'state="starting"'),
    (DOWN, 'state=~"starting|unknown"', 'state="unknown"'),
    (DOWN, f"unless on (job, instance, node) {INTERVAL} <= 0", ""),
    (DOWN, f"unless on (job, instance, node) {INTERVAL}", f"unless on (node) {INTERVAL}"),
    (DOWN, "for: 30m", "for: 29m"),
    (SILENT, f"time() - {CHECK}", "time() - storagenode_updater_last_check_timestamp_seconds"),
    (SILENT, "3 *", "4 *"),
    (SILENT, "> 86400", "> 86300"),
    (SILENT, f"unless on (job, instance, node) {INTERVAL} > 0", ""),
    (SILENT, f"3 * ({INTERVAL} > 0)", f"3 * {INTERVAL}"),
    (SILENT, f'and on (job, instance, node) {STATE}{{state="running"}}[10m]) == 1', ""),
    (SILENT, "for: 10m", "for: 9m"),
    (OUTDATED, "last_over_time(storagenode_updater_replaces_stopped[10m])", "storagenode_updater_replaces_stopped"),
    (OUTDATED, "== 0", ">= 0"),
    (OUTDATED, "for: 1h", "for: 59m"),
    (
        ELSEWHERE,
        "last_over_time(storagenode_updater_version_server_ours[10m])",
        "storagenode_updater_version_server_ours",
    ),
    (ELSEWHERE, "== 0", "== 1"),
    (ELSEWHERE, "for: 15m", "for: 14m"),
    (MISSING, f"{LAST} == 1", f"{LAST} == 0"),
    (MISSING, LAST, "storagenode_deadlocked"),
    (MISSING, "unless on (node) (", "unless ("),
    (MISSING, "in_progress == 1", "in_progress == 0"),
    (MISSING, "> 3600", "> 36000"),
    (MISSING, "storagenode_remediation_last_success_timestamp_seconds", "vector(0)"),
    (MISSING, "storagenode_remediation_last_failure_timestamp_seconds", "vector(0)"),
    (MISSING, '>= on (node) max by (node) (ALERTS_FOR_STATE{alertname="StorageNodeDeadlocked"})', "> 0"),
    (MISSING, "for: 30m", "for: 29m"),
    (FAILED, FAILURE, "storagenode_remediation_last_failure_timestamp_seconds"),
    (FAILED, "last_success_timestamp_seconds[10m]", "last_success_timestamp_seconds[4m]"),
    (FAILED, ">= on (job, instance, node)", "<= on (job, instance, node)"),
    (FAILED, f">= on (job, instance, node) {FAILURE}", "> 0"),
    (FAILED, "unless on (node) (", "unless on (job, instance, node) ("),
    (FAILED, f"{RUNNING} == 1", f"{RUNNING} == 0"),
    (FAILED, 'state="running"}[10m]', 'state="running"}[4m]'),
    (FAILED, "unless on (job, instance, node) last_over_time(storagenode_below_minimum[10m]) == 1", ""),
    (FAILED, "storagenode_below_minimum[10m]", "storagenode_below_minimum[4m]"),
    (FAILED, "< 3600", "< 600000"),
    (FAILED, "< 3600", "< 60"),
    (FAILED, AGAIN, ""),
    (FAILED, "[1h]", "[2h]"),
    (FAILED, "for: 5m", "for: 2m"),
    (FAILED, "for: 5m", "for: 6m"),
    (CIRCUIT, "last_over_time(storagenode_remediation_circuit_open[10m])", "storagenode_remediation_circuit_open"),
    (CIRCUIT, "== 1", ">= 0"),
    (CIRCUIT, "for: 5m", "for: 4m"),
    (CIRCUIT, "for: 5m", "for: 6m"),
    (
        PAUSED,
        "last_over_time(storagenode_remediation_paused[10m])",
        "max_over_time(storagenode_remediation_paused[1h])",
    ),
    (PAUSED, "== 1", ">= 0"),
    (PAUSED, "for: 3d", "for: 71h"),
    (PAUSED, "for: 3d", "for: 73h"),
    (PAUSED, "keep_firing_for: 30m", "keep_firing_for: 0s"),
    (PAUSED, "keep_firing_for: 30m", "keep_firing_for: 2h"),
    (HELD, "last_over_time(storagenode_remediation_updater_held[10m])", "storagenode_remediation_updater_held"),
    (HELD, "== 1", ">= 0"),
    (HELD, "for: 1h", "for: 50m"),
    (HELD, "for: 1h", "for: 61m"),
    (WORKER, "count without (node)", ""),
    (WORKER, "last_over_time(storagenode_remediation_pending[10m]) == 1", "storagenode_remediation_pending == 1"),
    (WORKER, "== 1", ">= 0"),
    (WORKER, SEEN, "storagenode_remediation_worker_last_seen_timestamp_seconds"),
    (WORKER, "<= 900", "<= 600"),
    (WORKER, "<= 900", "<= 1800"),
    (WORKER, "<= 3600", "<= 3500"),
    (WORKER, "<= 3600", "<= 36000"),
    (WORKER, "storagenode_remediation_in_progress[10m]", "storagenode_remediation_in_progress[4m]"),
    (WORKER, "for: 5m", "for: 3m"),
    (WORKER, "for: 5m", "for: 6m"),
    (EXPORTER, 'avg_over_time(up{job="storagenode"}[5m]) < 0.5', 'up{job="storagenode"} == 0'),
    (EXPORTER, "< 0.5", "< 0.9"),
    (EXPORTER, "[5m]", "[15m]"),
    (EXPORTER, '{job="storagenode"}', ""),
    (EXPORTER, "for: 5m", "for: 2m"),
    (EXPORTER, "for: 5m", "for: 9m"),
    (EXPORTER, ":[0-9]+$", ":.*$x"),
    (EXPORTER, "gone_since{instance=%q}", "gone_since{node=%q}"),
    (EXPORTER, 'absent(up{job="storagenode"})', "absent(up)"),
    (WEBHOOK, 'avg_over_time(up{job="storagenode-remediate"}[5m]) < 0.5', 'up{job="storagenode-remediate"} == 0'),
    (WEBHOOK, "< 0.5", "< 0.9"),
    (WEBHOOK, "[5m]", "[15m]"),
    (WEBHOOK, '{job="storagenode-remediate"}', ""),
    (WEBHOOK, "for: 5m", "for: 2m"),
    (WEBHOOK, "for: 5m", "for: 9m"),
    (WEBHOOK, ":[0-9]+$", ":.*"),
    (WEBHOOK, 'absent(up{job="storagenode-remediate"})', "absent(up)"),
    (NOT_DELIVERED, '{job="alertmanager"}', ""),
    (NOT_DELIVERED, "sum by (job, instance, integration)", "sum by (job, instance)"),
    (NOT_DELIVERED, "sum by (job, instance, integration)", ""),
    (NOT_DELIVERED, "[10m]", "[5m]"),
    (NOT_DELIVERED, "[10m]", "[30m]"),
    (NOT_DELIVERED, "> 0", ">= 0"),
    (NOT_DELIVERED, "rate(", "delta("),
    (NOT_DELIVERED, "for: 15m", "for: 14m"),
    (NOT_DELIVERED, "for: 15m", "for: 25m"),
    (NOT_DELIVERED, 'integration "webhook"', 'integration "email"'),
    (WATCHDOG, "vector(1)", "vector(1) == 0"),
    (WATCHDOG, "severity: none", "severity: info"),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG)
def test_a_wrong_rule_is_noticed(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert_noticed(name, right, wrong, tmp_path)
