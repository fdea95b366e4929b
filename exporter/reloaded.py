"""Files that are read again once they have changed: tokens, keys, certificates."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from exporter.config import ConfigError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Reloaded(Generic[T]):
    """What some files say, read again once one of them has changed; what cannot be used leaves what was there.

    Raises:
        ConfigError: when it is made, if the files cannot be used.
    """

    def __init__(self, files: Sequence[Path], load: Callable[[], T]) -> None:
        self._files = files
        self._load = load
        self._stamps = self._stamp()
        self._value = load()

    def __call__(self) -> T:
        """Look at the files, and return what they say."""
        stamps = self._stamp()
        if stamps != self._stamps:
            self._stamps = stamps
            files = ", ".join(map(str, self._files))
            try:
                self._value = self._load()
                logger.info("changed files are in use", extra={"files": files})
            except ConfigError as error:
                logger.error("changed files cannot be used, what was read before stays", extra={"error": str(error)})
        return self._value

    def _stamp(self) -> list[tuple[int, ...] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # The time of change, not of modification: a permission that was missing may have been given.
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def read_secret(path: Path, expected: str) -> bytes:
    """Read a file of at most 64 KiB that not everybody should be able to read; warn when everybody is.

    Raises:
        ConfigError: unreadable.
    """
    content = read_file(path, expected)
    if path.stat().st_mode & 0o004:
        logger.warning("secret file is readable by everybody", extra={"file": str(path)})
    return content


def read_file(path: Path, expected: str) -> bytes:
    """Read the first 64 KiB of a file that has to be there.

    Raises:
        ConfigError: unreadable.
    """
    try:
        with path.open("rb") as file:
            return file.read(65536)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}, expected {expected}") from None
