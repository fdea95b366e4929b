import gzip
import logging
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress

import pytest
import requests
from prometheus_client import CollectorRegistry, Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exporter import web
from exporter.access import Access
from exporter.config import ConfigError
from tests.serving import Stopwatch, connect, receive_until, serving, slow_clients

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
GUARDED = Access(token=lambda: TOKEN)


class Scraped:
    """Collect one gauge, and keep what collect was told."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.nodes: list[list[str]] = []
        self.blocked = threading.Event()
        self.blocked.set()

    def __call__(self, timeout: float | None, nodes: Collection[str]) -> CollectorRegistry:
        self.timeouts.append(timeout)
        self.nodes.append(list(nodes))
        self.blocked.wait(10)
        registry = CollectorRegistry()
        Gauge("storagenode_up", "The node API answered.", ["node"], registry=registry).labels("n1").set(1)
        return registry


def app(scraped: Scraped, access: Access) -> ASGIApp:
    return web.create_app([web.metrics_route(scraped, ["n1", "n2"]), *web.health_routes()], access)


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


@pytest.fixture
def url(scraped: Scraped) -> Iterator[str]:
    with serving(app(scraped, web.OPEN)) as address:
        yield address


@pytest.fixture
def guarded(scraped: Scraped) -> Iterator[str]:
    with serving(app(scraped, GUARDED)) as address:
        yield address


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/-/healthy", 200, "OK\n"),
        ("GET", "/-/ready", 200, "OK\n"),
        ("HEAD", "/metrics", 200, ""),
        ("GET", "/", 404, "Not Found"),
        ("GET", "/metrics/", 404, "Not Found"),
        ("GET", "/-/healthy/", 404, "Not Found"),
        ("POST", "/metrics", 405, "Method Not Allowed"),
        ("DELETE", "/-/ready", 405, "Method Not Allowed"),
    ],
)
def test_answers(url: str, method: str, path: str, status: int, text: str) -> None:
    answer = requests.request(method, url + path, allow_redirects=False, timeout=5)
    assert (answer.status_code, answer.text) == (status, text)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "server" not in answer.headers


def test_metrics_as_text(url: str) -> None:
    answer = requests.get(f"{url}/metrics", headers={"Accept-Encoding": "identity"}, timeout=5)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text == (
        '# HELP storagenode_up The node API answered.\n# TYPE storagenode_up gauge\nstoragenode_up{node="n1"} 1.0\n'
    )


def test_metrics_as_prometheus_asks(url: str) -> None:
    accept = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.3"
    )
    answer = requests.get(
        f"{url}/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"}, timeout=5, stream=True
    )
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.raw.read(decode_content=False)).endswith(b"# EOF\n")


def test_metrics_with_a_format_version_that_is_no_number(url: str) -> None:
    answer = requests.get(f"{url}/metrics", headers={"Accept": "text/plain;version=latest"}, timeout=5)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("header", "timeout"), [("10", 10.0), ("0.25", 0.25), ("ten", None), ("nan", None), ("-1", None), ("inf", None)]
)
def test_the_scrape_timeout_reaches_collect(url: str, scraped: Scraped, header: str, timeout: float | None) -> None:
    requests.get(f"{url}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": header}, timeout=5)
    requests.get(f"{url}/metrics", timeout=5)
    assert scraped.timeouts == [timeout, None]


@pytest.mark.parametrize(
    ("query", "nodes"),
    [
        ("", ["n1", "n2"]),
        ("?node=n2", ["n2"]),
        ("?node=n2&node=n1", ["n2", "n1"]),
        ("?x=y&node=%6e1", ["n1"]),
        ("?Node=n3", ["n1", "n2"]),
    ],
)
def test_the_nodes_that_are_asked_for(url: str, scraped: Scraped, query: str, nodes: list[str]) -> None:
    assert requests.get(f"{url}/metrics{query}", timeout=5).ok
    assert scraped.nodes == [nodes]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?node=n3", "'n3'"),
        ("?node=", "''"),
        ("?node=n1&node=N1", "'N1'"),
        ("?node=n1%0a%c3%a9", r"'n1\n\xe9'"),
        ("?node=" + "x" * 500, "'" + "x" * 79),
    ],
)
def test_a_node_that_is_not_there(url: str, scraped: Scraped, query: str, said: str) -> None:
    answer = requests.get(f"{url}/metrics{query}", timeout=5)
    assert (answer.status_code, answer.text) == (404, f"there is no node {said}\n")
    assert scraped.nodes == []


def test_where_there_are_no_nodes_to_choose_from(scraped: Scraped) -> None:
    with serving(web.create_app([web.metrics_route(scraped)], web.OPEN)) as url:
        assert requests.get(f"{url}/metrics?node=n1", timeout=5).ok


def test_a_slow_collect_holds_up_nobody_else(url: str, scraped: Scraped) -> None:
    scraped.blocked.clear()
    scrape = threading.Thread(target=requests.get, args=[f"{url}/metrics"], kwargs={"timeout": 10})
    scrape.start()
    watch = Stopwatch()
    assert requests.get(f"{url}/-/healthy", timeout=5).ok
    assert watch.seconds < 1
    scraped.blocked.set()
    scrape.join()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer \xe9\xe8", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
    ],
)
def test_the_token_is_needed(guarded: str, authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = requests.get(f"{guarded}/metrics", headers=headers, timeout=5)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.text == "a valid bearer token is needed\n"


def test_what_needs_no_token_and_what_it_hides(guarded: str) -> None:
    assert requests.get(f"{guarded}/-/healthy", timeout=5).status_code == 200
    assert requests.get(f"{guarded}/nowhere", timeout=5).status_code == 401
    assert requests.post(f"{guarded}/metrics", timeout=5).status_code == 401
    assert requests.get(f"{guarded}/nowhere", headers=AUTHORIZED, timeout=5).status_code == 404


@pytest.mark.parametrize("tokens", [("wrong-wrong-wrong", TOKEN), (TOKEN, "wrong-wrong-wrong")])
def test_two_authorizations_are_none(guarded: str, tokens: tuple[str, str]) -> None:
    headers = "".join(f"Authorization: Bearer {token}\r\n" for token in tokens)
    with connect(guarded) as client:
        client.sendall(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_refusal_reaches_a_client_that_is_still_sending(guarded: str) -> None:
    with connect(guarded) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(3):
            time.sleep(0.1)  # by now it has answered; had it closed, this would be reset
            client.sendall(bytes(1_000_000))
        assert receive_until(client, b"needed\n").startswith(b"HTTP/1.1 401 ")
    answer = requests.post(f"{guarded}/metrics", data=bytes(32 << 20), timeout=10)
    assert answer.status_code == 401
    assert answer.headers["Connection"] == "close"


def test_a_refused_client_that_never_ends_is_let_go(guarded: str) -> None:
    with connect(guarded) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        watch = Stopwatch()
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            while watch.seconds < 10:
                client.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        assert watch.seconds < 4


@pytest.mark.parametrize(
    "begin", [b"", b"GET /metrics HT", b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf a bo"]
)
def test_two_hundred_slow_clients_cost_nothing(url: str, begin: bytes) -> None:
    with slow_clients(url, 200, begin):
        watch = Stopwatch()
        assert requests.get(f"{url}/metrics", timeout=5).status_code == 200
        assert watch.seconds < 1


def test_who_sends_no_request_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_REQUEST_HEAD_SECONDS", 0.2)
    with connect(url) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        assert client.recv(100) == b""
    with connect(url) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_until(client, b"OK\n").endswith(b"OK\n")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(100)


def test_who_sends_half_of_a_second_request_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_REQUEST_HEAD_SECONDS", 0.2)
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.2)
    with connect(url) as client, connect(url) as idle:
        for each in (client, idle):
            each.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive_until(each, b"OK\n").endswith(b"OK\n")
        client.sendall(b"GET /-/heal")
        watch = Stopwatch()
        assert client.recv(100) == b""
        assert 0.1 < watch.seconds < 2
        idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_until(idle, b"OK\n").endswith(b"OK\n")


def test_who_does_not_read_the_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_REQUEST_HEAD_SECONDS", 0.2)
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.2)

    async def large(request: Request) -> Response:
        return Response(bytes(32 << 20))

    with serving(web.create_app([Route("/", large)], web.OPEN)) as url, connect(url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1)
        received = 0
        with suppress(ConnectionResetError):
            client.settimeout(2)
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
        web.bind(listen, web.OPEN).close()


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
    with web.bind(listen, access) as listening:
        name, port = listening.getsockname()[:2]
        assert name == host or host is None
        assert port > 0
    assert [record.message for record in caplog.records] == warnings


def test_tls_alone_lets_nobody_in_from_elsewhere() -> None:
    with pytest.raises(ConfigError, match="found TLS that lets anybody in, expected a `token_file` or a"):
        web.bind("0.0.0.0:0", Access(tls=TLS))


def test_an_address_that_is_taken() -> None:
    with web.bind("127.0.0.1:0", web.OPEN) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=re.escape(f"listen address {listen}: Address already in use")):
            web.bind(listen, web.OPEN)


PROGRAM = """
import sys, threading, time
from prometheus_client import CollectorRegistry
from exporter import web
def collect(timeout, nodes):
    if timeout is None:
        time.sleep(30)
    return CollectorRegistry()
app = web.create_app([web.metrics_route(collect), *web.health_routes()], web.OPEN)
web.run(app, sys.argv[1], web.OPEN, on_ready=lambda address: print(address, flush=True))
print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_it_stops_within_two_seconds_whatever_hangs(listen: str, number: signal.Signals) -> None:
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
        watch = Stopwatch()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert watch.seconds < 2
        assert process.stdout.read() == "returned\n"
        assert process.stderr.read() == "Cancel 1 running task(s), timeout graceful shutdown exceeded\n"


def test_the_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ready: list[str] = []

    def stop_soon(address: str) -> None:
        ready.append(address)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()

    with caplog.at_level(logging.INFO):
        web.run(web.create_app([], web.OPEN), "127.0.0.1:0", web.OPEN, on_ready=stop_soon)
    assert [(record.message, record.__dict__["address"]) for record in caplog.records] == [("listening", ready[0])]
    assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*", ready[0])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
