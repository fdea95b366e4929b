"""The system bus, as one connection that every node shares and that is made anew whenever it is lost."""

import time
from threading import Lock
from typing import Any

from jeepney import Message
from jeepney.bus import find_system_bus
from jeepney.io.blocking import DBusConnection, prep_socket
from jeepney.wrappers import unwrap_msg

from exporter.cutoff import cut_off


class SystemBus:
    """Calls methods on the system bus ($DBUS_SYSTEM_BUS_ADDRESS, else the usual place), one at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connection: DBusConnection | None = None

    def call(self, message: Message, timeout: float) -> tuple[Any, ...]:
        """Send a method call and return the body of the reply.

        Raises:
            TimeoutError: no reply within `timeout` seconds.
            OSError: there is no bus to be reached.
            DBusErrorResponse: the reply is an error.
        """
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError("the bus has not answered others before us")
        try:
            if self._connection is not None:
                try:
                    return self._exchange(self._connection, message, deadline)
                except ConnectionError:
                    pass  # the bus was restarted since the last call
            self._connection = _connect(deadline)
            return self._exchange(self._connection, message, deadline)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give up the connection; a later call makes a new one."""
        if self._lock.acquire(timeout=1):  # held by a call that hangs, whose connection it then is
            self._drop()
            self._lock.release()

    def _exchange(self, connection: DBusConnection, message: Message, deadline: float) -> tuple[Any, ...]:
        try:
            reply = connection.send_and_get_reply(message, timeout=max(deadline - time.monotonic(), 0))
        except OSError:
            self._drop()
            raise
        body: tuple[Any, ...] = unwrap_msg(reply)
        return body

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(deadline: float) -> DBusConnection:
    try:
        address = find_system_bus()
    except (RuntimeError, ValueError) as error:
        raise OSError(f"DBUS_SYSTEM_BUS_ADDRESS cannot be used: {error}") from None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("no time left to connect to the bus")
    try:
        connection = prep_socket(address, timeout=remaining)
    except ValueError as error:  # jeepney's AuthenticationError is one
        raise ConnectionRefusedError(f"the bus refuses us: {error}") from None
    try:
        # The greeting within has no time limit of its own.
        with cut_off(connection, deadline - time.monotonic()):
            return DBusConnection(connection)
    except BaseException:
        connection.close()
        raise


SYSTEM_BUS = SystemBus()
