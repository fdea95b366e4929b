"""What our documents show of the commands is what these print, on a host on which it is just so."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
import yaml

from exporter.status import DAY
from tests.documents import Block, blocks
from tests.e2e.site import NEW, OLD, PATH, USER, WORKER, Node, Site, wait
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.simulators import build

pytestmark = pytest.mark.systemd

CONFIG = "/etc/storagenode-keeper.yml"
UPDATER, UPDATER_UNIT = "/opt/updater/storagenode-updater", "storagenode-updater.service"
KEPT = "/var/lib/storagenode-exporter"
MOVED = "1.105.1"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A host with the node `alpha`, as soon as that is installed."""
    folder = tmp_path_factory.mktemp("shown")
    with Container() as container, Site(container, folder, ["alpha"]) as site:
        alpha = site.node("alpha")
        site.binaries[MOVED] = build.node(MOVED, folder / MOVED)
        alpha.binary = alpha.binary.parents[2] / "alpha/storagenode"
        configure(alpha)
        container.systemctl("enable", "--now", "--quiet", PATH, WORKER)
        wait(lambda: container.path("/var/lib/storagenode-keeper/status.json").exists(), "the worker's status file")
        yield alpha


def configure(node: Node, **settings: str) -> None:
    """Write the configuration, with settings of the node."""
    config = yaml.safe_load(node.container.path(CONFIG).read_text())
    config["nodes"] = [node.config() | settings]
    node.container.write(CONFIG, yaml.safe_dump(config))


def keep(node: Node, name: str, kept: object) -> None:
    """Put something where the exporter keeps what it has seen."""
    node.container.write(f"{KEPT}/{name}", json.dumps({"format": 1, "kept": kept}))


def stopped(node: Node, version: str) -> None:
    """Let it have run, until somebody stopped it; meanwhile the minimum has risen."""
    node.site.rise(version)
    node.install(version).start()
    node.stop()
    node.site.rise()


def too_old(node: Node) -> None:
    stopped(node, OLD)


def left_over(node: Node) -> None:
    stopped(node, OLD)
    left = f"{node.binary}.{NEW}"
    node.container.write(left, "half of it")
    node.container.run(["touch", "--date=-1 hour", left])


def written_off(node: Node) -> None:
    """Its updater has been stopped in the middle of an update, and takes that for the new version's fault."""
    container, site = node.container, node.site
    node.install(NEW).start()
    site.versions.set(minimum=f"v{NEW}", suggested="v1.105.2", updater_suggested="v1.162.3")
    container.put(build.node("1.162.3", site.binaries[NEW].with_name("updater")), UPDATER)
    home = "/var/lib/updater"
    settings = {"version.server-address": site.versions.url, "console.address": "127.0.0.1:15999"}
    container.write(f"{home}/config.yaml", "".join(f"{key}: {value}\n" for key, value in settings.items()))
    container.write(f"{home}/storage/storage-dir-verification", bytes(32))
    container.run(["chown", "-R", USER, home])
    start = f"{UPDATER} run --config-dir {home} --binary-location {node.binary} --service-name storagenode"
    container.unit(UPDATER_UNIT, f"[Service]\nUser={USER}\nExecStart={start}\nRestart=on-failure\n", enable=False)
    container.systemctl("start", UPDATER_UNIT)
    configure(node, updater_service=f"systemd:{UPDATER_UNIT}")
    verdict = {"Version": "1.105.2", "Date": "2026-11-20T00:00:00Z", "Failure": "signal: terminated\n"}
    container.write("/last-failed-update.storagenode.json", json.dumps(verdict))


def not_reached(node: Node) -> None:
    stopped(node, NEW)
    keep(
        node, "last-contact.json", {"alpha": {"since": time.time() - 3 * DAY, "basis": "contact", "known": time.time()}}
    )


def to_be_moved(node: Node) -> None:
    """The minimum has risen five times, once by two."""
    node.install(MOVED).start()
    node.site.versions.set(minimum=f"v{NEW}", suggested="v1.106.2")
    days = {"1.98.1": 0, "1.100.3": 10, "1.101.3": 24, "1.102.3": 38, "1.103.2": 52, NEW: 66}
    seen = [[version, time.time() + (day - 70) * DAY] for version, day in days.items()]
    keep(node, "minimums.json", {"url": node.site.versions.url, "seen": seen})


SCENES: Mapping[str, tuple[Callable[[Node], None], int]] = {
    "What it says": (too_old, 1),
    "What stands in an update's way": (left_over, 1),
    "The official updater": (written_off, 0),
    "The clocks": (not_reached, 0),
    "May this node be down that long?": (to_be_moved, 1),
}
"""What has happened, and the exit code then, by the heading below which it is shown."""


@pytest.mark.parametrize("block", blocks("look"), ids=lambda block: block.heading)
def test_what_is_shown_is_what_is_printed(node: Node, block: Block) -> None:
    configure(node)
    arrange, code = SCENES[block.heading]
    try:
        arrange(node)
        for command, shown in block.exchanges:
            done = node.container.run(["sh", "-c", f"PATH={VENV}/bin:$PATH; {command}"], check=False)
            assert plain(done.stdout) == plain(shown), done.stderr
            assert done.returncode == code
    finally:
        node.remove()
        node.container.systemctl("stop", UPDATER_UNIT, check=False)
        updater = f"/etc/systemd/system/{UPDATER_UNIT} /last-failed-update.*"
        node.container.run(["sh", "-c", f"rm -rf {KEPT}/* {updater} && systemctl daemon-reload"])


def plain(text: str) -> list[str]:
    """Take away what differs each time: how long ago something was, its date, and how wide that makes a column."""
    text = re.sub(r"\b\d+[smhd] ago|\d{4}-\d\d-\d\d \d\d:\d\d UTC", "…", text)
    return [re.sub(r"(?<=\S) +", " ", line).rstrip() for line in text.splitlines()]
