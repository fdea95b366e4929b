import threading
import time

import pytest

from exporter.reading import Reading
from exporter.status import Failure, FailureReason


def reason(value: object) -> FailureReason:
    assert isinstance(value, Failure)
    return value.reason


def test_a_reading_and_how_long_it_took() -> None:
    def read(timeout: float) -> str:
        time.sleep(0.1)
        return f"within {timeout}"

    value, seconds = Reading(read).start(5).result()
    assert value == "within 5"
    assert 0.1 <= seconds < 1


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
    assert (reason(value), seconds) == (FailureReason.TIMEOUT, 0.2)
    assert 0.2 <= time.monotonic() - began < 0.5
    assert reason(reading.start(0.2).result()[0]) is FailureReason.BUSY
    assert time.monotonic() - began < 0.5
    assert len(started) == 1
    released.set()
    while isinstance(value, Failure):
        value, _ = reading.start(5).result()
        assert time.monotonic() - began < 5
    assert value == "at last"


def test_what_nobody_thought_of_is_a_failure_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def read(timeout: float) -> str:
        raise ZeroDivisionError("so it is")

    reading = Reading(read)
    for _ in range(2):
        value, _ = reading.start(5).result()
        assert value == Failure(FailureReason.UNEXPECTED, "ZeroDivisionError: so it is")
    assert "ZeroDivisionError" in caplog.text
