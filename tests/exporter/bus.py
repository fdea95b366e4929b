"""A system bus whose systemd answers for some units and never for others, which a real one cannot be made to do."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jeepney import HeaderFields, Message, MessageType, Parser, new_error, new_method_return

RUNNING: dict[str, dict[str, tuple[str, Any]]] = {
    "org.freedesktop.systemd1.Unit": {
        "LoadState": ("s", "loaded"),
        "ActiveState": ("s", "active"),
        "SubState": ("s", "running"),
        "ActiveEnterTimestampMonotonic": ("t", 1),
        "ActiveExitTimestampMonotonic": ("t", 0),
        "StateChangeTimestamp": ("t", 1_790_000_000_000_000),
        "ConditionTimestampMonotonic": ("t", 1),
        "ConditionResult": ("b", True),
    },
    "org.freedesktop.systemd1.Service": {
        "Result": ("s", "success"),
        "ExecMainCode": ("i", 0),
        "ExecMainStatus": ("i", 0),
        "ExecMainStartTimestampMonotonic": ("t", 1),
        "ExecMainExitTimestampMonotonic": ("t", 0),
        "RuntimeMaxUSec": ("t", 2**64 - 1),
        "NRestarts": ("u", 0),
        "MainPID": ("u", 4711),
    },
}


class Bus:
    """Says of every unit that it runs, but for those whose path has `stalls` in it."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:path={path}"
        self.connections = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._open: list[socket.socket] = []

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._converse, args=[connection], daemon=True).start()

    def close(self) -> None:
        for each in (self._listening, *self._open):
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
            while True:
                while (message := parser.get_next_message()) is None:
                    chunk = connection.recv(65536)
                    if not chunk:
                        return
                    parser.add_data(chunk)
                answer = self._answer(message)
                if answer is not None:
                    serial += 1
                    connection.sendall(answer.serialise(serial=serial))

    def _answer(self, message: Message) -> Message | None:
        assert message.header.message_type is MessageType.method_call
        if message.header.fields[HeaderFields.member] == "Hello":
            return new_method_return(message, "s", (":1.1",))
        if "stalls" in message.header.fields[HeaderFields.path]:
            return None
        if message.header.fields[HeaderFields.member] != "GetAll":
            return new_error(message, "org.freedesktop.DBus.Error.UnknownMethod")
        return new_method_return(message, "a{sv}", (RUNNING[message.body[0]],))


@contextmanager
def bus(path: Path) -> Iterator[Bus]:
    """Serve on a socket at this path."""
    served = Bus(path)
    thread = threading.Thread(target=served.serve)
    thread.start()
    try:
        yield served
    finally:
        served.close()
        thread.join()
