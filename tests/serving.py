"""Serve an app over real HTTP for a test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

from starlette.types import ASGIApp

from exporter import web
from exporter.access import Access


@contextmanager
def serving(app: ASGIApp, access: Access = web.OPEN) -> Iterator[str]:
    """Serve on a free port of loopback, in a thread; yield `http://127.0.0.1:PORT`, or `https:`."""
    listening = web.bind("127.0.0.1:0", access)
    server = web.server(app, access)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http{'s' if access.tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def connect(url: str) -> socket.socket:
    """Open a bare connection to `http://HOST:PORT`, `https:` or `HOST:PORT`."""
    host, _, port = url.removeprefix("http://").removeprefix("https://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=10)


def receive_until(client: socket.socket, end: bytes) -> bytes:
    """Read until the bytes end so, or the connection does."""
    received = b""
    while not received.endswith(end) and (chunk := client.recv(65536)):
        received += chunk
    return received


@contextmanager
def slow_clients(url: str, count: int, begin: bytes) -> Iterator[None]:
    """Hold connections that each send the beginning of a request and no more."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(connect(url)).sendall(begin)
        yield


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = monotonic()

    @property
    def seconds(self) -> float:
        return monotonic() - self._start
