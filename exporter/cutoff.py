"""An end to any exchange over a socket, however slowly the other side trickles."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Thread


@contextmanager
def cut_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the connection down after `seconds`, so that whoever waits on it goes on, with an error or an end of data.

    A time limit of the socket's own is for each read, and so is none for a side that sends a byte now and then. The
    duplicate still reaches the connection when a TLS handshake has taken the socket away.
    """
    with connection.dup() as held:
        _WATCH.add(held, time.monotonic() + seconds)
        try:
            yield
        finally:
            _WATCH.remove(held)


class _Watch:
    """One thread for all connections, which ends when there are none."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._ends: dict[socket.socket, float] = {}
        self._wakes = float("inf")
        self._runs = False

    def add(self, connection: socket.socket, end: float) -> None:
        with self._changed:
            self._ends[connection] = end
            if not self._runs:
                Thread(target=self._run, daemon=True).start()
                self._runs = True
            elif end < self._wakes:
                self._changed.notify()

    def remove(self, connection: socket.socket) -> None:
        with self._changed:
            self._ends.pop(connection, None)

    def _run(self) -> None:
        with self._changed:
            while self._ends:
                self._wakes = min(self._ends.values())
                self._changed.wait(max(self._wakes - time.monotonic(), 0))
                now = time.monotonic()
                for connection in [connection for connection, end in self._ends.items() if end <= now]:
                    del self._ends[connection]
                    with suppress(OSError):  # it has ended by itself
                        connection.shutdown(socket.SHUT_RDWR)
            self._runs = False
            self._wakes = float("inf")


_WATCH = _Watch()
