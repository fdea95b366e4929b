"""Getting an archive: from the release address or from a file, within bounds, hashed as it comes."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from remediate.journal import Outcome
from remediate.steps import StepError
from remediate.steps.exchange import CHUNK, ask, later

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, where it is known."""

SIZE_LIMIT = 512 << 20
_OK = 200
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Archive:
    """What has been fetched."""

    sha256: str
    size: int


def fetch(url: str, into: BinaryIO, *, seconds: float, progress: Progress) -> Archive:
    """Download an archive into a file.

    Args:
        url: https, or http to this very machine; the configuration has seen to that.
        into: an empty file.
        seconds: limit for the whole download.
        progress: told of every part.

    Raises:
        StepError: anything that is the network's or the server's fault, which is to be tried later.
    """
    with ask(url, seconds) as answer:
        if answer.status != _OK:
            raise later(f"{answer.url}: answered {answer.status}, expected {_OK}")
        if answer.total is not None and answer.total > SIZE_LIMIT:
            raise later(f"{answer.url}: {answer.total} bytes announced, at most {SIZE_LIMIT} are taken")
        return _copy(answer.parts, into, answer.url, answer.total, progress)


def take(path: Path, into: BinaryIO, *, progress: Progress) -> Archive:
    """Copy a local archive, so that it cannot change once it was verified.

    Raises:
        StepError: unreadable, or no archive.
    """
    try:
        with path.open("rb") as source:
            size = path.stat().st_size
            return _copy(iter(lambda: source.read(CHUNK), b""), into, str(path), size, progress)
    except StepError as error:
        raise StepError(Outcome.FAILED, error.detail) from None
    except OSError as error:
        raise StepError(Outcome.FAILED, f"{path}: cannot be read: {error.strerror}") from None


def _copy(parts: Iterator[bytes], into: BinaryIO, source: str, total: int | None, progress: Progress) -> Archive:
    digest = hashlib.sha256()
    size = 0
    for part in parts:
        if size == 0 and not part.startswith(_ZIP[: len(part)]):
            raise later(f"{source}: not a zip archive, it begins with {part[:16]!r}")
        size += len(part)
        if size > SIZE_LIMIT:
            raise later(f"{source}: more than {SIZE_LIMIT} bytes")
        digest.update(part)
        into.write(part)
        progress(size, total)
    into.flush()
    if size == 0:
        raise later(f"{source}: empty")
    return Archive(digest.hexdigest(), size)
