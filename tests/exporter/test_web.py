import gzip
import threading
import time
from base64 import b64encode
from collections.abc import Collection, Iterator

import pytest
import requests
from prometheus_client import CollectorRegistry, Gauge
from starlette.types import ASGIApp

from exporter import web
from exporter.access import Access
from tests.serving import Stopwatch, connect, receive_until, serving

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}

GUARDED = Access(token=lambda: TOKEN)


def basic(userinfo: str) -> str:
    """What a browser shows once it was given a user and a password."""
    return f"Basic {b64encode(userinfo.encode()).decode()}"


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
        self.blocked.wait(30)
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
    answer = requests.request(method, url + path, allow_redirects=False, timeout=60)
    assert (answer.status_code, answer.text) == (status, text)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "server" not in answer.headers


def test_metrics_as_text(url: str) -> None:
    answer = requests.get(f"{url}/metrics", headers={"Accept-Encoding": "identity"}, timeout=60)
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
        f"{url}/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"}, timeout=60, stream=True
    )
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.raw.read(decode_content=False)).endswith(b"# EOF\n")


def test_metrics_with_a_format_version_that_is_no_number(url: str) -> None:
    answer = requests.get(f"{url}/metrics", headers={"Accept": "text/plain;version=latest"}, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("header", "timeout"), [("10", 10.0), ("0.25", 0.25), ("ten", None), ("nan", None), ("-1", None), ("inf", None)]
)
def test_the_scrape_timeout_reaches_collect(url: str, scraped: Scraped, header: str, timeout: float | None) -> None:
    requests.get(f"{url}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": header}, timeout=60)
    requests.get(f"{url}/metrics", timeout=60)
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
    assert requests.get(f"{url}/metrics{query}", timeout=60).ok
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
    answer = requests.get(f"{url}/metrics{query}", timeout=60)
    assert (answer.status_code, answer.text) == (404, f"there is no node {said}; there are: n1, n2\n")
    assert scraped.nodes == []


def test_where_there_is_no_node(scraped: Scraped) -> None:
    with serving(web.create_app([web.metrics_route(scraped, [])], web.OPEN)) as url:
        assert requests.get(f"{url}/metrics", timeout=60).ok
        answer = requests.get(f"{url}/metrics?node=n1", timeout=60)
    assert (answer.status_code, answer.text) == (404, "there is no node 'n1'; there are: none\n")
    assert scraped.nodes == [[]]


def test_where_there_are_no_nodes_to_choose_from(scraped: Scraped) -> None:
    with serving(web.create_app([web.metrics_route(scraped)], web.OPEN)) as url:
        assert requests.get(f"{url}/metrics?node=n1", timeout=60).ok


def test_a_slow_collect_holds_up_nobody_else(url: str, scraped: Scraped) -> None:
    scraped.blocked.clear()
    scrape = threading.Thread(target=requests.get, args=[f"{url}/metrics"], kwargs={"timeout": 60})
    scrape.start()
    assert requests.get(f"{url}/-/healthy", timeout=60).ok
    assert scrape.is_alive()
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
        (basic(f"me:{TOKEN}"), 200),
        (basic(f":{TOKEN}"), 200),
        (basic(TOKEN), 401),
        (basic(f"{TOKEN}:"), 401),
        (basic(f"me:{TOKEN}:"), 401),
        ("Basic \xe9\xe8", 401),
        ("Basic bWU6", 401),
        (f"bearer {TOKEN}", 200),
    ],
)
def test_the_token_is_needed(guarded: str, authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = requests.get(f"{guarded}/metrics", headers=headers, timeout=60)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == 'Bearer, Basic realm="storagenode-keeper", charset="UTF-8"'
        assert answer.text == "a valid bearer token is needed\n"


def test_what_needs_no_token_and_what_it_hides(guarded: str) -> None:
    assert requests.get(f"{guarded}/-/healthy", timeout=60).status_code == 200
    assert requests.get(f"{guarded}/nowhere", timeout=60).status_code == 401
    assert requests.post(f"{guarded}/metrics", timeout=60).status_code == 401
    assert requests.get(f"{guarded}/nowhere", headers=AUTHORIZED, timeout=60).status_code == 404


def test_a_browser_that_knows_the_password_may_only_look(guarded: str) -> None:
    """Any page in it can make it send a form elsewhere, with that password."""
    headers = {"Authorization": basic(f"me:{TOKEN}")}
    assert requests.head(f"{guarded}/metrics", headers=headers, timeout=60).status_code == 200
    assert requests.post(f"{guarded}/metrics", headers=headers, timeout=60).status_code == 401


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
    answer = requests.post(f"{guarded}/metrics", data=bytes(32 << 20), timeout=60)
    assert answer.status_code == 401
    assert answer.headers["Connection"] == "close"


def test_a_refused_client_that_never_ends_is_let_go(guarded: str) -> None:
    with connect(guarded) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        watch = Stopwatch()
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            while watch.seconds < 20:
                client.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
