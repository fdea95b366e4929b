"""Fifty nodes, of which four hang, each in its own way: the others are seen whole and in time, again and again."""

import gc
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import Config
from exporter.dbus import SYSTEM_BUS
from exporter.observe import Observer
from exporter.services.systemd import SystemdReader
from exporter.status import Failure, NodeStatus, RunningNode, ServiceState
from tests.bench.measure import resident_mib
from tests.exporter.bus import Bus, bus
from tests.exporter.hostile import Piece, server
from tests.exporter.test_node_api import REAL, real
from tests.serving import exporting
from tests.simulators import build
from tests.simulators.version_server import VersionServer

pytestmark = pytest.mark.slow

SCRAPES, WARM = (1000, 100) if os.environ.get("EXHAUSTIVE") == "1" else (10, 10)
MORE = {"threads": 4, "files": 8, "children": 1, "memory": 8 if SCRAPES == 1000 else 16}
"""What may be more after all those scrapes than before."""
BUSY = 3.0
"""Seconds that a busy machine may add to what takes none; whatever hangs here hangs for longer."""
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
        # So much that systemd is not asked for the rest at the start, where one call that stalls takes its time.
        said = {
            "config_dir": str(tmp_path),
            "storage": str(tmp_path),
            "identity": str(tmp_path),
            "node_id": REAL["nodeID"],
        }
        nodes = [
            {
                **said,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """The exporter as a program, serving that host."""

    pid: int
    url: str
    spare: list[float] = field(default_factory=list)
    """How many seconds before the time was up each scrape was answered."""

    def scrape(self, timeout: float, query: str = "") -> dict[str, float]:
        """Scrape as Prometheus does, and say which of the nodes are up."""
        began = time.monotonic()
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}
        answer = requests.get(f"{self.url}/metrics{query}", headers=headers, timeout=timeout + BUSY)
        self.spare.append(timeout - (time.monotonic() - began))
        up = [family for family in text_string_to_metric_families(answer.text) if family.name == "storagenode_up"]
        return {sample.labels["node"]: sample.value for sample in up[0].samples}

    def held(self) -> dict[str, float]:
        """Count its threads, open files, children, and MiB of memory."""
        process = Path("/proc", str(self.pid))
        tasks, children = list((process / "task").iterdir()), 0
        for task in tasks:
            with suppress(FileNotFoundError):  # that thread has just ended
                children += len((task / "children").read_text().split())
        files = len(list((process / "fd").iterdir()))
        return {"threads": len(tasks), "files": files, "children": children, "memory": resident_mib(self.pid)}


@pytest.fixture
def exporter(host: Host, tmp_path: Path) -> Iterator[Exporter]:
    with exporting(tmp_path, host.settings) as (pid, url):
        yield Exporter(pid=pid, url=url)


def under_way(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_hangs_costs_itself_again_and_again(host: Host) -> None:
    observer = Observer(host.config, cache_dir=None)
    for _ in range(3):
        began = time.monotonic()
        check(observer.observe_all(2.0))
        assert time.monotonic() - began < 2.0 + BUSY  # one after the other, they would take 8
    assert host.bus.connections == 1


def test_who_shares_an_observation_keeps_to_his_own_time(host: Host) -> None:
    observer = Observer(host.config, cache_dir=None)
    observer.observe_all(BUSY, ["n1", "n2"])  # what hangs would be busy with it the next time
    slow = threading.Thread(target=observer.observe_all, args=[7.0])
    asked = len(host.asked)
    slow.start()
    under_way(lambda: len(host.asked) > asked)
    began = time.monotonic()
    check(observer.observe_all(2.0))
    assert 1.9 < time.monotonic() - began < 2.0 + BUSY
    assert slow.is_alive()
    slow.join()


def test_only_those_that_are_asked_for_are_waited_for(host: Host) -> None:
    observer = Observer(host.config, cache_dir=None)
    began = time.monotonic()
    found = observer.observe_all(2 * BUSY, ["n2", "n1"])
    assert time.monotonic() - began < BUSY
    assert {status.node: isinstance(status.running, RunningNode) for status in found} == {"n1": True, "n2": True}
    assert len(host.asked) == 2
    slow = threading.Thread(target=observer.observe_all, args=[2 * BUSY])
    slow.start()
    under_way(lambda: len(host.asked) > 2)
    (found_again,) = observer.observe_all(2 * BUSY, ["n1"])
    assert slow.is_alive()
    assert isinstance(found_again.running, RunningNode)
    slow.join()
    assert len(host.asked) == 2 + COUNT - 2


def test_a_call_that_stalls_for_ever_does_not_use_up_the_bus(host: Host) -> None:
    stalls, runs, ended = SystemdReader("stalls.service"), SystemdReader("n1.service"), threading.Event()
    states = set()

    def read() -> None:
        while not ended.is_set():
            states.add(runs.read(60).state)

    reading = threading.Thread(target=read)
    reading.start()
    for _ in range(40):
        assert stalls.read(0.1).state is ServiceState.UNKNOWN
    ended.set()
    reading.join()
    assert states == {ServiceState.RUNNING}
    # A connection with many calls unanswered is given up, before the bus refuses further ones; not after each of them,
    # but where nobody was answered meanwhile, as on a busy machine.
    assert 1 < host.bus.connections <= 1 + 40


def test_who_looks_often_does_not_fill_the_memory(host: Host) -> None:
    reader = SystemdReader("n1.service")

    def held() -> int:
        for _ in range(100):
            assert reader.read(5).state is ServiceState.RUNNING
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        sizes = [held() for _ in range(6)]
        # What is kept of each is more every time; what is just under way while they are counted is not.
        assert min(after - before for before, after in pairwise(sizes)) < 10_000, sizes
    finally:
        tracemalloc.stop()


def test_nothing_piles_up(exporter: Exporter) -> None:
    def scrape(number: int) -> None:
        if number % 10 == 0:
            up = exporter.scrape(2.0)
            assert len(up) == COUNT
            assert {node for node, value in up.items() if not value} == {"api", "trickle"}
        elif number % 10 == 5:
            assert exporter.scrape(0.6, "?node=api&node=binary").keys() == {"api", "binary"}
        else:
            exporter.scrape(0.6)

    for number in range(WARM):
        scrape(number)
    before = exporter.held()
    for number in range(SCRAPES):
        scrape(number)
    assert max(exporter.spare) > 0, "not one in time"
    deadline = time.monotonic() + 30
    while any(now > before[what] + MORE[what] for what, now in exporter.held().items()):
        assert time.monotonic() < deadline, (before, exporter.held())
        time.sleep(0.05)


def test_simultaneous_scrapes_share_an_observation(host: Host, exporter: Exporter) -> None:
    exporter.scrape(2.0)
    before = len(host.asked)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(exporter.scrape, [3.0] * 20))
    assert len(host.asked) - before <= 2 * (COUNT - 2)


def test_the_scrape_of_one_node_asks_that_one(host: Host, exporter: Exporter) -> None:
    for node in ("n1", "n2"):
        before = len(host.asked)
        assert exporter.scrape(3.0, f"?node={node}") == {node: 1.0}
        assert len(host.asked) == before + 1
