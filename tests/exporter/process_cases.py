"""What can happen to a node that is a bare process, done to a real one."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.status import ServiceState

Arrange = Callable[[Path], list[subprocess.Popen[bytes]]]
"""Do it to the node whose binary is `storagenode` in a folder, its pid file `pid`; return what it has started."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is done, and how the node is called then."""

    name: str
    what: str
    state: ServiceState
    arrange: Arrange

    @contextmanager
    def done(self, folder: Path) -> Iterator[None]:
        """Do it, and leave nothing running."""
        started = self.arrange(folder)
        try:
            yield
        finally:
            for process in started:
                process.kill()
                process.wait()


def _run(folder: Path, *arguments: str, program: str = "storagenode") -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([folder / program, *(arguments or ["run"])])]


def _ended(folder: Path) -> list[subprocess.Popen[bytes]]:
    (process,) = _run(folder)
    process.kill()
    process.wait()
    return []


def _by_symlink(folder: Path) -> list[subprocess.Popen[bytes]]:
    (folder / "link").symlink_to("storagenode")
    return _run(folder, program="link")


def _by_hard_link(folder: Path) -> list[subprocess.Popen[bytes]]:
    os.link(folder / "storagenode", folder / "link")
    return _run(folder, program="link")


def _copy(folder: Path) -> list[subprocess.Popen[bytes]]:
    shutil.copy(folder / "storagenode", folder / "copy")
    return _run(folder, program="copy")


def _replaced(folder: Path) -> list[subprocess.Popen[bytes]]:
    started = _run(folder)
    shutil.copy(folder / "storagenode", folder / "new")
    (folder / "new").rename(folder / "storagenode")
    return started


def _stale_pid_file(folder: Path) -> list[subprocess.Popen[bytes]]:
    (folder / "pid").write_text("99999999\n")
    return []


def _foreign_pid_file(folder: Path) -> list[subprocess.Popen[bytes]]:
    (folder / "pid").write_text(f"{os.getpid()}\n")
    return []


def _foreign_pid_file_and_running(folder: Path) -> list[subprocess.Popen[bytes]]:
    _foreign_pid_file(folder)
    return _run(folder)


def _pid_file_unreadable(folder: Path) -> list[subprocess.Popen[bytes]]:
    (folder / "pid").mkdir()
    return []


CASES = (
    Case("running", "a process runs its binary", ServiceState.RUNNING, _run),
    Case("ended", "no process runs its binary, however the last one ended", ServiceState.STOPPED, _ended),
    Case("symlink", "started by another path (symbolic link)", ServiceState.RUNNING, _by_symlink),
    Case("hard-link", "started by another path (hard link)", ServiceState.RUNNING, _by_hard_link),
    Case("copy", "only a copy of the binary runs", ServiceState.STOPPED, _copy),
    Case(
        "replaced",
        "running, and its binary has been replaced (`storagenode_restart_pending`)",
        ServiceState.RUNNING,
        _replaced,
    ),
    Case("version", "only another command of the binary runs", ServiceState.STOPPED, lambda at: _run(at, "version")),
    Case("stale-pid-file", "down, and the pid file is stale", ServiceState.STOPPED, _stale_pid_file),
    Case("foreign-pid-file", "down, and the pid file names another program", ServiceState.STOPPED, _foreign_pid_file),
    Case(
        "runs-beside-its-pid-file",
        "running, and the pid file names another program",
        ServiceState.RUNNING,
        _foreign_pid_file_and_running,
    ),
    Case("pid-file-unreadable", "the pid file cannot be read", ServiceState.UNKNOWN, _pid_file_unreadable),
)

HIDDEN = (
    ("its process belongs to another user, and may not be looked into", ServiceState.UNKNOWN),
    ("`/proc` hides the processes of others (hidepid, ProtectProc)", ServiceState.UNKNOWN),
)
"""What takes another user and a `/proc` of its own: test_process does it."""
