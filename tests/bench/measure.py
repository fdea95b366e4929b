"""Measuring: a rename as the kernel reports it, a command's time and memory, a process's memory at rest."""

import ctypes
import os
import select
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")


class Renames:
    """Notes when a file is renamed to a name in a folder, on the system's monotonic clock; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seen: list[float] = []

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(self._path.parent), _IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._fd)

    def _listen(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._fd], [], [], 0.05)[0]:
                continue
            now, events = time.monotonic(), os.read(self._fd, 1 << 16)
            while events:
                length = _EVENT.unpack_from(events)[3]
                name, events = events[_EVENT.size : _EVENT.size + length], events[_EVENT.size + length :]
                if name.rstrip(b"\0") == os.fsencode(self._path.name):
                    self.seen.append(now)


@dataclass(frozen=True, slots=True)
class Finished:
    """How long a command took, in seconds, and its largest resident set, in MiB."""

    seconds: float
    peak_mib: float


def finish(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end; its children's memory is not counted, only the largest single process.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    began = time.monotonic()
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode != 0:
        raise RuntimeError(f"{argv[0]}: exit status {process.returncode}: {said.decode(errors='replace')[-2000:]}")
    return Finished(seconds, usage.ru_maxrss / 1024)


def resident_mib(pid: int) -> float:
    """Say how much memory of a process is resident now, in MiB."""
    return _status(pid, "VmRSS") / 1024


def peak_mib(pid: int) -> float:
    """Say how much memory of a process was resident at most, in MiB."""
    return _status(pid, "VmHWM") / 1024


def threads(pid: int) -> int:
    """Say how many threads a process has now."""
    return _status(pid, "Threads")


def p50_p99(seconds: Sequence[float]) -> str:
    """Say the median and the 99th percentile, in ms."""
    worst = statistics.quantiles(seconds, n=100, method="inclusive")[-1]
    return f"p50 {statistics.median(seconds) * 1000:.1f} ms, p99 {worst * 1000:.1f} ms"


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
