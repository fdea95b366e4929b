"""The official updater as the exporter sees it: each way in which the real ones are stuck, from their own journal."""

import json
import shutil
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.alerts.shipped import rules
from tests.labs.prometheus import Prometheus, Target
from tests.labs.systemd import Container
from tests.labs.upstream import DEFECTIVE, FIXED, VERSION_SERVER, StorjNode, serve_versions, storagenode_zip
from tests.simulators.download_host import DownloadHost
from tests.upstream.conftest import ASSET, NEW, OLD, OUR_PROGRAMS, UNITS, WATCHED, wait_for

pytestmark = [pytest.mark.upstream, pytest.mark.systemd]

STORE = Path("/var/lib/updaters")
EXPORTER = "storagenode-exporter.service"
SLOW = f"""#!/bin/sh
test "$1" = version && exec printf 'Release build\\nVersion: v{NEW}\\n'
exec sleep 60
"""
"""What the updater takes for the new version: trying it takes so long that it can be met there."""


@dataclass(frozen=True, slots=True)
class Watched:
    container: Container
    host: DownloadHost
    archives: Path

    def node(self, name: str, number: int, updater: str, options: str = "--version.check-interval=1m") -> StorjNode:
        """Set up a node that is too old and stopped, with an updater, and tell the exporter of it."""
        node = StorjNode(self.container, name, number=number, updater=updater, updater_options=options)
        described = {
            "name": name,
            "service": f"systemd:{node.unit}",
            "binary": str(node.binary),
            "updater_service": f"systemd:{node.updater_unit}",
        }
        config = {"nodes": [described], "version_server": VERSION_SERVER}
        self.container.write(WATCHED, yaml.safe_dump(config))
        return node

    def offer(self, program: Path | str) -> None:
        """Offer an archive of the new version: the real one, or one of another program."""
        archive = self.archives / NEW / ASSET
        if isinstance(program, Path):
            shutil.copy(program, archive)
            return
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("storagenode", program)

    def seen(self) -> dict[str, float]:
        """Look anew; return what the exporter as shipped says of the updater, without the states it is not in."""
        self.container.systemctl("restart", EXPORTER)
        text = wait_for(lambda: self.container.network.call(_get, "http://127.0.0.1:19651/metrics"), "the exporter")
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("storagenode_updater_") and (sample.value or "state" not in sample.labels):
                    labels = [
                        value for name, value in sorted(sample.labels.items()) if name in ("kind", "state", "version")
                    ]
                    found["/".join([sample.name.removeprefix("storagenode_updater_"), *labels])] = sample.value
        return found

    def checked(self) -> tuple[str, Any]:
        """Return what `check` says to people, and of the updater to programs."""
        program = OUR_PROGRAMS / "storagenode-exporter"
        (node,) = json.loads(self.container.run([program, "check", "--json"], check=False).stdout)
        return self.container.run([program, "check"], check=False).stdout, node["updater"]

    def trying(self, node: StorjNode) -> None:
        """Start the updater, and wait until it tries the new version."""
        self.offer(SLOW)
        self.container.systemctl("start", node.updater_unit)
        names = self.container.path("/proc")
        wait_for(
            lambda: any(path.read_text() == "sleep\n" for path in names.glob("[0-9]*/comm")), "the new one to be tried"
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    archives = tmp_path_factory.mktemp("archives")
    (archives / NEW).mkdir()
    with Container() as container, DownloadHost(archives, prefix=container.network.enter) as host:
        container.install_project()
        container.put(UNITS / "storagenode-keeper.sysusers.conf", "/usr/lib/sysusers.d/storagenode-keeper.conf")
        container.run(["systemd-sysusers"])
        container.put(UNITS / EXPORTER, f"/etc/systemd/system/{EXPORTER}")
        container.systemctl("daemon-reload")
        serve_versions(container, minimum=NEW, url=f"{host.releases}/v{NEW}/storagenode_{{os}}_{{arch}}.zip")
        container.run(["install", "--directory", "--mode=0777", STORE])
        yield Watched(container, host, archives)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: bytes = answer.read()
    return text.decode()


def test_the_deadlock_of_1_104(watched: Watched) -> None:
    node = watched.node("stuck", 1, DEFECTIVE)
    watched.offer(storagenode_zip(FIXED))
    began = time.time()
    watched.container.systemctl("start", node.updater_unit)
    wait_for(lambda: "Error updating service." in watched.container.journal(node.updater_unit), "it to fail")
    seen = watched.seen()
    assert began - 2 < seen.pop("last_check_timestamp_seconds") <= time.time()
    assert began - 2 < seen.pop("last_failure_timestamp_seconds") <= time.time()
    assert seen == {
        "service_state/running": 1,
        f"version_info/{OLD}": 1,
        "replaces_stopped": 0,
        "failures_total/check": 0,
        "failures_total/download": 0,
        "failures_total/install": 0,
        "blocked/not_initialized": 1,
        "blocked/left_over": 0,
        "check_interval_seconds": 60,
        "version_server_ours": 1,
    }
    said, updater = watched.checked()
    assert "takes it back, since the node does not run. Do: storagenode-remediate run stuck" in said
    assert updater["blocked"] == ["not_initialized"]
    watched.container.systemctl("stop", node.updater_unit)
    assert "service_state/stopped" in watched.seen()


def test_a_version_written_off_for_a_signal(watched: Watched) -> None:
    """The silent one: it is ended by a signal at the wrong moment, and logs nothing more of it."""
    node = watched.node("silent", 2, FIXED, f"--version.check-interval=1m --binary-store-dir={STORE}")
    watched.trying(node)
    assert "blocked/last_failed" in watched.seen()
    watched.container.systemctl("stop", node.updater_unit)
    watched.offer(storagenode_zip(FIXED))
    watched.container.systemctl("start", node.updater_unit)
    wait_for(lambda: "Version is up to date" in watched.container.journal(node.updater_unit), "its next cycle")
    seen = watched.seen()
    assert watched.container.path(STORE / "last-failed-update.silent.json").exists()
    assert (seen["blocked/last_failed"], seen["blocked/left_over"]) == (1, 0)
    assert (seen["replaces_stopped"], seen["service_state/running"], seen["version_server_ours"]) == (1, 1, 1)
    assert seen["last_check_timestamp_seconds"] > time.time() - 60
    said, updater = watched.checked()
    assert f"never tries {NEW} again, since: signal: terminated. Do: storagenode-remediate run --up" in said
    assert updater["blocked"] == ["last_failed"]
    watched.container.systemctl("stop", node.updater_unit)


@pytest.mark.prometheus
def test_one_that_is_stuck_is_told_of_while_its_node_still_runs(watched: Watched, tmp_path: Path) -> None:
    """The silent way again, of a node that is not yet too old: its alert is there, and no other."""
    url = f"{watched.host.releases}/v{NEW}/storagenode_{{os}}_{{arch}}.zip"
    serve_versions(watched.container, minimum="1.100.1", suggested=NEW, url=url)
    node = watched.node("early", 4, FIXED, f"--version.check-interval=1m --binary-store-dir={STORE}")
    watched.container.systemctl("start", node.unit)
    wait_for(lambda: node.status()["version"] == OLD, "the node to run")
    watched.trying(node)
    watched.container.systemctl("stop", node.updater_unit)
    watched.container.systemctl("start", node.updater_unit)
    assert watched.seen()["blocked/last_failed"] == 1
    rule_file = tmp_path / "storagenode.rules.yml"
    rule_file.write_text(rules(StorageNodeUpdaterBlocked="0s"))
    targets: dict[str, Target] = {"storagenode": "127.0.0.1:19651"}
    with Prometheus(targets, rule_files=[rule_file], network=watched.container.network) as prometheus:
        alert = prometheus.wait_alert("StorageNodeUpdaterBlocked", "early")
        assert alert["labels"]["kind"] == "last_failed"
        others = prometheus.query('ALERTS{alertstate="firing", alertname!~"StorageNode(UpdaterBlocked|Watchdog)"}')
        assert [each["metric"]["alertname"] for each in others] == []
    assert node.status()["version"] == OLD
    watched.container.systemctl("stop", node.updater_unit, node.unit)
    serve_versions(watched.container, minimum=NEW, url=url)


def test_a_leftover_in_its_way_and_its_removal(watched: Watched) -> None:
    node = watched.node("loud", 3, FIXED)
    watched.trying(node)
    watched.container.systemctl("kill", "--signal=KILL", node.updater_unit)
    left = f"{node.binary}.{NEW}"
    assert watched.container.path(left).exists()
    watched.offer(storagenode_zip(FIXED))
    watched.container.systemctl("reset-failed", node.updater_unit, check=False)
    watched.container.systemctl("restart", node.updater_unit)
    wait_for(lambda: "file exists" in watched.container.journal(node.updater_unit), "it to stumble")
    seen = watched.seen()
    assert (seen["blocked/left_over"], seen["blocked/last_failed"]) == (1, 0)
    said, updater = watched.checked()
    assert f"{left}: left by the official updater, and in its way to {NEW}. Do: storagenode-remediate run --up" in said
    assert updater["blocked"] == ["left_over"]

    watched.container.path(left).unlink()
    began = time.time()
    watched.container.systemctl("restart", node.updater_unit)
    wait_for(lambda: "Cleaning up old binary." in watched.container.journal(node.updater_unit), "the update")
    seen = watched.seen()
    assert (seen["blocked/left_over"], seen["blocked/last_failed"]) == (0, 0)
    assert began - 2 < seen["last_update_timestamp_seconds"] <= time.time()
    watched.container.systemctl("stop", node.updater_unit)
