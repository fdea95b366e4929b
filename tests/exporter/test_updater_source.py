"""Reading an updater: its unit from a real systemd, its settings, log and files from a real disk."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.dbus import SYSTEM_BUS
from exporter.sources import updater as source
from exporter.sources.binary import run_directly
from exporter.sources.updater import UpdaterSource
from exporter.status import Failure, FailureReason, ServiceState, UpdaterStatus
from exporter.updaterlog import Blocked, UpdaterFailure, UpdaterLog
from tests.exporter.test_updaterlog import DOWNLOADING, IN_THE_WAY, NOT_INITIALIZED, cycle, error, line
from tests.labs.systemd import Container
from tests.simulators import build

pytestmark = pytest.mark.systemd

SERVER = "https://v.test"
UNIT = "watched-updater.service"


@pytest.fixture(scope="module")
def host() -> Iterator[Container]:
    with Container() as container:
        yield container


@pytest.fixture
def updater(host: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., UpdaterSource]]:
    """A function that installs an updater, which does nothing, and returns what reads it; its files are in tmp_path."""
    SYSTEM_BUS.close()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", host.bus_address)
    build.node("1.102.3", tmp_path / "storagenode")
    program = build.node("1.162.3", tmp_path / "storagenode-updater")
    host.write(program, program.read_bytes(), 0o755)

    def install(*flags: str, settings: str = "", start: str = "") -> UpdaterSource:
        command = start or f"{program} run --binary-location {tmp_path}/storagenode --config-dir {tmp_path}"
        unit = f"[Service]\nExecStart={command} {' '.join(flags)}\nWorkingDirectory=-{tmp_path}\n{settings}"
        host.unit(UNIT, unit, enable=False)
        return UpdaterSource(UNIT, tmp_path / "storagenode", SERVER, run_directly)

    yield install
    host.systemctl("stop", UNIT, check=False)
    SYSTEM_BUS.close()


def look(reader: UpdaterSource) -> UpdaterStatus:
    """Look now, whenever it was looked at last."""
    reader._again = 0.0
    return reader.read(10)


def write(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.writelines(f"{each}\n" for each in lines)


def logged(status: UpdaterStatus) -> UpdaterLog:
    assert isinstance(status.log, UpdaterLog), status.log
    return status.log


def test_its_settings_and_files(updater: Callable[..., UpdaterSource], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"version.check-interval: 1h0m0s\nlog.output: updater.log\nversion.server-address: {SERVER}/\n"
    )
    write(tmp_path / "updater.log", [line("Running on version", version="v1.162.3")])
    (tmp_path / "storagenode.1.104.5").touch()
    (tmp_path / "last-failed-update.storagenode.json").write_text('{"Version": "1.104.5", "Failure": "signal: killed"}')
    status = look(updater())
    assert status.unit == UNIT
    assert status.service.state is ServiceState.STOPPED
    assert str(status.version) == "1.162.3"
    assert (status.interval_seconds, status.server, status.server_is_ours) == (3600.0, f"{SERVER}/", True)
    assert not isinstance(status.leftovers, Failure)
    assert [each.path for each in status.leftovers] == [tmp_path / "storagenode.1.104.5"]
    assert status.rejected is not None
    assert not isinstance(status.rejected, Failure)
    assert (str(status.rejected.version), status.rejected.failure) == ("1.104.5", "signal: killed")
    assert abs(status.looked - time.time()) < 10
    assert logged(status).failures == dict.fromkeys(UpdaterFailure, 0)


def test_what_it_logs_goes_before_what_it_is_told(updater: Callable[..., UpdaterSource], tmp_path: Path) -> None:
    log = tmp_path / "updater.log"
    reader = updater(f"--log.output=file://{log}", "--version.server-address=https://e.test", "--service-name", "sn")
    write(log, [])
    status = look(reader)
    assert (status.server, status.server_is_ours) == ("https://e.test", False)
    assert status.interval_seconds is None, "its config.yaml is not there, so what it leaves out is not known"
    write(log, cycle())
    status = look(reader)
    assert (status.server, status.server_is_ours, status.interval_seconds) == (SERVER, True, None)
    write(log, cycle(later=30))
    assert look(reader).interval_seconds == 30


def test_failures_are_counted_from_the_first_look_on(updater: Callable[..., UpdaterSource], tmp_path: Path) -> None:
    log = tmp_path / "updater.log"
    write(log, [*cycle(NOT_INITIALIZED), *cycle(DOWNLOADING, error("bad status: 404"))])
    reader = updater(f"--log.output={log}")
    before = logged(look(reader))
    assert before.failures == dict.fromkeys(UpdaterFailure, 0)
    assert (before.last_failure, before.blocked) == (2.0, Blocked.NOT_INITIALIZED)
    write(log, cycle(DOWNLOADING, error("bad status: 404"), later=60))
    assert logged(look(reader)).failures == dict.fromkeys(UpdaterFailure, 0) | {UpdaterFailure.DOWNLOAD: 1}
    write(log, cycle(IN_THE_WAY, later=60))
    after = logged(look(reader))
    assert sum(after.failures.values()) == 2
    assert after.blocked is Blocked.LEFT_OVER
    assert logged(look(reader)) == after


def test_it_is_looked_at_once_a_minute(updater: Callable[..., UpdaterSource], host: Container, tmp_path: Path) -> None:
    log = tmp_path / "updater.log"
    write(log, cycle())
    reader = updater(f"--log.output={log}")
    first = reader.read(10)
    assert first.service.state is ServiceState.STOPPED
    write(log, cycle(error("x"), later=100))
    host.systemctl("start", UNIT)
    host.wait_state(UNIT, "failed")  # this program has nothing to run with
    assert reader.read(10) is first
    assert source._PAUSE_SECONDS - 20 < reader._again - time.monotonic() < 1.5 * source._PAUSE_SECONDS
    reader._again = time.monotonic()
    second = reader.read(10)
    assert second.service.state is ServiceState.CRASHED
    assert logged(second).last_failure == 2.0


def test_without_what_it_needs_it_is_unknown_and_says_why(
    updater: Callable[..., UpdaterSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = updater(f"--log.output={tmp_path}/none.log")
    assert look(reader).log == Failure(FailureReason.NOT_FOUND, f"{tmp_path}/none.log: not there")
    (tmp_path / "storagenode-updater").unlink()
    assert isinstance(look(reader).installed, Failure)
    os.mkfifo(tmp_path / "none.log")
    began = time.monotonic()
    assert isinstance(look(reader).log, Failure)
    assert time.monotonic() - began < 20

    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    SYSTEM_BUS.close()
    status = look(reader)
    assert status.service.state is ServiceState.UNKNOWN
    assert all(isinstance(each, Failure) for each in (status.installed, status.log, status.rejected))
    assert (status.interval_seconds, status.server, status.server_is_ours) == (None, None, None)


def test_a_script_that_the_configuration_calls_the_updater_is_not_run(
    updater: Callable[..., UpdaterSource], tmp_path: Path, host: Container
) -> None:
    script = tmp_path / "update.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    script.chmod(0o755)
    host.write(script, script.read_text(), 0o755)
    write(tmp_path / "updater.log", [line("Running on version", version="v1.106.1")])
    status = look(updater(f"--log.output={tmp_path}/updater.log", start=f"{script} run"))
    assert isinstance(status.installed, Failure)
    assert str(status.version) == "1.106.1"
    assert not (tmp_path / "was-run").exists()


def test_a_hundred_of_them_are_not_all_looked_at_at_once() -> None:
    pauses = {UpdaterSource(f"u{number}.service", Path("/b"), SERVER, run_directly)._pause for number in range(100)}
    assert len(pauses) > 20
    assert all(source._PAUSE_SECONDS <= pause < 1.5 * source._PAUSE_SECONDS for pause in pauses)
