import os
import pwd
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from exporter.allowed import UpdateState
from exporter.config import Config, NodeConfig, ProcessService, SystemdService
from exporter.dbus import SYSTEM_BUS
from exporter.observe import Observer
from exporter.sources.binary import Completed, run_directly
from exporter.status import Failure, FailureReason, NodeStatus, RunningNode, ServiceState, Source
from exporter.version import NodeVersion
from tests.exporter.hostile import answer, server
from tests.exporter.systemd_cases import Case, start
from tests.exporter.test_identity import certificate, pem
from tests.exporter.test_node_api import REAL, real
from tests.labs.systemd import Container
from tests.simulators import build
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer

ME = pwd.getpwuid(os.getuid()).pw_name
NODE_ID = REAL["nodeID"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host with one node, of version 1.102.3, that is not running."""

    folder: Path
    binary: Path
    allowed: VersionServer

    def node(self, **changes: object) -> NodeConfig:
        settings = {"name": "n1", "service": ProcessService(user=ME), "binary": self.binary, "api": "127.0.0.1:1"}
        return NodeConfig.model_validate(settings | changes)

    def config(self, *nodes: NodeConfig) -> Config:
        return Config(nodes=nodes, version_server=self.allowed.url)

    def observer(self, *nodes: NodeConfig, fresh: bool = False) -> Observer:
        return Observer(self.config(*nodes), cache_dir=self.folder, fresh=fresh)

    def observe(self, timeout: float = 5, **changes: object) -> NodeStatus:
        node = self.node(**changes)
        return self.observer(node).observe(node, timeout)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with VersionServer(minimum="1.104.5", suggested="1.105.0") as allowed:
        yield Host(folder=tmp_path, binary=build.node("1.102.3", tmp_path / "storagenode"), allowed=allowed)


def test_a_deadlocked_node(host: Host) -> None:
    status = host.observe()
    assert status.service.state is ServiceState.STOPPED
    assert status.verdict.state is UpdateState.BELOW_MINIMUM
    assert status.verdict.target == NodeVersion(1, 104, 5)
    assert status.deadlocked is True
    assert isinstance(status.running, Failure)
    assert status.durations.keys() == set(Source)
    assert all(0 < seconds < 5 for seconds in status.durations.values())


def test_a_running_node(host: Host) -> None:
    host.allowed.set(minimum="1.101.0")
    with server([]) as (address, _):
        pass
    folder = host.folder / "node"
    folder.mkdir()
    configure(folder, {"console.address": address, "version.server-address": host.allowed.url})
    node = host.node(api=address, config_dir=folder)
    observer = host.observer(node)
    with Node(host.binary, folder) as running:
        running.api(address)
        status = observer.observe(node, 5)
        assert status.service.state is ServiceState.RUNNING
        assert status.service.pid == running.process.pid
        assert isinstance(status.running, RunningNode)
        assert status.verdict.state is UpdateState.DUE
        assert (status.deadlocked, status.restart_pending) == (False, False)
        build.node("1.105.0", host.binary)
        status = observer.observe(node, 5)
        assert status.service.state is ServiceState.RUNNING
        assert (status.verdict.state, status.restart_pending) == (UpdateState.CURRENT, True)
    assert observer.observe(node, 5).service.state is ServiceState.STOPPED


def test_a_development_build_is_exempt(host: Host) -> None:
    build.node("1.102.3", host.binary, release=False)
    status = host.observe()
    assert status.verdict.state is UpdateState.UNKNOWN
    assert "development build" in status.verdict.reason
    assert status.deadlocked is None


@pytest.mark.parametrize("behaviour", ["hang", "html", "latest", "empty", "huge", "status:503", "close"])
def test_without_allowed_versions_nothing_is_outdated(host: Host, behaviour: str) -> None:
    host.allowed.set(behaviour=behaviour)
    status = host.observe(timeout=0.5)
    assert status.verdict.state is UpdateState.UNKNOWN
    assert (status.below_minimum, status.deadlocked) == (None, None)
    assert not isinstance(status.installed, Failure)


def test_without_a_binary_nothing_is_outdated(host: Host) -> None:
    host.binary.unlink()
    status = host.observe()
    assert isinstance(status.installed, Failure)
    assert status.verdict.state is UpdateState.UNKNOWN
    assert "not_found" in status.verdict.reason
    assert (status.below_minimum, status.deadlocked, status.restart_pending) == (None, None, None)


def test_the_node_id_is_configured_or_asked_or_read(host: Host) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = pem(certificate(key, key), certificate(key, key))
    (host.folder / "identity.cert").write_text(chain)
    configured = "12jxn7m3nXRfMmvkKQiocAM2iTKEdKUL56ZWPXeqgeVAoLYM9vK"
    assert host.observe().node_id is None
    read = host.observe(identity=host.folder).node_id
    assert read is not None
    with server([real()]) as (address, _):
        assert host.observe(identity=host.folder, api=address).node_id == NODE_ID
        assert host.observe(identity=host.folder, api=address, node_id=configured).node_id == configured
    # Once read it is kept.
    node = host.node(identity=host.folder)
    observer = host.observer(node)
    assert observer.observe(node, 5).node_id == read
    (host.folder / "identity.cert").unlink()
    assert observer.observe(node, 5).node_id == read


def test_last_contact_is_remembered_over_a_restart(host: Host) -> None:
    (host.folder / "last-contact.json").write_text('{"format": 1, "kept": {"other": 5.0, "n1": "nonsense", "n2": [1]}}')
    with server([real(lastPinged="2026-11-23T06:47:54Z")]) as (address, _):
        node = host.node(api=address)
        observer = host.observer(node)
        assert observer.observe(node, 5).last_contact == 1795416474.0
    assert observer.observe(node, 5).last_contact == 1795416474.0
    assert host.observe().last_contact == 1795416474.0
    (host.folder / "last-contact.json").write_text("[]")
    assert host.observe().last_contact is None


def test_the_clock_runs_while_nobody_answers(host: Host) -> None:
    with server([real(lastPinged="2026-11-23T06:47:54Z")]) as (address, _):
        node = host.node(api=address)
        observer = host.observer(node)
        first = observer.observe(node, 5).clock
    second = observer.observe(node, 5).clock
    assert first is not None
    assert second is not None
    assert (first.since, first.basis, second.since, second.basis) == (1795416474.0, "contact", 1795416474.0, "contact")
    assert first.known < second.known
    observer.close()
    after = host.observe().clock
    assert after is not None
    assert (after.since, after.basis) == (1795416474.0, "contact")
    (host.folder / "last-contact.json").unlink()
    anew = host.observe().clock
    assert anew is not None
    assert (anew.since, anew.basis) == (anew.known, "stopped"), "a process does not say when it ended"


def test_a_later_contact_is_on_disk_when_the_observer_is_closed(host: Host) -> None:
    answers = [real(lastPinged="2026-11-23T06:47:54Z")]
    with server(answers) as (address, _):
        node = host.node(api=address)
        observer = host.observer(node)
        assert observer.observe(node, 5).last_contact == 1795416474.0
        answers[0] = real(lastPinged="2026-11-23T06:47:55Z")
        assert observer.observe(node, 5).last_contact == 1795416475.0
    assert host.observe().last_contact == 1795416474.0
    observer.close()
    assert host.observe().last_contact == 1795416475.0


@pytest.mark.parametrize("kept", ['{"n1": "nonsense"}', "[]", "5.0"])
def test_contacts_that_make_no_sense_are_said(host: Host, kept: str, caplog: pytest.LogCaptureFixture) -> None:
    (host.folder / "last-contact.json").write_text(f'{{"format": 1, "kept": {kept}}}')
    host.observer(host.node())
    assert [record.message for record in caplog.records] == ["what was kept is damaged and not used"]


@pytest.mark.slow
def test_a_source_that_hangs_costs_its_own_reading(host: Host) -> None:
    hanging = build.node("1.102.3", host.folder / "hanging", misbehave="hang")
    with server([60.0]) as (address, _):
        began = time.monotonic()
        status = host.observe(timeout=2, api=address)
        assert time.monotonic() - began < 10
        assert isinstance(status.running, Failure)
        assert status.running.reason is FailureReason.TIMEOUT
        assert status.deadlocked is True
    began = time.monotonic()
    status = host.observe(timeout=2, binary=hanging)
    assert time.monotonic() - began < 10
    assert isinstance(status.installed, Failure)
    assert status.installed.reason is FailureReason.TIMEOUT
    assert not isinstance(status.allowed, Failure)


@pytest.mark.slow
def test_a_source_that_ignores_its_deadline_is_busy_the_next_time(host: Host) -> None:
    released, started = threading.Event(), []

    def execute(binary: int, arguments: Sequence[str], timeout: float) -> Completed:
        started.append(binary)
        released.wait()
        return run_directly(binary, arguments, 5)

    node = host.node()
    observer = Observer(host.config(node), execute=execute, cache_dir=None)
    reasons = []
    for _ in range(3):
        began = time.monotonic()
        installed = observer.observe(node, 1).installed
        assert time.monotonic() - began < 10
        assert isinstance(installed, Failure)
        reasons.append(installed.reason)
    assert reasons == [FailureReason.TIMEOUT, FailureReason.BUSY, FailureReason.BUSY]
    assert len(started) == 1
    released.set()
    deadline = time.monotonic() + 30
    while isinstance(observer.observe(node, 1).installed, Failure):
        assert time.monotonic() < deadline


@pytest.mark.slow
def test_those_who_ask_at_once_share_one_observation(host: Host) -> None:
    started = []

    def execute(binary: int, arguments: Sequence[str], timeout: float) -> Completed:
        started.append(binary)
        time.sleep(1.5)  # by then all of them have come
        return Completed(1, b"", b"")

    nodes = [host.node(name=f"n{number}") for number in range(3)]
    observer = Observer(host.config(*nodes), execute=execute, cache_dir=None)
    found: list[list[NodeStatus]] = []
    threads = [threading.Thread(target=lambda: found.append(observer.observe_all(5))) for _ in range(10)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert len(started) == len(nodes)
    assert [status.node for status in found[0]] == ["n0", "n1", "n2"]
    assert all(statuses == found[0] for statuses in found)
    assert observer.observe_all(5) is not found[0]


def test_only_those_asked_for_are_observed_and_each_is_shared_by_itself(host: Host) -> None:
    started: list[str] = []
    released = threading.Event()

    def execute(binary: int, arguments: Sequence[str], timeout: float) -> Completed:
        started.append(os.path.basename(os.readlink(f"/proc/self/fd/{binary}")))
        released.wait(5)
        return run_directly(binary, arguments, 5)

    names = ["n0", "n1", "n2"]
    nodes = [host.node(name=name, binary=build.node("1.102.3", host.folder / name)) for name in names]
    observer = Observer(host.config(*nodes), execute=execute, cache_dir=None)
    with ThreadPoolExecutor(3) as pool:
        asked = []
        for number, those in enumerate((["n1"], ["n2", "n1", "n1"], None), start=1):
            asked.append(pool.submit(observer.observe_all, 10, those))
            deadline = time.monotonic() + 30
            while len(started) < number:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert started == ["n1", "n2", "n0"]
        released.set()
        found = [each.result() for each in asked]
    assert [[status.node for status in statuses] for statuses in found] == [["n1"], ["n1", "n2"], names]
    assert all(status.deadlocked for statuses in found for status in statuses)
    assert found[0][0] == found[1][0] == found[2][1]
    assert len(started) == 3
    assert len(host.allowed.requests()) == 1
    assert observer.observe_all(5, []) == []


def test_fresh_fetches_each_time(host: Host) -> None:
    node = host.node()
    observer = host.observer(node, fresh=True)
    assert observer.observe(node, 5).deadlocked is True
    host.allowed.set(minimum="1.0.0", suggested="1.0.0")
    assert observer.observe(node, 5).verdict.state is UpdateState.CURRENT
    host.allowed.set(behaviour="status:500")
    assert observer.observe(node, 5).verdict.state is UpdateState.UNKNOWN


def test_many_nodes_are_observed_side_by_side(host: Host) -> None:
    nodes = [host.node(name=f"n{number}") for number in range(100)]
    observer = host.observer(*nodes)
    assert [status.deadlocked for status in observer.observe_all(10)] == [True] * 100
    assert len(host.allowed.requests()) == 1


@pytest.mark.systemd
def test_an_undecided_service_is_watched_until_it_is_decided(
    host: Host, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    SYSTEM_BUS.close()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", container.bus_address)
    case = Case(
        name="settles",
        state=ServiceState.CRASH_LOOPING,
        script="sleep 2; exit 1",
        settings="Restart=always\nRestartSec=100ms",
        unit_settings="StartLimitIntervalSec=0",
        actions=(start,),
        expect=("activating", "auto-restart"),
    )
    node = host.node(service=SystemdService(unit=case.unit))
    try:
        case.arrange(container)
        container.wait_state(case.unit, "active", "running")
        assert host.observer(node).observe(node, 5).service.undecided
        patient = host.observer(node)
        began = time.monotonic()
        status = patient.settled(patient.observe(node, 5), 5)
        assert status.service.state is ServiceState.CRASH_LOOPING
        assert time.monotonic() - began < 25
        assert status.deadlocked is True
        down = patient.observe(node, 5).clock
        assert down is not None
        container.wait_state(case.unit, "active", "running")
        # It is counted from when it was first seen, whichever of its ends was the last, and whoever looks on.
        for observer in (patient, host.observer(node)):
            looping = observer.observe(node, 5).clock
            assert looping is not None
            assert (looping.since, looping.basis) == (down.since, "stopped")
            assert looping.known > down.known
        began = time.monotonic()
        another = host.observer(node)
        assert another.settled(another.observe(node, 5), 5, patience=0.6).service.undecided
        assert 0.5 < time.monotonic() - began < 15
    finally:
        case.remove(container)
        SYSTEM_BUS.close()


def test_a_bus_that_is_not_there_makes_the_service_unknown(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    SYSTEM_BUS.close()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/not/there")
    status = host.observe(service=SystemdService(unit="storagenode.service"))
    assert status.service.state is ServiceState.UNKNOWN
    assert (status.below_minimum, status.deadlocked) == (True, None)


def test_the_refresh_interval_is_the_configurations(host: Host) -> None:
    node = host.node()
    config = host.config(node).model_copy(update={"refresh": timedelta(0)})
    observer = Observer(config, cache_dir=None)
    for _ in range(3):
        observer.observe(node, 5)
    assert len(host.allowed.requests()) == 3


def test_an_answer_without_meaning_is_no_running_node(host: Host) -> None:
    with server([answer(b"{}")]) as (address, _):
        status = host.observe(api=address)
    assert isinstance(status.running, Failure)
    assert status.running.reason is FailureReason.MALFORMED
