"""Downloads within bounds of time, size and place, from servers of our own that keep to none."""

import hashlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from remediate.journal import Outcome
from remediate.steps import StepError, exchange, fetch
from remediate.steps.fetch import Archive, take
from tests.exporter.certificates import Authority
from tests.remediate.conftest import wait_until
from tests.simulators import build
from tests.simulators.download_host import DownloadHost

CONTENT = b"PK\x03\x04" + bytes(range(256)) * 40


@contextmanager
def answering(
    head: bytes, body: bytes, *, pause: float = 0.0, piece: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Answer every request so, the body in pieces, and then say nothing more."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError), tls.wrap_socket(client, server_side=True) if tls else client as client:
            client.recv(65536)
            client.sendall(head)
            size = piece or max(1, len(body))
            for at in range(0, len(body), size):
                client.sendall(body[at : at + size])
                time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.getsockname()[1]}/x.zip"
    finally:
        server.shutdown(socket.SHUT_RDWR)  # or it would be waited on for ever
        server.close()


def head(length: int | None = len(CONTENT), *lines: str) -> bytes:
    known = [f"Content-Length: {length}"] if length is not None else []
    return ("\r\n".join(["HTTP/1.1 200 OK", "Connection: close", *known, *lines]) + "\r\n\r\n").encode()


def get(url: str, seconds: float = 60.0) -> tuple[Archive, bytes, list[tuple[int, int | None]]]:
    told: list[tuple[int, int | None]] = []
    with TemporaryFile() as into:
        archive = fetch.fetch(url, into, seconds=seconds, progress=lambda done, total: told.append((done, total)))
        into.seek(0)
        return archive, into.read(), told


def refused(url: str, seconds: float = 60.0) -> str:
    with pytest.raises(StepError) as error:
        get(url, seconds)
    assert error.value.outcome is Outcome.LATER
    assert error.value.detail.isprintable()
    assert len(error.value.detail) < 300
    return error.value.detail


