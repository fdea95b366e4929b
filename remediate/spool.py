"""Requests on disk: an empty file named after a node asks for that node to be remediated.

The directory is the whole interface between what listens and what acts. The listener may only create in it; the worker
believes a name it knows and nothing else, so it opens nothing there: a name is looked up without following links, and
whatever is no request is taken away. There is no content, so none can be half-written, or forged.
"""

import errno
import logging
import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

logger = logging.getLogger(__name__)

LOOKED_AT = 1000
"""How many entries `pending` looks at."""
SWEPT = 100_000
"""How many entries one `take` sweeps; a million strangers are gone after ten."""
_DOT_SECONDS = 3600


class Spool:
    """The directory of requests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, node: str) -> bool:
        """Ask for a node durably; False when it was asked for already.

        Raises:
            OSError: it could not be stored.
        """
        with self._opened() as directory:
            try:
                file = os.open(node, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
            except FileExistsError:
                os.fsync(directory)  # whoever made it may have died before doing so
                return False
            try:
                os.fsync(file)
            finally:
                os.close(file)
            os.fsync(directory)
            return True

    def pending(self) -> list[str]:
        """Name what is there, requests or not, but for names that begin with a dot: what systemd starts the worker for.

        Looks at 1000 entries at most.

        Raises:
            OSError: the directory cannot be read.
        """
        with os.scandir(self.directory) as entries:
            return [entry.name for entry in islice(entries, LOOKED_AT) if not entry.name.startswith(".")]

    def take(self, known: Collection[str], limit: int = 1000) -> list[str]:
        """Name the known nodes asked for, oldest request first, and remove whatever is no request.

        The requests stay until `done`, so that one which arrives meanwhile falls on the one being worked.
        They are looked up by name, before anything is swept: no number of strangers keeps them waiting.

        Raises:
            OSError: the directory cannot be read or written.
        """
        with self._opened() as directory:
            found: list[tuple[int, str]] = []
            for node in known:
                try:
                    status = os.stat(node, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, node))
            self._sweep(directory, known)
        return [node for _, node in sorted(found)[:limit]]

    def done(self, node: str) -> None:
        """Remove a node's request, durably.

        Raises:
            OSError: it could not be removed.
        """
        with self._opened() as directory:
            try:
                os.unlink(node, dir_fd=directory)
            except FileNotFoundError:
                return
            os.fsync(directory)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield directory
        finally:
            os.close(directory)

    def _sweep(self, directory: int, known: Collection[str]) -> None:
        removed = 0
        examples: list[str] = []
        now = time.time()
        with os.scandir(directory) as entries:
            for entry in islice(entries, SWEPT):
                try:
                    if _belongs(entry, known, now):
                        continue
                    _remove(entry.name, directory)
                except FileNotFoundError:
                    continue
                removed += 1
                if len(examples) < 3:
                    examples.append(ascii(entry.name)[:80])
        if removed:
            logger.warning("removed from the spool what is no request", extra={"count": removed, "examples": examples})


def _belongs(entry: os.DirEntry[str], known: Collection[str], now: float) -> bool:
    """Tell a request, or a name nobody is started for that is not an hour old."""
    if entry.name.startswith("."):
        return now - entry.stat(follow_symlinks=False).st_mtime < _DOT_SECONDS
    return entry.name in known and entry.is_file(follow_symlinks=False)


def _remove(name: str, directory: int) -> None:
    """Remove an entry, whatever it is; a directory that is not empty is renamed so that it starts nobody."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            if not name.startswith("."):
                os.rename(name, f".{time.time_ns()}", src_dir_fd=directory, dst_dir_fd=directory)
