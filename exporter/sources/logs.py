"""What a service has logged since it was read last, from systemd's journal or from a file; at first, only its tail."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from exporter.sources.binary import run_directly
from exporter.status import Failure, FailureReason

_LARGEST_BYTES = 1 << 20
"""Read at one time."""
_AT_FIRST = ("--reverse", "--since=-2d")
_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))


class Log(Protocol):
    """Reads a log on from where it was read last."""

    def read(self, timeout: float) -> list[str] | Failure:
        """Return the lines that are new, oldest first, within `timeout` seconds."""
        ...


class Journal:
    """What the processes of a unit have written to systemd's journal."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._cursor: str | None = None

    def read(self, timeout: float) -> list[str] | Failure:
        """Run journalctl for the lines that are new; of more than a MiB, the rest is for the next time.

        At first the last ones come first, and so what is too much is what is old.
        """
        where = _AT_FIRST if self._cursor is None else (f"--after-cursor={self._cursor}",)
        # Without --all, a field of over 4 KiB is null: an error with its stack trace.
        fields = ("--output=json", "--output-fields=MESSAGE", "--all", "--no-pager")
        found = shutil.which("journalctl", path=_SEARCH_PATH)
        if found is None:
            return Failure(FailureReason.NOT_FOUND, "there is no journalctl")
        if (failure := _unreadable()) is not None:
            return failure
        program = os.open(found, os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = run_directly(
                program, [*fields, *where, f"_SYSTEMD_UNIT={self._unit}"], timeout, limit=_LARGEST_BYTES
            )
        except TimeoutError:
            return Failure(FailureReason.TIMEOUT, f"journalctl did not end within {timeout:.3g} s")
        except OSError as error:
            return Failure(FailureReason.UNREACHABLE, f"journalctl cannot be run: {error.strerror}")
        finally:
            os.close(program)
        if done.exit_code > 0:
            self._cursor = None
            said = " ".join(done.stderr.decode(errors="replace").split())[-200:]
            return Failure(FailureReason.EXIT_STATUS, f"journalctl ended with exit status {done.exit_code}: {said}")
        entries = list(_entries(done.stdout))
        if self._cursor is None:
            entries.reverse()
        if entries:
            self._cursor = entries[-1][0]
        return [text for _, text in entries]


def _unreadable() -> Failure | None:
    """Say why there is nothing to be read: journalctl only shows less, to whom may not read it, and does not say so."""
    files = [path for folder in _JOURNALS for path in folder.glob("*/system.journal")]
    if any(os.access(path, os.R_OK) for path in files):
        return None
    if files:
        return Failure(FailureReason.DENIED, "the journal is for members of the group systemd-journal")
    return Failure(FailureReason.NOT_FOUND, "there is no journal")


def _entries(stdout: bytes) -> Iterator[tuple[str, str]]:
    """Read each entry's cursor and message; one that was cut off in the middle is left out."""
    for line in stdout.split(b"\n"):
        try:
            entry: Any = json.loads(line)
        except ValueError:
            continue
        message = entry.get("MESSAGE")  # bytes, where it is no text
        yield entry["__CURSOR"], message if isinstance(message, str) else bytes(message or ()).decode(errors="replace")


class LogFile:
    """A file that lines are added to, and that may be renamed or cut short at any time to begin anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._end = 0

    def read(self, timeout: float) -> list[str] | Failure:
        """Read what was added; of more than a MiB, only the last of it."""
        try:
            return self._read()
        except FileNotFoundError:
            return Failure(FailureReason.NOT_FOUND, f"{self._path}: not there")
        except PermissionError as error:
            return Failure(FailureReason.DENIED, f"{self._path}: {error.strerror}")
        except (OSError, ValueError) as error:
            return Failure(FailureReason.MALFORMED, f"{self._path}: {error}")

    def _read(self) -> list[str]:
        lines: list[str] = []
        with _opened(self._path) as file:
            now = os.fstat(file.fileno())
            if self._inode not in (None, now.st_ino):
                lines += self._rest()
            if self._inode != now.st_ino or now.st_size < self._end:
                self._end = 0
            self._inode = now.st_ino
            content = _from(file.fileno(), self._end, now.st_size)
        self._end = now.st_size - (len(content) - 1 - content.rfind(b"\n"))
        return lines + _lines(content)

    def _rest(self) -> list[str]:
        """Read what had been added before the file was renamed, as logrotate does it."""
        try:
            with _opened(self._path.with_name(f"{self._path.name}.1")) as file:
                now = os.fstat(file.fileno())
                if now.st_ino == self._inode:
                    return _lines(_from(file.fileno(), self._end, now.st_size))
        except (OSError, ValueError):
            pass
        return []


def _opened(path: Path) -> BinaryIO:
    """Open a regular file; who may put another kind of file there must not make us wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("not a regular file")
    return os.fdopen(descriptor, "rb")


def _from(descriptor: int, begin: int, end: int) -> bytes:
    """Read from `begin`, or the last MiB from the first whole line on."""
    start = max(begin, end - _LARGEST_BYTES)
    content = os.pread(descriptor, end - start, start)
    return content if start == begin else content.partition(b"\n")[2]


def _lines(content: bytes) -> list[str]:
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines()
