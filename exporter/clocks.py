"""Since when a node is not reached: followed from one look to the next, and kept on disk."""

import time
from dataclasses import asdict, replace

from exporter.cache import Cache
from exporter.status import (
    DOWN,
    Basis,
    Clock,
    Failure,
    FailureReason,
    RunningNode,
    ServiceState,
    ServiceStatus,
)

_NOT_RUNNING = DOWN | {ServiceState.MASKED, ServiceState.ABSENT}
_AWAY_SECONDS = 3600.0
"""How long nobody may have looked for what was known before to go on: nodes check in hourly."""
_FILE = "last-contact.json"
_SAVE_SECONDS = 600
"""Between two times that it is written to disk, which may take longer than a scrape."""


def follow(before: Clock | None, service: ServiceStatus, running: RunningNode | Failure, now: float) -> Clock | None:
    """Say since when nobody reaches a node, from what was known before and what is seen now; pure.

    When it stopped says little by itself: a loop, and each start that fails, ends anew. So what was known before
    goes on while the node is seen not to be reached, unless it was out of sight. What is unclear changes nothing.
    """
    if isinstance(running, RunningNode):
        if running.last_contact is not None:
            return Clock(running.last_contact, Basis.CONTACT, now)
        alone = running.started
    elif service.state in _NOT_RUNNING:
        alone = service.since
    elif service.state is ServiceState.UNKNOWN and running.reason is FailureReason.UNREACHABLE:
        alone = None
    else:
        return before
    alone = now if alone is None else min(alone, now)
    if before is not None and alone - _AWAY_SECONDS <= before.known <= now + _AWAY_SECONDS:
        return replace(before, known=now)
    hidden = service.state is ServiceState.UNKNOWN and isinstance(running, Failure)
    return before if hidden else Clock(alone, Basis.STOPPED, now)


class Clocks:
    """The clocks of all nodes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._clocks = _kept(cache)
        self._saved = dict(self._clocks)
        self._save_at = 0.0

    def follow(
        self, node: str, service: ServiceStatus, running: RunningNode | Failure, now: float
    ) -> tuple[Clock | None, float | None]:
        """Take in what is seen of a node; return its clock, unless it was out of sight, and the last contact known."""
        clock = follow(self._clocks.get(node), service, running, now)
        if clock is None:
            return None, None
        self._clocks[node] = clock
        in_sight = abs(now - clock.known) <= _AWAY_SECONDS
        return clock if in_sight else None, clock.since if clock.basis is Basis.CONTACT else None

    def save(self, *, at_once: bool = False) -> None:
        """Write what is known to disk if it was not written just now."""
        if (at_once or time.monotonic() >= self._save_at) and self._clocks != self._saved:
            self._saved = dict(self._clocks)
            self._save_at = time.monotonic() + _SAVE_SECONDS
            self._cache.write(_FILE, {node: asdict(clock) for node, clock in self._saved.items()})


def _kept(cache: Cache) -> dict[str, Clock]:
    """Take from the cache what is of the right kind; a mere number is a last contact, as it was kept before."""
    kept = cache.read(_FILE)
    clocks: dict[str, Clock] = {}
    for node, value in kept.items() if isinstance(kept, dict) else ():
        match value:
            case float():
                clocks[node] = Clock(value, Basis.CONTACT, value)
            case {"since": float(since), "basis": "contact" | "stopped" as basis, "known": float(known)}:
                clocks[node] = Clock(since, Basis(basis), known)
    if kept is not None and (not isinstance(kept, dict) or len(clocks) < len(kept)):
        cache.spoiled(_FILE, "it is not a time for each node")
    return clocks
