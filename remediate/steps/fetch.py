"""Getting an archive: from the release address or from a file, within bounds, hashed as it comes."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests

from remediate.journal import Outcome
from remediate.steps import StepError

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, where it is known."""

ASSET_HOSTS = frozenset({"objects.githubusercontent.com", "release-assets.githubusercontent.com"})
"""Where GitHub's release addresses redirect to."""
SIZE_LIMIT = 512 << 20
_CHUNK = 256 << 10
_STALL_SECONDS = 30.0
_REDIRECTS = 5
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
    deadline = time.monotonic() + seconds
    with _answer(url) as response:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdecimal() else None
        if total is not None and total > SIZE_LIMIT:
            raise _later(f"{url}: {total} bytes announced, at most {SIZE_LIMIT} are taken")
        archive = _copy(_parts(response, url), into, url, total, deadline, progress)
    if total is not None and archive.size != total:
        raise _later(f"{url}: {archive.size} bytes came of the {total} announced")
    return archive


def take(path: Path, into: BinaryIO, *, progress: Progress) -> Archive:
    """Copy a local archive, so that it cannot change once it was verified.

    Raises:
        StepError: unreadable, or no archive.
    """
    try:
        with path.open("rb") as source:
            size = path.stat().st_size
            return _copy(iter(lambda: source.read(_CHUNK), b""), into, str(path), size, None, progress)
    except StepError as error:
        raise StepError(Outcome.FAILED, error.detail) from None
    except OSError as error:
        raise StepError(Outcome.FAILED, f"{path}: cannot be read: {error.strerror}") from None


def _copy(
    parts: Iterator[bytes],
    into: BinaryIO,
    source: str,
    total: int | None,
    deadline: float | None,
    progress: Progress,
) -> Archive:
    digest = hashlib.sha256()
    size = 0
    for part in parts:
        if size == 0 and not part.startswith(_ZIP[: len(part)]):
            raise _later(f"{source}: not a zip archive, it begins with {part[:16]!r}")
        size += len(part)
        if size > SIZE_LIMIT:
            raise _later(f"{source}: more than {SIZE_LIMIT} bytes")
        if deadline is not None and time.monotonic() > deadline:
            raise _later(f"{source}: not finished in time, {size} bytes came")
        digest.update(part)
        into.write(part)
        progress(size, total)
    into.flush()
    if size == 0:
        raise _later(f"{source}: empty")
    return Archive(digest.hexdigest(), size)


def _parts(response: requests.Response, url: str) -> Iterator[bytes]:
    """Yield what each receive brings: a larger read would let a trickle outlast every deadline."""
    try:
        while part := response.raw.read1(_CHUNK):
            yield part
    except Exception as error:  # urllib3 raises its own, http.client's and the socket's errors here
        raise _later(f"{url}: broke off: {error}") from None


@contextmanager
def _answer(url: str) -> Iterator[requests.Response]:
    """Follow redirects to the same host or GitHub's asset hosts, and to no other."""
    origin = urlsplit(url)
    with requests.Session() as session:
        for _ in range(_REDIRECTS):
            try:
                response = session.get(
                    url,
                    stream=True,
                    allow_redirects=False,
                    timeout=(_STALL_SECONDS, _STALL_SECONDS),
                    headers={"Accept-Encoding": "identity"},
                )
            except (requests.RequestException, ValueError) as error:
                # ValueError: requests parses a redirect's address even when it is told not to follow it
                raise _later(f"{url}: {error}") from None
            with response:
                if not response.is_redirect:
                    if response.status_code != requests.codes.ok:
                        raise _later(f"{url}: answered {response.status_code}, expected 200")
                    yield response
                    return
                location = response.headers["Location"]
            try:
                url = urljoin(url, location)
                place = urlsplit(url)
            except ValueError:
                raise _later(f"{url}: redirected to {location[:200]!r}, which is no address") from None
            ours = (place.scheme, place.netloc) == (origin.scheme, origin.netloc)
            if not ours and not (place.scheme == "https" and place.hostname in ASSET_HOSTS):
                raise _later(f"redirected to {url[:200]!r}, which is neither {origin.netloc} nor GitHub's asset host")
        raise _later(f"{url}: more than {_REDIRECTS} redirects")


def _later(detail: str) -> StepError:
    return StepError(Outcome.LATER, detail)
