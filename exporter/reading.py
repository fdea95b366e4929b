"""One source, read on a thread of its own, so that one that hangs costs its own reading and nothing else."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

from exporter.status import Failure, FailureReason

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Pending(Generic[T]):
    """A reading under way."""

    def __init__(self, future: "Future[tuple[T | Failure, float]] | None", deadline: float, timeout: float) -> None:
        self._future = future
        self._deadline = deadline
        self._timeout = timeout

    def result(self) -> tuple[T | Failure, float]:
        """Wait until the deadline at most; return what was read, and how many seconds it took."""
        if self._future is None:
            return Failure(FailureReason.BUSY, "still occupied with the reading before"), 0.0
        try:
            return self._future.result(max(self._deadline - time.monotonic(), 0))
        except TimeoutError:
            return Failure(FailureReason.TIMEOUT, f"no answer within {self._timeout:.3g} s"), self._timeout


class Reading(Generic[T]):
    """Reads a source, never twice at the same time: while it is busy it is not asked again."""

    def __init__(self, read: Callable[[float], T | Failure]) -> None:
        self._read = read
        self._busy = Lock()

    def start(self, timeout: float) -> Pending[T]:
        """Begin to read, with `timeout` seconds to finish in."""
        deadline = time.monotonic() + timeout
        if not self._busy.acquire(blocking=False):
            return Pending(None, deadline, timeout)
        future: Future[tuple[T | Failure, float]] = Future()
        # A daemon, since a thread that is stuck in the kernel must not keep the program from ending.
        Thread(target=self._run, args=(timeout, future), daemon=True).start()
        return Pending(future, deadline, timeout)

    def _run(self, timeout: float, future: "Future[tuple[T | Failure, float]]") -> None:
        began = time.monotonic()
        try:
            value = self._read(timeout)
        except Exception as error:
            logger.exception("a source failed in a way nobody thought of")
            value = Failure(FailureReason.UNEXPECTED, f"{type(error).__name__}: {error}")
        finally:
            self._busy.release()
        future.set_result((value, time.monotonic() - began))
