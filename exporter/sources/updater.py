"""The official updater of a node: its service, version, settings, log and leftovers, looked at once a minute."""

import os
import time
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from exporter.duration import seconds
from exporter.leftbehind import launch, leftovers, rejected, verdict
from exporter.nodefiles import updater_settings, updater_unread
from exporter.services.systemd import SystemdReader
from exporter.sources.binary import BinarySource, Execute
from exporter.sources.logs import Journal, Log, LogFile
from exporter.status import Failure, FailureReason, InstalledVersion, ServiceStatus, UpdaterStatus
from exporter.units import Unit, UnitError, read_unit
from exporter.updaterlog import UpdaterFailure, UpdaterLog, heard

_PAUSE_SECONDS = 60
_DEFAULT_SERVER = "https://version.storj.io"
_DEFAULT_INTERVAL_SECONDS = 900.0


class UpdaterSource:
    """One updater that may replace `binary`; `version_server` is the one that we ask."""

    def __init__(self, unit: str, binary: Path, version_server: str, execute: Execute) -> None:
        self._unit = unit
        self._binary = binary
        self._version_server = version_server
        self._execute = execute
        self._service = SystemdReader(unit)
        self._program: tuple[Path, BinarySource] | None = None
        self._log: tuple[str | None, Log] | None = None
        self._heard: UpdaterLog | None = None
        self._known: UpdaterStatus | None = None
        self._again = 0.0
        # Many updaters on a host are not all looked at in the same scrape.
        self._pause = _PAUSE_SECONDS + zlib.crc32(unit.encode()) % (_PAUSE_SECONDS // 2)

    def read(self, timeout: float) -> UpdaterStatus:
        """Say how the updater is, or was at most a minute and a half ago."""
        if self._known is None or time.monotonic() >= self._again:
            self._known = self._look(time.monotonic() + timeout)
            self._again = time.monotonic() + self._pause
        return self._known

    def _look(self, deadline: float) -> UpdaterStatus:
        service = self._service.read(_left(deadline))
        try:
            unit = read_unit(self._unit, _left(deadline))
        except UnitError as error:
            return self._unseen(service, Failure(FailureReason.UNREACHABLE, str(error)))
        started = launch(unit)
        said, unread = updater_settings(started), updater_unread(started)
        log = self._listen(said.get("log.output"), unit.directory, deadline)
        server = log.server if isinstance(log, UpdaterLog) else None
        server = server or said.get("version.server-address") or (None if unread else _DEFAULT_SERVER)
        return UpdaterStatus(
            unit=self._unit,
            service=service,
            installed=self._version(unit, deadline),
            log=log,
            leftovers=leftovers(self._binary_of(said.get("binary-location"))),
            rejected=rejected(verdict(unit)),
            interval_seconds=_interval(said.get("version.check-interval"), unread, log),
            server=server,
            server_is_ours=None if server is None else server.rstrip("/") == self._version_server,
            looked=time.time(),
        )

    def _unseen(self, service: ServiceStatus, failure: Failure) -> UpdaterStatus:
        return UpdaterStatus(
            unit=self._unit,
            service=service,
            installed=failure,
            log=failure,
            leftovers=leftovers(self._binary_of(None)),
            rejected=failure,
            interval_seconds=None,
            server=None,
            server_is_ours=None,
            looked=time.time(),
        )

    def _binary_of(self, location: str | None) -> Path:
        """Say beside which path it leaves its files: the one that it is told, be that a symbolic link."""
        told = location is not None and location.startswith("/")
        return Path(location) if told and location else Path(os.path.realpath(self._binary))

    def _version(self, unit: Unit, deadline: float) -> InstalledVersion | Failure:
        if unit.launch.command is None:  # what a script may do when it is told `version`, nobody knows
            return Failure(FailureReason.NOT_FOUND, f"{unit.name} is not seen to run a storagenode-updater")
        path = Path(unit.launch.command.path)
        if self._program is None or self._program[0] != path:
            self._program = path, BinarySource(path, self._execute)
        return self._program[1].read(_left(deadline))

    def _listen(self, output: str | None, directory: str, deadline: float) -> UpdaterLog | Failure:
        if self._log is None or self._log[0] != output:
            self._log, self._heard = (output, _log(output, self._unit, directory)), None
        lines = self._log[1].read(_left(deadline))
        if isinstance(lines, Failure):
            return lines
        if self._heard is None:
            # What failed before we looked is not counted: after each restart of ours it would be once more.
            self._heard = replace(heard(UpdaterLog(), lines), failures=dict.fromkeys(UpdaterFailure, 0))
        else:
            self._heard = heard(self._heard, lines)
        return self._heard


def _log(output: str | None, unit: str, directory: str) -> Log:
    """Choose what to read, by zap's way to name an output: a path, or a file's URL."""
    if output in (None, "", "stderr", "stdout"):
        return Journal(unit)
    path = urlsplit(output).path if output.startswith("file:") else output
    return LogFile(Path(directory, path))


def _interval(told: str | None, unread: str | None, log: UpdaterLog | Failure) -> float | None:
    if told is not None:
        return seconds(told)
    if unread is None:
        return _DEFAULT_INTERVAL_SECONDS
    return log.interval if isinstance(log, UpdaterLog) else None


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)
