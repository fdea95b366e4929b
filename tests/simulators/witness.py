"""Watch a path from a process of its own: every millisecond what it names, and every renaming in its folder."""

import ctypes
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.labs import TIED

REPOSITORY = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.001
IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE, IN_Q_OVERFLOW = 0x40, 0x80, 0x200, 0x4000
HEADER = struct.Struct("iIII")
"""The head of an inotify event: watch, what, cookie, length of the name that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen: the renamings, none left out, tell who took the name away, and the polls what a user would see."""

    polls: int
    """How often the path was opened, or tried to be."""
    absent: int
    """How often of these there was no file."""
    files: frozenset[tuple[str, int]]
    """SHA-256 and mode of every file that the path has named, each read whole when it was first seen."""
    taken_away: tuple[str, ...]
    """The names to which the path was renamed, in order; `(deleted)` where it was removed."""
    others: frozenset[str]
    """Every other name that was renamed or removed in the folder."""

    def assert_always(self, whole: Iterable[str]) -> None:
        """Demand that the path has always named one of these, by SHA-256, but between an updater's two renamings."""
        assert {sha256 for sha256, _ in self.files} <= set(whole), self
        assert all(mode & 0o111 == 0o111 for _, mode in self.files), self
        assert all(name.startswith("storagenode.old.v") for name in self.taken_away), "only an updater takes it away"
        assert self.taken_away or not self.absent, self
        assert self.polls > 100, self


class Witness:
    """Watch a path while the context lasts; `seen` is there afterwards."""

    seen: Seen

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        command = [*TIED, sys.executable, "-m", "tests.simulators.witness", str(self._path)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "watching\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        said, _ = self._process.communicate()
        if kind is None:
            seen = json.loads(said)
            self.seen = Seen(
                polls=seen["polls"],
                absent=seen["absent"],
                files=frozenset((sha256, mode) for sha256, mode in seen["files"]),
                taken_away=tuple(seen["taken_away"]),
                others=frozenset(seen["others"]),
            )


def watch(path: Path) -> None:
    """Watch until SIGTERM, then print what was seen."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK)
    if libc.inotify_add_watch(events, os.fsencode(path.parent), IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE) < 0:
        sys.exit(f"inotify: {os.strerror(ctypes.get_errno())}")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    digests: dict[tuple[int, ...], str] = {}
    readers: list[threading.Thread] = []
    noted = b""
    polls = absent = 0
    print("watching", flush=True)
    while not ended.is_set():
        polls += 1
        try:
            fd = os.open(path.name, os.O_RDONLY, dir_fd=folder)
        except FileNotFoundError:
            absent += 1
        else:
            status = os.fstat(fd)
            key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)
            if key in digests:
                os.close(fd)
            else:
                digests[key] = ""
                readers.append(threading.Thread(target=read, args=(fd, key, digests)))
                readers[-1].start()
        noted += pending(events)
        time.sleep(POLL_SECONDS)
    noted += pending(events)
    for reader in readers:
        reader.join()
    taken_away, others = renamed(noted, path.name)
    files = [(digest, key[-1] & 0o7777) for key, digest in digests.items()]
    print(json.dumps({"polls": polls, "absent": absent, "files": files, "taken_away": taken_away, "others": others}))


def read(fd: int, key: tuple[int, ...], digests: dict[tuple[int, ...], str]) -> None:
    with os.fdopen(fd, "rb") as file:
        digests[key] = hashlib.file_digest(file, "sha256").hexdigest()


def pending(events: int) -> bytes:
    try:
        return os.read(events, 1 << 16)
    except BlockingIOError:
        return b""


def renamed(noted: bytes, name: str) -> tuple[list[str], list[str]]:
    """Return what became of a name each time it was taken away, and the other names that were."""
    taken_away: dict[int, str] = {}
    others = set()
    at = 0
    while at < len(noted):
        _, what, cookie, length = HEADER.unpack_from(noted, at)
        at += HEADER.size
        entry = noted[at : at + length].rstrip(b"\0").decode()
        at += length
        if what & IN_Q_OVERFLOW:
            sys.exit("inotify: more happened than could be noted")
        if what & IN_MOVED_TO:
            if cookie in taken_away:
                taken_away[cookie] = entry
        elif entry != name:
            others.add(entry)
        elif what & IN_DELETE:
            taken_away[-at] = "(deleted)"
        else:
            taken_away[cookie] = "(moved elsewhere)"
    return list(taken_away.values()), sorted(others)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
