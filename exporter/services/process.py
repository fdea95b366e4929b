"""How a node that is a bare process is: whether a process runs its binary, as `/proc` shows it."""

import os
import pwd
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock

from exporter.config import NodeConfig, ProcessService
from exporter.status import ServiceState, ServiceStatus

_PROC = Path("/proc")
_STARTTIME_FIELD = 19
"""Of /proc/PID/stat, counted after the command's closing parenthesis (proc(5) counts it as 22 from 1)."""
_EXEC_TRIES, _EXEC_SECONDS = 20, 0.01
"""A process that is being executed has its program before its arguments, mostly for microseconds."""


class ProcessReader:
    """Finds the process of one node by its executable's inode, and by its pid file where there is one.

    A bare process cannot be seen to crash: it runs, or it does not, or we cannot tell.
    """

    def __init__(self, node: NodeConfig, service: ProcessService) -> None:
        self._node = node
        self._service = service
        self._last: int | None = None

    def read(self, timeout: float, since: float | None = None) -> ServiceStatus:
        """Look for the process; `timeout` is for the waiting that other managers need."""
        asked = time.monotonic() if since is None else since
        try:
            user = pwd.getpwnam(self._service.user).pw_uid if self._service.user else None
            running, hidden = self._find(user, asked)
        except KeyError:
            return _unknown(f"the node's user {self._service.user!r} does not exist on this host")
        except OSError as error:
            return _unknown(f"{error.filename}: {error.strerror}")
        if running is not None:
            since = _started(running)
            return ServiceStatus(state=ServiceState.RUNNING, detail="running", pid=running, since=since)
        if hidden is not None:
            return _unknown(
                f"process {hidden} may be the node, but its program may not be seen from here;"
                " run as the node's user, and name that user in the configuration"
            )
        if not (_PROC / "1").exists():
            return _unknown("/proc hides the processes of others from us")
        return ServiceStatus(state=ServiceState.STOPPED, detail=f"no process runs {self._node.binary}")

    def _find(self, user: int | None, asked: float) -> tuple[int | None, int | None]:
        """Return the node's process, or else one that may be it but may not be looked into."""
        path = self._node.binary.resolve()
        ours = self._node.config_dir.resolve() if self._node.config_dir else None
        installed, deleted = _file(path), f"{path} (deleted)"
        hidden = None
        for process in self._candidates(asked):
            try:
                if process.link is None:
                    if hidden is None and process.may_be_run_by(user) and process.is_node(ours):
                        hidden = process.pid
                    continue
                # As `deleted`, its file was replaced while it runs.
                if (process.file == installed or process.link == deleted) and process.is_node(ours):
                    self._last = process.pid
                    return process.pid, None
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            except PermissionError:
                hidden = process.pid if hidden is None else hidden
        return None, hidden

    def _candidates(self, asked: float) -> "Iterator[_Process]":
        """Yield the process that is named or was the node before, and only if that is not it all the others."""
        for pid in (self._named(), self._last):
            if pid is not None:
                with suppress(FileNotFoundError, ProcessLookupError):
                    yield _Process(pid)
        yield from _TABLE.read(asked).values()

    def _named(self) -> int | None:
        """Read the pid file; without it, or with half of one, the other processes tell."""
        if self._service.pid_file is None:
            return None
        with suppress(FileNotFoundError, ValueError):
            return int(self._service.pid_file.read_text()[:20])
        return None


class _Process:
    """A process as it was when the table was read; what only few ask for is read when it is asked for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._folder = f"{_PROC}/{pid}"
        self.link: str | None = None
        """What its executable's link says; None where we may not see it."""
        self.file: tuple[int, int] | None = None
        """Device and inode of its executable."""
        try:
            found = os.stat(f"{self._folder}/exe")  # noqa: PTH116  thousands of them: a Path takes several times as long
            self.file = found.st_dev, found.st_ino
            self.link = os.readlink(f"{self._folder}/exe")  # noqa: PTH115
        except PermissionError:
            pass

    def is_node(self, ours: Path | None) -> bool:
        """Whether it is this node, by its arguments: not some other command of the binary, nor another node's."""
        runs, theirs = self._arguments
        return runs and (ours is None or theirs is None or ours == theirs)

    def may_be_run_by(self, user: int | None) -> bool:
        """Whether it runs as this user, if one is named.

        Who owns the files in /proc does not tell: root does, for a process that may not be dumped.
        """
        return user is None or user in self._users

    @cached_property
    def _arguments(self) -> tuple[bool, Path | None]:
        file, tries = Path(self._folder, "cmdline"), _EXEC_TRIES
        while not (content := file.read_bytes()) and self.link is not None and (tries := tries - 1):
            time.sleep(_EXEC_SECONDS)
        arguments = content.split(b"\0")[1:-1]
        config_dir = _config_dir(arguments)
        return b"run" in arguments, config_dir.resolve() if config_dir and config_dir.is_absolute() else None

    @cached_property
    def _users(self) -> Sequence[int]:
        lines = Path(self._folder, "status").read_text(errors="replace").splitlines()
        return [int(user) for line in lines if line.startswith("Uid:") for user in line.split()[1:]]


class _Table:
    """All processes, read once for all nodes of one observation."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._began = 0.0
        self._processes: Mapping[int, _Process] = {}

    def read(self, asked: float) -> Mapping[int, _Process]:
        """Return the processes as they were at a time after `asked`."""
        with self._lock:
            if self._began <= asked:
                self._began = time.monotonic()
                self._processes = dict(self._scan())
            return self._processes

    def _scan(self) -> Iterator[tuple[int, _Process]]:
        for entry in os.scandir(_PROC):
            if entry.name.isdecimal():
                # It may have ended, or be the kernel's own.
                with suppress(FileNotFoundError, ProcessLookupError):
                    yield int(entry.name), _Process(int(entry.name))


_TABLE = _Table()


def reader(node: NodeConfig) -> ProcessReader:
    """Return the reader of a node's process."""
    assert isinstance(node.service, ProcessService)
    return ProcessReader(node, node.service)


def _file(path: Path) -> tuple[int, int] | None:
    """Return device and inode; None where there is no such file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _config_dir(arguments: list[bytes]) -> Path | None:
    """Return the value of `--config-dir`: nodes that share a binary differ in it."""
    for argument, following in zip(arguments, [*arguments, b""][1:], strict=True):
        if argument == b"--config-dir":
            return Path(os.fsdecode(following))
        if argument.startswith(b"--config-dir="):
            return Path(os.fsdecode(argument.partition(b"=")[2]))
    return None


def _started(pid: int) -> float | None:
    """Return when a process was started, in Unix seconds; None if it has ended meanwhile."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = next(line for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime "))
    return int(boot.split()[1]) + int(fields[_STARTTIME_FIELD]) / os.sysconf("SC_CLK_TCK")


def _unknown(detail: str) -> ServiceStatus:
    return ServiceStatus(state=ServiceState.UNKNOWN, detail=detail)
