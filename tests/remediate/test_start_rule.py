"""The start rule on a real systemd: which nodes are started after their update, which are not, and what comes of it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.site import NEW, OLD, WORKER, Node, wait
from tests.remediate.hosting import Host, hosted
from tests.simulators import build

pytestmark = pytest.mark.systemd

LOOP = "Restart=always\nRestartSec=200ms"
NO_LIMIT = "StartLimitIntervalSec=0"
EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
MARKER = "storage/storage-dir-verification"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosted(tmp_path_factory.mktemp("host"), "alpha") as made:
        yield made


@pytest.fixture
def alpha(host: Host) -> Iterator[Node]:
    """A node that can be installed, and will be gone afterwards."""
    host.configure({"alpha": {"node_id": None}}, confirm_timeout="15m")
    yield host.node("alpha")
    host.clear(host.node("alpha"))


def aged(host: Host, node: Node, service: str = LOOP, limit: str = NO_LIMIT) -> Node:
    """Let the minimum rise above a node, and restart it: it refuses to start."""
    node.install(service=service, limit=limit).start()
    host.rise()
    host.container.systemctl("restart", node.unit)
    wait(lambda: active(host, node) in ("activating", "failed"), "it does not start any more")
    return node


def active(host: Host, node: Node) -> str:
    return host.container.show(node.unit, "ActiveState")["ActiveState"]


def assert_down(host: Host, node: Node, state: str = "inactive") -> None:
    assert active(host, node) == state
    time.sleep(0.3)
    assert active(host, node) == state
    assert host.container.show(node.unit, "MainPID")["MainPID"] == "0"


def test_a_node_that_was_stopped_stays_stopped(host: Host, alpha: Node) -> None:
    alpha.install(service=LOOP).start()
    alpha.stop()
    host.rise()
    ran = host.run("alpha")
    assert (ran.code, ran.outcome, ran.starts) == (0, "updated", {"alpha": "asked_to_stop"})
    assert alpha.installed() == NEW
    assert_down(host, alpha)


@pytest.mark.parametrize(
    ("service", "limit", "down"),
    [
        (LOOP, NO_LIMIT, "activating"),
        ("Restart=no", "", "failed"),
        ("Restart=always\nRestartSec=10ms", "StartLimitIntervalSec=1h\nStartLimitBurst=4", "failed"),
    ],
    ids=["loop", "down", "start-limit"],
)
def test_a_node_that_its_age_keeps_down_is_started_by_the_worker(
    host: Host, alpha: Node, service: str, limit: str, down: str
) -> None:
    aged(host, alpha, service, limit)
    host.container.wait_state(alpha.unit, down)
    host.work("alpha")
    (run,) = alpha.runs()
    assert (run["outcome"], run["detail"]) == ("updated", f"alpha runs {NEW}")
    assert run["starts"]["alpha"]["reason"] == "too_old_to_start"
    assert alpha.version() == alpha.installed() == NEW
    assert host.container.show(WORKER, "Result")["Result"] == "success"


def killed_for_memory(host: Host, node: Node) -> None:
    """As systemd-oomd does, which counts its kills in attributes of the cgroup (systemd/systemd, oomd-util.c)."""
    unit = host.container.show(node.unit, "ControlGroup", "MainPID")
    for count in ("user.oomd_ooms", "user.oomd_kill"):
        os.setxattr(host.container.path(f"/sys/fs/cgroup{unit['ControlGroup']}"), count, b"1")
    host.container.systemctl("kill", "--signal=KILL", node.unit)
    host.container.wait_state(node.unit, "failed")
    assert host.container.show(node.unit, "Result")["Result"] == "oom-kill"


def killed(host: Host, node: Node) -> None:
    host.container.run(["systemctl", "kill", f"--signal={signal.SIGSEGV.name}", node.unit])
    host.container.wait_state(node.unit, "failed")


def failed_otherwise(host: Host, node: Node) -> None:
    config = host.container.path(node.config_dir / "config.yaml")
    config.write_text(config.read_text() + "sim.crash-after: 0\nsim.crash-code: 2\n")
    host.container.systemctl("restart", node.unit)
    host.container.wait_state(node.unit, "failed")
    config.write_text(config.read_text().replace("sim.crash-after: 0\n", ""))


@pytest.mark.parametrize("end", [killed_for_memory, failed_otherwise, *([killed] if EXHAUSTIVE else [])])
def test_a_node_that_something_else_brought_down_is_updated_and_left_to_a_person(
    host: Host, alpha: Node, end: object
) -> None:
    alpha.install(service="Restart=no").start()
    end(host, alpha)  # type: ignore[operator]
    host.rise()
    ran = host.run("alpha")
    assert (ran.code, ran.outcome, ran.starts) == (4, "left_down", {"alpha": "other_cause"})
    assert "see why, then start it" in ran.detail
    assert alpha.installed() == NEW
    assert_down(host, alpha, "failed")
    alpha.start()
    assert alpha.version() == NEW


def killed_and_waiting(host: Host, node: Node, seconds: str) -> None:
    """Let a node be below the minimum and killed, and its manager about to start it again."""
    node.install(service=f"Restart=always\nRestartSec={seconds}", limit=NO_LIMIT).start()
    host.rise()
    host.container.systemctl("kill", "--signal=KILL", node.unit)
    host.container.wait_state(node.unit, "activating", "auto-restart")


def test_a_node_that_is_about_to_be_started_again_is_judged_by_how_it_ends_then(host: Host, alpha: Node) -> None:
    killed_and_waiting(host, alpha, "3s")
    ran = host.run("alpha")
    assert (ran.code, ran.starts, ran.detail) == (0, {"alpha": "too_old_to_start"}, f"alpha runs {NEW}")


def test_a_node_that_is_started_again_only_in_an_hour_is_left_to_a_person(host: Host, alpha: Node) -> None:
    killed_and_waiting(host, alpha, "1h")
    ran = host.run("alpha")
    assert (ran.code, ran.outcome, ran.starts) == (4, "left_down", {"alpha": "other_cause"})
    assert_down(host, alpha)


# The disk


def missing(host: Host, node: Node) -> str:
    host.container.path(node.config_dir / MARKER).unlink()
    return "No such file"


def of_another_node(host: Host, node: Node) -> str:
    host.configure({"alpha": {"node_id": "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"}})
    return "is that of another node"


@pytest.mark.parametrize("harm", [missing, of_another_node])
def test_a_node_without_its_storage_is_updated_and_not_started(host: Host, alpha: Node, harm: object) -> None:
    aged(host, alpha)
    said = harm(host, alpha)  # type: ignore[operator]
    ran = host.run("alpha")
    assert (ran.code, ran.outcome) == (4, "start_failed"), ran.detail
    assert said in ran.detail
    assert alpha.installed() == NEW
    assert_down(host, alpha)


# What somebody does meanwhile


def told(node: Node, *words: str) -> list[str]:
    return ["systemctl", *words, node.unit]


def test_a_node_that_somebody_stops_before_the_swap_stays_stopped(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    ran = host.run("alpha", meanwhile={"fetch": [told(alpha, "stop")]})
    assert (ran.code, ran.outcome, ran.starts) == (0, "updated", {"alpha": "too_old_to_start"})
    assert "left as somebody has put it meanwhile: stopped" in ran.detail
    assert alpha.installed() == NEW
    assert_down(host, alpha)


def test_a_node_that_somebody_starts_and_stops_after_the_swap_stays_stopped(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    ran = host.run("alpha", meanwhile={"start": [told(alpha, "start"), ["sleep", "0.2"], told(alpha, "stop")]})
    assert (ran.code, ran.outcome) == (0, "updated"), ran.detail
    assert "left as somebody has put it meanwhile: stopped" in ran.detail
    assert_down(host, alpha)


def test_that_systemd_reads_its_units_anew_is_nobodys_wish(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    ran = host.run("alpha", meanwhile={"start": [["systemctl", "daemon-reload"], ["systemctl", "daemon-reexec"]]})
    assert (ran.code, ran.detail) == (0, f"alpha runs {NEW}")


def test_a_unit_that_systemd_forgets_when_it_is_down_is_started(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    host.container.systemctl("disable", "--quiet", alpha.unit)
    ran = host.run("alpha", meanwhile={"start": [["systemctl", "daemon-reload"]]})
    assert (ran.code, ran.detail) == (0, f"alpha runs {NEW}")


def test_a_masked_node_is_refused(host: Host, alpha: Node) -> None:
    alpha.install().start()
    alpha.stop()
    host.rise()
    mask(host, alpha)
    before = alpha.state()
    ran = host.run("alpha")
    assert (ran.code, ran.report["decision"], ran.report["reason"], ran.report["run"]) == (3, "refuse", "masked", None)
    assert alpha.state() == before


def mask(host: Host, node: Node) -> None:
    for command in masking(node):
        host.container.run(command)


def masking(node: Node) -> list[list[str]]:
    """Mask a unit that is a file in /etc, as people do."""
    unit = f"/etc/systemd/system/{node.unit}"
    return [["mv", unit, f"{unit}.away"], ["systemctl", "mask", "--quiet", node.unit]]


def test_a_node_that_is_masked_before_the_swap_is_left_as_it_is(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    inode = alpha.state().inode
    ran = host.run("alpha", meanwhile={"fetch": masking(alpha)})
    assert (ran.code, ran.outcome) == (3, "abandoned"), ran.detail
    assert "alpha is masked" in ran.detail
    assert (alpha.installed(), alpha.state().inode) == (OLD, inode)
    assert alpha.state().beside == {"storagenode"}


def test_a_node_that_is_masked_after_the_swap_is_not_started(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    ran = host.run("alpha", meanwhile={"start": masking(alpha)})
    assert (ran.code, ran.outcome) == (0, "updated"), ran.detail
    assert "the unit is masked" in ran.detail
    assert alpha.installed() == NEW
    assert_down(host, alpha)


def test_a_node_that_somebody_starts_before_the_swap_is_left_alone(host: Host, alpha: Node) -> None:
    """One that its version does not keep from starting; it is only due."""
    alpha.install(service=LOOP).start()
    alpha.stop()
    host.versions.set(suggested=f"v{NEW}", cursor="f" * 64)
    inode = alpha.state().inode
    ran = host.run("alpha", "--to", "suggested", meanwhile={"dress": [told(alpha, "start")]})
    assert (ran.code, ran.outcome, ran.detail) == (3, "abandoned", "alpha is running: running")
    assert (alpha.version(), alpha.installed(), alpha.state().inode) == (OLD, OLD, inode)
    assert alpha.state().beside == {"storagenode"}


def test_a_node_that_somebody_tries_to_start_before_the_swap_is_decided_on_again(host: Host, alpha: Node) -> None:
    """It was stopped, and would have been left so; now it is down for its version."""
    alpha.install(service="Restart=no").start()
    alpha.stop()
    host.rise()
    ran = host.run("alpha", meanwhile={"dress": [told(alpha, "start"), ["sleep", "0.3"]]})
    assert (ran.code, ran.outcome) == (3, "abandoned"), ran.detail
    assert "alpha is crashed, and was stopped" in ran.detail
    again = host.run("alpha")
    assert (again.code, again.starts, again.detail) == (0, {"alpha": "too_old_to_start"}, f"alpha runs {NEW}")


def test_a_node_that_somebody_starts_after_the_swap_is_confirmed(host: Host, alpha: Node) -> None:
    aged(host, alpha)
    noted = ["sh", "-c", f"systemctl show --property=MainPID --value {alpha.unit} > /run/kt-pid"]
    ran = host.run("alpha", meanwhile={"start": [told(alpha, "start"), noted]})
    assert (ran.code, ran.outcome, ran.detail) == (0, "updated", f"alpha runs {NEW}")
    assert alpha.state().pid == host.container.path("/run/kt-pid").read_text().strip()


@pytest.mark.parametrize("rule", ["if-crashed", "never"])
def test_a_node_that_we_leave_and_somebody_starts_after_the_swap_is_nobodys_concern(
    host: Host, alpha: Node, rule: str
) -> None:
    alpha.install(service="Restart=no").start()
    host.container.systemctl("kill", "--signal=KILL", alpha.unit)
    host.container.wait_state(alpha.unit, "failed")
    host.rise()
    ran = host.run("alpha", "--start", rule, meanwhile={"start": [told(alpha, "start")]})
    assert (ran.code, ran.detail) == (0, "alpha was started meanwhile, by others")
    assert alpha.version() == NEW


# Starts that fail, or take their time


def test_a_start_that_fails_is_for_a_person_and_the_update_stays(host: Host, alpha: Node, tmp_path: Path) -> None:
    aged(host, alpha)
    good = host.folder / "releases" / NEW / build.ASSET
    kept = good.read_bytes()
    try:
        build.archive(build.node(NEW, tmp_path / "storagenode", misbehave="crash"), good)
        ran = host.run("alpha")
    finally:
        good.write_bytes(kept)
    assert (ran.code, ran.outcome) == (4, "start_failed")
    assert "alpha did not stay up: it exited with status 1" in ran.detail
    assert alpha.binary.name in alpha.state().beside
    assert "1.102.3" in next(name for name in alpha.state().beside if name != alpha.binary.name)


@contextmanager
def dropped_in(host: Host, node: Node, settings: str) -> Iterator[None]:
    """Change the settings of a node's unit for a while."""
    folder = f"/etc/systemd/system/{node.unit}.d"
    host.container.write(f"{folder}/changed.conf", f"[Service]\n{settings}\n")
    host.container.systemctl("daemon-reload")
    yield
    host.container.run(["rm", "-r", folder])
    host.container.systemctl("daemon-reload")


