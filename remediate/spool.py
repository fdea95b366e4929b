"""Requests on disk: an empty file named after a node asks for that node to be remediated.

The directory is the whole interface between what listens and what acts. The listener may only create in it; the worker
believes a name it knows and nothing else, so it opens nothing there: a name is looked up without following links, and
whatever is no request is taken away. There is no content, so none can be half-written, or forged.
"""

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from itertools import islice
from pathlib import Path

from remediate.files import Directory

logger = logging.getLogger(__name__)

LOOKED_AT = 1000
"""How many entries `pending` names."""
SWEPT = 100_000
"""How many entries one `take` sweeps; a million strangers are gone after ten."""
_DOT_SECONDS = 3600
_OVERLOOKED = re.compile(r".*\.(old|new|bak|swp|(rpm|dpkg-|ucf-)[a-z]+)|aquota\.(user|group)")
"""What systemd takes for a backup (src/basic/path-util.c), and so starts nobody for."""


class Spool:
    """The directory of requests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, node: str) -> bool:
        """Ask for a node durably; False when it was asked for already.

        Raises:
            OSError: it could not be stored.
        """
        with Directory(self.directory) as directory:
            try:
                file = directory.create(_entry(node), 0o600)
            except FileExistsError:
                directory.sync()  # whoever made it may have died before doing so
                return False
            try:
                os.fsync(file)
            finally:
                os.close(file)
            directory.sync()
            return True

    def pending(self) -> list[str]:
        """Name what is there, requests or not, but for names that begin with a dot: what systemd starts the worker for.

        1000 at most.

        Raises:
            OSError: the directory cannot be read.
        """
        with os.scandir(self.directory) as entries:
            names = (entry.name.removesuffix("@") for entry in entries if not entry.name.startswith("."))
            return list(islice(names, LOOKED_AT))

    def take(self, known: Collection[str], limit: int = 1000) -> list[str]:
        """Name the known nodes asked for, oldest request first, and remove whatever is no request.

        The requests stay until `done`, so that one which arrives meanwhile falls on the one being worked.
        They are looked up by name, before anything is swept: no number of strangers keeps them waiting.

        Raises:
            OSError: the directory cannot be read or written.
        """
        with Directory(self.directory) as directory:
            seen = [(directory.stat(_entry(node)), node) for node in known]
            found = [(status.st_mtime_ns, node) for status, node in seen if status and stat.S_ISREG(status.st_mode)]
            _sweep(directory, frozenset(map(_entry, known)))
        return [node for _, node in sorted(found)[:limit]]

    def done(self, node: str) -> None:
        """Remove a node's request, durably.

        Raises:
            OSError: it could not be removed.
        """
        with Directory(self.directory) as directory:
            if _remove(_entry(node), directory):
                directory.sync()


def _entry(node: str) -> str:
    """Name the file of a request: as the node, but where systemd would overlook that."""
    return f"{node}@" if _OVERLOOKED.fullmatch(node) else node


def _sweep(directory: Directory, known: Collection[str]) -> None:
    """Remove what is no request, from the first entries the directory lists."""
    removed = 0
    examples: list[str] = []
    now = time.time()
    with os.scandir(directory.fd) as entries:
        for entry in islice(entries, SWEPT):
            if not _belongs(entry, known, now) and _remove(entry.name, directory):
                removed += 1
                if len(examples) < 3:
                    examples.append(ascii(entry.name)[:80])
    if removed:
        logger.warning("removed from the spool what is no request", extra={"count": removed, "examples": examples})


def _belongs(entry: os.DirEntry[str], known: Collection[str], now: float) -> bool:
    """Tell a request, or a name that nobody is started for and that is not an hour old."""
    if entry.name.startswith("."):
        try:
            return now - entry.stat(follow_symlinks=False).st_mtime < _DOT_SECONDS
        except FileNotFoundError:
            return True
    return entry.name in known and entry.is_file(follow_symlinks=False)


def _remove(name: str, directory: Directory) -> bool:
    """Remove an entry, whatever it is; a directory that is not empty gets a name that nobody is started for.

    What somebody changes at the same time is left for the next time.
    """
    with suppress(IsADirectoryError):
        return directory.remove(name)
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            os.rmdir(name, dir_fd=directory.fd)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            if name.startswith("."):
                return False
            directory.rename(name, f".{time.time_ns()}")
        return True
    return False
