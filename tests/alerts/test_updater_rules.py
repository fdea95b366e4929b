"""The alerts on the official updater, by promtool; and that its tests notice when a rule is wrong."""

from pathlib import Path

import pytest

from exporter.updaterlog import Blocked
from tests.alerts.shipped import ROOT
from tests.alerts.test_rules import assert_noticed
from tests.labs.prometheus import promtool

pytestmark = pytest.mark.prometheus

TEST = ROOT / "alerts/storagenode.updater.test.yml"
RUNBOOK = ROOT / "alerts/runbooks/StorageNodeUpdaterBlocked.md"
BLOCKED, DOWN, SILENT = "StorageNodeUpdaterBlocked", "StorageNodeUpdaterDown", "StorageNodeUpdaterSilent"
OUTDATED, ELSEWHERE = "StorageNodeUpdaterOutdated", "StorageNodeUpdaterAsksElsewhere"
CHECK = "last_over_time(storagenode_updater_last_check_timestamp_seconds[10m])"
INTERVAL = "last_over_time(storagenode_updater_check_interval_seconds[10m])"
STATE = "last_over_time(storagenode_updater_service_state"


def test_rules_do_what_they_promise() -> None:
    promtool("test", "rules", TEST)


@pytest.mark.parametrize(
    ("alert", "right", "wrong"),
    [
        (BLOCKED, "last_over_time(storagenode_updater_blocked[10m])", "storagenode_updater_blocked"),
        (BLOCKED, "== 1", ">= 0"),
        (BLOCKED, "for: 15m", "for: 14m"),
        (BLOCKED, "for: 15m", "for: 16m"),
        (BLOCKED, '"last_failed"', '"left_over"'),
        (DOWN, 'last_over_time(storagenode_service_state{state="running"}[10m])', "storagenode_service_state"),
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
        (OUTDATED, "{instance=%q, node=%q}", "{node=%q}"),
        (OUTDATED, "for: 1h", "for: 59m"),
        (
            ELSEWHERE,
            "last_over_time(storagenode_updater_version_server_ours[10m])",
            "storagenode_updater_version_server_ours",
        ),
        (ELSEWHERE, "== 0", "== 1"),
        (ELSEWHERE, "for: 15m", "for: 14m"),
    ],
)
def test_promtool_test_notices_a_wrong_rule(alert: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert_noticed(alert, right, wrong, TEST, tmp_path)


def test_the_runbook_has_every_way_to_be_blocked() -> None:
    text = RUNBOOK.read_text()
    assert [kind for kind in Blocked if f"| `{kind}` |" not in text or f"`{kind}`: " not in text] == []
