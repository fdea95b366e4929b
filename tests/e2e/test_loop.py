"""From the minimum that rises to the node that is cured, with nobody's hand in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from time import time

import pytest
import yaml

from tests.e2e.loop import BELOW_MINIMUM, DEADLOCKED, Loop
from tests.e2e.site import EXPORTER, NEW, OLD, WEBHOOK, WORKER, Node, wait
from tests.e2e.updater import Updater
from tests.grafana.boards import EVERY, FLEET, NODE, queries
from tests.packaging.host import CONFIG
from tests.simulators import build
from tests.steps import STEPS

pytestmark = [pytest.mark.e2e, pytest.mark.systemd, pytest.mark.prometheus]

NEWEST = "1.105.4"
BACKUP = f".storagenode.keeper-old-{OLD}"
WANTED_SECONDS, BOUND_SECONDS = 4.0, 90.0
SLOW_SECONDS = 12
ENDED = "Last exit"
"""The one panel that shows something of a node that is down, and not of one that runs and has not been seen to end."""


@pytest.mark.parametrize(
    ("name", "service", "limit", "down"),
    [
        ("looping", "Restart=always\nRestartSec=1", "StartLimitIntervalSec=0", "crash_looping"),
        ("limited", "Restart=always\nRestartSec=100ms", "StartLimitIntervalSec=1h\nStartLimitBurst=3", "crashed"),
    ],
    ids=["no-start-limit", "start-limit-hit"],
)
def test_a_node_that_crashes_for_its_age_is_updated_and_started(
    loop: Loop, name: str, service: str, limit: str, down: str
) -> None:
    with loop.nodes(name) as [node]:
        node.install(service=service, limit=limit).start()
        before, sent = node.state(), loop.archives_sent()
        loop.rise()
        loop.container.systemctl("restart", node.unit)  # a reboot, say: it is too old to start again

        alert = loop.prometheus.wait_alert(DEADLOCKED, name)
        wait(lambda: node.version() == NEW, f"{name} runs {NEW}", BOUND_SECONDS)
        answered = time()
        taken = answered - datetime.fromisoformat(alert["activeAt"]).timestamp()
        print(f"\n{name}: alert true to API with the target {taken:.2f} s (wanted: {WANTED_SECONDS:.0f} s)")
        assert taken < BOUND_SECONDS

        run = loop.wait_run(node)
        assert (run["outcome"], run["exit_code"], run["trigger"]) == ("updated", 0, "alert")
        assert (run["installed"], run["target"], run["reason"]) == (OLD, NEW, "below_minimum")
        assert run["starts"] == {name: {"start": True, "reason": "too_old_to_start"}}
        assert_updated(node, before.inode)
        assert loop.archives_sent() - sent == 1
        assert assert_steps_logged(loop, node)[0]["service_state"] == down
        if down == "crashed":
            assert "Start request repeated too quickly" in loop.container.journal(node.unit)

        loop.prometheus.wait_alert(DEADLOCKED, name, "inactive")
        loop.wait_value(1, "storagenode_remediation_runs_total", node=name, trigger="alert", outcome="updated")
        assert_at_rest(loop, node)
        # It reads crash_looping until ten minutes have passed since; but it is no longer below the minimum.
        assert loop.container.show(node.unit, "ActiveState", "SubState") == {
            "ActiveState": "active",
            "SubState": "running",
        }
        assert loop.value("storagenode_up", node=name) == 1
        assert loop.value("storagenode_version_info", node=name, source="running", version=NEW) == 1
        assert loop.value("storagenode_update_state", node=name, state="current") == 1
        pid = node.state().pid
        loop.pause()
        assert node.state().pid == pid, "it stays up"


def test_a_stopped_node_is_updated_and_left_stopped(loop: Loop) -> None:
    # Beside it one that only runs, and one that is only stopped: all are seen to be left alone in the same time.
    with loop.nodes("stopped", "running", "current") as [stopped, running, current]:
        for node, version in ((stopped, OLD), (running, OLD), (current, NEW)):
            node.install(version).start()
        stopped.stop()
        current.stop()
        loop.wait_value(1, "storagenode_service_state", node="stopped", state="stopped")
        told = {alert["labels"]["alertname"] for alert in loop.prometheus.alerts()}
        assert not told & {DEADLOCKED, BELOW_MINIMUM}
        inode = stopped.state().inode
        untouched = {node.name: node.state() for node in (running, current)}

        loop.rise()
        loop.prometheus.wait_alert(DEADLOCKED, "stopped")
        run = loop.wait_run(stopped)
        assert (run["outcome"], run["trigger"]) == ("updated", "alert")
        assert run["starts"] == {"stopped": {"start": False, "reason": "asked_to_stop"}}
        assert_updated(stopped, inode)
        assert {step["service_state"] for step in assert_steps_logged(loop, stopped)} == {"stopped"}
        loop.prometheus.wait_alert(DEADLOCKED, "stopped", "inactive")
        loop.prometheus.wait_alert(BELOW_MINIMUM, "running")
        loop.pause()

        assert stopped.state().active == "inactive"
        assert stopped.version() is None
        assert_at_rest(loop, stopped)
        assert loop.value("storagenode_service_state", node="stopped", state="stopped") == 1

        # c: it would not come back, which is said; but it runs, and is let alone.
        assert {running.name: running.state(), current.name: current.state()} == untouched
        assert running.version() == OLD
        assert loop.value("storagenode_below_minimum", node="running") == 1
        assert loop.value("storagenode_deadlocked", node="running") == 0
        assert not loop.fired(running)
        # d: stopped, and new enough.
        assert not loop.fired(current)
        assert not loop.fired(current, BELOW_MINIMUM)
        for node in (running, current):
            assert node.runs() == []
            assert loop.value("storagenode_remediation_decisions_total", node=node.name) is None, "never asked for"

        stopped.start()
        assert stopped.version() == NEW


def test_an_alert_that_comes_again_and_again_makes_one_run(loop: Loop) -> None:
    with loop.nodes("slow") as [node]:
        node.install().start()
        node.stop()
        sent, delivered = loop.archives_sent(), accepted(loop)
        archive = next((loop.folder / "releases" / NEW).iterdir())
        loop.downloads.set(behaviour=f"slow:{archive.stat().st_size // SLOW_SECONDS}")
        loop.rise()
        loop.wait_value(1, "storagenode_remediation_in_progress", node="slow")
        loop.wait_value(1, "storagenode_remediation_pending", node="slow")
        assert node.installed() == OLD
        run = loop.wait_run(node)
        again = accepted(loop) - delivered
        assert run["finished"] - run["started"] > SLOW_SECONDS * 0.8
        assert again >= 2, f"the alert came only {again} times"

        loop.prometheus.wait_alert(DEADLOCKED, "slow", "inactive")
        loop.pause()
        assert [each["outcome"] for each in node.runs()] == ["updated"]
        assert loop.archives_sent() - sent == 1
        assert node.installed() == NEW
        assert_steps_logged(loop, node)
        assert_at_rest(loop, node)
        loop.wait_value(1, "storagenode_remediation_runs_total", node="slow")


def test_what_failed_for_the_networks_sake_is_tried_again_and_the_dashboard_shows_it(loop: Loop) -> None:
    with loop.nodes("retried") as [node]:
        node.install().start()
        node.stop()
        before = node.state()
        loop.downloads.set(behaviour="truncate")
        loop.rise()
        failed = loop.wait_run(node)
        assert (failed["outcome"], failed["exit_code"]) == ("later", 1)
        assert replace(node.state(), beside=before.beside) == before
        assert not [name for name in node.state().beside if name != "storagenode"]

        loop.downloads.set(behaviour="ok")
        wait(lambda: node.installed() == NEW, f"{NEW} installed", 60)
        loop.prometheus.wait_alert(DEADLOCKED, "retried", "inactive")
        outcomes = [run["outcome"] for run in node.runs()]
        assert outcomes == ["updated", *["later"] * (len(outcomes) - 1)]
        loop.wait_value(1, "storagenode_remediation_runs_total", node="retried", outcome="updated")
        loop.wait_value(len(outcomes) - 1, "storagenode_remediation_runs_total", node="retried", outcome="later")
        assert_at_rest(loop, node)

        panels = [*queries(FLEET, EVERY), *queries(NODE, node.name)]
        for asked in panels:
            if asked.title == ENDED:
                loop.prometheus.wait_query(asked.expr, 60)
        node.start()
        with updated_by_its_updater(loop, node):
            loop.wait_value(1, "storagenode_version_info", node="retried", source="running", version=NEWEST)
            for asked in panels:
                if asked.title != ENDED:
                    loop.prometheus.wait_query(asked.expr, 60)
        groups = loop.prometheus.get("/api/v1/rules")["data"]["groups"]
        evaluated = [rule for group in groups for rule in group["rules"]]
        assert {"StorageNodeDeadlocked", "StorageNodeNotReached"} <= {rule["name"] for rule in evaluated}
        assert [(rule["name"], rule.get("lastError")) for rule in evaluated if rule["health"] != "ok"] == []


@contextmanager
def updated_by_its_updater(loop: Loop, node: Node) -> Iterator[None]:
    """Give the node an official updater, which fails at first, and then installs what is newer."""
    updater, config = Updater(node), loop.container.path(CONFIG).read_text()
    newest = build.node(NEWEST, loop.folder / "storagenode")
    build.archive(newest, loop.folder / "releases" / NEWEST / build.ASSET)
    loop.downloads.set(behaviour="truncate")
    loop.versions.set(suggested=f"v{NEWEST}")
    try:
        updater.install(works=True)
        wait(lambda: updater.says("Error updating service."), "the updater fails", 120)
        loop.downloads.set(behaviour="ok")
        loop.container.systemctl("restart", updater.unit)  # else it looks again in a quarter of an hour
        wait(lambda: node.version() == NEWEST, "the updater has updated the node", 120)
        known = yaml.safe_load(config)
        known["nodes"] = [updater.config() if each["name"] == node.name else each for each in known["nodes"]]
        loop.container.write(CONFIG, yaml.safe_dump(known))
        loop.container.systemctl("restart", EXPORTER)
        yield
    finally:
        updater.remove()
        loop.container.write(CONFIG, config)
        loop.container.systemctl("restart", EXPORTER)


def accepted(loop: Loop) -> int:
    """Return how many alerts the webhook has taken for requests, as it says itself."""
    return int(loop.value("storagenode_webhook_alerts_total", result="accepted") or 0)


def assert_updated(node: Node, old: int) -> None:
    """The new release, dressed as the old one was; the old one, the same file, beside it; nothing else."""
    assert node.installed() == NEW
    folder = node.container.path(node.binary.parent)
    assert {path.name for path in folder.iterdir()} == {"storagenode", BACKUP}
    assert (folder / BACKUP).stat().st_ino == old
    assert node.container.run(["stat", "-c", "%U:%G %a", node.binary]).stdout == "storagenode:storagenode 775\n"


def assert_steps_logged(loop: Loop, node: Node) -> list[dict[str, str]]:
    """Every step is in the journal of the worker's unit with what it is about, and in the store; return the lines."""
    lines = [line for line in loop.log(WORKER) if line["message"] == "step" and line["node"] == node.name]
    assert [line["step"] for line in lines] == STEPS
    for line in lines:
        assert line["service_state"]
        assert (line["installed"], line["target"], line["reason"]) == (OLD, NEW, "below_minimum")
    journal = node.runs()[0]["journal"]
    assert [entry["step"] for entry in journal if entry["event"] == "done"] == STEPS
    assert [entry["event"] for entry in journal] == ["intent", "done"] * len(STEPS)
    return lines


def assert_at_rest(loop: Loop, node: Node) -> None:
    """Nothing waits or works, the worker has ended well, and the metrics agree."""
    wait(loop.idle, "the worker is idle")
    ended = loop.container.show(WORKER, "Result", "ExecMainStatus", "NRestarts")
    assert ended == {"Result": "success", "ExecMainStatus": "0", "NRestarts": "0"}
    assert not [line for line in loop.log(WEBHOOK) if line["level"] == "error"]
    for metric in ("in_progress", "pending", "updater_held"):
        loop.wait_value(0, f"storagenode_remediation_{metric}", node=node.name)
    loop.wait_value(0, "storagenode_deadlocked", node=node.name)
    loop.wait_value(0, "storagenode_below_minimum", node=node.name)
