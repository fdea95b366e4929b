"""The labs start what they say, keep it apart from the host, and leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.labs import cache, cached, remove_leftovers, temporary_folder
from tests.labs.network import HOST
from tests.labs.prometheus import Alertmanager, Prometheus, amtool, link_templates, promtool
from tests.labs.systemd import Container
from tests.labs.upstream import DEFECTIVE, FIXED, StorjNode, programs, serve_versions, storagenode_zip

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

RULES = """\
groups:
  - name: labs
    rules:
      - alert: Wrong
        expr: vector(1) == 1 and on() (up{job="node"} == 0)
        labels: {node: alpha}
"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begin:.2f} s")


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_until(true: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
        return content


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        received.append(payload)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


received: list[dict[str, Any]] = []


@pytest.mark.prometheus
def test_templates_of_a_cache_that_is_gone_are_linked_anew(tmp_path: Path) -> None:
    (tmp_path / "default.tmpl").symlink_to(tmp_path / "gone")
    for _ in range(2):
        link_templates(tmp_path)
        assert (tmp_path / "default.tmpl").is_file()


@pytest.mark.prometheus
def test_an_alert_travels_from_a_rule_to_a_webhook_and_resolves(tmp_path: Path) -> None:
    rules = tmp_path / "labs.rules.yml"
    rules.write_text(RULES)
    webhook = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{webhook.server_port}/"
    config = {
        "route": {"receiver": "hook", "group_wait": "0s", "group_interval": "1s"},
        "receivers": [{"name": "hook", "webhook_configs": [{"url": url}]}],
    }
    port = HOST.free_port()
    (tmp_path / "metrics").write_text("# nothing\n")
    with timed("start, fire and resolve"), Alertmanager(config) as alertmanager:
        targets = {"node": f"127.0.0.1:{port}"}
        with Prometheus(targets, rule_files=[rules], alertmanager=alertmanager.url) as prometheus:
            pids = [alertmanager.process.pid, prometheus.process.pid]
            folders = [alertmanager.folder, prometheus.folder]
            assert prometheus.wait_alert("Wrong", "alpha")["labels"]["node"] == "alpha"
            wait_until(lambda: bool(received))
            assert [alert["labels"]["alertname"] for alert in alertmanager.alerts()] == ["Wrong"]
            with HOST.serving(tmp_path, port):
                assert prometheus.wait_alert("Wrong", "alpha", "inactive") is None
                wait_until(lambda: received[-1]["status"] == "resolved")
            prometheus.config["scrape_configs"] = []
            prometheus.write_config()
            prometheus.reload()
            assert prometheus.get("/api/v1/targets")["data"]["activeTargets"] == []
    webhook.shutdown()
    webhook.server_close()
    assert received[0]["status"] == "firing"
    assert received[0]["alerts"][0]["labels"] == {"alertname": "Wrong", "node": "alpha"}
    assert not any(map(alive, pids))
    assert not any(folder.exists() for folder in folders)


@pytest.mark.prometheus
def test_a_prometheus_that_rejects_its_configuration_says_why() -> None:
    with pytest.raises(RuntimeError, match="nonsense"), Prometheus({"x": {"nonsense": 1}}):
        pass


@pytest.mark.prometheus
def test_the_tools_judge(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    assert "SUCCESS" in promtool("check", "rules", rules).stdout
    rules.write_text(RULES.replace("vector", "vektor"))
    assert promtool("check", "rules", rules, check=False).returncode != 0
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\n")
    assert amtool("check-config", config, check=False).returncode != 0
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    amtool("check-config", config)


@pytest.mark.systemd
def test_a_container_shows_how_units_end(container: Container) -> None:
    with timed("a unit that fails"):
        container.unit(
            "ends.service", "[Service]\nExecStart=sh -c 'echo bye; exit 3'\n[Install]\nWantedBy=multi-user.target\n"
        )
        container.systemctl("start", "ends.service")
        found = container.wait_state("ends.service", "failed")
    assert (found["Result"], found["ExecMainStatus"]) == ("exit-code", "3")
    assert "bye" in container.journal("ends.service")
    with pytest.raises(TimeoutError, match="failed/failed, not active"):
        container.wait_state("ends.service", "active", timeout=0.1)
    container.systemctl("reset-failed")


@pytest.mark.systemd
def test_the_bus_of_a_container_answers_on_the_host(container: Container) -> None:
    from jeepney import DBusAddress, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    manager = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
    with open_dbus_connection(container.bus_address) as bus:
        (path,) = bus.send_and_get_reply(new_method_call(manager, "LoadUnit", "s", ("dbus.service",))).body
    assert path == "/org/freedesktop/systemd1/unit/dbus_2eservice"


@pytest.mark.systemd
def test_a_container_has_a_network_of_its_own(container: Container, tmp_path: Path) -> None:
    (tmp_path / "where").write_text("host")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "where").write_text("container")
    with HOST.serving(tmp_path) as url:
        port = int(url.rpartition(":")[2])
        with container.network.serving(inside, port):
            assert get(f"{url}/where") == b"host"
            assert container.network.call(get, f"{url}/where") == b"container"
            code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
            assert container.run(["python3", "-c", code, f"{url}/where"]).stdout == "container\n"
        with pytest.raises(ConnectionRefusedError):
            container.network.call(socket.create_connection, ("127.0.0.1", port))


@pytest.mark.systemd
@pytest.mark.prometheus
def test_prometheus_runs_in_the_network_of_a_container(container: Container) -> None:
    with Prometheus({}, network=container.network) as prometheus:
        assert prometheus.query("vector(42)")[0]["value"][1] == "42"
        with pytest.raises(OSError, match="refused"):
            get(f"{prometheus.url}/-/ready")
        pid = prometheus.process.pid
    assert not alive(pid)


@pytest.mark.systemd
def test_programs_in_a_container_can_be_fed_signalled_and_killed(container: Container) -> None:
    assert container.run(["cat"], input="hello").stdout == "hello"
    clean = container.run(["env"], env={"MORE": "1"}).stdout
    assert "MORE=1" in clean
    assert "PYTEST_CURRENT_TEST" in os.environ
    assert "PYTEST_CURRENT_TEST" not in clean
    with pytest.raises(subprocess.CalledProcessError) as failed:
        container.run(["sh", "-c", "echo why >&2; exit 7"])
    assert failed.value.returncode == 7
    assert "why" in failed.value.__notes__[0]

    with pytest.raises(subprocess.TimeoutExpired):
        container.run(["sleep", "1000"], timeout=0.3)

    def processes() -> str:
        """Without a zombie, for a moment: its parent, outside, is gone."""
        return container.run(["sh", "-c", "cat /proc/[0-9]*/stat"], check=False).stdout.replace("(sleep) Z", "")

    assert "(systemd) " in processes()
    wait_until(lambda: "(sleep) " not in processes())

    trap = container.popen(["sh", "-c", "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done"])
    assert trap.stdout is not None
    assert trap.stdout.readline() == "ready\n"
    Container.signal(trap, signal.SIGTERM)
    assert trap.communicate(timeout=60) == ("asked\n", "")
    assert trap.returncode == 5


@pytest.mark.systemd
def test_files_get_into_a_container_and_not_into_the_cached_root(container: Container, tmp_path: Path) -> None:
    container.write("/srv/new/file", "text", mode=0o600)
    script = tmp_path / "our-script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    container.put(script, "/usr/bin/our-script")
    assert container.run(["stat", "-c", "%a %s", "/srv/new/file"]).stdout == "600 4\n"
    assert container.run(["our-script"]).stdout == "ran\n"
    for cached_root in (cache() / "rootfs").glob("*/"):
        assert not (cached_root / "usr/bin/our-script").exists()


@pytest.mark.systemd
def test_two_containers_at_once_start_fast_and_leave_nothing(new_container: Callable[[], Container]) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    begin = time.monotonic()
    with Container() as first:
        started = time.monotonic() - begin
        second = new_container()
        first.write("/etc/only-here", "")
        assert not second.path("/etc/only-here").exists()
        pids = [first.leader, first._process.pid]
        traces = [first._folder, *Path("/sys/fs/cgroup").glob(f"**/{first.name}")]
        assert len(traces) > 1
        begin = time.monotonic()
    print(f"start {started:.2f} s, stop {time.monotonic() - begin:.2f} s")
    assert started < 20
    assert not any(map(alive, pids))
    assert not any(trace.exists() for trace in traces)
    assert second.systemctl("is-system-running") == "running\n"
    assert Path("/proc/self/mounts").read_text() == mounts


@pytest.mark.systemd
def test_a_container_that_ignores_its_end_is_killed() -> None:
    stuck = Container()
    stuck.__enter__()
    stuck.halt_timeout = 0.3
    os.kill(stuck.leader, signal.SIGSTOP)
    stuck.__exit__(None, None, None)
    assert not alive(stuck.leader)
    assert not stuck._cgroup.exists()


@pytest.mark.systemd
def test_a_container_ends_with_the_process_that_started_it() -> None:
    code = (
        "import time\nfrom tests.labs.systemd import Container\n"
        "with Container() as it:\n    print(it.leader, it._folder, it._cgroup, flush=True)\n    time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        leader, folder, cgroup = owner.stdout.readline().split()
        owner.kill()
    wait_until(lambda: not alive(int(leader)))
    assert Path(cgroup).exists()  # nobody was left to remove it
    with Container():
        assert not Path(cgroup).exists()
        assert not Path(folder).exists()


@pytest.mark.prometheus
def test_a_prometheus_ends_with_the_process_that_started_it() -> None:
    code = (
        "import time\nfrom tests.labs.prometheus import Prometheus\n"
        "with Prometheus({}) as it:\n    print(it.process.pid, it.folder, flush=True)\n    time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        owner.kill()
    wait_until(lambda: not alive(int(pid)))
    temporary_folder().rmdir()
    assert not Path(folder).exists()


@pytest.mark.systemd
def test_the_project_is_installed_from_its_wheel(container: Container) -> None:
    with timed("install"):
        container.install_project()
    python = "/opt/storagenode-keeper/bin/python"
    code = (
        "import exporter, remediate, pydantic, jeepney\n"
        "from importlib.metadata import version\n"
        "print(version('storagenode-keeper'))\n"
    )
    assert container.run([python, "-I", "-c", code]).stdout == "0.1.0\n"
    for name in ("storagenode-exporter", "storagenode-remediate"):
        assert container.path(f"/opt/storagenode-keeper/bin/{name}").stat().st_mode & 0o777 == 0o755


@pytest.mark.upstream
def test_the_real_programs_are_releases() -> None:
    for version in (DEFECTIVE, FIXED):
        for name in ("storagenode", "storagenode-updater"):
            # Looks up telemetry hosts otherwise; a network without an outside is the stronger guard, and needs root.
            argv = [str(programs(version)[name]), "version", "--tracing.enabled=false", "--metrics.addr="]
            said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            assert said.startswith("Release build\n")
            assert f"Version: {version}\n" in said
        with zipfile.ZipFile(storagenode_zip(version)) as archive:
            assert archive.namelist() == ["storagenode"]


@pytest.mark.upstream
@pytest.mark.systemd
def test_a_real_node_below_the_minimum_is_refused_and_its_updater_leaves_it_so(
    container: Container, tmp_path: Path
) -> None:
    with timed("set up a node"):
        node = StorjNode(container)
    with pytest.raises(OSError):
        node.status()
    container.systemctl("start", node.unit)  # without version server: it starts
    wait_until(lambda: container.network.call(lambda: socket.socket().connect_ex(("127.0.0.1", 14002))) == 0)
    assert node.status()["version"] == "1.104.5"
    assert node.status()["allowedVersion"] == "0.0.0"

    with timed("version server"):
        serve_versions(container, minimum=FIXED)
    container.systemctl("restart", node.unit)
    assert container.wait_state(node.unit, "activating", "auto-restart")["ExecMainStatus"] == "1"
    container.systemctl("stop", node.unit)

    (tmp_path / "storagenode_linux_amd64.zip").symlink_to(storagenode_zip(FIXED))
    for updater, sees in ((DEFECTIVE, "error stopping storagenode service"), (FIXED, "restarted successfully")):
        node.install(updater, "storagenode-updater")
        with container.network.serving(tmp_path, 9000):
            container.systemctl("start", node.updater_unit)
            wait_until(lambda sees=sees: sees in container.journal(node.updater_unit))  # type: ignore[misc]
        container.systemctl("stop", node.updater_unit)
        installed = programs(DEFECTIVE if updater == DEFECTIVE else FIXED)["storagenode"]
        assert container.path(node.binary).read_bytes() == installed.read_bytes()
    container.systemctl("start", node.unit)
    wait_until(lambda: container.network.call(lambda: socket.socket().connect_ex(("127.0.0.1", 14002))) == 0)
    assert node.status()["version"] == "1.162.3"
    container.systemctl("stop", node.unit, "versioncontrol.service")


def test_a_cache_is_built_once_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = []

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError

    def build(folder: Path) -> None:
        time.sleep(0.1)
        built.append(folder)

    with pytest.raises(OSError):
        cached("a/thing", fail)
    assert not (cache() / "a/thing").exists()
    (cache() / "a/thing.abcdefgh").mkdir()  # left by a build that was killed
    threads = [threading.Thread(target=cached, args=("a/thing", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert sorted(path.name for path in (cache() / "a").iterdir()) == ["thing", "thing.lock"]


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine = temporary_folder()
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = [f"storagenode-keeper-{os.getpid()}-1", f"storagenode-keeper-{dead.pid}", "other-1-1"]
    for name in [*kept, f"storagenode-keeper-{dead.pid}-1"]:
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path, Path.rmdir)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "cache"}
    mine.rmdir()


@pytest.mark.parametrize(("require", "outcome"), [("0", "1 skipped"), ("1", "1 failed")])
def test_a_lab_that_cannot_start_is_skipped_or_fails(tmp_path: Path, require: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(
        "from tests.labs import command\ndef test_it(): command(['there-is-no-such-program'])\n"
    )
    environment = os.environ | {"REQUIRE_LABS": require, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(tmp_path)]
    said = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert outcome in said
    assert "there-is-no-such-program is not installed" in said
