"""Every age of a node that nobody reaches: which alert fires in Prometheus, on the exporter's own metrics."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.metrics import families
from exporter.status import DAY, Basis, Clock
from tests.alerts.shipped import RULES
from tests.exporter.test_metrics import DOWN
from tests.labs.prometheus import promtool

pytestmark = pytest.mark.prometheus

HOUR = 3600.0
AT = 600
"""When the rules are asked, in Prometheus's time, which begins at 0."""
AGES = {
    0: None,
    HOUR: None,
    4 * HOUR - 1: None,
    4 * HOUR: "info",
    DAY: "info",
    3 * DAY - 1: "info",
    3 * DAY: "warning",
    10 * DAY - 1: "warning",
    10 * DAY: "critical",
    12 * DAY: "critical",
    25 * DAY - 1: "critical",
    25 * DAY: "emergency",
    30 * DAY: "emergency",
    99 * DAY: "emergency",
}


@pytest.mark.parametrize("basis", Basis)
def test_at_each_age_one_severity_fires(basis: Basis, tmp_path: Path) -> None:
    statuses = [replace(DOWN, node=str(age), clock=Clock(AT - age, basis, AT)) for age in AGES]
    (family,) = (each for each in families(statuses) if each.name == "storagenode_disqualification_timestamp_seconds")
    series = [
        {
            "series": f'{sample.name}{{job="j", instance="i", node="{sample.labels["node"]}", basis="{basis}"}}',
            "values": f"{sample.value:.0f}x20",
        }
        for sample in family.samples
    ]
    assert len(series) == len(AGES)
    fired: list[dict[str, Any]] = [
        {"labels": f'{{node="{age}", severity="{severity}"}}', "value": 1} for age, severity in AGES.items() if severity
    ]
    asked = {
        "expr": 'count by (node, severity) (ALERTS{alertname="StorageNodeNotReached", alertstate="firing"})',
        "eval_time": f"{AT}s",
        "exp_samples": fired,
    }
    content = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}],
    }
    (tmp_path / "ages.test.yml").write_text(yaml.safe_dump(content))
    promtool("test", "rules", tmp_path / "ages.test.yml")
    asked["exp_samples"] = fired[:-1]
    (tmp_path / "ages.test.yml").write_text(yaml.safe_dump(content))
    assert promtool("test", "rules", tmp_path / "ages.test.yml", check=False).returncode == 1
