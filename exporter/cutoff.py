"""An end to any exchange over a socket, however slowly the other side trickles."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer


@contextmanager
def cut_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the connection down after `seconds`, so that whoever waits on it goes on, with an error or an end of data.

    A time limit of the socket's own is for each read, and so is none for a side that sends a byte now and then. The
    duplicate still reaches the connection when a TLS handshake has taken the socket away.
    """
    with connection.dup() as held:
        timer = Timer(max(seconds, 0), _shut_down, [held])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)
