"""How a node without a service manager is started and stopped: as a process of its own session."""

import errno
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TextIO

from exporter.config import NodeConfig, ProcessService
from exporter.services import process
from exporter.status import ServiceState
from remediate.files import folder_of, real_path
from remediate.services.errors import NoServiceError, ServiceError

_STOP_SECONDS = 600.0
_LOOK_SECONDS = 5.0


class ProcessControl:
    """Starts a node by its argument list, and stops it by its process ID."""

    ends_unseen_seconds = _STOP_SECONDS

    def __init__(self, node: NodeConfig, service: ProcessService) -> None:
        self._service = service
        self._reader = process.reader(node)

    def start(self, seconds: float = 0.0) -> None:
        """Start it detached, unless it runs already; its process ID goes to the pid file, where one is configured."""
        if self._service.start is None:
            raise NoServiceError("no start command is configured for this node (service.process.start)")
        if self._reader.read(_LOOK_SECONDS).state is ServiceState.RUNNING:
            return
        path = self._service.pid_file
        try:
            # Opened first: a process must not run whose number cannot be written down.
            with _opened(path) if path is not None else nullcontext() as pid_file:
                started = _spawn(self._service.start, self._service.user)
                if pid_file is not None:
                    pid_file.write(f"{started}\n")
                    pid_file.truncate()
        except (OSError, KeyError) as error:
            raise ServiceError(f"{self._service.start[0]} could not be started: {error}") from None

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        deadline = time.monotonic() + _STOP_SECONDS
        asked = False
        while (status := self._reader.read(_LOOK_SECONDS)).state is not ServiceState.STOPPED:
            if status.state is ServiceState.UNKNOWN or status.pid is None:
                raise ServiceError(status.detail)
            if not asked:
                with suppress(ProcessLookupError):  # it has ended since
                    os.kill(status.pid, signal.SIGTERM)
                asked = True
            if time.monotonic() > deadline:
                raise ServiceError(f"process {status.pid} has not ended within {_STOP_SECONDS:.0f} s")
            time.sleep(0.1)


def _spawn(command: Sequence[str], user: str | None) -> int:
    account = pwd.getpwnam(user) if user is not None else None
    # To become oneself takes rights that one need not have.
    becomes = account if account is not None and account.pw_uid != os.geteuid() else None
    started = subprocess.Popen(
        command,
        cwd="/",
        env={"PATH": os.defpath, **({"HOME": account.pw_dir, "USER": account.pw_name} if account else {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=becomes.pw_uid if becomes else None,
        group=becomes.pw_gid if becomes else None,
        extra_groups=os.getgrouplist(becomes.pw_name, becomes.pw_gid) if becomes else None,
    )
    return started.pid


def _opened(path: Path) -> TextIO:
    """Open the pid file for writing; where its folder is the node's user's, he must not have another's file written."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with folder_of(real_path(path.parent) / path.name) as folder:
        file = os.fdopen(os.open(path.name, flags, 0o644, dir_fd=folder.fd), "w")
    if os.fstat(file.fileno()).st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, "has another name too", str(path))
    return file


def control(node: NodeConfig) -> ProcessControl:
    """Return the control of a node that is a bare process."""
    assert isinstance(node.service, ProcessService)
    return ProcessControl(node, node.service)