REFUSED = "systemd could not start storagenode-alpha.service: failed"
BROKEN = {
    "pre": ("ExecStartPre=/bin/false", REFUSED),
    "dependency": ("[Unit]\nRequires=kt-away.mount\nAfter=kt-away.mount", "dependency"),
    "condition": ("[Unit]\nConditionPathExists=/nowhere", "a condition of the unit is not met"),
    "oneshot": ("Type=oneshot\nExecStartPre=/bin/false", REFUSED),
    "user": ("User=nobody-there", "did not stay up"),
}


@pytest.mark.parametrize(("broken", "said"), list(BROKEN.values())[: None if EXHAUSTIVE else 3])
def test_a_unit_that_systemd_does_not_start_is_for_a_person(host: Host, alpha: Node, broken: str, said: str) -> None:
    aged(host, alpha, "Restart=no")
    host.container.write("/etc/systemd/system/kt-away.mount", "[Mount]\nWhat=/dev/nowhere\nWhere=/kt/away\n")
    with dropped_in(host, alpha, broken):
        ran = host.run("alpha")
    assert (ran.code, ran.outcome) == (4, "start_failed")
    assert said in ran.detail
    assert alpha.installed() == NEW


@pytest.mark.parametrize("kind", ["simple", "notify"])
def test_a_node_that_migrates_for_long_is_unconfirmed_and_never_killed(host: Host, alpha: Node, kind: str) -> None:
    host.configure(confirm_timeout="1s")
    aged(host, alpha)
    config = host.container.path(alpha.config_dir / "config.yaml")
    config.write_text(config.read_text() + "sim.start-delay: 12\n")
    with dropped_in(host, alpha, f"Type={kind}\nTimeoutStartSec=infinity"):
        ran = host.run("alpha")
        assert (ran.code, ran.outcome) == (4, "unconfirmed"), ran.detail
        assert f"alpha was started and has not shown {NEW}: " in ran.detail
        pid = alpha.state().pid
        assert (alpha.installed(), alpha.version()) == (NEW, None)
        wait(lambda: alpha.version() == NEW, "it has migrated", 60)
        assert alpha.state().pid == pid != "0"
