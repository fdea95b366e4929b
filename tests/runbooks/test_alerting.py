"""docs/alerting.md: what it would have in alertmanager.yml and prometheus.yml, put there and asked."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.shipped import ALERTMANAGER, ROOT, RULES
from tests.documents import blocks
from tests.labs.prometheus import Alertmanager, amtool, promtool

pytestmark = pytest.mark.prometheus

ALERTING = ROOT / "docs/alerting.md"
ROUTES, RECEIVERS, SWITCH, SCRAPED = (
    yaml.safe_load(block.text) for block in blocks(file=ALERTING) if block.language == "yaml"
)
HEALED = {"alertname": "StorageNodeDeadlocked", "remediation": "offline-update", "severity": "critical"}


@pytest.fixture
def by_severity() -> dict[str, Any]:
    """The example, with the routes by severity before its last one, and their receivers."""
    config: dict[str, Any] = yaml.safe_load(ALERTMANAGER.read_text())
    routes = config["route"]["routes"]
    assert routes[-1]["receiver"] == "people"
    routes[-1:-1] = ROUTES
    config["receivers"] += RECEIVERS
    return config


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (HEALED, "storagenode-remediate,pager"),
        ({"alertname": "StorageNodeNotReached", "severity": "emergency"}, "pager"),
        ({"alertname": "StorageNodeUpdateDue", "severity": "warning"}, "people"),
        ({"alertname": "StorageNodeRemediationPaused", "severity": "info"}, "nobody"),
        ({"alertname": "SomethingElse"}, "people"),
    ],
)
def test_routes_by_severity(
    by_severity: dict[str, Any], labels: dict[str, str], receivers: str, tmp_path: Path
) -> None:
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(by_severity))
    pairs = [f"{name}={value}" for name, value in {"node": "n1", **labels}.items()]
    file = f"--config.file={tmp_path}/alertmanager.yml"
    amtool("config", "routes", "test", file, f"--verify.receivers={receivers}", *pairs)


def test_a_page_is_of_one_node_or_of_one_host(by_severity: dict[str, Any]) -> None:
    """What has no node is not all one: two hosts that are gone are two pages."""
    down = [{"alertname": "StorageNodeExporterDown", "instance": f"{host}:19651"} for host in ("host1", "host2")]
    gone = [{"alertname": name, "node": "n1"} for name in ("StorageNodeDeadlocked", "StorageNodeNotReached")]
    config = by_severity | {"receivers": [{"name": each["name"]} for each in by_severity["receivers"]]}
    with Alertmanager(config) as alerting:
        alerting.post_alerts(*({"labels": each | {"severity": "critical"}} for each in (*down, *gone)))
        deadline = time.monotonic() + 60
        while sum((found := _groups(alerting)).values()) < 4:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
    assert found == {"host1:19651": 1, "host2:19651": 1, "n1": 2}


def _groups(alerting: Alertmanager) -> dict[str, int]:
    """Give what each page is about, and how many alerts are in it."""
    pages = alerting.get("/api/v2/alerts/groups?receiver=pager")
    return {"".join(page["labels"].values()): len(page["alerts"]) for page in pages}


def test_the_watchdog_goes_to_the_switch_alone(by_severity: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(by_severity))
    file = f"--config.file={tmp_path}/alertmanager.yml"
    told = amtool("config", "routes", "test", file, "alertname=StorageNodeWatchdog", "severity=none").stdout
    assert told == "dead-mans-switch\n"
    (switch,) = (each for each in by_severity["receivers"] if each["name"] == "dead-mans-switch")
    assert switch.keys() == {"name"}, "an empty place, as `people` is"
    switch |= SWITCH
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(by_severity))
    amtool("check-config", tmp_path / "alertmanager.yml")


def test_prometheus_scrapes_alertmanager(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(SCRAPED))
    promtool("check", "config", tmp_path / "prometheus.yml")
    (job,) = SCRAPED["scrape_configs"]
    assert f'job="{job["job_name"]}"' in RULES.read_text()


def test_every_link_of_an_alert_is_at_one_of_the_two_addresses() -> None:
    text = ALERTING.read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            for name in {"runbook_url", "dashboard_url"} & rule.get("annotations", {}).keys():
                address = "/".join(rule["annotations"][name].split("/")[: 4 if name == "runbook_url" else 3])
                assert f"s|{address}|" in text, f"{rule['alert']}: {name}"
