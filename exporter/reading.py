"""A source is read on a thread that is not ours, so that one that hangs costs its own reading and nothing else."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

from exporter.status import Failure, FailureReason

logger = logging.getLogger(__name__)

_THREADS = 4
_TICK_SECONDS = 0.005

T = TypeVar("T")


class Pending(Generic[T]):
    """A reading that is to be made, or is under way."""

    def __init__(self, reading: "Reading[T] | None", timeout: float) -> None:
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self._reading = reading
        self._future: Future[tuple[T | Failure, float]] = Future()
        if reading is None:
            self._future.set_result((Failure(FailureReason.BUSY, "still occupied with the reading before"), 0.0))

    def run(self) -> None:
        """Make it; nothing is asked once the deadline has passed."""
        if self._reading is not None:
            self._reading.make(self.deadline, self._future)

    def result(self, deadline: float = inf) -> tuple[T | Failure, float]:
        """Wait until its deadline at most, or an earlier one; return what was read, and how many seconds it took."""
        began = self.deadline - self.timeout
        deadline = min(deadline, self.deadline)
        try:
            return self._future.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            seconds = max(deadline - began, 0.0)
            return Failure(FailureReason.TIMEOUT, f"no answer within {seconds:.3g} s"), seconds


class Reading(Generic[T]):
    """Reads a source, never twice at the same time: while it is busy it is not asked again."""

    def __init__(self, read: Callable[[float], T | Failure]) -> None:
        self._read = read
        self._busy = Lock()

    def prepare(self, timeout: float) -> Pending[T]:
        """Get ready to read, with `timeout` seconds from now to finish in; it has to be run."""
        return Pending(self if self._busy.acquire(blocking=False) else None, timeout)

    def start(self, timeout: float) -> Pending[T]:
        """Begin to read on a thread of its own."""
        pending = self.prepare(timeout)
        # A daemon, since a thread that is stuck in the kernel must not keep the program from ending.
        Thread(target=pending.run, daemon=True).start()
        return pending

    def make(self, deadline: float, future: "Future[tuple[T | Failure, float]]") -> None:
        """Read, and put what was read, and how many seconds that took, into the future."""
        began = time.monotonic()
        try:
            if began >= deadline:
                return
            value = self._read(deadline - began)
        except Exception as error:
            logger.exception("a source failed in a way nobody thought of")
            value = Failure(FailureReason.UNEXPECTED, f"{type(error).__name__}: {error}")
        finally:
            self._busy.release()
        future.set_result((value, time.monotonic() - began))


def run_all(readings: Sequence[Pending[Any]]) -> None:
    """Run readings side by side, and return once all are under way or the deadline has passed.

    A few threads share them, since threads by the hundred cost more than what they do. When those do not get on,
    because what they read hangs, as many join them, until each reading that hangs has a thread of its own.
    """
    left, all_taken = deque(readings), Event()

    def work() -> None:
        while left:
            try:
                reading = left.popleft()
            except IndexError:
                break
            reading.run()
        all_taken.set()

    deadline = max((reading.deadline for reading in readings), default=0.0)
    threads = 0
    more = _THREADS
    while left and time.monotonic() < deadline:
        before = len(left)
        with suppress(RuntimeError):  # no more threads are allowed to us: who has one goes on
            for _ in range(min(more, before)):
                Thread(target=work, daemon=True).start()
        threads += more
        all_taken.wait(_TICK_SECONDS)
        more = threads if before - len(left) < threads else 0
    work()
