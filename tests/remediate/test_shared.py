"""Nodes that share a binary, on a real systemd: one update, and what becomes of each of them."""

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import EXPORTER, NEW, OLD, TOKEN, Node, wait
from tests.labs.rootfs import VENV
from tests.remediate.hosting import Host, hosted

pytestmark = pytest.mark.systemd

NAMES = ("one", "two", "three", "four")
FOLDER = Path("/opt/shared")
BINARY = FOLDER / "storagenode"
LOOP = "Restart=always\nRestartSec=200ms"
NO_LIMIT = "StartLimitIntervalSec=0"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosted(tmp_path_factory.mktemp("host"), *NAMES) as made:
        for name in NAMES:
            made.node(name).binary = BINARY
        yield made


@pytest.fixture
def nodes(host: Host) -> Iterator[list[Node]]:
    """Nodes of one binary that can be installed, and will be gone afterwards."""
    nodes = [host.node(name) for name in NAMES]
    names = {node.name: (node.unit, node.binary) for node in nodes}
    use(host, *nodes)
    yield nodes
    host.clear(*nodes)
    for node in nodes:
        node.unit, node.binary = names[node.name]


def use(host: Host, *nodes: Node, **rules: str) -> None:
    """Tell our programs where these nodes are."""
    settings = {node.name: {"binary": str(node.binary), "service": f"systemd:{node.unit}"} for node in nodes}
    host.configure(settings, confirm_timeout="15m", **rules)


def age(host: Host, *nodes: Node) -> None:
    """Let the minimum rise above nodes that run, and restart them: they refuse to start."""
    host.rise()
    for node in nodes:
        host.container.systemctl("restart", node.unit)
        wait(lambda node=node: active(host, node) in ("activating", "failed"), "it does not start any more")  # type: ignore[misc]


def active(host: Host, node: Node) -> str:
    return host.container.show(node.unit, "ActiveState")["ActiveState"]


