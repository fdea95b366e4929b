"""A person at the keyboard, with a real node that runs and a real updater that is in the middle of it."""

import json
import zipfile

import pytest

from tests.labs.upstream import FIXED, storagenode_zip
from tests.upstream.conftest import ASSET, BY_HAND, NEW, OLD, STORE, World, program_digest, wait_for

pytestmark = [pytest.mark.upstream, pytest.mark.systemd, pytest.mark.prometheus]

HANGS = f"""\
#!/bin/sh
case "$1" in
version) printf 'Release build\\nVersion: v{NEW}\\n' ;;
*) exec sleep 1000 ;;
esac
"""
"""A program that the updater of 1.162.3 tries for ever."""


def test_a_running_node_is_updated_while_its_updater_tries_a_version(world: World) -> None:
    container, node = world.container, world.nodes["delta"]
    code, said, _ = world.ours("storagenode-exporter", "check", "delta", config=BY_HAND)
    assert code == 1
    assert "It runs, but will not start again" in said
    code, said, _ = world.ours("storagenode-remediate", "run", "--yes", "delta", config=BY_HAND)
    assert (code, "(running)" in said) == (3, True), said

    archive = world.archives / NEW / ASSET
    with zipfile.ZipFile(archive, "w") as trap:
        trap.writestr("storagenode", HANGS)
    try:
        container.systemctl("start", node.updater_unit)
        wait_for(lambda: "sleep" in world.processes(), "the updater to try the version")
    finally:
        archive.write_bytes(storagenode_zip(FIXED).read_bytes())

    code, said, log = world.ours(
        "storagenode-remediate", "run", "--yes", "--stop-running", "--json", "delta", config=BY_HAND
    )
    assert code == 0, said + log
    (report,) = json.loads(said)
    run = report["run"]
    assert run["starts"] == {"delta": {"start": True, "reason": "was_running"}}
    (released,) = (entry["data"] for entry in run["journal"] if (entry["step"], entry["event"]) == ("release", "done"))
    assert "signal: terminated" in container.journal(node.updater_unit)
    verdict = STORE / "last-failed-update.delta.json"
    assert released == {"released": [node.updater_unit], "undone": [str(verdict)]}
    assert not container.path(verdict).exists()
    assert node.status()["version"] == NEW
    assert world.installed(node) == program_digest(FIXED)
    assert container.show(node.updater_unit)["ActiveState"] == "active"
    wait_for(lambda: "Version is up to date" in container.journal(node.updater_unit), "the updater to be content")

    code, said, _ = world.ours("storagenode-exporter", "check", "--json", "delta", config=BY_HAND)
    (status,) = json.loads(said)
    assert code == 0
    assert (status["service"]["state"], status["installed_version"], status["running_version"]) == ("running", NEW, NEW)
    container.systemctl("stop", node.updater_unit, node.unit)
    code, said, _ = world.ours("storagenode-exporter", "check", "delta", config=BY_HAND)
    assert code == 0
    assert OLD not in said


def test_a_node_without_its_storage_is_updated_and_not_started(world: World) -> None:
    container, node = world.container, world.nodes["epsilon"]
    away = node.config_dir / "unmounted"
    container.run(["mv", node.storage, away])
    container.systemctl("restart", node.unit)
    refused = container.wait_state(node.unit, "activating", "auto-restart")
    assert refused["ExecMainStatus"] == "1", "as if it were its age"

    code, said, _ = world.ours("storagenode-remediate", "run", "--yes", "epsilon", config=BY_HAND)
    assert code == 4
    assert f"{node.storage}/storage-dir-verification: No such file or directory" in said
    assert world.installed(node) == program_digest(FIXED)
    assert container.show(node.unit)["ActiveState"] == "inactive"

    container.run(["mv", away, node.storage])
    container.systemctl("start", node.unit)
    world.wait_runs(node, NEW)
    container.systemctl("stop", node.unit)
