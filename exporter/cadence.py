"""How fast the network's minimum rises: from what has been seen of it, else from upstream's usual pace."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.allowed import STORAGENODE, AllowedVersions
from exporter.cache import Cache
from exporter.status import DAY
from exporter.version import NodeVersion, VersionError

_USUAL_DAYS = 14.0
"""Between two minor releases of storj/storj, v1.96 (January 2024) to v1.162 (August 2026); the minimum follows them."""
_RAISES = 3
_SPAN_DAYS = 28.0
"""As many, and over as long a time, have to be seen before they say anything."""
_JUMP_MINORS = 10
"""A raise by more at once, and one more for each usual pace since, is not the pace of releases."""
_FILE = "minimums.json"
_KEEP = 60

Seen = tuple[NodeVersion, float]
"""A minimum, and when it was first seen, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How fast the minimum rises, in minor releases."""

    days: float
    """For one."""
    largest: int = 1
    """So many came at once."""
    raises: int = 0
    """That were seen; 0 when it is upstream's usual pace."""

    def __str__(self) -> str:
        at_once = f" and up to {self.largest} at once" if self.largest > 1 else ""
        source = f"as {self.raises} raises seen say" if self.raises else "upstream's usual pace"
        return f"one in {self.days:.0f} days{at_once}, {source}"


def cadence(seen: Sequence[Seen]) -> Cadence:
    """Learn the pace from minimums in the order in which they were seen.

    The first was seen when somebody began to look, not when it was raised to that: it only tells the size of the next.
    """
    sizes: list[int] = []
    timed: list[tuple[int, float]] = []
    for number, ((before, when), (after, then)) in enumerate(pairwise(seen)):
        minors, days = after.minor - before.minor, (then - when) / DAY
        if after.major == before.major and days > 0 and 0 < minors <= most_minors(then - when):
            sizes.append(minors)
            if number > 0:
                timed.append((minors, days))
    minors, days = sum(minors for minors, _ in timed), sum(days for _, days in timed)
    if len(sizes) < _RAISES or days < _SPAN_DAYS:
        return Cadence(_USUAL_DAYS)
    return Cadence(days / minors, max(sizes), len(sizes))


def most_minors(seconds: float) -> float:
    """Say by how many minor releases a minimum may rise within so long a time; by more, it is not to be believed."""
    return _JUMP_MINORS + max(seconds, 0.0) / DAY // _USUAL_DAYS


class Minimums:
    """What was seen of the minimum of one version server, kept on disk."""

    def __init__(self, cache: Cache, url: str) -> None:
        self._cache = cache
        self._url = url
        self.seen = _kept(cache, url)

    def note(self, allowed: AllowedVersions) -> None:
        """Remember a minimum when it has risen by a minor release, and forget those it has fallen back from.

        One that makes no sense is not noted; one that was a mistake is put right by the server some day.
        """
        process = allowed.processes[STORAGENODE]
        minimum = process.minimum.version
        if not process.consistent:
            return
        seen = [each for each in self.seen if _release(each[0]) <= _release(minimum)]
        if not seen or _release(seen[-1][0]) < _release(minimum):
            seen.append((minimum, allowed.fetched))
        if seen != self.seen:
            self.seen = seen[-_KEEP:]
            kept = [[str(version), when] for version, when in self.seen]
            self._cache.write(_FILE, {"url": self._url, "seen": kept})


def _release(version: NodeVersion) -> tuple[int, int]:
    return version.major, version.minor


def _kept(cache: Cache, url: str) -> list[Seen]:
    seen: list[Seen] = []
    kept = cache.read(_FILE)
    match kept:
        case None:
            return []
        case {"url": str(of), "seen": list(entries)}:
            try:
                seen = [(NodeVersion.parse(version), float(when)) for version, when in entries]
            except (VersionError, ValueError, TypeError, AttributeError):
                cache.spoiled(_FILE, "it is not a time for each version")
                return []
            return seen if of == url else []
    cache.spoiled(_FILE, "it is not an address with what was seen there")
    return []
