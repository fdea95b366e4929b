"""The deadlock itself: what the real node and the real updater of 1.104.5 do, and what we say of it."""

import json

import pytest

from tests.labs.upstream import DEFECTIVE
from tests.upstream.conftest import ASSET, BY_HAND, NEW, OLD, World, program_digest, wait_for

pytestmark = [pytest.mark.upstream, pytest.mark.systemd, pytest.mark.prometheus]


def test_a_node_too_old_to_start_and_an_updater_that_leaves_it_so(world: World) -> None:
    container, node = world.container, world.nodes["gamma"]
    container.systemctl("start", node.unit)
    refused = container.wait_state(node.unit, "activating", "auto-restart")
    assert (refused["Result"], refused["ExecMainStatus"]) == ("exit-code", "1")
    assert f"outdated software version (v{OLD}), please update" in container.journal(node.unit)
    container.systemctl("stop", node.unit)

    before = len(world.host.requests(f"/asset/{NEW}/{ASSET}"))
    container.systemctl("start", node.updater_unit)
    wait_for(lambda: "Error updating service." in container.journal(node.updater_unit), "the updater to fail")
    container.systemctl("stop", node.updater_unit)
    log = container.journal(node.updater_unit)
    assert "error stopping gamma service: os: process not initialized" in log
    assert "Download finished." in log
    assert len(world.host.requests(f"/asset/{NEW}/{ASSET}")) == before + 1
    assert world.installed(node) == program_digest(DEFECTIVE)
    assert world.files(node) == {"storagenode", "storagenode-updater"}
    container.systemctl("start", node.unit)
    assert container.wait_state(node.unit, "activating", "auto-restart")["ExecMainStatus"] == "1"
    container.systemctl("stop", node.unit)

    code, said, _ = world.ours("storagenode-exporter", "check", "gamma", config=BY_HAND)
    assert code == 1
    assert "DEADLOCKED" in said
    assert "Do: storagenode-remediate run gamma" in said
    code, said, _ = world.ours("storagenode-exporter", "check", "--json", "gamma", config=BY_HAND)
    (status,) = json.loads(said)
    assert code == 1
    assert (status["service"]["state"], status["installed_version"]) == ("stopped", OLD)
    assert (status["minimum_version"], status["deadlocked"], status["running_version"]) == (NEW, True, None)
