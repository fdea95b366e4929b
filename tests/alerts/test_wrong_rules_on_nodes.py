"""A wrong rule on a node, its version or its clocks is noticed by promtool's tests."""

from pathlib import Path

import pytest

from tests.alerts.mutated import assert_noticed

pytestmark = pytest.mark.prometheus

DEADLOCKED, MINIMUM, NEAR = "StorageNodeDeadlocked", "StorageNodeBelowMinimum", "StorageNodeNearMinimum"
DUE, RESTART, STALE = "StorageNodeUpdateDue", "StorageNodeRestartPending", "StorageNodeAllowedVersionsStale"
INCONSISTENT, LOOPING, UNKNOWN = "StorageNodeVersionServerInconsistent", "StorageNodeCrashLooping", "StorageNodeUnknown"
GONE, GONE_SINCE = "StorageNodeGone", "node:storagenode_up:gone_since"
UNKNOWN_UPDATE = "node:storagenode_update_state:unknown"
UNKNOWN_SERVICE = 'avg_over_time(storagenode_service_state{state="unknown"}[10m])'
NOT_REACHED, DISQUALIFIED = "StorageNodeNotReached", "node:storagenode_disqualification_timestamp_seconds:max"
INSTALLED, IS_DEADLOCKED = "node:storagenode_version_number:installed", "node:storagenode_deadlocked:true"
IS_BELOW, IS_PENDING = "node:storagenode_below_minimum:true", "node:storagenode_restart_pending:true"
IS_NEAR, IS_DUE = "node:storagenode_minor_releases_above_minimum:zero", "node:storagenode_update_state:due"
LONG_AGO = "node:storagenode_disqualification_timestamp_seconds:not_reached"
DEADLOCKED_ALREADY = 'ALERTS{alertname="StorageNodeDeadlocked"}'
LAST = "last_over_time(storagenode_deadlocked[10m])"
BELOW = "last_over_time(storagenode_below_minimum[10m])"
MINORS = "last_over_time(storagenode_minor_releases_above_minimum[10m])"
FETCHED = "last_over_time(storagenode_allowed_versions_fetched_timestamp_seconds[10m])"
CONSISTENT = "last_over_time(storagenode_allowed_versions_consistent[10m])"
PENDING = "last_over_time(storagenode_restart_pending[10m])"
VALUE = "value: '{{ $value }}'\n          severity:"

