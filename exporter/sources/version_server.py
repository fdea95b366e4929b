"""The allowed versions, fetched from the version server rarely and kept for when it cannot be reached."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Lock

from exporter.allowed import AllowedVersions, DocumentError, parse_document
from exporter.cache import Cache
from exporter.cadence import Minimums
from exporter.sources.http import get
from exporter.status import Failure, FailureReason

logger = logging.getLogger(__name__)

_CACHE_FILE = "allowed-versions.json"
_RETRY_SECONDS = 30
_FETCH_SHARE = 0.8
"""Of the time there is: what is left must do to give the last known good to all who wait."""


class VersionServer:
    """One document for all nodes: at most one fetch in `refresh`, and the last known good until it is `max_age` old.

    With `fresh`, every reading is a fetch, nothing older is ever given instead, and the cache is left alone.
    """

    def __init__(
        self,
        url: str,
        *,
        refresh: timedelta,
        max_age: timedelta,
        cache_dir: Path | None,
        fresh: bool = False,
        keep: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._refresh_seconds = 0.0 if fresh else refresh.total_seconds()
        self._max_age_seconds = 0.0 if fresh else max_age.total_seconds()
        self._cache = Cache(None if fresh else cache_dir, keep=keep)
        self._minimums = Minimums(self._cache, url)
        self._clock = clock
        self._lock = Lock()
        self._known: AllowedVersions | None = None
        self._loaded = False
        self._failure: tuple[float, Failure] | None = None

    def read(self, timeout: float) -> AllowedVersions | Failure:
        """Give the allowed versions; whoever comes while another fetches waits for that fetch and shares it."""
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            return Failure(FailureReason.BUSY, f"{self._url}: still being fetched")
        try:
            return self._read(deadline - time.monotonic())
        finally:
            self._lock.release()

    def _read(self, timeout: float) -> AllowedVersions | Failure:
        if not self._loaded:
            self._loaded = True
            self._known = self._load()
        if self._known is not None and self._age(self._known.fetched) < self._refresh_seconds:
            return self._known
        retry_seconds = min(self._refresh_seconds, _RETRY_SECONDS)
        if self._failure is not None and self._age(self._failure[0]) < retry_seconds:
            return self._fall_back(self._failure[1])
        fetched = self._fetch(timeout * _FETCH_SHARE)
        if isinstance(fetched, Failure):
            self._failure = (self._clock(), fetched)
            logger.warning("allowed versions could not be fetched", extra={"reason": str(fetched)})
            return self._fall_back(fetched)
        self._known, self._failure = fetched, None
        return fetched

    def _fetch(self, timeout: float) -> AllowedVersions | Failure:
        answer = get(self._url, timeout)
        if isinstance(answer, Failure):
            return answer
        fetched = self._clock()
        try:
            allowed = parse_document(answer.body, fetched=fetched)
        except DocumentError as error:
            return Failure(FailureReason.MALFORMED, f"{self._url}: {error}")
        self._cache.write(_CACHE_FILE, {"url": self._url, "fetched": fetched, "document": answer.body.decode()})
        self._minimums.note(allowed)
        return allowed

    def _fall_back(self, failure: Failure) -> AllowedVersions | Failure:
        if self._known is None or self._max_age_seconds == 0:
            return failure
        age = self._age(self._known.fetched)
        if age < self._max_age_seconds:
            return self._known
        when = f"{age / 3600:.0f} hours ago" if age < float("inf") else "in the future, as the clock now has it"
        return Failure(FailureReason.STALE, f"last fetched {when}; since then {failure}")

    def _load(self) -> AllowedVersions | None:
        match self._cache.read(_CACHE_FILE):
            case None:
                return None
            case {"url": str(url), "fetched": float(fetched), "document": str(document)}:
                if url != self._url:
                    return None
                try:
                    return parse_document(document.encode(), fetched=fetched)
                except DocumentError as error:
                    reason = str(error)
            case _:
                reason = "it is no document with its address and time"
        self._cache.spoiled(_CACHE_FILE, reason)
        return None

    def _age(self, time: float) -> float:
        """Return seconds since then; for ever when that lies in the future, since then a clock was set."""
        age = self._clock() - time
        return age if age >= 0 else float("inf")
