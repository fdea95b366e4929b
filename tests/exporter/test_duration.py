import pytest

from exporter.duration import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("15m0s", 900), ("1h30m", 5400), ("0", 0), ("0s", 0), ("-1s", -1), ("1.5h", 5400), ("soon", None), ("", None)],
)
def test_a_duration_of_go(text: str, expected: float | None) -> None:
    assert seconds(text) == expected
