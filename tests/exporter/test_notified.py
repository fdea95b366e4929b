import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.notified import notify


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@keeper-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_each_state_is_a_datagram(listening: socket.socket) -> None:
    notify("READY=1")
    notify("STATUS=alpha: swap → 1.104.5")
    assert [listening.recv(1000).decode() for _ in range(2)] == ["READY=1", "STATUS=alpha: swap → 1.104.5"]


@pytest.mark.parametrize("program", ["exporter.cli", "remediate.cli"])
def test_a_server_says_when_it_listens_and_when_it_stops(
    listening: socket.socket, tmp_path: Path, program: str
) -> None:
    content = {"nodes": [{"name": "a", "service": "process", "binary": "/nowhere"}], "state_dir": str(tmp_path)}
    config = tmp_path / "keeper.yml"
    config.write_text(json.dumps(content))
    command = f"from {program} import main; main()"
    options = ["serve", "--config.file", str(config), "--web.listen-address", "127.0.0.1:0"]
    listening.settimeout(60)
    with subprocess.Popen([sys.executable, "-c", command, *options]) as server:
        assert listening.recv(1000) == b"READY=1"
        server.terminate()
        assert listening.recv(1000) == b"STOPPING=1"
        assert server.wait(60) == 0


def test_who_does_not_listen_keeps_nobody_waiting(listening: socket.socket) -> None:
    for _ in range(10_000):
        notify("STATUS=" + "x" * 1000)


def test_where_nobody_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "gone"), "nonsense", "x" * 1000):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
