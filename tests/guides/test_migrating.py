"""docs/migrating.md: Storj-Exporter and ours beside each other, scraped by one Prometheus as the page configures it."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documents import ROOT, Block, blocks
from tests.e2e.site import wait
from tests.guides.transcript import Reader
from tests.labs.network import HOST
from tests.labs.prometheus import Alertmanager, Prometheus, program
from tests.serving import exporting, receiving
from tests.simulators import build
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer

pytestmark = pytest.mark.prometheus

PAGE = ROOT / "docs/migrating.md"
OLD, NEW = "1.102.3", "1.104.5"


class Host:
    """A node, both exporters, the webhook, and Prometheus; where the page has a port, `ports` has ours."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.versions = stack.enter_context(VersionServer(minimum=OLD, suggested=OLD))
        api, theirs = f"127.0.0.1:{HOST.free_port()}", f"127.0.0.1:{HOST.free_port()}"
        config_dir = configure(folder / "node", {"version.server-address": self.versions.url, "console.address": api})
        binary = build.node(OLD, folder / "storagenode")
        self.node = stack.enter_context(Node(binary, config_dir))
        self.node.api(api)
        node = {"name": "alpha", "binary": str(binary), "config_dir": str(config_dir), "api": api, "service": "process"}
        token = folder / "token"
        token.write_text("correct-horse-battery")
        token.chmod(0o600)
        state = {"state_dir": str(folder / "worker"), "spool": str(folder), "status_file": str(folder / "status.json")}
        settings: dict[str, Any] = {
            "version_server": self.versions.url,
            "refresh": "1s",
            "state_dir": str(folder / "exporter"),
        }
        settings |= {"nodes": [node], "remediation": state | {"webhook": {"token_file": str(token)}}}
        _, exporter = stack.enter_context(exporting(folder, settings))
        _, webhook = stack.enter_context(receiving(folder, settings))
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-m", "tests.guides.storj_exporter", theirs, api])
        )
        stack.callback(process.terminate)
        route = {"route": {"receiver": "people"}, "receivers": [{"name": "people"}]}
        alertmanager = stack.enter_context(Alertmanager(route)).address
        self.addresses = {"storj-exporter": theirs, "alertmanager": alertmanager}
        self.addresses |= {"storagenode": exporter[7:], "storagenode-remediate": webhook[7:]}
        wait(lambda: _answers(theirs), "the stand-in")
        self.prometheus = stack.enter_context(Prometheus(self._targets(token)))
        shown = {"9651": theirs, "19651": exporter, "19652": webhook, "9090": self.prometheus.address}
        self.ports = {port: ours.rpartition(":")[2] for port, ours in shown.items()}

    def _targets(self, token: Path) -> dict[str, Any]:
        """Return the page's jobs, with our addresses, and our token where it has one."""
        (block,) = (block for block in blocks(file=PAGE) if block.language == "yaml")
        jobs: list[dict[str, Any]] = yaml.safe_load(block.text)["scrape_configs"]
        for job in jobs:
            job["static_configs"][0]["targets"] = [self.addresses.pop(job["job_name"])]
            if "authorization" in job:
                job["authorization"]["credentials_file"] = str(token)
        assert not self.addresses, "every one of them is scraped"
        return {job.pop("job_name"): job for job in jobs}

    def names(self, job: str) -> set[str]:
        """Return the metrics that Prometheus has ever had of a job, less those it makes itself."""
        found = {
            sample["metric"]["__name__"] for sample in self.prometheus.query(f'last_over_time({{job="{job}"}}[1h])')
        }
        return {name for name in found if name != "up" and not name.startswith("scrape_")}


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}/", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with ExitStack() as stack:
        yield Host(tmp_path_factory.mktemp("host"), stack)


def follow(host: Host, folder: Path, runner: str) -> None:
    path = f"{program('promtool').parent}:/usr/bin:/bin"
    with Reader(folder, {"PATH": path}, host.ports) as person:
        found = [block for block in _shown() if block.runner == runner]
        assert found
        for block in found:
            person.read(block)


def _shown() -> list[Block]:
    return [*blocks("migrating-running-wait"), *blocks("migrating-stopped-wait")]


def test_both_are_scraped_and_have_no_metric_in_common(host: Host) -> None:
    host.prometheus.wait_query("count(up == 1) == 4", timeout=60)
    host.prometheus.wait_query("storj_node_info and on (node) storagenode_up == 1", timeout=60)
    theirs, ours = host.names("storj-exporter"), host.names("storagenode") | host.names("storagenode-remediate")
    assert theirs and all(name.startswith("storj_") for name in theirs)
    assert ours and all(name.startswith("storagenode_") for name in ours)


def test_every_metric_of_the_page_is_there(host: Host) -> None:
    """Those that it names, in text and tables, of either exporter."""
    host.prometheus.wait_query("storj_node_info and on (node) storagenode_up == 1", timeout=60)
    named = set(
        re.findall(r"\b(?:storagenode|storj)_\w*[a-z]\b", re.sub(r"storagenode_…|storj_sat_…", "", PAGE.read_text()))
    )
    found = host.names("storj-exporter") | host.names("storagenode")
    assert named - found == set()
    assert len(named) > 10


def test_the_expressions_of_its_tables_are_valid(host: Host) -> None:
    expressions = [
        expression.replace(r"\|", "|")
        for row in re.findall(r"^\|.*$", PAGE.read_text(), re.MULTILINE)
        for expression in re.findall(r"`([^`…]*(?:storagenode_|storj_|up\{)[^`…]*)`", row)
    ]
    assert len(expressions) > 20
    for expression in expressions:
        host.prometheus.query(expression)


def test_the_queries_give_the_answers_shown(host: Host, tmp_path: Path) -> None:
    host.versions.set(minimum=NEW, suggested=NEW)
    host.prometheus.wait_query("storagenode_below_minimum == 1", timeout=60)
    follow(host, tmp_path, "migrating-running-wait")
    host.node.stop()
    host.prometheus.wait_query("storagenode_deadlocked == 1", timeout=60)
    host.prometheus.wait_query("absent(storj_node_info)", timeout=60)
    follow(host, tmp_path, "migrating-stopped-wait")
    due = 'storagenode_service_state{state=~"stopped|crashed|crash_looping"} == 1'
    assert [sample["metric"]["state"] for sample in host.prometheus.query(due)] == ["stopped"]
    assert host.prometheus.query("storagenode_up == 0")
