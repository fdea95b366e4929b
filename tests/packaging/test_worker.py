"""The worker as shipped, under systemd: whole updates in its sandbox, and requests in any number."""

import os
import time

import pytest

from tests.e2e.site import OLD, PATH, WORKER, Node, wait
from tests.labs.rootfs import REPOSITORY
from tests.packaging.host import SPOOL, Host, updater
from tests.serving import Stopwatch

pytestmark = pytest.mark.systemd

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
STRICT = REPOSITORY / "packaging/systemd" / f"{WORKER}.d/strict.conf"
REQUESTS = 200 if EXHAUSTIVE else 40


@pytest.mark.parametrize("drop_in", ["shipped", "strict"])
def test_a_whole_update_in_the_sandbox(host: Host, alpha: Node, drop_in: str) -> None:
    host.crash_for_its_age(alpha)
    content = STRICT.read_text() if drop_in == "strict" else ""
    with host.dropped_in("strict", content.replace("/opt/storagenode\n", f"{alpha.binary.parent}\n")):
        before = host.container.show(updater("alpha"), "MainPID")
        assert host.post("alpha") == 202
        run = host.wait_ended(alpha)
        assert (run["outcome"], run["trigger"]) == ("updated", "alert"), run["detail"]
        assert wait(alpha.version, "the API answers") == run["target"]
        host.assert_updated(alpha)
        assert host.container.show(updater("alpha"), "MainPID") != before, "it was held"
        assert host.container.show(WORKER, "Result")["Result"] == "success"


def test_a_flood_of_requests(host: Host, alpha: Node) -> None:
    """200 in a minute, for a node that runs and for one that is not installed: nothing to do, and nothing breaks."""
    host.rise(OLD)
    alpha.start()
    host.rise()
    before = alpha.state()
    for number in range(REQUESTS):
        assert host.post("alpha" if number % 2 else "beta") == 202
        time.sleep(0.3)
    wait(lambda: not any(host.container.path(SPOOL).iterdir()), "every request is worked off")
    host.container.wait_state(WORKER, "inactive")
    assert host.container.show(PATH, "ActiveState", "Result") == {"ActiveState": "active", "Result": "success"}
    assert host.container.show(WORKER, "Result")["Result"] == "success"
    assert alpha.state() == before
    assert alpha.runs() == []


def test_one_that_cannot_be_put_back_does_not_spin_the_worker(host: Host, alpha: Node) -> None:
    """Killed in the middle, and the disk with the binary is gone: nothing can be done until it is there again."""
    folder, away = alpha.binary.parent, alpha.binary.parent.with_name("away")
    host.downloads.set(behaviour="slow:10000")
    with host.dropped_in("hurry", "[Service]\nRestartSec=2s\n"):
        host.ask("alpha")
        host.wait_step("fetch", host.steps().count("fetch"))
        host.container.run(["mv", folder, away])
        host.container.systemctl("kill", "--signal=KILL", WORKER)
        starts, watch = starts_of(host), Stopwatch()
        host.ask("beta")
        time.sleep(6)
        wait(lambda: starts_of(host) > starts, "it is started again")
        found = starts_of(host) - starts
        assert found <= watch.seconds / 2 + 1, "RestartSec= and no more, whatever the path unit sees"
        assert host.container.show(PATH, "ActiveState")["ActiveState"] == "active"
        host.container.run(["mv", away, folder])
        assert host.wait_ended(alpha)["outcome"] == "undone"
    host.assert_untouched(alpha)
    assert host.container.show(WORKER, "Result")["Result"] == "success"


def starts_of(host: Host) -> int:
    return host.container.journal(WORKER).count("Started storagenode-remediate-worker")
