"""The only module that writes files durably. A directory is opened once and worked in by its descriptor.

A directory may belong to the node's user, who can put symlinks there or move it away at any moment: nothing here
follows a link in the last component, and nothing is looked up by path after the directory was opened.
"""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

_LINK_REFUSED = frozenset({errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})
_COPY_CHUNK = 1 << 20


class Directory:
    """An open directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self.fd)

    def in_place(self) -> bool:
        """Whether it is where its path says, and was reached over no symlink; only for a path that has none."""
        try:
            return os.readlink(f"/proc/self/fd/{self.fd}") == str(self.path)  # noqa: PTH115
        except OSError:
            return False

    def stat(self, name: str) -> os.stat_result | None:
        """Look at an entry without following it; None where there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str) -> int:
        """Open a regular file for reading, never through a symlink, never waiting for a fifo."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path / name))
        return fd

    def create(self, name: str, mode: int) -> int:
        """Create a file that must not exist yet, open for reading and writing; the mode ignores the umask."""
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        os.fchmod(fd, mode)
        return fd

    def remove(self, name: str) -> bool:
        """Remove an entry; a symlink goes, what it names stays. False where there was none."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True

    def link(self, name: str, other: str) -> None:
        """Give a file a second name, by hard link or, where links are refused, by a durable copy."""
        try:
            os.link(name, other, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _LINK_REFUSED:
                raise
            self._copy(name, other)

    def rename(self, name: str, over: str) -> None:
        """Put a file in the place of another, in one step."""
        os.rename(name, over, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def sync(self) -> None:
        """Make names durable; file systems that cannot sync a directory say EINVAL, and keep names otherwise."""
        try:
            os.fsync(self.fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def _copy(self, name: str, other: str) -> None:
        source = self.open(name)
        try:
            status = os.fstat(source)
            target = self.create(other, stat.S_IMODE(status.st_mode))
            try:
                while os.sendfile(target, source, None, _COPY_CHUNK):
                    pass
                dress(target, like=source)
                os.fsync(target)
            finally:
                os.close(target)
        finally:
            os.close(source)


def dress(fd: int, *, like: int) -> None:
    """Give a file the owner, mode and extended attributes (labels, capabilities, ACLs) of another.

    The set-user-ID and set-group-ID bits are left out: no node needs them. Owner first, since changing it clears
    capabilities.

    Raises:
        OSError: an attribute could not be carried over.
    """
    status = os.fstat(like)
    if (status.st_uid, status.st_gid) != (os.fstat(fd).st_uid, os.fstat(fd).st_gid):
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o1777)
    try:
        names = os.listxattr(like)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []
    for name in names:
        value = os.getxattr(like, name)
        if name not in os.listxattr(fd) or os.getxattr(fd, name) != value:
            os.setxattr(fd, name, value)


def real_path(path: Path) -> Path:
    """Follow the symlinks in a path, if they are root's, ours, or of whoever owns the folder that they lead to.

    Anybody else's could turn what we do in his folder against a folder of root's.

    Raises:
        OSError: a link of somebody else's, too many, or nothing there.
    """
    real, ahead = Path("/"), list(reversed(path.parts[1:]))
    followed: dict[Path, int] = {}
    while ahead:
        name = ahead.pop()
        here = real.parent if name == ".." else real / name
        status = here.lstat()
        if not stat.S_ISLNK(status.st_mode):
            real = here
            continue
        if here in followed:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(here))
        followed[here] = status.st_uid
        target = here.readlink()
        real = Path("/") if target.is_absolute() else real
        ahead += reversed([part for part in target.parts if part != "/"])
    trusted = {0, os.geteuid(), real.parent.stat().st_uid}
    for link, owner in followed.items():
        if owner not in trusted:
            raise OSError(errno.EPERM, f"is a link of user {owner}, into a folder that is not that user's", str(link))
    return real


def folder_of(binary: Path, names: Iterable[Path] = ()) -> Directory:
    """Open the folder of a binary by its real path, if that and each other name of it still lead there.

    Raises:
        OSError: they do not, or there is none.
    """
    for name in names:
        if real_path(name) != binary:
            raise OSError(errno.ENOENT, "leads elsewhere now", str(name))
    directory = Directory(binary.parent)
    if not directory.in_place():
        os.close(directory.fd)
        raise OSError(errno.ENOTDIR, "is elsewhere now", str(directory.path))
    return directory


def replace(path: Path, content: bytes, *, mode: int) -> None:
    """Write a whole file durably: a reader sees the old content or the new, also after a power cut."""
    with Directory(path.parent) as directory:
        temporary = f".{path.name}.new"
        directory.remove(temporary)
        fd = directory.create(temporary, mode)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(fd)
        finally:
            os.close(fd)
        directory.rename(temporary, path.name)
        directory.sync()