def metrics(name: str) -> dict[str, str] | None:
    """Return what the exporter says of a metric of each node; None when it does not answer."""
    request = urllib.request.Request("http://127.0.0.1:19651/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            lines = answer.read().decode()
    except OSError:
        return None
    return dict(re.findall(rf'^{name}{{node="(.*)"}} (.*)$', lines, re.MULTILINE))


def updater(host: Host, name: str) -> str:
    """Start an updater of the binary, that does nothing; return its unit."""
    command = f"{FOLDER}/storagenode-updater run --binary-location {BINARY} --service-name {name}"
    host.container.unit(f"{name}.service", f"[Service]\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n")
    host.container.systemctl("start", name)
    return f"{name}.service"


def test_one_update_and_the_node_that_runs_is_not_touched(host: Host, nodes: list[Node]) -> None:
    one, two, three, _ = nodes
    for node in nodes[:3]:
        node.install(service=LOOP)
    host.container.write(FOLDER / "storagenode-updater", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    updaters = [updater(host, "kt-updater-1"), updater(host, "kt-updater-2")]
    host.configure(
        {node.name: {"updater_service": f"systemd:{unit}"} for node, unit in zip((one, two), updaters, strict=True)}
    )
    for node in (one, two, three):
        node.start()
    one.stop()
    two.stop()
    host.rise()
    before = three.state()
    asked, sent = len(host.versions.requests()), host.archives_sent()
    held = [["sh", "-c", f"systemctl is-active {' '.join(updaters)} > /run/kt-held"]]
    ran = host.run("one", meanwhile={"swap": held})
    assert (ran.code, ran.outcome) == (0, "updated"), ran.detail
    assert ran.starts == {"one": "asked_to_stop", "two": "asked_to_stop"}
    assert ran.report["run"]["nodes"][:3] == ["one", "two", "three"]
    assert len(host.versions.requests()) - asked == 1, "all are judged by the same document"

    after = three.state()
    assert (after.pid, after.started, after.active) == (before.pid, before.started, "active")
    assert os.stat(f"{host.container.root}/proc/{after.pid}/exe").st_ino == before.inode != after.inode
    assert (three.version(), three.installed()) == (OLD, NEW)
    assert [active(host, node) for node in (one, two)] == ["inactive", "inactive"]
    host.container.systemctl("start", EXPORTER)
    try:
        below = wait(lambda: host.container.network.call(metrics, "storagenode_below_minimum"), "the exporter answers")
        assert {below[node.name] for node in (one, two, three)} == {"0.0"}
        pending = host.container.network.call(metrics, "storagenode_restart_pending")
        assert pending == {"three": "1.0"}
    finally:
        host.container.systemctl("stop", EXPORTER)

    assert host.container.path("/run/kt-held").read_text().split() == ["inactive", "inactive"]
    assert [host.container.show(unit, "ActiveState")["ActiveState"] for unit in updaters] == ["active", "active"]
    # The other alert finds nothing left to do.
    host.work("two", "three")
    assert host.archives_sent() - sent == 1
    assert len(json.loads(host.remediate("history", "--json"))["runs"]) == 1
    host.container.systemctl("restart", three.unit)
    wait(lambda: three.version() == NEW, "it runs the new one once it is restarted")
    host.container.systemctl("disable", "--now", "--quiet", *updaters)


def test_instances_of_a_template_are_started_or_left_each_for_its_own_reason(host: Host, nodes: list[Node]) -> None:
    looping, stopped, killed, running = nodes
    for number, node in enumerate(nodes, 1):
        node.unit = f"storagenode@{number}.service"
        node.install(service="Restart=no" if node is killed else LOOP, limit=NO_LIMIT)
        host.container.path(f"/etc/systemd/system/{node.unit}").unlink()
        host.container.path(f"/var/lib/storagenodes/{number}").symlink_to(node.name)
    template = f"[Unit]\n{NO_LIMIT}\n[Service]\nExecStart={BINARY} run --config-dir /var/lib/storagenodes/%i\n"
    host.container.unit("storagenode@.service", f"{template}Restart=on-failure\nRestartSec=200ms\n", enable=False)
    host.container.write("/etc/systemd/system/storagenode@3.service.d/once.conf", "[Service]\nRestart=no\n")
    host.container.systemctl("daemon-reload")
    use(host, *nodes)
    for node in nodes:
        node.start()
    stopped.stop()
    host.container.systemctl("kill", "--signal=SEGV", killed.unit)
    host.container.wait_state(killed.unit, "failed")
    age(host, looping)
    pid = running.state().pid
    ran = host.run("two")
    assert (ran.code, ran.outcome) == (4, "left_down"), ran.detail
    assert ran.starts == {"one": "too_old_to_start", "two": "asked_to_stop", "three": "other_cause"}
    for said in (f"one runs {NEW}", "two is left stopped (asked_to_stop)", "three was not down for its version alone"):
        assert said in ran.detail
    assert [active(host, node) for node in nodes] == ["active", "inactive", "failed", "active"]
    assert [node.version() for node in nodes] == [NEW, None, None, OLD]
    assert running.state().pid == pid
    for number in range(1, 5):
        host.container.systemctl("stop", f"storagenode@{number}.service")
        host.container.path(f"/var/lib/storagenodes/{number}").unlink()
    host.container.run(["rm", "-r", "/etc/systemd/system/storagenode@3.service.d"])
    host.container.path("/etc/systemd/system/storagenode@.service").unlink()


def test_symbolic_links_stay_and_two_of_them_are_one_binary(host: Host, nodes: list[Node]) -> None:
    one, two, *_ = nodes
    links = {one: Path("/usr/local/bin/storagenode"), two: Path("/usr/local/bin/storagenode-2")}
    targets = {one: str(BINARY), two: "../../../opt/shared/../shared/storagenode"}
    for node, link in links.items():
        node.install(service=LOOP, limit=NO_LIMIT)
        host.container.run(["ln", "-s", targets[node], link])
        unit = host.container.path(f"/etc/systemd/system/{node.unit}")
        unit.write_text(unit.read_text().replace(f"={BINARY} ", f"={link} "))
    host.container.systemctl("daemon-reload")
    for node, link in links.items():
        node.start()
        node.binary = link
    use(host, one, two)
    before = os.listdir(host.container.path("/usr/local/bin"))
    inodes = [host.container.path(link).lstat().st_ino for link in links.values()]
    age(host, one, two)
    busy = f"{VENV}/bin/storagenode-remediate run --yes two > /run/kt-busy 2>&1; echo $? >> /run/kt-busy"
    ran = host.run("one", meanwhile={"fetch": [["sh", "-c", busy]]})
    assert (ran.code, ran.detail) == (0, f"one runs {NEW}; two runs {NEW}")
    assert ran.report["run"]["binary"] == str(BINARY)
    assert host.container.path("/run/kt-busy").read_text() == "error: another run is in progress on this host\n3\n"
    assert [os.readlink(host.container.path(link)) for link in links.values()] == list(targets.values())
    assert [host.container.path(link).lstat().st_ino for link in links.values()] == inodes
    assert os.listdir(host.container.path("/usr/local/bin")) == before, "nothing is written beside a link"
    beside = sorted(os.listdir(host.container.path(FOLDER)))
    assert [name for name in beside if "keeper" in name] == [f".storagenode.keeper-old-{OLD}"]
    again = host.run("two")
    assert (again.code, again.report["reason"]) == (0, "current")
    for node in (one, two):
        node.binary = BINARY
    host.container.run(["rm", *links.values()])


def test_a_node_that_somebody_starts_before_the_swap_keeps_the_old_binary(host: Host, nodes: list[Node]) -> None:
    one, two, *_ = nodes
    for node in (one, two):
        node.install(service=LOOP).start()
        node.stop()
    host.versions.set(suggested=f"v{NEW}", cursor="f" * 64)
    started = ["systemctl", "start", two.unit]
    ran = host.run("one", "--to", "suggested", "--start", "always", meanwhile={"dress": [started]})
    assert (ran.code, ran.outcome) == (0, "updated"), ran.detail
    assert ran.detail == f"one runs {NEW}; two was started before the swap, by others"
    assert (one.version(), two.version()) == (NEW, OLD)
    assert host.container.show(two.unit, "NRestarts")["NRestarts"] == "0"


def test_a_node_that_migrates_keeps_no_other_waiting(host: Host, nodes: list[Node]) -> None:
    one, two, *_ = nodes
    for node in (one, two):
        node.install(service=LOOP, limit=NO_LIMIT).start()
    age(host, one, two)
    host.configure(confirm_timeout="2s")
    config = host.container.path(one.config_dir / "config.yaml")
    config.write_text(config.read_text() + "sim.start-delay: 20\n")
    ran = host.run("one")
    assert (ran.code, ran.outcome) == (4, "unconfirmed")
    assert ran.detail.startswith(f"one was started and has not shown {NEW}: ")
    assert ran.detail.endswith(f"; two runs {NEW}")
    journal = [(entry["step"], entry["at"]) for entry in ran.report["run"]["journal"]]
    began, ended = (at for step, at in journal if step == "start")
    assert ended - began < 15
    assert json.dumps(ran.report).count("unconfirmed") >= 2
