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
NOT_RUNNING, AGE = (
    "node:storagenode_updater_service_state:not_running",
    "node:storagenode_updater_last_check_timestamp_seconds:overdue",
)
IN_PROGRESS, WAITS, IS_PAUSED = (
    f"node:storagenode_remediation_{what}:true" for what in ("in_progress", "pending", "paused")
)
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
    (NOT_RUNNING, "max without (state)", ""),
    (NOT_RUNNING, f'{STATE}{{state="running"}}[10m])', 'storagenode_updater_service_state{state="running"}'),
    (NOT_RUNNING, "== 0", ">= 0"),
    (DOWN, f"and on (job, instance, node) {RUNNING} == 1", ""),
    (DOWN, 'reReplaceAll "unknown"', 'reReplaceAll "stopped"'),
    (DOWN, f"unless on (job, instance, node) {INTERVAL} <= 0", ""),
    (DOWN, f"unless on (job, instance, node) {INTERVAL}", f"unless on (node) {INTERVAL}"),
    (DOWN, "for: 30m", "for: 29m"),
    (AGE, CHECK, "storagenode_updater_last_check_timestamp_seconds"),
    (AGE, "45 * 60", "60 * 60"),
    (AGE, "45 * 60", "15 * 60"),
    (SILENT, "3 *", "4 *"),
    (SILENT, "+ 86400", "+ 86300"),
    (
        SILENT,
        "or on (job, instance, node) 0 * node:storagenode_updater_last_check_timestamp_seconds:overdue + 86400",
        "",
    ),
    (SILENT, f"3 * ({INTERVAL} > 0)", f"3 * {INTERVAL}"),
    (SILENT, f"unless on (job, instance, node) {NOT_RUNNING}", ""),
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
    (IN_PROGRESS, "last_over_time(storagenode_remediation_in_progress[10m])", "storagenode_remediation_in_progress"),
    (IN_PROGRESS, "== 1", "== 0"),
    (IN_PROGRESS, SEEN, "storagenode_remediation_worker_last_seen_timestamp_seconds"),
    (IN_PROGRESS, "> 3600", "> 36000"),
    (IN_PROGRESS, "> 3600", "> 3500"),
    (MISSING, "unless on (node) node:storagenode_remediation_in", "unless node:storagenode_remediation_in"),
    (MISSING, "unless on (node) node:storagenode_remediation_paused:true", ""),
    (MISSING, "unless on (node) node:storagenode_remediation_paused", "unless node:storagenode_remediation_paused"),
    (MISSING, "unless on (node) (", "unless ("),
    (MISSING, "and on (job, instance) node:storagenode_remediation_in_progress:true", ""),
    (MISSING, "and on (job, instance) node:storagenode_remediation_in", "and on () node:storagenode_remediation_in"),
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
    (
        FAILED,
        'unless on (job, instance, node) ALERTS{alertname=~"StorageNodeBelow',
        'unless on () ALERTS{alertname=~"x',
    ),
    (FAILED, "StorageNodeBelowMinimum|", ""),
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
        IS_PAUSED,
        "last_over_time(storagenode_remediation_paused[10m])",
        "max_over_time(storagenode_remediation_paused[1h])",
    ),
    (PAUSED, "for: 3d", "for: 71h"),
    (PAUSED, "for: 3d", "for: 73h"),
    (PAUSED, "keep_firing_for: 30m", "keep_firing_for: 0s"),
    (PAUSED, "keep_firing_for: 30m", "keep_firing_for: 2h"),
    (HELD, "last_over_time(storagenode_remediation_updater_held[10m])", "storagenode_remediation_updater_held"),
    (HELD, "== 1", ">= 0"),
    (HELD, "for: 1h", "for: 50m"),
    (HELD, "for: 1h", "for: 61m"),
    (WORKER, "count without (node)", ""),
    (WAITS, "last_over_time(storagenode_remediation_pending[10m])", "storagenode_remediation_pending"),
    (WAITS, "== 1", ">= 0"),
    (WORKER, SEEN, "storagenode_remediation_worker_last_seen_timestamp_seconds"),
    (WORKER, "<= 900", "<= 600"),
    (WORKER, "<= 900", "<= 1800"),
    (WORKER, "unless on (job, instance) node:storagenode_remediation_in_progress:true", ""),
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
    (NOT_DELIVERED, 'absent(up{job="alertmanager"})', "absent(up)"),
    (NOT_DELIVERED, "for: 5m", "for: 4m"),
    (NOT_DELIVERED, "for: 5m", "for: 6m"),
    (NOT_DELIVERED, "for: 15m", "for: 14m"),
    (NOT_DELIVERED, "for: 15m", "for: 25m"),
    (NOT_DELIVERED, 'integration "webhook"', 'integration "email"'),
    (WATCHDOG, "vector(1)", "vector(1) == 0"),
    (WATCHDOG, "severity: none", "severity: info"),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG)
def test_a_wrong_rule_is_noticed(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert_noticed(name, right, wrong, tmp_path)
