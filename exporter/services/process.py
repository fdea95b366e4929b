"""How a node that is a bare process is: whether a process runs its binary, as `/proc` shows it."""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from exporter.config import NodeConfig, ProcessService
from exporter.status import ServiceState, ServiceStatus

_PROC = Path("/proc")
_STARTTIME_FIELD = 19
"""Of /proc/PID/stat, counted after the command's closing parenthesis (proc(5) counts it as 22 from 1)."""


class ProcessReader:
    """Finds the process of one node by its executable's inode, and by its pid file where there is one.

    A bare process cannot be seen to crash: it runs, or it does not, or we cannot tell.
    """

    def __init__(self, node: NodeConfig, service: ProcessService) -> None:
        self._node = node
        self._service = service

    def read(self, timeout: float) -> ServiceStatus:
        """Look for the process; `timeout` is for the waiting that other managers need."""
        try:
            user = pwd.getpwnam(self._service.user).pw_uid if self._service.user else None
            running, hidden = self._find(user)
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

    def _find(self, user: int | None) -> tuple[int | None, int | None]:
        """Return the node's process, or else one that may be it but may not be looked into."""
        path = self._node.binary.resolve()
        installed = path.stat() if path.exists() else None
        hidden = None
        for pid in self._candidates():
            try:
                executable = _PROC / str(pid) / "exe"
                if str(executable.readlink()) == f"{path} (deleted)":
                    matches = True  # the file was replaced while it runs
                else:
                    matches = installed is not None and os.path.samestat(executable.stat(), installed)
                if matches and self._is_node(pid):
                    return pid, None
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended, or is the kernel's own
            except PermissionError:
                if hidden is None and self._may_be_node(pid, user):
                    hidden = pid
        return None, hidden

    def _candidates(self) -> Iterator[int]:
        if self._service.pid_file is not None:
            # Without it, or with half of one, the other processes tell.
            with suppress(FileNotFoundError, ValueError):
                yield int(self._service.pid_file.read_text()[:20])
        yield from (int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdecimal())

    def _is_node(self, pid: int) -> bool:
        """Whether a process of this binary is this node: not some other command of it, nor another node's."""
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[1:-1]
        ours, theirs = self._node.config_dir, _config_dir(arguments)
        same = ours is None or theirs is None or not theirs.is_absolute() or ours.resolve() == theirs.resolve()
        return b"run" in arguments and same

    def _may_be_node(self, pid: int, user: int | None) -> bool:
        """Whether a process whose program we may not see may be the node: by its arguments, and whom it runs as.

        Who owns the files in /proc does not tell: root does, for a process that may not be dumped.
        """
        try:
            lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
            (uids,) = (line.split()[1:] for line in lines if line.startswith("Uid:"))
            return self._is_node(pid) and (user is None or str(user) in uids)
        except (FileNotFoundError, ProcessLookupError):
            return False
        except PermissionError:
            return True


def reader(node: NodeConfig) -> ProcessReader:
    """Return the reader of a node's process."""
    assert isinstance(node.service, ProcessService)
    return ProcessReader(node, node.service)


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
