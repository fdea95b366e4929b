"""How systemd is told: jobs and transient units over D-Bus, waited for until they are done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, MatchRule, message_bus, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from exporter.config import NodeConfig, SystemdService
from remediate.services.errors import NoServiceError, ServiceError

_NAME = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")
_CALL_SECONDS = 30.0
_JOB_SECONDS = 660.0
"""Longer than any sensible TimeoutStopSec: a node may be given ten minutes to end."""
_NOTHING_TO_PUT_BACK = frozenset({f"{_NAME}.NoSuchUnit", f"{_NAME}.UnitMasked", f"{_NAME}.LoadFailed"})


class Systemd:
    """A connection to systemd that waits for the jobs it asks for."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self._jobs = MatchRule(type="signal", interface=_MANAGER.interface, member="JobRemoved")
        self._ask(new_method_call(message_bus, "AddMatch", "s", (self._jobs.serialise(),)))
        self.call("Subscribe")

    def call(self, method: str, signature: str | None = None, *arguments: Any) -> Any:
        """Call a method of the manager.

        Raises:
            ServiceError: refused, or no answer.
        """
        return self._ask(new_method_call(_MANAGER, method, signature, arguments))

    def job(self, method: str, signature: str, *arguments: Any, seconds: float = _JOB_SECONDS) -> str:
        """Call a method that makes a job, wait for its end, and return its result, such as `done` or `failed`.

        Raises:
            ServiceError: refused, or not ended in time.
        """
        deadline = time.monotonic() + seconds
        with self._connection.filter(self._jobs, bufsize=1000) as removed:
            (path,) = self.call(method, signature, *arguments)
            while True:
                try:
                    signal = self._connection.recv_until_filtered(removed, timeout=deadline - time.monotonic())
                except TimeoutError:
                    raise ServiceError(f"systemd has not finished {method} within {seconds:.0f} s") from None
                except OSError as error:
                    raise ServiceError(f"the system bus was lost: {error}") from None
                _, job, _, result = signal.body
                if job == path:
                    return str(result)

    def properties(self, unit: str, interface: str) -> dict[str, Any]:
        """Read the properties of a unit, by the last word of the interface (`Unit`, `Service`)."""
        (path,) = self.call("LoadUnit", "s", unit)
        at = DBusAddress(path, _NAME, "org.freedesktop.DBus.Properties")
        (values,) = self._ask(new_method_call(at, "GetAll", "s", (f"{_NAME}.{interface}",)))
        return {name: value for name, (_, value) in values.items()}

    def _ask(self, message: Any) -> Any:
        try:
            return unwrap_msg(self._connection.send_and_get_reply(message, timeout=_CALL_SECONDS))
        except DBusErrorResponse as error:
            text = f"systemd refused: {error.data[0] if error.data else error.name}"
            raise (NoServiceError if error.name in _NOTHING_TO_PUT_BACK else ServiceError)(text) from None
        except TimeoutError:
            raise ServiceError(f"systemd has not answered within {_CALL_SECONDS:.0f} s") from None
        except OSError as error:
            raise ServiceError(f"the system bus was lost: {error}") from None


@contextmanager
def connected() -> Iterator[Systemd]:
    """Open the system bus.

    Raises:
        ServiceError: it cannot be reached.
    """
    try:
        connection = open_dbus_connection("SYSTEM", enable_fds=True)
    except (OSError, KeyError, ValueError) as error:
        raise ServiceError(f"the system bus cannot be reached: {error}") from None
    with connection:
        yield Systemd(connection)


class SystemdControl:
    """Starts and stops a unit."""

    ends_unseen_seconds = 0.0

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def start(self, seconds: float = _JOB_SECONDS) -> None:
        """Reset what failed before, so that its start limit does not count against us, and start it."""
        with connected() as systemd:
            # Also where nothing has failed: of a loop that was stopped midway the starts are counted as well.
            with suppress(NoServiceError):  # what is not loaded has nothing to reset
                systemd.call("ResetFailedUnit", "s", self.unit)
            result = systemd.job("StartUnit", "ss", self.unit, "replace", seconds=seconds)
        if result != "done":
            raise ServiceError(f"systemd could not start {self.unit}: {result}")

    def stop(self) -> None:
        """Stop it, which also ends systemd's own attempts to start it."""
        with connected() as systemd:
            result = systemd.job("StopUnit", "ss", self.unit, "replace")
        if result != "done":
            raise ServiceError(f"systemd could not stop {self.unit}: {result}")


def control(node: NodeConfig) -> SystemdControl:
    """Return the control of a node's unit."""
    assert isinstance(node.service, SystemdService)
    return SystemdControl(node.service.unit)
