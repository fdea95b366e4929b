"""Downloads within bounds of time, size and place, from servers of our own that keep to none."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from remediate.journal import Outcome
from remediate.steps import StepError, fetch
from remediate.steps.fetch import Archive, take
from tests.simulators import build
from tests.simulators.download_host import DownloadHost

CONTENT = b"PK\x03\x04" + bytes(range(256)) * 40


@contextmanager
def answering(head: bytes, body: bytes, *, pause: float = 0.0, piece: int = 0) -> Iterator[str]:
    """Answer every request so, in pieces, and then say nothing more."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            content = head + body
            size = piece or len(content)
            for at in range(0, len(content), size):
                client.sendall(content[at : at + size])
                time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.zip"
    finally:
        server.close()


def head(length: int | None = len(CONTENT), *lines: str) -> bytes:
    known = [f"Content-Length: {length}"] if length is not None else []
    return ("\r\n".join(["HTTP/1.1 200 OK", "Connection: close", *known, *lines]) + "\r\n\r\n").encode()


def get(url: str, seconds: float = 5.0) -> tuple[Archive, bytes, list[tuple[int, int | None]]]:
    told: list[tuple[int, int | None]] = []
    with TemporaryFile() as into:
        archive = fetch.fetch(url, into, seconds=seconds, progress=lambda done, total: told.append((done, total)))
        into.seek(0)
        return archive, into.read(), told


def refused(url: str, seconds: float = 5.0) -> str:
    with pytest.raises(StepError) as error:
        get(url, seconds)
    assert error.value.outcome is Outcome.LATER
    return error.value.detail


def test_what_comes_is_hashed_and_told() -> None:
    with answering(head(), CONTENT, piece=3000) as url:
        archive, content, told = get(url)
    assert content == CONTENT
    assert archive == Archive(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_body_of_unknown_length() -> None:
    with answering(head(None), CONTENT) as url:
        archive, _, told = get(url)
    assert (archive.size, told[-1][1]) == (len(CONTENT), None)


def test_a_trickle_does_not_outlast_the_limit() -> None:
    began = time.monotonic()
    with answering(head(), CONTENT, piece=64, pause=0.05) as url:
        assert "not finished in time" in refused(url, seconds=0.6)
    assert time.monotonic() - began < 2


def test_a_stall_does_not_outlast_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_STALL_SECONDS", 0.3)
    began = time.monotonic()
    with answering(head(), CONTENT, piece=5000, pause=3) as url:
        assert "timed out" in refused(url, seconds=60)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("answer", "body", "said"),
    [
        (head(fetch.SIZE_LIMIT + 1), CONTENT, "bytes announced, at most"),
        (head(len(CONTENT) + 1), CONTENT, "broke off"),
        (head(0), b"", "empty"),
        (head(None), b"", "empty"),
        (head(4), b"\x7fELF", "not a zip archive, it begins with b'\\x7fELF'"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", b"", "answered 302"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n", b"", "answered 206"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://[::1\r\nContent-Length: 0\r\n\r\n", b"", "Invalid IPv6 URL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"", "BadStatusLine"),
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
