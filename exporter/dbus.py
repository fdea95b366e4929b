"""The system bus, as one connection that every node shares and that is made anew whenever it is lost."""

import struct
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from itertools import count
from select import POLLIN, poll
from socket import SHUT_RDWR, socket
from threading import Lock, Semaphore, Thread
from typing import Any

from jeepney import DBusAddress, Endianness, Header, HeaderFields, Message, message_bus, new_method_call
from jeepney.bus import find_system_bus
from jeepney.io.blocking import prep_socket
from jeepney.low_level import calc_msg_size, simple_types
from jeepney.wrappers import unwrap_msg

_SEND_SECONDS = 1.0
_RECEIVE_BYTES = 65536
_SHORTEST_BYTES = 16
"""Of a message, and so many tell its size."""
_TRIES = 5
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
        body: tuple[Any, ...] = unwrap_msg(Message.from_buffer(self._reply(message, timeout)))
        return body

    def properties(self, address: DBusAddress, types: Mapping[str, str], timeout: float) -> dict[str, Any]:
        """Read properties that an object has, by name and type, whatever their interfaces: all as they are at one time.

        Raises:
            TimeoutError, OSError, DBusErrorResponse: as `call`.
        """
        every = new_method_call(address.with_interface("org.freedesktop.DBus.Properties"), "GetAll", "s", ("",))
        return pick(self._reply(every, timeout), types)

    def close(self) -> None:
        """Give up the connection; a later call makes a new one."""
        link = self._link
        if link is not None:
            link.close()

    def _reply(self, message: Message, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        if not self._calls.acquire(timeout=timeout):
            raise TimeoutError("the bus has not answered others before us")
        try:
            return self._ask(message, deadline)
        finally:
            self._calls.release()

    def _ask(self, message: Message, deadline: float) -> bytes:
        for _ in range(_TRIES - 1):
            # The bus was restarted since the last call, or others have given up waiting and ended the connection.
            with suppress(ConnectionError):
                return self._connected(deadline).ask(message, deadline)
        return self._connected(deadline).ask(message, deadline)

    def _connected(self, deadline: float) -> "_Link":
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise TimeoutError("the bus has not answered others before us")
        try:
            if self._link is None or self._link.closed:
                self._link = _connect(deadline)
            return self._link
        finally:
            self._lock.release()


class _Link:
    """One connection, and a thread that gives each reply to whoever waits for it."""

    def __init__(self, connection: socket) -> None:
        self._connection = connection
        # Of sending: what is received is waited for without an end.
        connection.settimeout(_SEND_SECONDS)
        self._sending = Lock()
        self._serials = count(1)
        self._waiting: dict[int, Future[bytes]] = {}
        self._heard = 0
        self._abandoned = 0
        self.closed = False
        Thread(target=self._receive, daemon=True).start()

    def ask(self, message: Message, deadline: float) -> bytes:
        """Send a message, and return the reply as it has come."""
        serial = next(self._serials)
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
            self._connection.shutdown(SHUT_RDWR)

    def _send(self, message: Message, serial: int) -> None:
        try:
            with self._sending:
                if self.closed:
                    raise ConnectionResetError("the connection to the bus was closed")
                self._connection.sendall(message.serialise(serial))
        except OSError:
            self.close()  # half a message may have been sent
            raise

    def _receive(self) -> None:
        try:
            for message in self._messages():
                self._heard += 1
                header, _ = Header.from_buffer(message)
                waiting = self._waiting.get(header.fields.get(HeaderFields.reply_serial, 0))
                if waiting is not None:
                    waiting.set_result(message)
        except (OSError, ValueError) as error:
            self.closed = True
            for waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError(f"the connection to the bus was lost: {error}"))
            with self._sending:
                self._connection.close()

    def _messages(self) -> Iterator[bytes]:
        readable, received = poll(), bytearray()
        readable.register(self._connection, POLLIN)
        while True:
            readable.poll()
            chunk = self._connection.recv(_RECEIVE_BYTES)
            if not chunk:
                raise ConnectionResetError("the bus has closed it")
            received += chunk
            while len(received) >= _SHORTEST_BYTES and len(received) >= (size := calc_msg_size(received)):
                yield bytes(received[:size])
                del received[:size]


def pick(message: bytes, types: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of these names and simple types from a reply to GetAll, which has hundreds of others.

    An entry begins with its name and its type. Where those bytes are in the message once, they are the entry, since
    the object has it. A value can be made to contain them too; then, or without them, everything is parsed, which
    takes fifteen times as long.

    Raises:
        DBusErrorResponse: the reply is an error.
    """
    header, _ = Header.from_buffer(message)
    found = {}
    for name, kind in types.items():
        beginning = _beginning(name, kind, header.endianness)
        at = message.find(beginning)
        if at < 0 or message.find(beginning, at + 1) >= 0:
            (everything,) = unwrap_msg(Message.from_buffer(message))
            return {name: everything[name][1] for name in types}
        found[name], _ = simple_types[kind].parse_data(message, at + len(beginning), header.endianness)
    return found


@cache
def _beginning(name: str, kind: str, endianness: Endianness) -> bytes:
    """Write the name of an entry and the type of its value as they are sent."""
    number = struct.pack(endianness.struct_code() + "I", len(name))
    return b"%b%b\0%c%b\0" % (number, name.encode(), len(kind), kind.encode())


def _connect(deadline: float) -> _Link:
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
    link = _Link(connection)
    try:
        unwrap_msg(Message.from_buffer(link.ask(new_method_call(message_bus, "Hello"), deadline)))
    except BaseException:
        link.close()
        raise
    return link


SYSTEM_BUS = SystemBus()
