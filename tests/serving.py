"""Serve an app, or a configuration by one of our programs, over real HTTP for a test."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO

import requests
from starlette.types import ASGIApp

from exporter.access import Access
from exporter.listening import bind, server
from exporter.web import OPEN
from tests.labs import TIED
from tests.labs.network import HOST


@contextmanager
def serving(app: ASGIApp, access: Access = OPEN) -> Iterator[str]:
    """Serve on a free port of loopback, in a thread; yield `http://127.0.0.1:PORT`, or `https:`."""
    listening = bind("127.0.0.1:0", access)
    serves = server(app, access)
    thread = threading.Thread(target=serves.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http{'s' if access.tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        serves.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def exporting(folder: Path, settings: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """Run `storagenode-exporter serve` with a configuration, put into a folder; yield its PID and `http://HOST:PORT`."""
    with _program("storagenode-exporter", folder, settings) as running:
        yield running


@contextmanager
def receiving(folder: Path, settings: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """Run `storagenode-remediate serve` in the same way; what it logs is in `serve.log`, beside the configuration."""
    with (folder / "serve.log").open("ab") as log, _program("storagenode-remediate", folder, settings, log) as running:
        yield running


@contextmanager
def _program(
    name: str, folder: Path, settings: Mapping[str, object], log: IO[bytes] | None = None
) -> Iterator[tuple[int, str]]:
    config, address = folder / "keeper.yml", f"127.0.0.1:{HOST.free_port()}"
    config.write_text(json.dumps(settings))
    program = Path(sys.executable).parent / name
    argv: list[str | Path] = [*TIED, program, "serve", f"--config.file={config}", f"--web.listen-address={address}"]
    process = subprocess.Popen(argv, stderr=log)
    try:
        deadline = monotonic() + 60
        while True:
            try:
                requests.get(f"http://{address}/-/ready", timeout=10)
                break
            except requests.ConnectionError:
                assert monotonic() < deadline and process.poll() is None
                sleep(0.05)
        yield process.pid, f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def connect(url: str) -> socket.socket:
    """Open a bare connection to `http://HOST:PORT`, `https:` or `HOST:PORT`."""
    host, _, port = url.removeprefix("http://").removeprefix("https://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=30)


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
