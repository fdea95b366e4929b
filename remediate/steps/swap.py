"""Putting the new binary in the old one's place: the folder looked at, the swap itself, and what it leaves behind."""

import errno
import fcntl
import logging
import os
import stat
import struct
from collections.abc import Iterator
from enum import StrEnum

from exporter.sources.binary import Execute
from exporter.version import NodeVersion
from remediate.files import Directory, dress
from remediate.journal import Inode, Outcome
from remediate.steps import StepError
from remediate.steps.probe import probe

logger = logging.getLogger(__name__)

_GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16
"""FS_IOC_GETFLAGS, of linux/fs.h."""
_PROTECTED = 0x10 | 0x20
"""FS_IMMUTABLE_FL and FS_APPEND_FL."""
_ROOM = 2
"""Times the old binary: the new one, and a copy of the old one where hard links are refused."""


def inode(directory: Directory, name: str) -> Inode | None:
    """Say which file a name stands for."""
    status = directory.stat(name)
    return None if status is None else Inode(status.st_dev, status.st_ino)


class Obstacle(StrEnum):
    """What in a folder keeps a new binary from taking the old one's place."""

    NO_FILE = "no_file"
    PROTECTED = "protected"
    IN_THE_WAY = "in_the_way"
    NOEXEC = "noexec"
    NO_ROOM = "no_room"
    NOT_WRITABLE = "not_writable"


def obstacles(directory: Directory, name: str, staged: str, backup: str) -> Iterator[tuple[Obstacle, str]]:
    """Look for what stands in the way of a new binary, as far as that is seen without writing anything.

    Raises:
        OSError: the binary cannot be opened.
    """
    where = directory.path
    status = directory.stat(name)
    if status is None or not stat.S_ISREG(status.st_mode):
        yield Obstacle.NO_FILE, f"{where / name}: no regular file any more"
        return
    if _protected(directory, name):
        yield Obstacle.PROTECTED, f"{where / name}: may not be replaced, it is immutable or append-only (chattr)"
    for leftover in (staged, backup):
        if (found := directory.stat(leftover)) is not None and stat.S_ISDIR(found.st_mode):
            yield Obstacle.IN_THE_WAY, f"{where / leftover}: is a directory, and has to go first"
    system = os.fstatvfs(directory.fd)
    if system.f_flag & os.ST_NOEXEC:
        yield Obstacle.NOEXEC, f"{where}: its file system is mounted noexec, nothing there can be run"
    free, needed = system.f_bavail * system.f_frsize, _ROOM * status.st_size
    if free < needed:
        yield Obstacle.NO_ROOM, f"{where}: {free} bytes are free, {needed} are needed"
    problem = None
    if system.f_flag & os.ST_RDONLY:
        problem = errno.EROFS
    elif _flags(directory.fd) & _PROTECTED:
        problem = errno.EPERM
    elif not os.access(".", os.W_OK | os.X_OK, dir_fd=directory.fd, effective_ids=True):
        problem = errno.EACCES
    if problem is not None:
        yield Obstacle.NOT_WRITABLE, f"{where}: cannot be written: {os.strerror(problem)}"


def check(directory: Directory, name: str, staged: str, backup: str) -> None:
    """Look whether the folder can take a new binary, before anything is fetched.

    Raises:
        StepError: it cannot, and why.
    """
    where = directory.path
    for obstacle, detail in obstacles(directory, name, staged, backup):
        raise StepError(Outcome.ABANDONED if obstacle is Obstacle.NO_FILE else Outcome.FAILED, detail)
    try:
        if directory.remove(staged):
            logger.warning("removed a leftover", extra={"file": str(where / staged)})
        os.close(directory.create(staged, 0o600))
        directory.remove(staged)
    except OSError as error:
        raise StepError(Outcome.FAILED, f"{where}: cannot be written: {error.strerror}") from None


def dress_like(directory: Directory, name: str, old: Inode, new: int) -> None:
    """Give the new binary what the old one has, and make it durable.

    Raises:
        StepError: the old one is another by now, or an attribute could not be carried over.
    """
    like = directory.open(name)
    try:
        if _inode_of(like) != old:
            raise StepError(Outcome.ABANDONED, f"{directory.path / name}: somebody has changed it meanwhile")
        dress(new, like=like)
        os.fsync(new)
        directory.sync()
    except OSError as error:
        problem = f"owner, mode or attributes of {name} cannot be given to the new one: {error.strerror}"
        raise StepError(Outcome.FAILED, f"{directory.path}: {problem}") from None
    finally:
        os.close(like)


def swap(directory: Directory, name: str, staged: str, backup: str, new: int) -> None:
    """Keep the old binary under a second name, then put the new one in its place by one rename.

    Raises:
        StepError: the staged file is not the one that was probed, or a name could not be made.
    """
    if inode(directory, staged) != _inode_of(new):
        raise StepError(Outcome.FAILED, f"{directory.path / staged}: is not the file that was probed")
    try:
        directory.remove(backup)
        directory.link(name, backup)
        directory.sync()
        directory.rename(staged, name)
        directory.sync()
    except OSError as error:
        raise StepError(
            Outcome.FAILED, f"{directory.path}: cannot swap: {os.strerror(error.errno or errno.EIO)}"
        ) from None


def read_back(directory: Directory, name: str, target: NodeVersion, execute: Execute) -> None:
    """Make the swap durable, and hear the target from the binary's own path.

    Raises:
        StepError: the binary in place does not say that it is the target.
    """
    try:
        directory.sync()
        fd = directory.open(name)
    except OSError as error:
        raise StepError(Outcome.UNREADABLE, f"{directory.path / name}: in place, but {error.strerror}") from None
    try:
        probe(fd, target, execute)
    except StepError as error:
        raise StepError(Outcome.UNREADABLE, f"{directory.path / name}: in place, but {error.detail}") from None
    finally:
        os.close(fd)


def prune(directory: Directory, prefix: str, keep: str) -> list[str]:
    """Remove backups but one; what cannot be removed does no harm, and stays."""
    removed = []
    for name in os.listdir(directory.fd):
        if name.startswith(prefix) and name != keep:
            try:
                directory.remove(name)
            except OSError as error:
                logger.warning("not removed", extra={"file": str(directory.path / name), "problem": error.strerror})
            else:
                removed.append(name)
    return removed


def _protected(directory: Directory, name: str) -> bool:
    """Whether even root may not put another file in this one's place."""
    fd = directory.open(name)
    try:
        return bool(_flags(fd) & _PROTECTED)
    finally:
        os.close(fd)


def _flags(fd: int) -> int:
    """Read the attributes that chattr sets; not every file system has any."""
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(struct.calcsize("l"))))
    except OSError:
        return 0
    return int(flags)


def _inode_of(fd: int) -> Inode:
    status = os.fstat(fd)
    return Inode(status.st_dev, status.st_ino)
