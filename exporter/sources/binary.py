"""The installed version: what the binary on disk says when it is run as `storagenode version`."""

import errno
import os
import pwd
import selectors
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exporter.status import Failure, FailureReason, InstalledVersion
from exporter.version import NodeVersion

_OUTPUT_LIMIT_BYTES = 64 * 1024
_BUSY_PAUSE_SECONDS = 0.02
_BUSY_PATIENCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended, and what it said; a negative exit code is the signal that ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes


Execute = Callable[[int, Sequence[str], float], Completed]
"""Run the program behind an open descriptor with these arguments, for so many seconds at most.

Raises:
    TimeoutError: it did not end in time; it was killed.
    OSError: it could not be started.
"""


def run_directly(
    binary: int,
    arguments: Sequence[str],
    timeout: float,
    *,
    user: pwd.struct_passwd | None = None,
    limit: int = _OUTPUT_LIMIT_BYTES,
) -> Completed:
    """Run the opened program as a child of ours, or of another user, without environment, input or terminal.

    It is killed, with all it has started in its process group, when it takes too long or says more than `limit` bytes.
    """
    process = subprocess.Popen(
        ["storagenode", *arguments],  # noqa: S607  a name for it to go by; the program is the descriptor
        executable=f"/proc/self/fd/{binary}",
        pass_fds=[binary],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    # The process is not waited for before its group is killed: until then its number belongs to nobody else.
    ended = os.pidfd_open(process.pid)
    pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe]
    try:
        stdout, stderr = _listen([pipe.fileno() for pipe in pipes], ended, time.monotonic() + timeout, limit)
    finally:
        os.close(ended)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in pipes:
            pipe.close()
    return Completed(process.returncode, stdout, stderr)


def _listen(pipes: Sequence[int], ended: int, deadline: float, limit: int) -> Iterable[bytes]:
    """Collect what is said on each pipe until the process has ended or has said too much."""
    said = dict.fromkeys(pipes, b"")
    running = True
    with selectors.DefaultSelector() as selector:
        for descriptor in (*said, ended):
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select(max(deadline - time.monotonic(), 0) if running else 0)]
            if running and not ready:
                raise TimeoutError
            if not running and ready == [ended]:
                break
            running = running and ended not in ready
            for descriptor in said.keys() & ready:
                chunk = os.read(descriptor, _OUTPUT_LIMIT_BYTES)
                said[descriptor] += chunk
                if not chunk:
                    selector.unregister(descriptor)
            if sum(map(len, said.values())) > limit:
                break
    return said.values()


def parse_version_output(stdout: bytes) -> tuple[NodeVersion, bool]:
    """Read what `storagenode version` prints: the version, and whether this is a release build.

    The format is upstream's (storj/common, version/version.go, Info.String): a line `Release build` or
    `Development build`, then `Version: v1.104.5`.

    Raises:
        ValueError: no version in it (VersionError: one that does not parse).
    """
    lines = stdout.decode(errors="replace").splitlines()
    for line in lines:
        if line.startswith("Version: "):
            return NodeVersion.parse(line.removeprefix("Version: ")), "Release build" in lines
    raise ValueError("it prints no line `Version: …`")


class BinarySource:
    """The version of one binary, asked again only when the file has changed."""

    def __init__(self, path: Path, execute: Execute = run_directly) -> None:
        self._path = path
        self._execute = execute
        self._known: tuple[tuple[int, ...], InstalledVersion] | None = None

    def read(self, timeout: float) -> InstalledVersion | Failure:
        """Say which version is installed; the program is run only if its inode, size or time of change is new."""
        try:
            # A pipe at this path must not make us wait for somebody to write to it.
            binary = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return Failure(_reason(error), f"{self._path}: {error.strerror}")
        try:
            return self._read(binary, time.monotonic() + timeout)
        except TimeoutError:
            return Failure(FailureReason.TIMEOUT, f"{self._path}: `version` did not end within {timeout:.3g} s")
        except OSError as error:
            return Failure(_reason(error), f"{self._path}: cannot be run: {error.strerror}")
        except ValueError as error:
            return Failure(FailureReason.MALFORMED, f"{self._path}: {error}")
        finally:
            os.close(binary)

    def _read(self, binary: int, deadline: float) -> InstalledVersion | Failure:
        file = os.fstat(binary)
        if not stat.S_ISREG(file.st_mode):
            return Failure(FailureReason.MALFORMED, f"{self._path}: not a regular file")
        identity = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
        if self._known is not None and self._known[0] == identity:
            return self._known[1]
        completed = self._ask(binary, deadline)
        if completed.exit_code:
            code = completed.exit_code
            how = f"exit status {code}" if code > 0 else f"signal {-code}"
            return Failure(FailureReason.EXIT_STATUS, f"{self._path}: `version` ended with {how}")
        version, release = parse_version_output(completed.stdout)
        installed = InstalledVersion(version=version, release=release, device=file.st_dev, inode=file.st_ino)
        self._known = (identity, installed)
        return installed

    def _ask(self, binary: int, deadline: float) -> Completed:
        """Run `version` so that it sends no telemetry and reads no configuration; plainly where it lacks the flags."""
        with tempfile.TemporaryDirectory(prefix="storagenode-version-") as empty:
            Path(empty).chmod(0o755)  # whoever runs it must be able to see that it is empty
            quiet = ["version", "--tracing.enabled=false", "--metrics.addr=", "--config-dir", empty]
            completed = self._run(binary, quiet, deadline)
        if completed.exit_code > 0 and b"unknown flag" in completed.stderr + completed.stdout:
            return self._run(binary, ["version"], deadline)
        return completed

    def _run(self, binary: int, arguments: Sequence[str], deadline: float) -> Completed:
        """Run the program; wait a moment for whoever still has the file open for writing."""
        patience = min(deadline, time.monotonic() + _BUSY_PATIENCE_SECONDS)
        while True:
            try:
                return self._execute(binary, arguments, deadline - time.monotonic())
            except OSError as error:
                if error.errno != errno.ETXTBSY or time.monotonic() >= patience:
                    raise
                time.sleep(_BUSY_PAUSE_SECONDS)


def _reason(error: OSError) -> FailureReason:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return FailureReason.NOT_FOUND
        case errno.EACCES | errno.EPERM:
            return FailureReason.DENIED
        case errno.ENOEXEC:
            return FailureReason.MALFORMED
        case _:
            return FailureReason.UNREACHABLE
