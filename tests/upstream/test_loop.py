"""Our loop around real nodes that are deadlocked: from the alert to the node that runs again."""

import pytest

from tests.labs.upstream import DEFECTIVE, FIXED
from tests.steps import STEPS
from tests.upstream.conftest import ASSET, NEW, OLD, World, program_digest, wait_for

pytestmark = [pytest.mark.upstream, pytest.mark.systemd, pytest.mark.prometheus]


def done(run: dict[str, list[dict[str, str]]]) -> list[str]:
    return [entry["step"] for entry in run["journal"] if entry["event"] == "done"]


def test_a_node_that_was_stopped_is_updated_and_left_stopped(world: World) -> None:
    container, node, prometheus = world.container, world.nodes["alpha"], world.prometheus
    prometheus.wait_alert("StorageNodeBelowMinimum", "alpha", timeout=30)
    assert not prometheus.query('storagenode_deadlocked{node="alpha"} == 1')
    assert world.installed(node) == program_digest(DEFECTIVE)
    assert node.status()["version"] == OLD, "who runs is let alone"

    container.systemctl("stop", node.unit)
    stopped = container.show(node.unit)
    assert world.schema(node) == 57
    prometheus.wait_query('storagenode_deadlocked{node="alpha"} == 1')
    alert = prometheus.wait_alert("StorageNodeDeadlocked", "alpha", timeout=30)
    told = f"Node alpha is down, and its installed version {OLD} is below the network's minimum: "
    assert alert["annotations"]["description"].startswith(told)
    run = wait_for(lambda: world.last_run("alpha"), "a run of alpha")

    assert (run["outcome"], run["exit_code"], run["trigger"]) == ("updated", 0, "alert")
    assert (run["installed"], run["target"], run["reason"]) == (OLD, NEW, "below_minimum")
    assert done(run) == STEPS
    assert world.installed(node) == program_digest(FIXED)
    assert world.files(node) == {"storagenode", "storagenode-updater", f".storagenode.keeper-old-{OLD}"}
    owner = container.run(["stat", "--format=%U:%G %a", node.binary]).stdout
    assert owner == "storj-storagenode:storj-storagenode 755\n"
    still = container.show(node.unit)
    assert still["ActiveState"] == "inactive"
    assert still["ExecMainStartTimestampMonotonic"] == stopped["ExecMainStartTimestampMonotonic"]
    assert container.show(node.updater_unit)["ActiveState"] == "inactive"
    assert prometheus.wait_alert("StorageNodeDeadlocked", "alpha", "inactive") is None
    runs = 'storagenode_remediation_runs_total{node="alpha", trigger="alert", outcome="updated"} == 1'
    prometheus.wait_query(runs)
    code, said, _ = world.ours("storagenode-exporter", "check", "alpha")
    assert code == 0, said

    container.systemctl("start", node.unit)
    world.wait_runs(node, NEW)
    prometheus.wait_query(f'storagenode_version_info{{node="alpha", source="running", version="{NEW}"}}')
    container.systemctl("stop", node.unit)
    assert world.schema(node) == 62
    code, said, _ = world.ours("storagenode-exporter", "check", "alpha")
    assert code == 0, said


def test_a_node_that_loops_is_updated_and_runs_beside_an_updater_at_work(world: World) -> None:
    container, node, prometheus = world.container, world.nodes["beta"], world.prometheus
    archive = f"/asset/{NEW}/{ASSET}"
    before = len(world.host.requests(archive))
    world.host.set(behaviour="stall")
    try:
        container.systemctl("restart", node.unit)
        container.wait_state(node.unit, "activating", "auto-restart")
        container.systemctl("start", node.updater_unit)
        wait_for(lambda: len(world.host.requests(archive)) > before, "the updater to download")
    finally:
        world.host.set(behaviour="ok")  # what has begun stays stalled: the updater is at it until it is stopped
    first = container.show(node.updater_unit)["MainPID"]

    prometheus.wait_alert("StorageNodeDeadlocked", "beta", timeout=30)
    world.wait_runs(node, NEW)
    run = wait_for(lambda: world.last_run("beta"), "a run of beta")
    assert (run["outcome"], run["trigger"]) == ("updated", "alert")
    assert run["starts"] == {"beta": {"start": True, "reason": "too_old_to_start"}}
    assert done(run) == STEPS
    (held,) = (entry["data"] for entry in run["journal"] if (entry["step"], entry["event"]) == ("hold", "intent"))
    assert list(held["held"]) == [node.updater_unit]

    updater = container.show(node.updater_unit)
    assert updater["ActiveState"] == "active"
    assert updater["MainPID"] != first
    wait_for(
        lambda: container.journal(node.updater_unit).count("Current binary version") >= 2,
        "the updater to look again",
    )
    wait_for(lambda: "Version is up to date" in container.journal(node.updater_unit), "the updater to be content")
    assert world.installed(node) == program_digest(FIXED)
    assert world.files(node) == {"storagenode", "storagenode-updater", f".storagenode.keeper-old-{OLD}"}
    assert not list(container.path("/").glob("last-failed-update*"))
    assert prometheus.wait_alert("StorageNodeDeadlocked", "beta", "inactive") is None
    assert prometheus.query('max_over_time(storagenode_service_state{node="beta", state="crash_looping"}[5m]) == 1')
    prometheus.wait_query('storagenode_service_state{node="beta", state="running"} == 1')
    prometheus.wait_query('storagenode_remediation_updater_held{node="beta"} == 0')
    assert container.show(node.unit)["NRestarts"] == "0"
    container.systemctl("stop", node.updater_unit, node.unit)


def test_our_services_have_met_nothing_they_did_not_expect(world: World) -> None:
    names = (
        "storagenode-exporter.service",
        "storagenode-remediate-webhook.service",
        "storagenode-remediate-worker.service",
    )
    for name in names:
        log = world.container.journal(name)
        assert "Traceback" not in log
        assert "level=error" not in log.lower()
        assert world.container.show(name)["NRestarts"] == "0"
    groups = world.prometheus.get("/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