def test_what_comes_is_hashed_and_told() -> None:
    with answering(head(), CONTENT, piece=3000) as url:
        archive, content, told = get(url)
    assert content == CONTENT
    assert archive == Archive(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_body_of_unknown_length() -> None:
    with answering(head(None, "Transfer-Encoding: chunked"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT)) as url:
        archive, _, told = get(url)
    assert (archive.size, told[-1][1]) == (len(CONTENT), None)


TLS_RECORD = b"\x16\x03\x03\x3f\xff" + bytes(0x3FFF)
PARTS = {
    "tls": (b"", TLS_RECORD),
    "status": (b"", b"HTTP/1.1 200 " + b"x" * 60_000),
    "header": (head()[:-2] + b"X-Slow: ", b"x" * 60_000),
    "headers": (head()[:-2], b"X: y\r\n" * 90),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n", b"x" * 60_000),
    "body": (head(), CONTENT),
    "chunk": (head(None, "Transfer-Encoding: chunked"), b"10;" + b"x" * 60_000),
    "trailer": (head(None, "Transfer-Encoding: chunked") + b"4\r\nPK\x03\x04\r\n0\r\n", b"x: y\r\n" * 9999),
    "refusal": (b"HTTP/1.1 500 Oops\r\n", b"x: y\r\n" * 99),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_trickle_does_not_outlast_the_limit_wherever_it_is(part: str) -> None:
    """A byte now and then keeps every limit of the socket's own from running out."""
    before, trickle = PARTS[part]
    began = time.monotonic()
    with answering(before, trickle, piece=1, pause=0.05) as url:
        said = refused(url.replace("http", "https") if part == "tls" else url, seconds=0.4)
    assert "not finished in time" in said
    assert 0.3 < time.monotonic() - began < 20


def test_nor_does_a_trickle_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    began = time.monotonic()
    with answering(b"", b"HTTP/1.1 200 " + b"x" * 60_000, piece=1, pause=0.05) as url:
        monkeypatch.setenv("https_proxy", url.removesuffix("/x.zip"))
        assert "not finished in time" in refused("https://downloads.invalid/x.zip", seconds=0.4)
    assert time.monotonic() - began < 20
    with answering(head(), CONTENT) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/x.zip"))
        assert get("http://downloads.invalid/x.zip")[1] == CONTENT, "the proxy knows the name, we need not"


NO_NAMES = """
import fcntl, socket, struct, subprocess, sys, tempfile, time
from remediate.steps import StepError
from remediate.steps.fetch import fetch
mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(mute, 0x8914, struct.pack("16sh", b"lo", 0x1))  # up
mute.bind(("127.0.0.1", 53))
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
began = time.monotonic()
try:
    with tempfile.TemporaryFile() as into:
        fetch("https://downloads.invalid/x.zip", into, seconds=0.5, progress=lambda done, total: None)
except StepError as error:
    print(error, "after", round(time.monotonic() - began, 1), "s")
"""


def test_nor_does_a_name_service_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    program = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, "-c", NO_NAMES]
    began = time.monotonic()
    done = subprocess.run([*program, tmp_path / "resolv.conf"], capture_output=True, text=True, check=True)
    said, _, seconds = done.stdout.removesuffix(" s\n").rpartition(" after ")
    assert said == "https://downloads.invalid/x.zip: not finished in time, 0 bytes came"
    assert 0.5 <= float(seconds) < 60
    assert time.monotonic() - began < 120, "nor does the program wait for it to end"


NO_THREADS = """
import resource, sys, tempfile
from remediate.steps import StepError
from remediate.steps.fetch import fetch
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (4 << 20),) * 2)  # a thread needs 8
try:
    with tempfile.TemporaryFile() as into:
        fetch("http://127.0.0.1:1/x.zip", into, seconds=0.5, progress=lambda done, total: None)
except StepError as error:
    print(error.outcome, error)
"""


def test_where_no_thread_is_to_be_had_it_is_later() -> None:
    done = subprocess.run([sys.executable, "-c", NO_THREADS], capture_output=True, text=True, check=True)
    assert done.stdout == "later http://127.0.0.1:1/x.zip: can't start new thread\n"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 0.0002], ids=["connected", "before it is connected"])
