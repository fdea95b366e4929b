"""A system bus whose systemd answers for some units late or never, which a real one cannot be made to do."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from jeepney import HeaderFields, Message, MessageType, Parser, new_error, new_method_return

RUNNING: dict[str, tuple[str, Any]] = {
    "Result": ("s", "success"),
    "ExecMainCode": ("i", 0),
    "ExecMainStatus": ("i", 0),
    "ExecMainStartTimestampMonotonic": ("t", 1),
    "ExecMainExitTimestampMonotonic": ("t", 0),
    "RuntimeMaxUSec": ("t", 2**64 - 1),
    "Restart": ("s", "no"),
    "NRestarts": ("u", 0),
    "LoadState": ("s", "loaded"),
    "ActiveState": ("s", "active"),
    "SubState": ("s", "running"),
    "ActiveEnterTimestampMonotonic": ("t", 1),
    "ActiveExitTimestampMonotonic": ("t", 0),
    "InactiveExitTimestampMonotonic": ("t", 1),
    "StateChangeTimestamp": ("t", 1_790_000_000_000_000),
    "ConditionTimestampMonotonic": ("t", 1),
    "ConditionResult": ("b", True),
}


def main_pid(name: str) -> int:
    """Return the process that the unit `NAME.service` has, and no other unit."""
    return crc32(name.encode())


class Bus:
    """Says of every unit that it runs, but for those whose path has `stalls` in it.

    One with `late` in it is told of `late_seconds` afterwards, and not before somebody else has been answered.
    """

    def __init__(self, path: Path, *, refuses: bool = False) -> None:
        self.address = f"unix:path={path}"
        self.connections = 0
        self.open: list[socket.socket] = []
        self.calls = 0
        self.late_seconds = 0.0
        self._refuses = refuses
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self.open.append(connection)
                threading.Thread(target=self._converse, args=[connection], daemon=True).start()

    def close(self) -> None:
        for each in (self._listening, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            said = b""
            while b"BEGIN\r\n" not in said:
                chunk = connection.recv(4096)
                if not chunk:
                    return
                said += chunk
                if b"AUTH" in chunk:
                    connection.sendall(b"OK " + os.urandom(16).hex().encode() + b"\r\n")
            parser, serial = Parser(), 0
            parser.add_data(said.partition(b"BEGIN\r\n")[2])
            held: list[tuple[float, Message]] = []
            while True:
                while (message := parser.get_next_message()) is None:
                    chunk = connection.recv(65536)
                    if not chunk:
                        return
                    parser.add_data(chunk)
                self.calls += 1
                answer = self._answer(message)
                if answer is None:
                    continue
                if "late" in message.header.fields[HeaderFields.path]:
                    held.append((time.monotonic() + self.late_seconds, answer))
                    continue
                due = [late for at, late in held if at <= time.monotonic()]
                held = [each for each in held if each[1] not in due]
                for each in (answer, *due):
                    serial += 1
                    connection.sendall(each.serialise(serial=serial))

    def _answer(self, message: Message) -> Message | None:
        assert message.header.message_type is MessageType.method_call
        if message.header.fields[HeaderFields.member] == "Hello":
            if self._refuses:
                return new_error(message, "org.freedesktop.DBus.Error.LimitsExceeded", "s", ("too many of you",))
            return new_method_return(message, "s", (":1.1",))
        path = message.header.fields[HeaderFields.path]
        if "stalls" in path:
            return None
        if message.header.fields[HeaderFields.member] != "GetAll" or message.body != ("",):
            return new_error(message, "org.freedesktop.DBus.Error.UnknownMethod")
        name = path.rpartition("/")[2].removesuffix("_2eservice")
        return new_method_return(message, "a{sv}", (RUNNING | {"MainPID": ("u", main_pid(name))},))


@contextmanager
def bus(path: Path, *, refuses: bool = False) -> Iterator[Bus]:
    """Serve on a socket at this path."""
    served = Bus(path, refuses=refuses)
    thread = threading.Thread(target=served.serve)
    thread.start()
    try:
        yield served
    finally:
        served.close()
        thread.join()
