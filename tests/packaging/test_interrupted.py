"""The worker ended in the middle, under systemd: killed at any moment, told to stop, and by a reboot."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.e2e.site import NEW, PATH, WORKER, Node, wait
from tests.labs.systemd import Container
from tests.packaging.host import SPOOL, Host, updater
from tests.serving import Stopwatch
from tests.simulators import build

pytestmark = pytest.mark.systemd

KILLS = 40 if os.environ.get("EXHAUSTIVE") == "1" else 3
LONGEST_STOP = 40.0
"""Seconds; TimeoutStopSec= is far above."""


def test_killed_at_any_moment(host: Host, alpha: Node) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with host.dropped_in("hurry", "[Service]\nRestartSec=300ms\n"):
        for _ in range(KILLS):
            host.forget(alpha)
            alpha.install(service="Restart=no")
            host.container.systemctl("start", PATH)
            host.ask("alpha")
            host.container.wait_state(WORKER, "active")
            for _ in range(dice.choice([1, 1, 2])):
                time.sleep(dice.uniform(0, 3))
                host.container.systemctl("kill", "--signal=KILL", WORKER, check=False)
            wait(lambda: not any(host.container.path(SPOOL).iterdir()), "the request is worked off", 40)
            host.wait_ended(alpha)
            assert {run["outcome"] for run in alpha.runs()} <= {"updated", "undone"}
            host.assert_updated(alpha)


@pytest.mark.parametrize("step", ["fetch", "probe", "start"])
def test_stopped_in_the_middle(host: Host, alpha: Node, tmp_path: Path, step: str) -> None:
    """It undoes or ends the step and is gone; what it was asked for is still asked for."""
    match step:
        case "fetch":
            host.downloads.set(behaviour="slow:10000")
        case "probe":
            host.publish(build.node(NEW, tmp_path / "hangs", misbehave="hang"))
        case "start":
            host.crash_for_its_age(alpha)
            settings = host.container.path(alpha.config_dir / "config.yaml")
            settings.write_text(settings.read_text() + "sim.start-delay: 1000\n")
    seen = host.steps().count(step)
    host.ask("alpha")
    host.wait_step(step, seen)
    wait(lambda: host.container.show(WORKER, "StatusText")["StatusText"].startswith(f"alpha: {step}"), "it says so")
    if step == "start":
        host.container.wait_state(alpha.unit, "active")
    watch = Stopwatch()
    host.container.systemctl("stop", PATH, WORKER)
    assert watch.seconds < LONGEST_STOP
    unit = host.container.show(WORKER, "ActiveState", "Result")
    assert unit == {"ActiveState": "inactive", "Result": "success"}, host.container.journal(WORKER)[-2000:]
    (run,) = alpha.runs()
    assert run["outcome"] == ("unconfirmed" if step == "start" else "interrupted")
    if step == "start":
        host.assert_updated(alpha)
        assert host.container.show(alpha.unit, "ActiveState")["ActiveState"] == "active", "it may be migrating"
    else:
        host.assert_untouched(alpha)
        host.publish(host.binaries[NEW])
        host.downloads.set(behaviour="ok")
        host.container.systemctl("start", PATH)
        assert host.wait_ended(alpha, 2)["outcome"] == "updated"
        host.assert_updated(alpha)


@pytest.mark.parametrize("politely", [True, False], ids=["reboot", "power-cut"])
def test_a_reboot_with_an_empty_spool_and_an_open_journal(tmp_path: Path, politely: bool) -> None:
    with Container() as container, Host(container, tmp_path, ["alpha"]) as host:
        alpha = host.node("alpha").install(service="Restart=no")
        # Only a recovery starts what systemd does not start at boot.
        container.systemctl("disable", "--quiet", updater("alpha"), alpha.unit)
        container.systemctl("enable", "--now", "--quiet", WORKER, PATH)
        host.downloads.set(behaviour="slow:10000")
        host.rise()
        host.ask("alpha")
        host.wait_step("fetch")
        container.path(f"{SPOOL}/alpha").unlink()
        container.reboot(politely=politely)
        wait(lambda: all(run["outcome"] for run in alpha.runs()), "the run is brought to its end")
        container.wait_state(WORKER, "inactive")
        # A systemd that goes down starts no updater again: then it is left to the next start, even of a polite reboot.
        (run,) = alpha.runs()
        assert run["outcome"] in ({"interrupted", "undone"} if politely else {"undone"})
        host.assert_untouched(alpha)
        assert container.show(alpha.unit, "ActiveState")["ActiveState"] == "inactive"
