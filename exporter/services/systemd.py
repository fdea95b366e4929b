"""How a node that systemd manages is: its unit's properties over D-Bus, and what they mean together."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from jeepney import DBusAddress, DBusErrorResponse

from exporter.config import NodeConfig, SystemdService
from exporter.dbus import SYSTEM_BUS
from exporter.status import ServiceState, ServiceStatus
from exporter.units import unit_path

_NAME = "org.freedesktop.systemd1"
LOOP_WINDOW_SECONDS = 600
YOUNG_SECONDS = 60
_CLD_EXITED = 1
_CLD_NONE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitProperties:
    """The properties of a unit and its service that tell how it is; `_usec` counts since boot, but `state_change_usec`.

    `state_change_usec` counts since 1970, since it is shown to people. 0 stands for never.
    """

    load_state: str
    active_state: str
    sub_state: str
    result: str
    exec_main_code: int
    exec_main_status: int
    exec_main_start_usec: int
    exec_main_exit_usec: int
    active_enter_usec: int
    active_exit_usec: int
    inactive_exit_usec: int
    runtime_max_usec: int
    state_change_usec: int
    condition_usec: int
    condition_result: bool
    restart: str
    n_restarts: int
    main_pid: int


_PROPERTIES = {
    "load_state": ("LoadState", "s"),
    "active_state": ("ActiveState", "s"),
    "sub_state": ("SubState", "s"),
    "result": ("Result", "s"),
    "exec_main_code": ("ExecMainCode", "i"),
    "exec_main_status": ("ExecMainStatus", "i"),
    "exec_main_start_usec": ("ExecMainStartTimestampMonotonic", "t"),
    "exec_main_exit_usec": ("ExecMainExitTimestampMonotonic", "t"),
    "active_enter_usec": ("ActiveEnterTimestampMonotonic", "t"),
    "active_exit_usec": ("ActiveExitTimestampMonotonic", "t"),
    "inactive_exit_usec": ("InactiveExitTimestampMonotonic", "t"),
    "runtime_max_usec": ("RuntimeMaxUSec", "t"),
    "state_change_usec": ("StateChangeTimestamp", "t"),
    "condition_usec": ("ConditionTimestampMonotonic", "t"),
    "condition_result": ("ConditionResult", "b"),
    "restart": ("Restart", "s"),
    "n_restarts": ("NRestarts", "u"),
    "main_pid": ("MainPID", "u"),
}
"""systemd's name and D-Bus's type of each."""
_TYPES = dict(_PROPERTIES.values())


@dataclass(frozen=True, slots=True)
class Seen:
    """An earlier judgement, and when it was made (monotonic seconds)."""

    at: float
    status: ServiceStatus


def judge(unit: UnitProperties, seen: Sequence[Seen], now: float) -> ServiceStatus:
    """Say how the service is, from its unit now and what was seen of it before, oldest first.

    Neither Result nor NRestarts tells a stop from a crash: a program that exits 1 when asked to end leaves the traces
    of a crash, and NRestarts counts from the last start by hand. What tells is whether the unit left `active` before
    its main process ended (it was being stopped) or after. `now` is in monotonic seconds.
    """
    since_start, by_hand = _since_start(seen, unit, now)
    exit_code, exit_signal = _last_exit(unit, since_start)
    state, detail, undecided = _state(unit, since_start, now, by_hand=by_hand)
    since: float | None = unit.state_change_usec / 1e6 or None
    if state is ServiceState.CRASH_LOOPING and since_start:
        before = since_start[-1].status
        if before.state is ServiceState.CRASH_LOOPING:
            since = before.since
    return ServiceStatus(
        state=state,
        detail=detail,
        since=since,
        exit_code=exit_code,
        exit_signal=exit_signal,
        restarts=unit.n_restarts,
        pid=unit.main_pid or None,
        undecided=undecided,
    )


def _state(unit: UnitProperties, seen: Sequence[Seen], now: float, *, by_hand: bool) -> tuple[ServiceState, str, bool]:
    grown = unit.n_restarts - min((earlier.status.restarts or 0 for earlier in seen), default=unit.n_restarts)
    young = unit.exec_main_start_usec > 0 and now - unit.exec_main_start_usec / 1e6 < YOUNG_SECONDS
    looping = grown >= 2 or (grown == 1 and young)
    loop = f"it ends again and again; systemd has started it {unit.n_restarts} times"
    match unit.active_state:
        case _ if unit.load_state == "masked" and not unit.main_pid:
            return ServiceState.MASKED, "the unit is masked", False
        case _ if unit.load_state == "not-found" and not unit.main_pid:
            return ServiceState.ABSENT, "systemd has no such unit", False
        case "activating" if unit.sub_state.startswith("auto-restart"):
            return ServiceState.CRASH_LOOPING, f"{_ending(unit)}; systemd is about to start it again", False
        case "activating":
            return (ServiceState.CRASH_LOOPING, loop, False) if looping else (ServiceState.STARTING, "starting", False)
        case "active" if unit.sub_state == "exited":
            return ServiceState.STOPPED, "the unit counts as active, but nothing runs", False
        case "active" | "reloading" | "refreshing":
            if looping:
                return ServiceState.CRASH_LOOPING, loop, False
            if young and unit.n_restarts > 0 and not by_hand:
                detail = "started again by systemd less than a minute ago: whether it stays up is not known yet"
                return ServiceState.UNKNOWN, detail, True
            return ServiceState.RUNNING, "running", False
        case "deactivating":
            # A loop passes through here too, but then the process ended before the unit left `active`.
            if looping and 0 < unit.exec_main_exit_usec <= unit.active_exit_usec:
                return ServiceState.CRASH_LOOPING, loop, False
            return ServiceState.STOPPING, "stopping", False
        case "failed" if _was_being_stopped(unit):
            return ServiceState.STOPPED, f"stopped; on being stopped {_ending(unit)}", False
        case "failed":
            return ServiceState.CRASHED, f"{_ending(unit)}; systemd's result is {unit.result}", False
        case "inactive" if unit.load_state != "loaded":
            return ServiceState.STOPPED, f"not running; systemd cannot load the unit ({unit.load_state})", False
        case "inactive" if unit.condition_usec and not unit.condition_result:
            return ServiceState.STOPPED, "not started, since a condition of the unit is not met", False
        case "inactive":
            return ServiceState.STOPPED, "stopped", False
        case other:
            return ServiceState.UNKNOWN, f"systemd calls the unit {other}/{unit.sub_state}", False


def _since_start(seen: Sequence[Seen], unit: UnitProperties, now: float) -> tuple[Sequence[Seen], bool]:
    """Leave out what is older than the window, or from before a start by hand, and say whether one was seen.

    systemd counts anew then, or, where the unit was stopped while it waited to be started again, not on: every start
    of its own counts one.
    """
    kept: list[Seen] = []
    restarts, pid = unit.n_restarts, unit.main_pid or None
    for earlier in reversed(seen):
        before = earlier.status
        if now - earlier.at > LOOP_WINDOW_SECONDS:
            return kept[::-1], False
        count = before.restarts or 0
        if count > restarts or (count == restarts and pid is not None and pid != before.pid):
            return kept[::-1], True
        restarts, pid = count, before.pid
        kept.append(earlier)
    return kept[::-1], False


def _was_being_stopped(unit: UnitProperties) -> bool:
    """Whether the last main process ended because somebody, not systemd on its own account, stopped the unit."""
    if unit.result in ("watchdog", "oom-kill", "start-limit-hit"):
        return False
    if unit.active_exit_usec < unit.exec_main_start_usec < unit.exec_main_exit_usec:
        # It has not got as far as `active`. Where systemd starts again what fails, it then waits for that, even if only
        # to be refused, and so leaves `failed` once more: it has not, where somebody stopped it.
        return unit.restart in ("always", "on-failure") and unit.inactive_exit_usec < unit.exec_main_exit_usec
    outlived = unit.result == "timeout" and unit.active_exit_usec - unit.active_enter_usec >= unit.runtime_max_usec
    return unit.exec_main_start_usec <= unit.active_exit_usec < unit.exec_main_exit_usec and not outlived


def _last_exit(unit: UnitProperties, seen: Sequence[Seen]) -> tuple[int | None, int | None]:
    """Return exit status and signal of the last main process that ended; the unit forgets them while the next runs."""
    if unit.exec_main_code == _CLD_EXITED:
        return unit.exec_main_status, None
    if unit.exec_main_code != _CLD_NONE:
        return None, unit.exec_main_status
    if seen and unit.n_restarts > 0:
        return seen[-1].status.exit_code, seen[-1].status.exit_signal
    return None, None


def _ending(unit: UnitProperties) -> str:
    if unit.exec_main_code == _CLD_EXITED:
        return f"it exited with status {unit.exec_main_status}"
    return f"it was ended by signal {unit.exec_main_status}" if unit.exec_main_code else "it could not be started"


class SystemdReader:
    """Reads one unit over the bus, and remembers what it read for as long as a loop is told by it."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._seen: deque[Seen] = deque()

    def read(self, timeout: float, since: float | None = None) -> ServiceStatus:
        """Say how the unit is now; without a bus, or without systemd on it, or beyond the time, that is unknown."""
        try:
            unit = read_properties(self._unit, timeout)
        except TimeoutError:
            return _unknown(f"systemd did not answer within {timeout:.3g} s")
        except OSError as error:
            return _unknown(f"the system bus cannot be reached: {error}")
        except DBusErrorResponse as error:
            return _unknown(f"systemd cannot be asked: {error}")
        now = time.monotonic()
        while self._seen and now - self._seen[0].at > LOOP_WINDOW_SECONDS:
            self._seen.popleft()
        status = judge(unit, tuple(self._seen), now)
        if self._seen and self._seen[-1].status == status:
            self._seen.pop()  # or who asks often would fill the memory
        self._seen.append(Seen(now, status))
        return status


def reader(node: NodeConfig) -> SystemdReader:
    """Return the reader of a node's unit."""
    assert isinstance(node.service, SystemdService)
    return SystemdReader(node.service.unit)


def read_properties(unit: str, timeout: float) -> UnitProperties:
    """Ask systemd for a unit by the path it has on the bus, which also finds a unit that is not in memory.

    All come in one reply, which systemd writes while it does nothing else: they are of one moment.

    Raises:
        TimeoutError, OSError, DBusErrorResponse: as `SystemBus.call`.
    """
    found = SYSTEM_BUS.properties(DBusAddress(unit_path(unit), _NAME), _TYPES, timeout)
    return UnitProperties(**{field: found[name] for field, (name, _) in _PROPERTIES.items()})


def _unknown(detail: str) -> ServiceStatus:
    return ServiceStatus(state=ServiceState.UNKNOWN, detail=detail)
