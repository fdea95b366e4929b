import logging
import re
import time
from pathlib import Path

import pytest
import requests

from exporter import web
from exporter.access import Access, access, read_token
from exporter.config import ConfigError, WebConfig, validate
from exporter.reloaded import Reloaded
from tests.serving import serving

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "found 0 characters, expected a token of 16 to 1024"),
        (b"short\n", "found 5 characters, expected a token of 16 to 1024"),
        (b"x" * 2000, "found 2000 characters, expected a token of 16 to 1024"),
        (b"first-line-of-two\nsecond-line-of-two\n", "expected the bearer token on one line, in printable ASCII"),
        ("caf\xe9-caf\xe9-caf\xe9-caf\xe9".encode(), "expected the bearer token on one line, in printable ASCII"),
    ],
)
def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {problem}")):
        access(WebConfig(token_file=path))


def test_a_token_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path / "none", "cannot be read: No such file or directory, expected the bearer token"),
        (tmp_path, "cannot be read: Is a directory, expected the bearer token"),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"{path}: {problem}")):
            access(WebConfig(token_file=path))


@pytest.mark.parametrize(("mode", "warnings"), [(0o640, 0), (0o644, 1)])
def test_a_token_everybody_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(mode)
    assert read_token(path) == TOKEN
    assert [record.message for record in caplog.records] == ["secret file is readable by everybody"] * warnings


def test_who_is_known() -> None:
    assert not access(WebConfig()).known_only
    assert Access(token=lambda: TOKEN).known_only
    assert Access(client_certificates=True).known_only


def status(url: str, token: str) -> int:
    return requests.get(f"{url}/", headers={"Authorization": f"Bearer {token}"}, timeout=60).status_code


def test_a_token_is_changed_while_running(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN)
    other = "another-pair-of-staples"
    admitted = access(WebConfig(token_file=path))
    with caplog.at_level(logging.INFO), serving(web.create_app([], admitted), admitted) as url:
        assert (status(url, TOKEN), status(url, other)) == (404, 401)
        path.write_text(other)
        assert (status(url, TOKEN), status(url, other)) == (401, 404)
        path.write_text("short")
        assert [status(url, other) for _ in range(3)] == [404] * 3
        path.unlink()
        assert [status(url, other) for _ in range(3)] == [404] * 3
        new = tmp_path / "new"
        new.touch(0o600)
        new.write_text(TOKEN)
        new.replace(path)
        assert (status(url, TOKEN), status(url, other)) == (404, 401)
    told = [(record.levelname, record.message.partition(",")[0]) for record in caplog.records]
    used, broken = ("INFO", "changed files are in use"), ("ERROR", "changed files cannot be used")
    assert told == [used, broken, broken, used]
    errors = [record.__dict__["error"] for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        f"{path}: found 5 characters, expected a token of 16 to 1024",
        f"{path}: cannot be read: No such file or directory, expected the bearer token",
    ]


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    read: list[str] = []

    def load() -> str:
        read.append(path.read_text())
        return read[-1]

    reloaded = Reloaded([path], load)
    assert [reloaded(), reloaded()] == ["one", "one"]
    time.sleep(0.02)  # the clock of files ticks every few milliseconds
    path.chmod(0o600)  # what could not be read may be readable now
    assert [reloaded(), reloaded()] == ["one", "one"]
    path.write_text("three")
    assert [reloaded(), reloaded()] == ["three", "three"]
    assert read == ["one", "one", "three"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"tls_cert_file": "/c"}, "web: found one of tls_cert_file and tls_key_file, expected both or neither"),
        ({"tls_key_file": "/k"}, "web: found one of tls_cert_file and tls_key_file, expected both or neither"),
        ({"client_ca_file": "/a"}, "web: found client_ca_file alone, expected tls_cert_file and tls_key_file with it"),
        ({"tls_cert_file": "c", "tls_key_file": "/k"}, "web: tls_cert_file: expected an absolute path"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        validate(WebConfig, given, source="web")