def test_nothing_is_left_of_what_was_cut_off(seconds: float) -> None:
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for before, trickle in PARTS.values():
        with answering(before, trickle, piece=1, pause=0.02) as url:
            refused(url, seconds=seconds)
    wait_until(lambda: threading.active_count() <= threads and len(os.listdir("/proc/self/fd")) <= files)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that is believed."""
    authority = Authority(tmp_path, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server").files)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    return context


@contextmanager
def tunnel() -> Iterator[str]:
    """Be a proxy that connects to wherever it is told to."""

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as there, suppress(OSError):
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=self.pump, args=(there, self.connection), daemon=True)
                back.start()
                self.pump(self.connection, there)
                back.join()

        def pump(self, source: socket.socket, into: socket.socket) -> None:
            with suppress(OSError):
                while part := source.recv(65536):
                    into.sendall(part)
                into.shutdown(socket.SHUT_WR)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_over_tls(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(head(), CONTENT, tls=tls) as url:
        assert get(url)[1] == CONTENT
        assert "match" in refused(url.replace("127.0.0.1", "localhost"))
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        assert "certificate verify failed" in refused(url)


def test_over_tls_through_a_proxy(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with tunnel() as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        with answering(head(), CONTENT, tls=tls) as url:
            assert get(url)[1] == CONTENT
        with answering(head(), CONTENT, tls=tls, piece=1, pause=0.05) as url:
            assert "not finished in time" in refused(url, seconds=0.4)
    assert "Connection refused" in refused(url)


def test_what_is_cut_short_or_slow_over_tls_is_for_later(tls: ssl.SSLContext) -> None:
    with answering(head(), CONTENT[:-1], tls=tls) as url:
        assert "broke off" in refused(url)
    with answering(head(None, "Transfer-Encoding: chunked"), b"8\r\nPK\x03\x04", tls=tls) as url:
        assert "broke off" in refused(url)
    for before, trickle in ((b"", head()), (head(), CONTENT)):
        began = time.monotonic()
        with answering(before, trickle, tls=tls, piece=1, pause=0.05) as url:
            assert "not finished in time" in refused(url, seconds=0.4)
        assert time.monotonic() - began < 20


def test_a_stall_does_not_outlast_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_STALL_SECONDS", 0.3)
    began = time.monotonic()
    with answering(head(), CONTENT, piece=5000, pause=30) as url:
        assert "timed out" in refused(url, seconds=60)
    assert time.monotonic() - began < 25


@pytest.mark.parametrize(
    ("answer", "body", "said"),
    [
        (head(fetch.SIZE_LIMIT + 1), CONTENT, "bytes announced, at most"),
        (head(len(CONTENT) + 1), CONTENT, "broke off"),
        (head(0), b"", "empty"),
        (head(None), CONTENT, "does not say how long it is"),
        (head(None, "Content-Length: " + "9" * 5000), CONTENT, "does not say how long it is"),
        (head(None, "Content-Length: -1"), CONTENT, "does not say how long it is"),
        (head(None, "Content-Length: 4", "Content-Length: 5"), CONTENT, "Content-Length contained multiple unmatching"),
        (head(None, "Transfer-Encoding: gzip, chunked"), CONTENT, "does not say how long it is"),
        (head(4), b"\x7fELF", "not a zip archive, it begins with b'\\x7fELF'"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", b"", "answered 302"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n", b"", "answered 206"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://[::1\r\nContent-Length: 0\r\n\r\n", b"", "which is no address"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"", "SSH-2.0-OpenSSH_9.2"),
        (b"SSH-2.0-\x1b[2J" + b"x" * 9999 + b"\r\n", b"", "SSH-2.0-\\x1b[2J"),
        (head(None, "Transfer-Encoding: chunked"), b"zz\r\n", "broke off"),
        (head(None, "Transfer-Encoding: chunked"), b"4\r\nPK\x03\x04\r\n", "broke off"),
        (head(len(CONTENT), "Content-Encoding: gzip"), CONTENT, ""),
    ],
)
def test_an_answer_that_is_no_archive_is_for_later(answer: bytes, body: bytes, said: str) -> None:
    with answering(answer, body) as url:
        if said:
            assert said in refused(url)
        else:
            assert get(url)[1] == CONTENT, "bytes are taken as they come, and never unpacked on the way"


def test_nobody_there_is_for_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.zip"
    said = refused(url)
    assert "Connection refused" in said
    assert "object at 0x" not in said


@pytest.mark.parametrize(
    "target",
    [
        "http://downloads.invalid/x",
        "https://downloads.invalid/x",
        "//downloads.invalid/x",
        "ftp://127.0.0.1/x",
        "https://github.com.invalid/x",
        "https://objects.githubusercontent.com@downloads.invalid/x",
    ],
)
def test_no_redirect_leads_elsewhere(target: str) -> None:
    with answering(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode(), b"") as url:
        assert "which is neither" in refused(url)


def test_a_redirect_within_the_host_is_followed(tmp_path: Path) -> None:
    digest = build.archive(build.node("1.104.5", tmp_path / "node"), tmp_path / "releases/1.104.5" / build.ASSET)
    with DownloadHost(tmp_path / "releases") as host:
        assert get(f"{host.releases}/v1.104.5/{build.ASSET}")[0].sha256 == digest


def test_a_local_archive_is_copied_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(CONTENT)
    with TemporaryFile() as into:
        archive = take(path, into, progress=lambda done, total: None)
    assert archive == Archive(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
