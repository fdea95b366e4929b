"""Fifty nodes, of which four hang, each in its own way: the others are seen whole and in time, again and again."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import Config
from exporter.dbus import SYSTEM_BUS
from exporter.observe import Observer
from exporter.services.systemd import SystemdReader
from exporter.status import Failure, NodeStatus, RunningNode, ServiceState
from tests.exporter.bus import Bus, bus
from tests.exporter.hostile import Piece, server
from tests.exporter.test_node_api import real
from tests.labs.network import HOST
from tests.simulators import build
from tests.simulators.version_server import VersionServer

pytestmark = pytest.mark.slow

SCRAPES = 1000 if os.environ.get("EXHAUSTIVE") == "1" else 10
COUNT = 50
TRICKLE: list[Piece] = [b"x", 1.0]
HANGING = {"api", "trickle", "binary", "stalls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Fifty nodes, by their configuration; what the good ones' API was asked; the bus."""

    settings: dict[str, object]
    asked: list[bytes]
    bus: Bus

    @property
    def config(self) -> Config:
        return Config.model_validate(self.settings)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    good = build.node("1.105.0", tmp_path / "storagenode")
    hangs = build.node("1.105.0", tmp_path / "hangs", misbehave="hang")
    with ExitStack() as stack:
        versions = stack.enter_context(VersionServer(minimum="1.104.5", suggested="1.105.0"))
        api, asked = stack.enter_context(server([real()]))
        trickle, _ = stack.enter_context(server([real()[:20], *TRICKLE * 20]))
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        served = stack.enter_context(bus(tmp_path / "bus"))
        SYSTEM_BUS.close()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", served.address)
        nodes = [
            {
                "name": name,
                "service": f"systemd:{name}.service",
                "binary": str(hangs if name == "binary" else good),
                "api": {"api": f"127.0.0.1:{mute.getsockname()[1]}", "trickle": trickle}.get(name, api),
            }
            for name in (*sorted(HANGING), *(f"n{number}" for number in range(COUNT - len(HANGING))))
        ]
        settings: dict[str, object] = {
            "nodes": nodes,
            "version_server": versions.url,
            "state_dir": str(tmp_path / "state"),
        }
        yield Host(settings=settings, asked=asked, bus=served)
        SYSTEM_BUS.close()


def check(statuses: list[NodeStatus]) -> None:
    assert len(statuses) == COUNT
    for status in statuses:
        # Each lacks what hangs, and only that.
        assert isinstance(status.running, RunningNode) == (status.node not in ("api", "trickle")), status
        assert isinstance(status.installed, Failure) == (status.node == "binary"), status
        assert status.service.state is (ServiceState.UNKNOWN if status.node == "stalls" else ServiceState.RUNNING)
        assert status.below_minimum is (None if status.node == "binary" else False)


def held() -> tuple[int, int, int]:
    """Count our threads, open files and children."""
    children = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # that thread has just ended
            children += len((task / "children").read_text().split())
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir())), children


def test_what_hangs_costs_itself_again_and_again(host: Host) -> None:
    observer = Observer(host.config, cache_dir=None)
    for _ in range(3):
        began = time.monotonic()
        check(observer.observe_all(0.5))
        assert time.monotonic() - began < 0.8
    assert host.bus.connections == 1


def test_who_shares_an_observation_keeps_to_his_own_time(host: Host) -> None:
    observer = Observer(host.config, cache_dir=None)
    observer.observe_all(1.0)
    slow = threading.Thread(target=observer.observe_all, args=[1.5])
    slow.start()
    time.sleep(0.1)
    began = time.monotonic()
    check(observer.observe_all(0.5))
    assert 0.4 < time.monotonic() - began < 1.0
    slow.join()


def test_nothing_piles_up(host: Host) -> None:
    observer = Observer(host.config, cache_dir=None)
    observer.observe_all(0.5)
    time.sleep(0.1)
    before = held()
    for _ in range(SCRAPES):
        observer.observe_all(0.1)
    # Those that serve us here have threads and connections too.
    deadline = time.monotonic() + 5
    while any(now > then + 8 for now, then in zip(held(), before, strict=True)):
        assert time.monotonic() < deadline, (before, held())
        time.sleep(0.05)


def test_a_call_that_stalls_for_ever_does_not_use_up_the_bus(host: Host) -> None:
    stalls, runs, ended = SystemdReader("stalls.service"), SystemdReader("n1.service"), threading.Event()
    states = set()

    def read() -> None:
        while not ended.is_set():
            states.add(runs.read(5).state)

    reading = threading.Thread(target=read)
    reading.start()
    for _ in range(40):
        assert stalls.read(0.02).state is ServiceState.UNKNOWN
    ended.set()
    reading.join()
    assert states == {ServiceState.RUNNING}
    # A connection with many calls unanswered is given up, before the bus refuses further ones.
    assert 1 < host.bus.connections < 10


@pytest.mark.e2e
def test_the_scrapers_time_is_kept_and_simultaneous_scrapes_share_an_observation(host: Host, tmp_path: Path) -> None:
    config = tmp_path / "keeper.yml"
    config.write_text(yaml.safe_dump(host.settings))
    address = f"127.0.0.1:{HOST.free_port()}"
    program = Path(sys.executable).parent / "storagenode-exporter"
    process = subprocess.Popen([program, "serve", f"--config.file={config}", f"--web.listen-address={address}"])
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                requests.get(f"http://{address}/-/ready", timeout=1)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        def scrape(timeout: float) -> dict[str, float]:
            began = time.monotonic()
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}
            answer = requests.get(f"http://{address}/metrics", headers=headers, timeout=timeout)
            assert time.monotonic() - began < timeout
            up = [family for family in text_string_to_metric_families(answer.text) if family.name == "storagenode_up"]
            return {sample.labels["node"]: sample.value for sample in up[0].samples}

        scrape(2.0)
        status = Path(f"/proc/{process.pid}/status").read_text()
        for _ in range(SCRAPES // 4):
            up = scrape(0.9)
            assert {node for node, value in up.items() if not value} == {"api", "trickle"}
        before = len(host.asked)
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(scrape, [3.0] * 20))
        assert len(host.asked) - before <= 2 * (COUNT - 2)
        time.sleep(0.3)
        assert _threads(Path(f"/proc/{process.pid}/status").read_text()) <= _threads(status) + 4
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 40
    finally:
        process.terminate()
        process.wait()


def _threads(status: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))
