"""The same by hand: no Prometheus, no Alertmanager, no service of ours, only commands."""

from pathlib import Path

import pytest

from tests.e2e.site import NEW, OLD, Site, wait
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container

pytestmark = [pytest.mark.e2e, pytest.mark.systemd]

CURRENT = "byhand: nothing to do (current): the installed version is current\n"


@pytest.mark.parametrize(
    ("service", "limit", "active"),
    [
        ("Restart=always\nRestartSec=1", "StartLimitIntervalSec=0", "activating"),
        ("Restart=always\nRestartSec=100ms", "StartLimitIntervalSec=1h\nStartLimitBurst=3", "failed"),
    ],
    ids=["no-start-limit", "start-limit-hit"],
)
def test_a_node_that_crashes_for_its_age_is_updated_and_started(
    tmp_path: Path, service: str, limit: str, active: str
) -> None:
    with Container() as container, Site(container, tmp_path, ["byhand"]) as site:
        node = site.node("byhand").install(service=service, limit=limit)
        node.start()
        remediate, exporter = VENV / "bin/storagenode-remediate", VENV / "bin/storagenode-exporter"

        def check() -> int:
            return container.run([exporter, "check"], check=False).returncode

        assert check() == 0
        assert site.remediate("run", "--yes", "byhand") == CURRENT
        site.rise()
        assert check() == 1
        refused = container.run([remediate, "run", "--yes", "byhand"], check=False)
        assert refused.returncode == 3
        assert "the node is running; --stop-running stops it" in refused.stdout

        container.systemctl("restart", node.unit)
        container.wait_state(node.unit, active)
        assert check() == 1
        before = node.state()
        planned = site.remediate("plan", "byhand")
        assert f"{OLD} -> {NEW} (below_minimum)" in planned
        assert "start byhand" in planned
        unasked = container.run([remediate, "run", "byhand"], check=False)
        assert (unasked.returncode, unasked.stdout) == (3, "")
        assert "--yes" in unasked.stderr
        assert node.installed() == OLD

        done = container.run([remediate, "run", "--yes", "byhand"])
        assert done.stdout == f"byhand: updated, {OLD} -> {NEW} (person, below_minimum): byhand runs {NEW}\n"
        assert "Traceback" not in done.stderr
        assert node.version() == NEW
        assert node.installed() == NEW
        after = node.state()
        assert (after.active, after.inode) == ("active", container.path(node.binary).stat().st_ino)
        assert after.inode != before.inode
        (run,) = node.runs()
        assert (run["outcome"], run["trigger"], run["exit_code"]) == ("updated", "person", 0)
        assert len(site.downloads.requests("/asset/")) == 1
        assert site.remediate("run", "--yes", "byhand") == CURRENT
        wait(lambda: check() == 0, "check finds all well")
