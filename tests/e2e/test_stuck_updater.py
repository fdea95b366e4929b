"""An updater that is stuck while its node runs: alerted on, and healed where that is allowed, the node untouched."""

from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from tests.e2e.loop import DEADLOCKED, Loop
from tests.e2e.site import EXPORTER, NEW, OLD, USER, wait
from tests.e2e.updater import RELEASE, Updater
from tests.labs.systemd import Container
from tests.packaging.host import CONFIG

pytestmark = [pytest.mark.e2e, pytest.mark.systemd, pytest.mark.prometheus]

BLOCKED = "StorageNodeUpdaterBlocked"
NAME = "running"


class Stuck(Loop):
    """A node that runs, and its updater, which was ended an hour ago while it unpacked and stumbles over that since."""

    waits: ClassVar = {BLOCKED: "0s"}

    def _install(self) -> None:
        super()._install()
        self.versions.set(suggested=f"v{NEW}", updater_minimum="v0.0.1", updater_suggested=f"v{RELEASE}")
        node = self.node(NAME).install()
        self.left = node.binary.with_name(f"storagenode.{NEW}")
        self.container.write(self.left, b"half of it")
        self.container.run(["touch", "--date=-1 hour", self.left])
        self.container.run(["chown", USER, self.left])
        self.updater = Updater(node).install()
        config = yaml.safe_load(self.container.path(CONFIG).read_text())
        config["nodes"] = [self.updater.config()]
        config["remediation"]["heal_updater"] = True
        self.container.write(CONFIG, yaml.safe_dump(config))
        node.start()
        self.before = node.state()


def test_a_stuck_updater_is_alerted_on_and_healed_before_its_node_ever_stops(tmp_path: Path) -> None:
    with Container() as container, Stuck(container, tmp_path) as loop:
        node = loop.node(NAME)
        run = loop.wait_run(node)
        assert (run["program"], run["trigger"], run["reason"]) == ("storagenode-updater", "alert", "updater_blocked")
        assert (run["outcome"], run["detail"]) == ("healed", f"removed {loop.left}")
        wait(lambda: loop.fired(node, BLOCKED) or None, "the alert is on record")
        assert not container.path(loop.left).exists()
        assert container.show(loop.updater.unit, "ActiveState")["ActiveState"] == "active"

        now = node.state()
        assert (now.inode, now.pid, now.started) == (loop.before.inode, loop.before.pid, loop.before.started)
        assert (node.version(), loop.fired(node, DEADLOCKED)) == (OLD, False)
        container.systemctl("restart", EXPORTER)  # it looks at an updater once a minute, and at once when it starts
        loop.prometheus.wait_alert(BLOCKED, NAME, "inactive")
        wait(lambda: loop.idle() or None, "nothing is asked for any more")
        assert loop.tracebacks() == []