WRONG = [
    (INSTALLED, "max without (source)", "max without ()"),
    (INSTALLED, '{source="installed"}', ""),
    (INSTALLED, "[10m]", "[4m]"),
    (INSTALLED, "node:storagenode_below_minimum:true\n                  or ", ""),
    (INSTALLED, "or node:storagenode_minor_releases_above_minimum:zero", ""),
    (INSTALLED, "or node:storagenode_update_state:due", ""),
    (INSTALLED, "or node:storagenode_restart_pending:true", ""),
    (IS_DEADLOCKED, LAST, "storagenode_deadlocked"),
    (IS_DEADLOCKED, LAST, "max_over_time(storagenode_deadlocked[10m])"),
    (IS_DEADLOCKED, LAST, "last_over_time(storagenode_deadlocked[5m])"),
    (IS_DEADLOCKED, LAST, "last_over_time(storagenode_deadlocked[20m])"),
    (DEADLOCKED, "max without (source)", "max without ()"),
    (DEADLOCKED, '{source="installed"}', ""),
    (DEADLOCKED, "[10m]", "[4m]"),
    (DEADLOCKED, "or node:storagenode_deadlocked:true == 1", ""),
    (DEADLOCKED, "and on (job, instance, node)", "or"),
    (DEADLOCKED, '".$1" }}', '"$1" }}'),
    (DEADLOCKED, "gt $value 1.0", "gt $value 0.0"),
    (DEADLOCKED, "for: 1m", "for: 2m"),
    (DEADLOCKED, "for: 1m", "for: 0s"),
    (DEADLOCKED, "for: 1m", "for: 1m\n        keep_firing_for: 5m"),
    (DEADLOCKED, "offline-update", "online-update"),
    (DEADLOCKED, "var-node={{ $labels.node }}", "var-node=all"),
    (IS_BELOW, BELOW, "storagenode_below_minimum"),
    (MINIMUM, f"unless on (job, instance, node) {DEADLOCKED_ALREADY}", ""),
    (MINIMUM, "unless on", "and on"),
    (MINIMUM, "severity:", VALUE),
    (IS_NEAR, MINORS, "storagenode_minor_releases_above_minimum"),
    (IS_NEAR, "== 0", "<= 1"),
    (NEAR, "and on (job, instance, node) node:storagenode_minor_releases_above_minimum:zero", ""),
    (NEAR, "unless on (job, instance, node) node:storagenode_below_minimum:true", ""),
    (NEAR, "< on (job, instance) group_left ()", "<= on (job, instance) group_left ()"),
    (NEAR, 'kind="suggested"', 'kind="minimum"'),
    (NEAR, 'process="storagenode"', 'process="storagenode-updater"'),
    (NEAR, 'suggested"}[10m]', 'suggested"}[4m]'),
    (NEAR, "for: 1d", "for: 23h"),
    (NEAR, "keep_firing_for: 30m", "keep_firing_for: 20m"),
    (NEAR, "keep_firing_for: 30m", "keep_firing_for: 1h"),
    (IS_DUE, 'last_over_time(storagenode_update_state{state="due"}[10m])', 'storagenode_update_state{state="due"}'),
    (IS_DUE, '{state="due"}', '{state=~"due|waiting"}'),
    (DUE, "for: 1d", "for: 23h"),
    (DUE, "for: 1d", "for: 25h"),
    (DUE, "keep_firing_for: 30m", "keep_firing_for: 5m"),
    (DUE, "keep_firing_for: 30m", "keep_firing_for: 1h"),
    (IS_PENDING, PENDING, "storagenode_restart_pending"),
    (RESTART, "for: 6h", "for: 5h"),
    (RESTART, "for: 6h", "for: 7h"),
    (RESTART, "keep_firing_for: 30m", "keep_firing_for: 5m"),
    (RESTART, "keep_firing_for: 30m", "keep_firing_for: 1h"),
    (STALE, FETCHED, "storagenode_allowed_versions_fetched_timestamp_seconds"),
    (STALE, "6 * 3600", "5 * 3600"),
    (STALE, "6 * 3600", "7 * 3600"),
    (STALE, "max by (job, instance)", "max by (job, instance, node)"),
    (STALE, f"unless on (job, instance) {FETCHED}", ""),
    (STALE, "for: 10m", "for: 8m"),
    (STALE, "for: 10m", "for: 11m"),
    (STALE, ":[0-9]+$", ":.*$x"),
    (INCONSISTENT, CONSISTENT, "storagenode_allowed_versions_consistent"),
    (INCONSISTENT, "== 0", "== 1"),
    (INCONSISTENT, "count by (job)", "count by (job, instance)"),
    (INCONSISTENT, "for: 15m", "for: 14m"),
    (INCONSISTENT, "for: 15m", "for: 16m"),
    (INCONSISTENT, "> ignoring (kind)", "< ignoring (kind)"),
    (LOOPING, "max_over_time(", "last_over_time("),
    (LOOPING, 'crash_looping"}[10m]', 'crash_looping"}[3m]'),
    (LOOPING, 'crash_looping"}[10m]', 'crash_looping"}[20m]'),
    (LOOPING, "max without (manager, state)", ""),
    (LOOPING, f"unless on (job, instance, node) {DEADLOCKED_ALREADY}", ""),
    (LOOPING, "for: 15m", "for: 10m"),
    (LOOPING, "for: 15m", "for: 16m"),
    (UNKNOWN, f"max without (manager, state) ({UNKNOWN_SERVICE} > 0.5)\n            or ", ""),
    (UNKNOWN, "or node:storagenode_update_state:unknown > 0.5", ""),
    (UNKNOWN_UPDATE, "avg_over_time(", "max_over_time("),
    (UNKNOWN_UPDATE, "avg_over_time(", "min_over_time("),
    (UNKNOWN_UPDATE, "[10m]", "[4m]"),
    (UNKNOWN_UPDATE, "> 0.5", "> 0.95"),
    (UNKNOWN_UPDATE, "max without (state)", "max without ()"),
    (UNKNOWN, "avg_over_time(storagenode_service", "last_over_time(storagenode_service"),
    (UNKNOWN, "[10m]", "[4m]"),
    (UNKNOWN, "> 0.5", "> 0.95"),
    (UNKNOWN, "max without (manager, state)", "max without (manager)"),
    (UNKNOWN, "for: 1h", "for: 50m"),
    (UNKNOWN, "for: 1h", "for: 61m"),
    (UNKNOWN, "keep_firing_for: 30m", "keep_firing_for: 20m"),
    (UNKNOWN, "keep_firing_for: 30m", "keep_firing_for: 40m"),
    (UNKNOWN, 'unless on (job, instance) ALERTS{alertname="StorageNodeAllowedVersionsStale"}', ""),
    (UNKNOWN, "or node:", "unless node:"),
    (GONE_SINCE, "gone_since[1h]", "gone_since[30s]"),
    (GONE_SINCE, "7 * 86400", "6 * 86400"),
    (GONE_SINCE, "7 * 86400", "8 * 86400"),
    (GONE_SINCE, "offset 1h", "offset 30m"),
    (GONE_SINCE, "clamp_min(storagenode_up offset 1h, time())", "storagenode_up offset 1h"),
    (GONE_SINCE, "clamp_min(storagenode_up offset 1h", "clamp_min(storagenode_up offset 1h == 1"),
    (GONE_SINCE, "unless on (node) storagenode_up", ""),
    (GONE_SINCE, "unless on (node)", "unless on (job, instance, node)"),
    (GONE, "and on (job, instance) max_over_time(up[10m]) == 1", ""),
    (GONE, "== 1", ">= 0"),
    (GONE, "max_over_time(up[10m])", "max_over_time(up[30m])"),
    (GONE, "for: 15m", "for: 5m"),
    (GONE, "for: 15m", "for: 16m"),
    (DISQUALIFIED, "max without (basis)", "sum without (basis)"),
    (DISQUALIFIED, "max without (basis)", "min without (basis)"),
    (DISQUALIFIED, "_seconds[10m]", "_seconds[4m]"),
    (DISQUALIFIED, "and on (job, instance) up == 0", ""),
    (DISQUALIFIED, "and on (job, instance) up == 0", "and on (job, instance) up == 1"),
    (DISQUALIFIED, "max[1h]", "max[30s]"),
    (LONG_AGO, "<=", "<"),
    (LONG_AGO, "4 * 3600", "5 * 3600"),
    (NOT_REACHED, ">= 4 *", ">= 5 *"),
    (NOT_REACHED, "< 3 *", "<= 3 *"),
    (NOT_REACHED, " < 3 * 86400", ""),
    (NOT_REACHED, "severity: info", "severity: warning"),
    (NOT_REACHED, "- 18 * 86400", "- 17 * 86400"),
    (NOT_REACHED, "lt $value 1036800.0", "le $value 1036800.0"),
    (NOT_REACHED, "severity:", VALUE),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG)
def test_a_wrong_rule_is_noticed(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert_noticed(name, right, wrong, tmp_path)
