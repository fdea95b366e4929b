import logging
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import requests
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter import listening, web
from exporter.access import Access
from exporter.config import ConfigError
from tests.serving import Stopwatch, connect, receive_until, serving, slow_clients

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery"
GUARDED = Access(token=lambda: TOKEN)


@pytest.fixture
def url() -> Iterator[str]:
    routes = [web.metrics_route(lambda timeout, nodes: CollectorRegistry()), *web.health_routes()]
    with serving(web.create_app(routes, web.OPEN)) as address:
        yield address


@pytest.mark.parametrize(
    "begin", [b"", b"GET /metrics HT", b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf a bo"]
)
def test_two_hundred_slow_clients_cost_nothing(url: str, begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 600)
    with slow_clients(url, 200, begin):
        assert requests.get(f"{url}/metrics", timeout=60).status_code == 200


def test_who_sends_no_request_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 1)
    with connect(url) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        assert client.recv(100) == b""
    with connect(url) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_until(client, b"OK\n").endswith(b"OK\n")
        client.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.recv(100)


def test_who_sends_half_of_a_second_request_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 2)
    monkeypatch.setattr(listening, "_REQUEST_SECONDS", 2)
    with connect(url) as client, connect(url) as idle:
        for each in (client, idle):
            each.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive_until(each, b"OK\n").endswith(b"OK\n")
        client.sendall(b"GET /-/heal")
        watch = Stopwatch()
        assert client.recv(100) == b""
        assert watch.seconds > 0.1
        idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_until(idle, b"OK\n").endswith(b"OK\n")


def test_who_does_not_read_the_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 0.2)
    monkeypatch.setattr(listening, "_REQUEST_SECONDS", 0.2)

    async def large(request: Request) -> Response:
        return Response(bytes(32 << 20))

    with serving(web.create_app([Route("/", large)], web.OPEN)) as url, connect(url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2)
        received = 0
        with suppress(ConnectionResetError):
            client.settimeout(10)
            while chunk := client.recv(1 << 20):
                received += len(chunk)
        assert received < 32 << 20


def test_a_head_without_end_is_refused(url: str) -> None:
    with connect(url) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 70000)
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("19651", "found '19651', expected host:port such as 127.0.0.1:19651"),
        (":19651", "found ':19651', expected host:port"),
        ("127.0.0.1", "found '127.0.0.1', expected host:port"),
        ("::1:19651", "found '::1:19651', expected host:port"),
        ("127.0.0.1:65536", "found '127.0.0.1:65536', expected host:port"),
        ("127.0.0.1:-1", "found '127.0.0.1:-1', expected host:port"),
        (f"{'x' * 70}.invalid:1", "listen address xxx"),
        ("0.0.0.0:0", "listen address 0.0.0.0:0: found no token, expected a `token_file` or a `client_ca_file`"),
        ("[::]:0", "listen address [::]:0: found no token, expected a `token_file`"),
        ("192.0.2.1:0", "listen address 192.0.2.1:0: found no token, expected a `token_file`"),
    ],
)
def test_addresses_that_are_refused(listen: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        listening.bind(listen, web.OPEN).close()


TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
IN_CLEAR = ["without TLS the token is sent for everybody on the way to read"]


@pytest.mark.parametrize(
    ("listen", "access", "host", "warnings"),
    [
        ("127.0.0.1:0", web.OPEN, "127.0.0.1", []),
        ("127.0.0.2:0", GUARDED, "127.0.0.2", []),
        ("localhost:0", Access(tls=TLS), None, []),
        ("[::1]:0", web.OPEN, "::1", []),
        ("0.0.0.0:0", GUARDED, "0.0.0.0", IN_CLEAR),
        ("0.0.0.0:0", Access(token=lambda: TOKEN, tls=TLS), "0.0.0.0", []),
        ("0.0.0.0:0", Access(tls=TLS, client_certificates=True), "0.0.0.0", []),
    ],
)
def test_addresses_that_are_listened_on(
    listen: str, access: Access, host: str | None, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with listening.bind(listen, access) as bound:
        name, port = bound.getsockname()[:2]
        assert name == host or host is None
        assert port > 0
    assert [record.message for record in caplog.records] == warnings


def test_tls_alone_lets_nobody_in_from_elsewhere() -> None:
    with pytest.raises(ConfigError, match="found TLS that lets anybody in, expected a `token_file` or a"):
        listening.bind("0.0.0.0:0", Access(tls=TLS))


def test_an_address_that_is_taken() -> None:
    with listening.bind("127.0.0.1:0", web.OPEN) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=re.escape(f"listen address {listen}: Address already in use")):
            listening.bind(listen, web.OPEN)


PROGRAM = """
import sys, threading, time
from prometheus_client import CollectorRegistry
from exporter import listening, web
def collect(timeout, nodes):
    if timeout is None:
        time.sleep(600)
    return CollectorRegistry()
app = web.create_app([web.metrics_route(collect), *web.health_routes()], web.OPEN)
listening.run(app, sys.argv[1], web.OPEN, on_ready=lambda address: print(address, flush=True))
print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_it_stops_soon_whatever_hangs(listen: str, number: signal.Signals) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, listen], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with program as process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout and process.stderr
        address = process.stdout.readline().strip()
        assert address.startswith(listen[:-1]) and address != listen
        clients = [stack.enter_context(connect(address)) for _ in range(4)]
        clients[0].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")  # hangs in collect
        clients[1].sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        clients[2].sendall(b"GET /-/heal")
        clients[3].sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_until(clients[3], b"OK\n").endswith(b"OK\n")
        process.send_signal(number)
        assert process.wait(60) == 0  # a second of patience; what hangs does so for ten minutes
        assert process.stdout.read() == "returned\n"
        assert process.stderr.read() == "Cancel 1 running task(s), timeout graceful shutdown exceeded\n"


def test_the_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ready: list[str] = []

    def stop_soon(address: str) -> None:
        ready.append(address)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()

    with caplog.at_level(logging.INFO):
        listening.run(web.create_app([], web.OPEN), "127.0.0.1:0", web.OPEN, on_ready=stop_soon)
    assert [(record.message, record.__dict__["address"]) for record in caplog.records] == [("listening", ready[0])]
    assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*", ready[0])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
