"""Networks: the host's loopback, and a container's."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import randrange
from typing import ParamSpec, TypeVar

from tests.labs import cache, lock

P = ParamSpec("P")
R = TypeVar("R")

_CLONE_NEWNET = 0x40000000


class Network:
    """A network namespace: our own, or that of the process `pid`, entered by threads that stay in it.

    A socket belongs to the namespace it was made in, whoever uses it: a server bound by `call` listens there for good.
    With `mounts`, what `enter` starts also sees the files that the process does; its own folder stays.
    """

    def __init__(self, pid: int | None = None, *, mounts: bool = False) -> None:
        also = [f"--mount=/proc/{pid}/ns/mnt", "--wd=."] if mounts else []
        self.enter = [] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net", *also, "--"]
        self._threads = None if pid is None else ThreadPoolExecutor(32, initializer=_move_thread, initargs=(pid,))

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `function` returns when its sockets are made in this network."""
        if self._threads is None:
            return function(*args, **kwargs)
        return self._threads.submit(function, *args, **kwargs).result()

    def free_port(self) -> int:
        """Return a port of 127.0.0.1 that nothing listens on, and that no other test, or connection, comes to use."""
        return self.call(_free_port)

    @contextmanager
    def serving(self, folder: Path, port: int = 0) -> Iterator[str]:
        """Serve the files of a folder by HTTP on 127.0.0.1 and give the URL."""
        handler = partial(_Quiet, directory=str(folder))
        server = self.call(ThreadingHTTPServer, ("127.0.0.1", port), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)


HOST = Network()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _move_thread(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _free_port() -> int:
    """Take the next one, mostly below those that the kernel gives away by itself; the last one taken is on file."""
    taken = cache() / "port"
    with lock("port"):
        # Begun anywhere, since who has another cache may be on the same host.
        port = int(taken.read_text() or 0) if taken.exists() else randrange(8_000)
        while True:
            port = 20_000 + (port + 1) % 8_000
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                break
        taken.write_text(str(port))
    return port
