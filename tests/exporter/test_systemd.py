import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.dbus import SYSTEM_BUS
from exporter.services.systemd import Seen, SystemdReader, UnitProperties, judge, read_properties
from exporter.status import ServiceState, ServiceStatus
from tests.exporter.systemd_cases import CASES, RECORDINGS, Case, running, start
from tests.labs.systemd import Container

RECORDED = json.loads(RECORDINGS.read_text())


def recorded(name: str) -> tuple[UnitProperties, float]:
    """Return how a case was on a real systemd, and when that was."""
    recording = RECORDED[name]
    return UnitProperties(**recording["properties"]), recording["now"]


def check(case: Case, status: ServiceStatus) -> None:
    assert status.state is case.state, status
    assert (status.exit_code, status.exit_signal) == (case.exit_code, case.exit_signal)
    assert case.detail in status.detail
    assert status.undecided == case.undecided
    assert (status.pid is not None) == (case.expect[0] in ("active", "deactivating") or case.expect[1] == "start")
    assert (status.since is None) == (case.name in ("never-started", "absent", "condition"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_recorded_units_are_judged(case: Case) -> None:
    unit, now = recorded(case.name)
    check(case, judge(unit, (), now))
    if case.later is not None:
        assert judge(unit, (), now + 3600).state is case.later


def test_every_case_is_recorded() -> None:
    assert list(RECORDED) == [case.name for case in CASES]


class Loop:
    """A recorded running unit, moved through a story; times in seconds since its process was started."""

    def __init__(self) -> None:
        unit, _ = recorded("running")
        self.unit = replace(unit, exec_main_start_usec=1_000_000_000)
        self.seen: list[Seen] = []

    def look(
        self, at: float, *, restarts: int, started: float = 0, pid: int = 100, waiting: bool = False
    ) -> ServiceStatus:
        """Judge the unit as it is at a time, and remember that, as the reader does."""
        unit = replace(
            self.unit,
            n_restarts=restarts,
            exec_main_start_usec=int((1000 + started) * 1e6),
            state_change_usec=int((1_790_000_000 + at) * 1e6),
            main_pid=pid,
        )
        if waiting:
            unit = replace(
                unit,
                active_state="activating",
                sub_state="auto-restart",
                exec_main_code=1,
                exec_main_status=1,
                main_pid=0,
            )
        status = judge(unit, self.seen, 1000 + at)
        self.seen.append(Seen(1000 + at, status))
        return status


def test_a_loop_reads_steadily_while_its_process_is_alive() -> None:
    loop = Loop()
    assert loop.look(100, restarts=0).state is ServiceState.RUNNING
    first = loop.look(115, restarts=0, waiting=True)
    assert first.state is ServiceState.CRASH_LOOPING
    alive = loop.look(130, restarts=1, started=129)
    assert alive.state is ServiceState.CRASH_LOOPING
    assert alive.since == first.since
    assert alive.exit_code == 1  # the unit itself has forgotten it
    assert loop.look(145, restarts=1, started=129, waiting=True).state is ServiceState.CRASH_LOOPING
    # Two restarts in ten minutes are a loop however long the process lives.
    assert loop.look(260, restarts=2, started=150).state is ServiceState.CRASH_LOOPING
    # And no loop once ten minutes have gone without.
    assert loop.look(900, restarts=2, started=150).state is ServiceState.RUNNING


def test_one_restart_that_lasted_a_minute_is_no_loop() -> None:
    loop = Loop()
    assert loop.look(100, restarts=0).state is ServiceState.RUNNING
    assert loop.look(159, restarts=1, started=100).state is ServiceState.CRASH_LOOPING
    assert loop.look(161, restarts=1, started=100).state is ServiceState.RUNNING


def test_restarts_of_long_ago_are_no_loop() -> None:
    loop = Loop()
    for restarts in range(5):
        at = 700.0 * restarts
        assert loop.look(at + 100, restarts=restarts, started=at).state is ServiceState.RUNNING


def test_the_first_look_at_a_young_process_is_undecided() -> None:
    loop = Loop()
    first = loop.look(5, restarts=3)
    assert (first.state, first.undecided) == (ServiceState.UNKNOWN, True)
    second = loop.look(20, restarts=3)
    assert (second.state, second.undecided) == (ServiceState.UNKNOWN, True)
    assert loop.look(61, restarts=3).state is ServiceState.RUNNING


def test_an_undecided_unit_is_a_loop_once_it_restarts_again() -> None:
    loop = Loop()
    assert loop.look(5, restarts=3).undecided
    assert loop.look(9, restarts=4, started=8).state is ServiceState.CRASH_LOOPING


def test_a_start_by_hand_begins_a_new_count() -> None:
    loop = Loop()
    loop.look(0, restarts=4, waiting=True)
    loop.look(30, restarts=5, started=29)
    started = loop.look(60, restarts=0, started=59)
    assert started.state is ServiceState.RUNNING
    assert started.exit_code is None


def test_a_start_by_hand_is_known_by_a_count_that_has_not_grown() -> None:
    # systemd keeps counting when a unit was stopped while it waited to be started again.
    loop = Loop()
    loop.look(0, restarts=4, waiting=True)
    loop.look(5, restarts=6, waiting=True)
    assert loop.look(10, restarts=6, started=9).state is ServiceState.RUNNING
    assert loop.look(12, restarts=6, started=9).state is ServiceState.RUNNING
    # What began so may loop again, and only that counts.
    assert loop.look(20, restarts=6, waiting=True).state is ServiceState.CRASH_LOOPING
    assert loop.look(22, restarts=7, started=21, pid=101).state is ServiceState.CRASH_LOOPING
    assert loop.look(90, restarts=7, started=21, pid=101).state is ServiceState.RUNNING


def test_a_loop_after_a_start_by_hand_is_another_loop() -> None:
    loop = Loop()
    loop.look(0, restarts=0)
    first = loop.look(10, restarts=5, waiting=True)
    second = loop.look(60, restarts=0, waiting=True)
    assert (first.since, second.since) == (1_790_000_010, 1_790_000_060)
    # Nor do the restarts before the start by hand count for what came after it.
    loop = Loop()
    loop.look(0, restarts=0)
    loop.look(10, restarts=5, waiting=True)
    assert loop.look(300, restarts=2, started=200).state is ServiceState.RUNNING


def test_a_loop_is_stopping_when_somebody_stops_it() -> None:
    loop = Loop()
    loop.look(0, restarts=0)
    loop.unit = replace(
        loop.unit, active_state="deactivating", sub_state="stop-sigterm", active_exit_usec=1_055_000_000
    )
    stopping = loop.look(56, restarts=3, started=50)
    assert stopping.state is ServiceState.STOPPING


def test_a_loop_with_something_to_do_after_each_end_stays_a_loop() -> None:
    loop = Loop()
    loop.look(0, restarts=0)
    loop.unit = replace(
        loop.unit,
        active_state="deactivating",
        sub_state="stop-post",
        exec_main_exit_usec=1_054_000_000,
        active_exit_usec=1_054_000_100,
    )
    assert loop.look(56, restarts=3, started=50).state is ServiceState.CRASH_LOOPING


def test_a_state_nobody_knows_is_unknown() -> None:
    unit, now = recorded("running")
    assert judge(replace(unit, active_state="maintenance"), (), now).state is ServiceState.UNKNOWN


@pytest.mark.parametrize(
    "address",
    ["unix:path=/not/there", "tcp:host=127.0.0.1", "nonsense", "unix:path=/dev/null"],
)
def test_without_a_bus_a_unit_is_unknown(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    SYSTEM_BUS.close()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    status = SystemdReader("storagenode.service").read(1)
    assert status.state is ServiceState.UNKNOWN
    assert "bus" in status.detail


@pytest.mark.parametrize("greeting", [b"", b"OK 0123456789abcdef0123456789abcdef\r\n"], ids=["mute", "greets"])
def test_a_bus_that_hangs_costs_the_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, greeting: bytes) -> None:
    SYSTEM_BUS.close()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(greeting)
                while connection.recv(4096):
                    pass

        bus = threading.Thread(target=greet)
        bus.start()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        began = time.monotonic()
        status = SystemdReader("storagenode.service").read(0.3)
        bus.join()
    assert status.state is ServiceState.UNKNOWN
    assert 0.25 < time.monotonic() - began < 20


@pytest.fixture
def bus(container: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    """A container whose bus the readers use."""
    SYSTEM_BUS.close()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", container.bus_address)
    yield container
    SYSTEM_BUS.close()


@pytest.mark.systemd
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_live_units_are_judged(bus: Container, case: Case) -> None:
    try:
        case.arrange(bus)
        check(case, SystemdReader(case.unit).read(60))
    finally:
        case.remove(bus)


ENDS = "/run/case-loop-ends"


def loops(bus: Container, unit: str) -> None:
    """Let the process of a loop end once, and wait until it has been started again, or is about to be."""
    before, deadline = bus.show(unit, "NRestarts")["NRestarts"], time.monotonic() + 60
    bus.write(ENDS, "")
    while bus.show(unit, "NRestarts")["NRestarts"] == before:
        assert time.monotonic() < deadline


@pytest.mark.systemd
def test_a_live_loop_reads_steadily(bus: Container) -> None:
    case = Case(
        name="loop",
        state=ServiceState.CRASH_LOOPING,
        script=f"until rm {ENDS}; do sleep 0.02; done; exit 1",
        settings="Restart=always\nRestartSec=1",
        unit_settings="StartLimitIntervalSec=0",
        actions=(start, running),
        expect=("active", "running"),
    )
    try:
        case.arrange(bus)
        watching = SystemdReader(case.unit)
        assert watching.read(60).state is ServiceState.RUNNING
        loops(bus, case.unit)
        subs, codes, deadline = set[str](), list[int | None](), time.monotonic() + 60
        while not {"auto-restart", "running"} <= subs or codes.count(1) < 10:
            assert time.monotonic() < deadline
            status = watching.read(60)
            assert status.state is ServiceState.CRASH_LOOPING
            codes.append(status.exit_code)
            subs.add(bus.show(case.unit, "SubState")["SubState"])
            bus.write(ENDS, "")
        assert set(codes[codes.index(1) :]) == {1}, "once it was seen, it is remembered"
        # Somebody who looks for the first time while it is alive cannot know, and says so.
        bus.path(ENDS).unlink(missing_ok=True)
        bus.wait_state(case.unit, "active", "running")
        fresh = SystemdReader(case.unit)
        first = fresh.read(60)
        assert (first.state, first.undecided) == (ServiceState.UNKNOWN, True)
        loops(bus, case.unit)
        assert fresh.read(60).state is ServiceState.CRASH_LOOPING
    finally:
        case.remove(bus)


@pytest.mark.systemd
def test_systemd_may_read_its_units_anew_and_the_bus_be_restarted_meanwhile(bus: Container) -> None:
    case = next(case for case in CASES if case.name == "running")
    try:
        case.arrange(bus)
        reader, seen, ended = SystemdReader(case.unit), [], threading.Event()

        def look() -> None:
            while not ended.is_set():
                seen.append(reader.read(2))

        looking = threading.Thread(target=look)
        looking.start()
        for _ in range(5):
            bus.systemctl("daemon-reload")
        bus.systemctl("daemon-reexec")
        bus.systemctl("restart", "dbus.service")
        bus.wait_state("dbus.service", "active", "running")
        ended.set()
        looking.join()
        states = [status.state for status in seen]
        assert set(states) <= {ServiceState.RUNNING, ServiceState.UNKNOWN}
        assert states.count(ServiceState.RUNNING) > 10
        assert reader.read(60).state is ServiceState.RUNNING
    finally:
        case.remove(bus)


@pytest.mark.systemd
def test_what_is_read_of_a_unit_is_of_one_moment(bus: Container) -> None:
    case = Case(
        name="restless",
        state=ServiceState.CRASH_LOOPING,
        script="sleep 0.005; exit 1",
        settings="Restart=always\nRestartSec=5ms",
        unit_settings="StartLimitIntervalSec=0",
        actions=(start,),
        expect=("active", "running"),
    )
    try:
        case.arrange(bus)
        seen = [read_properties(case.unit, 5) for _ in range(500)]
    finally:
        case.remove(bus)
    assert {unit.sub_state for unit in seen} >= {"running", "auto-restart"}
    for unit in seen:
        alive = unit.sub_state == "running"
        assert (unit.main_pid > 0) == alive, unit
        assert (unit.exec_main_exit_usec < unit.exec_main_start_usec or not unit.exec_main_exit_usec) == alive, unit


@pytest.mark.systemd
def test_a_unit_goes_by_its_other_names_too(bus: Container) -> None:
    case = Case(name="9-odd:x_y", state=ServiceState.RUNNING, actions=(start, running), expect=("active", "running"))
    try:
        case.arrange(bus)
        (bus.path("/etc/systemd/system") / "case-other.service").symlink_to(case.unit)
        bus.systemctl("daemon-reload")
        assert SystemdReader(case.unit).read(60).state is ServiceState.RUNNING
        assert SystemdReader("case-other.service").read(60).state is ServiceState.RUNNING
    finally:
        case.remove(bus)


@pytest.mark.systemd
def test_the_bus_may_be_restarted(bus: Container) -> None:
    reader = SystemdReader("dbus.service")
    assert reader.read(60).state is ServiceState.RUNNING
    bus.systemctl("restart", "dbus.service")
    bus.wait_state("dbus.service", "active", "running")
    assert reader.read(60).state is ServiceState.RUNNING


@pytest.mark.systemd
def test_a_frozen_bus_costs_the_timeout(bus: Container) -> None:
    reader = SystemdReader("dbus.service")
    assert reader.read(60).state is ServiceState.RUNNING
    bus.systemctl("kill", "--signal=STOP", "dbus.service")
    try:
        began = time.monotonic()
        status = reader.read(0.3)
        assert status.state is ServiceState.UNKNOWN
        assert time.monotonic() - began < 20
    finally:
        bus.systemctl("kill", "--signal=CONT", "dbus.service")
    assert reader.read(60).state is ServiceState.RUNNING
