"""What every service manager has to do, whichever it is: one suite, run against each that is found on disk."""

import os
import pwd
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep, time

import pytest

from exporter import services as read
from exporter.config import NodeConfig, ProcessService, SystemdService
from exporter.dbus import SYSTEM_BUS
from exporter.status import DOWN, ServiceState
from remediate import services as told
from remediate.services.errors import NoServiceError, ServiceError
from tests.labs.systemd import Container
from tests.simulators import build
from tests.simulators.node import configure

ROOT = Path(__file__).parents[1]
NOT_MANAGERS = {"__init__", "errors"}
READ, TOLD = (
    {path.stem for path in (ROOT / half / "services").glob("*.py")} - NOT_MANAGERS for half in ("exporter", "remediate")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A node under one manager, down, and what only that manager's driver can know."""

    node: NodeConfig
    """Runs until it is stopped."""
    unknown: NodeConfig
    """One that this host does not have."""
    unknown_is: ServiceState
    killed_is: ServiceState
    """What it is called once it was killed."""
    unreadable: Callable[[pytest.MonkeyPatch], NodeConfig]
    """Make the manager unreadable for the rest of the test, and return the node to read."""
    kill: Callable[[int], object]
    """Kill the node's process."""

    @property
    def state(self) -> ServiceState:
        return read.reader(self.node).read(5).state

    def wait(self, *states: ServiceState) -> None:
        deadline = monotonic() + 10
        while (found := self.state) not in states:
            assert monotonic() < deadline, found
            sleep(0.02)


@contextmanager
def process(folder: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    binary = build.node("1.102.3", folder / "storagenode")
    config_dir = folder / "config"
    config_dir.mkdir()
    configure(config_dir, {"console.address": "127.0.0.1:0"})
    service = ProcessService(
        user=pwd.getpwuid(os.getuid()).pw_name,
        pid_file=folder / "pid",
        start=(str(binary), "run", "--config-dir", str(config_dir)),
    )
    node = NodeConfig(name="n", service=service, binary=binary, config_dir=config_dir)

    def unreadable(_: pytest.MonkeyPatch) -> NodeConfig:
        return node.model_copy(update={"service": service.model_copy(update={"pid_file": folder})})

    driver = Driver(
        node=node,
        unknown=node.model_copy(update={"binary": folder / "none"}),
        unknown_is=ServiceState.STOPPED,
        killed_is=ServiceState.STOPPED,
        unreadable=unreadable,
        kill=lambda pid: os.kill(pid, signal.SIGKILL),
    )
    try:
        yield driver
    finally:
        told.control(node).stop()


@contextmanager
def systemd(folder: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    container: Container = request.getfixturevalue("container")
    unit = "contract.service"
    container.unit(unit, "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n")

    def node(name: str) -> NodeConfig:
        return NodeConfig(name="n", service=SystemdService(unit=name), binary=folder / "storagenode")

    def unreadable(patch: pytest.MonkeyPatch) -> NodeConfig:
        SYSTEM_BUS.close()
        patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/not/there")
        return node(unit)

    with pytest.MonkeyPatch.context() as patch:
        SYSTEM_BUS.close()
        patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", container.bus_address)
        try:
            yield Driver(
                node=node(unit),
                unknown=node("not-there.service"),
                unknown_is=ServiceState.ABSENT,
                killed_is=ServiceState.CRASHED,
                unreadable=unreadable,
                kill=lambda pid: container.systemctl("kill", "--signal=KILL", unit),
            )
        finally:
            container.systemctl("stop", unit, check=False)
            SYSTEM_BUS.close()


DRIVERS = {"process": process, "systemd": systemd}
LABS = {"systemd": pytest.mark.systemd}


@pytest.fixture(params=[pytest.param(name, marks=LABS.get(name, ())) for name in sorted(READ | TOLD)])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    with DRIVERS[request.param](tmp_path, request) as made:
        yield made


def test_each_manager_has_both_halves_and_a_driver_here() -> None:
    assert READ == TOLD == DRIVERS.keys() == read._READERS.keys() == told._CONTROLS.keys()
    assert len(READ) >= 2


def test_it_is_started_and_stopped_and_said_so(driver: Driver) -> None:
    assert driver.state is ServiceState.STOPPED
    control = told.control(driver.node)
    for _ in range(2):
        control.start()
        driver.wait(ServiceState.RUNNING)
        status = read.reader(driver.node).read(5)
        assert status.pid is not None
        assert status.since == pytest.approx(time(), abs=5)
        assert status.detail
        control.stop()
        status = read.reader(driver.node).read(5)
        assert (status.state, status.pid) == (ServiceState.STOPPED, None)
        assert status.detail


def test_to_start_what_runs_and_to_stop_what_is_down_changes_nothing(driver: Driver) -> None:
    control = told.control(driver.node)
    control.stop()
    assert driver.state is ServiceState.STOPPED
    control.start()
    driver.wait(ServiceState.RUNNING)
    before = read.reader(driver.node).read(5)
    control.start()
    after = read.reader(driver.node).read(5)
    assert (after.state, after.pid) == (ServiceState.RUNNING, before.pid)


def test_what_was_killed_is_down_and_can_be_started_again(driver: Driver) -> None:
    control = told.control(driver.node)
    control.start()
    driver.wait(ServiceState.RUNNING)
    pid = read.reader(driver.node).read(5).pid
    assert pid is not None
    driver.kill(pid)
    driver.wait(*DOWN)
    assert driver.state is driver.killed_is
    control.start()
    driver.wait(ServiceState.RUNNING)


def test_one_reader_sees_each_change(driver: Driver) -> None:
    reader, control = read.reader(driver.node), told.control(driver.node)
    seen = [reader.read(5).state]
    control.start()
    driver.wait(ServiceState.RUNNING)
    seen.append(reader.read(5).state)
    control.stop()
    seen.append(reader.read(5).state)
    assert seen == [ServiceState.STOPPED, ServiceState.RUNNING, ServiceState.STOPPED]


def test_readers_side_by_side_see_the_same(driver: Driver) -> None:
    told.control(driver.node).start()
    driver.wait(ServiceState.RUNNING)
    readers = [read.reader(driver.node) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda reader: reader.read(5), readers))
    assert {replace(status, since=None) for status in statuses} == {replace(statuses[0], since=None)}
    assert statuses[0].state is ServiceState.RUNNING


def test_a_node_that_is_not_there(driver: Driver) -> None:
    assert read.reader(driver.unknown).read(5).state is driver.unknown_is


def test_what_cannot_be_read_is_unknown_and_cannot_be_told(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    node = driver.unreadable(monkeypatch)
    status = read.reader(node).read(1)
    assert (status.state, status.pid, status.undecided) == (ServiceState.UNKNOWN, None, False)
    assert status.detail
    with pytest.raises((ServiceError, NoServiceError)):
        told.control(node).stop()
    monkeypatch.undo()
