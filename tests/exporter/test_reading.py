import threading
import time

import pytest

from exporter.reading import Reading, run_all
from exporter.status import Failure, FailureReason


def reason(value: object) -> FailureReason:
    assert isinstance(value, Failure)
    return value.reason


def test_a_reading_and_how_long_it_took() -> None:
    def read(timeout: float) -> float:
        time.sleep(0.1)
        return timeout

    value, seconds = Reading(read).start(60).result()
    assert isinstance(value, float)
    assert 3 < value <= 60
    assert seconds >= 0.1


def test_a_source_that_hangs_costs_the_deadline_and_is_not_started_again() -> None:
    released, started = threading.Event(), []

    def read(timeout: float) -> str:
        started.append(timeout)
        released.wait()
        return "at last"

    reading = Reading(read)
    began = time.monotonic()
    pending = reading.start(0.2)
    value, seconds = pending.result()
    assert reason(value) is FailureReason.TIMEOUT
    assert seconds == pytest.approx(0.2)
    assert 0.2 <= time.monotonic() - began < 30
    assert reason(reading.start(60).result()[0]) is FailureReason.BUSY
    assert time.monotonic() - began < 30
    assert len(started) == 1
    released.set()
    while isinstance(value, Failure):
        value, _ = reading.start(5).result()
        assert time.monotonic() - began < 60
    assert value == "at last"


@pytest.mark.slow
def test_many_readings_share_few_threads() -> None:
    def sharing() -> int:
        seen = set()

        def read(timeout: float) -> int:
            seen.add(threading.get_ident())
            time.sleep(0.001)  # or the first to come reads them all
            return 1

        pending = [Reading(read).prepare(30) for _ in range(500)]
        run_all(pending)
        assert [each.result()[0] for each in pending] == [1] * 500
        return len(seen)

    # Where the machine is busy more may join, as if what they read were slow; not every time.
    assert min(sharing() for _ in range(10)) < 20


@pytest.mark.slow
def test_readings_that_hang_have_a_thread_each_at_last_and_hold_up_no_other() -> None:
    released = threading.Event()
    hanging = [Reading(lambda timeout: released.wait(20)) for _ in range(100)]
    quick = [Reading(lambda timeout: True) for _ in range(100)]
    before = threading.active_count()
    began = time.monotonic()
    pending = [each.prepare(3) for each in [*hanging, *quick]]
    run_all(pending)
    assert [each.result()[0] for each in pending[100:]] == [True] * 100
    assert {reason(each.result()[0]) for each in pending[:100]} == {FailureReason.TIMEOUT}
    assert time.monotonic() - began < 15
    again = [each.prepare(1) for each in hanging]
    run_all(again)
    assert {reason(each.result()[0]) for each in again} == {FailureReason.BUSY}
    while threading.active_count() > before + 104:  # those that had nothing left to do may be about to end
        assert time.monotonic() - began < 15
    released.set()
    while threading.active_count() > before:
        assert time.monotonic() - began < 30


def test_what_is_not_begun_by_the_deadline_is_not_begun_at_all() -> None:
    asked: list[float] = []
    late = [Reading(asked.append) for _ in range(3)]
    pending = [each.prepare(0) for each in late]
    run_all(pending)
    assert {reason(each.result()[0]) for each in pending} == {FailureReason.TIMEOUT}
    assert asked == []
    again = late[1].prepare(5)
    run_all([again])
    again.result()
    assert len(asked) == 1


def test_what_nobody_thought_of_is_a_failure_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def read(timeout: float) -> str:
        raise ZeroDivisionError("so it is")

    reading = Reading(read)
    for _ in range(2):
        value, _ = reading.start(5).result()
        assert value == Failure(FailureReason.UNEXPECTED, "ZeroDivisionError: so it is")
    assert "ZeroDivisionError" in caplog.text
