"""What earlier runs and pauses come to: at the very moments where it changes."""

import pytest

from remediate.history import History, Pause

NOW = 1_800_000_000.0
DAY = 86400.0
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("failures", "opened"),
    [
        ((), False),
        ((0, 1), False),
        ((0, 1, DAY - 1), True),
        ((0, 1, DAY), False),
        ((0, DAY / 2, DAY, 1.4 * DAY), True),
        ((0, 1, 2, 100 * DAY), True),
        ((0, 1, 100 * DAY, 100 * DAY + 1), False),
        ((YEAR, YEAR + 1, 2), True),  # the clock was set back in between: rather one run too few
        ((0, 0, 0), True),
    ],
)
def test_three_failures_within_a_day_open_the_circuit_for_good(failures: tuple[float, ...], opened: bool) -> None:
    assert History(failures=failures).circuit_open is opened


@pytest.mark.parametrize(
    ("ended", "cools"),
    [(NOW - 1799.9, True), (NOW - 1800, False), (NOW, True), (NOW + 5, True), (NOW + YEAR, False), (NOW - YEAR, False)],
)
def test_a_binary_cools_down_however_the_clock_is_set(ended: float, cools: bool) -> None:
    assert History(last_end=ended).cools_down(NOW, 1800) is cools


def test_nothing_to_cool_down_from() -> None:
    assert not History().cools_down(NOW, 1800)
    assert not History(last_end=NOW).cools_down(NOW, 0)


def test_a_pause_ends_by_itself_or_never() -> None:
    over, lasting = Pause("a", NOW - 2, NOW, "over"), Pause(None, NOW - 1, None, "lasting")
    assert History(pauses=(over,)).pause(NOW) is None
    assert History(pauses=(over,)).pause(NOW - 1) is over
    assert History(pauses=(over, lasting)).pause(NOW + 10 * YEAR) is lasting
