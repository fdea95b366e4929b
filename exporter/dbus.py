"""The system bus, as one connection that every node shares and that is made anew whenever it is lost."""

import time
from concurrent.futures import Future
from contextlib import suppress
from socket import SHUT_RDWR
from threading import Lock, Semaphore, Thread
from typing import Any

from jeepney import HeaderFields, Message
from jeepney.bus import find_system_bus
from jeepney.io.blocking import DBusConnection, prep_socket
from jeepney.wrappers import unwrap_msg

from exporter.cutoff import cut_off

_SEND_SECONDS = 1.0
_MOST_CALLS = 64
_MOST_ABANDONED = 32
"""With the calls under way less than the 128 unanswered ones that the bus allows a connection."""


class SystemBus:
    """Calls methods on the system bus ($DBUS_SYSTEM_BUS_ADDRESS, else the usual place), any number side by side."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._link: _Link | None = None
        self._calls = Semaphore(_MOST_CALLS)

    def call(self, message: Message, timeout: float) -> tuple[Any, ...]:
        """Send a method call and return the body of the reply; one that stalls holds up no other.

        Raises:
            TimeoutError: no reply within `timeout` seconds.
            OSError: there is no bus to be reached.
            DBusErrorResponse: the reply is an error.
        """
        deadline = time.monotonic() + timeout
        if not self._calls.acquire(timeout=timeout):
            raise TimeoutError("the bus has not answered others before us")
        try:
            body: tuple[Any, ...] = unwrap_msg(self._ask(message, deadline))
            return body
        finally:
            self._calls.release()

    def close(self) -> None:
        """Give up the connection; a later call makes a new one."""
        link = self._link
        if link is not None:
            link.close()

    def _ask(self, message: Message, deadline: float) -> Message:
        link, made = self._connected(deadline)
        try:
            return link.ask(message, deadline)
        except ConnectionError:
            if made:
                raise
            # The bus was restarted since the last call.
            return self._connected(deadline)[0].ask(message, deadline)

    def _connected(self, deadline: float) -> "tuple[_Link, bool]":
        """Return the connection, and whether it had to be made."""
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise TimeoutError("the bus has not answered others before us")
        try:
            if self._link is not None and not self._link.closed:
                return self._link, False
            self._link = _Link(_connect(deadline))
            return self._link, True
        finally:
            self._lock.release()


class _Link:
    """One connection, and a thread that gives each reply to whoever waits for it."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        # Of sending: what is received is waited for elsewhere.
        connection.sock.settimeout(_SEND_SECONDS)
        self._sending = Lock()
        self._waiting: dict[int, Future[Message]] = {}
        self._heard = 0
        self._abandoned = 0
        self.closed = False
        Thread(target=self._receive, daemon=True).start()

    def ask(self, message: Message, deadline: float) -> Message:
        serial = next(self._connection.outgoing_serial)
        reply = self._waiting[serial] = Future()
        heard = self._heard
        try:
            self._send(message, serial)
            return reply.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            self._abandoned += 1
            if self._heard == heard or self._abandoned >= _MOST_ABANDONED:  # nobody else has had an answer either
                self.close()
            raise
        finally:
            del self._waiting[serial]

    def close(self) -> None:
        """End the connection, and with an error whatever is still waited for."""
        self.closed = True
        with suppress(OSError):  # it has ended by itself
            self._connection.sock.shutdown(SHUT_RDWR)

    def _send(self, message: Message, serial: int) -> None:
        try:
            with self._sending:
                if self.closed:
                    raise ConnectionResetError("the connection to the bus was closed")
                self._connection.send(message, serial=serial)
        except OSError:
            self.close()  # half a message may have been sent
            raise

    def _receive(self) -> None:
        try:
            while True:
                message = self._connection.receive()
                self._heard += 1
                waiting = self._waiting.get(message.header.fields.get(HeaderFields.reply_serial, 0))
                if waiting is not None:
                    waiting.set_result(message)
        except (OSError, ValueError) as error:
            self.closed = True
            for waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError(f"the connection to the bus was lost: {error}"))
            with self._sending:
                self._connection.close()


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
