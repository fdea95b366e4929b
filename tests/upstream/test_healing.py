"""The real updaters, too old or blocked by themselves, healed: what each does of its own accord after that."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.labs.systemd import Container
from tests.labs.upstream import (
    DEFECTIVE,
    FIXED,
    USER,
    StorjNode,
    programs,
    serve_versions,
    storagenode_zip,
)
from tests.simulators.download_host import DownloadHost
from tests.upstream.conftest import (
    ASSET,
    NEW,
    OLD,
    OUR_PROGRAMS,
    STORE,
    WATCHED,
    configure,
    digest,
    program_digest,
    wait_for,
)
from tests.upstream.test_by_hand import HANGS

pytestmark = [pytest.mark.upstream, pytest.mark.systemd]

REMEMBERS = f"--version.check-interval=1m --binary-store-dir {STORE}"
UPDATER_ASSET = ASSET.replace("storagenode_", "storagenode-updater_")


@dataclass(frozen=True, slots=True)
class Place:
    container: Container
    archive: Path
    nodes: dict[str, StorjNode]

    def healed(self, name: str) -> dict[str, Any]:
        """Heal a node's updater as a person would, and return the run."""
        argv: list[str | Path] = [OUR_PROGRAMS / "storagenode-remediate", "run", "--yes", "--json", "--updater", name]
        done = self.container.run([*argv, "--config.file", WATCHED], check=False)
        print(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0
        run: dict[str, Any] = json.loads(done.stdout)[0]["run"]
        assert (run["node"], run["program"], run["starts"], run["seen"]) == (name, "storagenode-updater", {}, {})
        return run

    def installed(self, node: StorjNode) -> str:
        return digest(self.container.path(node.binary))

    def trying(self, node: StorjNode) -> None:
        """Start an updater, and wait until it tries a version that does not come to an end."""
        with zipfile.ZipFile(self.archive, "w") as trap:
            trap.writestr("storagenode", HANGS)
        try:
            self.container.systemctl("start", node.updater_unit)
            running = self.container.path("/proc")
            wait_for(
                lambda: "sleep" in {each.read_text().strip() for each in running.glob("[0-9]*/comm")},
                "the updater to try the version",
            )
        finally:
            self.archive.write_bytes(storagenode_zip(FIXED).read_bytes())

    def updates_the_node(self, node: StorjNode) -> None:
        """The updater, started again by us, updates the node by itself; the node stays down as it was."""
        wait_for(lambda: self.installed(node) == program_digest(FIXED), "the updater to update the node")
        wait_for(
            lambda: "Service restarted successfully." in self.container.journal(node.updater_unit),
            "the updater to say so",
        )
        shown = self.container.show(node.updater_unit, "ActiveState", "UnitFileState")
        assert shown == {"ActiveState": "active", "UnitFileState": "disabled"}
        assert self.container.show(node.unit)["ActiveState"] == "inactive"
        self.container.systemctl("stop", node.updater_unit)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Nodes that are too old and stopped, with an updater of 1.104.5, and with two of 1.162.3."""
    archives = tmp_path_factory.mktemp("archives")
    (archives / NEW).mkdir()
    shutil.copy(storagenode_zip(FIXED), archives / NEW / ASSET)
    shutil.copy(storagenode_zip(FIXED, "storagenode-updater"), archives / NEW / UPDATER_ASSET)
    with Container() as container, DownloadHost(archives, prefix=container.network.enter) as host:
        container.install_project()
        nodes = {
            "aged": StorjNode(container, "aged", number=1, updater=DEFECTIVE),
            "silent": StorjNode(container, "silent", number=2, updater=FIXED, updater_options=REMEMBERS),
            "loud": StorjNode(container, "loud", number=3, updater=FIXED),
        }
        container.run(["install", "--directory", f"--owner={USER}", STORE])
        url = f"{host.releases}/v{NEW}/storagenode_{{os}}_{{arch}}.zip"
        serve_versions(container, minimum=NEW, url=url, updater=NEW)
        configure(container, host, nodes.values())
        yield Place(container, archives / NEW / ASSET, nodes)


def test_one_that_leaves_a_stopped_node_alone_is_updated_and_then_updates_the_node(place: Place) -> None:
    container, node = place.container, place.nodes["aged"]
    container.systemctl("start", node.updater_unit)
    wait_for(lambda: "os: process not initialized" in container.journal(node.updater_unit), "the updater to fail")
    assert place.installed(node) == program_digest(DEFECTIVE)

    run = place.healed("aged")
    assert (run["outcome"], run["reason"]) == ("updated", "updater_too_old")
    assert (run["installed"], run["target"]) == (OLD, NEW)
    path = container.path(node.updater_binary)
    assert digest(path) == digest(programs(FIXED)["storagenode-updater"])
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (container.path(node.folder).stat().st_uid, 0o755)
    place.updates_the_node(node)
    assert {each.name for each in container.path(node.folder).iterdir()} == {
        "storagenode",
        "storagenode-updater",
        f".storagenode-updater.keeper-old-{OLD}",
    }


def test_one_that_was_ended_while_it_tried_a_version_updates_again(place: Place) -> None:
    container, node = place.container, place.nodes["silent"]
    place.trying(node)
    container.systemctl("stop", node.updater_unit)
    verdict = container.path(STORE / "last-failed-update.silent.json")
    assert "signal: terminated" in verdict.read_text()
    started = container.journal(node.updater_unit).count("Download started.")
    container.systemctl("start", node.updater_unit)
    cycles = "Running on version"
    wait_for(
        lambda: "Current binary version" in container.journal(node.updater_unit).rpartition(cycles)[2],
        "the updater to look",
    )
    assert container.journal(node.updater_unit).count("Download started.") == started, "it says and does nothing more"

    run = place.healed("silent")
    assert (run["outcome"], run["reason"]) == ("healed", "updater_blocked")
    blocks = next(entry["data"]["blocks"] for entry in run["journal"] if entry["step"] == "unblock")
    why = f"the updater never tries {NEW} again, since: signal: terminated"
    assert blocks == {str(STORE / "last-failed-update.silent.json"): why}
    assert not verdict.exists()
    place.updates_the_node(node)


def test_one_that_was_killed_while_it_tried_a_version_updates_again(place: Place) -> None:
    container, node = place.container, place.nodes["loud"]
    place.trying(node)
    container.systemctl("kill", "--signal=KILL", node.updater_unit)
    left = node.binary.with_name(f"storagenode.{NEW}")
    wait_for(lambda: "file exists" in container.journal(node.updater_unit), "the updater to stumble over what it left")
    container.run(["touch", "--date=-1 hour", left])  # what is younger may be what it is at

    run = place.healed("loud")
    assert (run["outcome"], run["reason"]) == ("healed", "updater_blocked")
    blocks = next(entry["data"]["blocks"] for entry in run["journal"] if entry["step"] == "unblock")
    assert blocks == {str(left): f"it is left of an update, and in the way to {NEW}"}
    place.updates_the_node(node)
    assert not container.path(left).exists()
