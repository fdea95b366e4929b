"""Windows by the clock on the wall: midnight, week days, and the nights when the clocks are changed."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from exporter.config import Config, ConfigError, validate
from remediate.rules import Rules
from remediate.rules import rules as read_rules
from remediate.window import Window

BERLIN = ZoneInfo("Europe/Berlin")


def window(start: str, end: str, days: list[str] | None = None, time_zone: str = "Europe/Berlin") -> Window:
    when = {"start": start, "end": end, "time_zone": time_zone} | ({"days": days} if days else {})
    return validate(Window, when, source="test")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("of", "moment", "within"),
    [
        (window("02:00", "06:00"), "2026-11-25 01:59:59", False),
        (window("02:00", "06:00"), "2026-11-25 02:00", True),
        (window("02:00", "06:00"), "2026-11-25 05:59:59", True),
        (window("02:00", "06:00"), "2026-11-25 06:00", False),
        (window("22:00", "04:00"), "2026-11-25 23:00", True),
        (window("22:00", "04:00"), "2026-11-25 03:59", True),
        (window("22:00", "04:00"), "2026-11-25 04:00", False),
        (window("22:00", "04:00"), "2026-11-25 21:59", False),
        # begun on Saturday, it lasts into Sunday; Sunday's own does not begin
        (window("22:00", "04:00", ["sat"]), "2026-11-28 22:00", True),
        (window("22:00", "04:00", ["sat"]), "2026-11-29 03:59", True),
        (window("22:00", "04:00", ["sat"]), "2026-11-29 22:00", False),
        (window("22:00", "04:00", ["sat"]), "2026-11-28 03:00", False),
        (window("00:00", "00:00", ["sat"]), "2026-11-28 00:00", True),
        (window("00:00", "00:00", ["sat"]), "2026-11-28 23:59:59", True),
        (window("00:00", "00:00", ["sat"]), "2026-11-29 00:00", False),
        (window("12:00", "12:00", ["sat"]), "2026-11-29 11:59", True),
        (window("12:00", "12:00", ["sat"]), "2026-11-29 12:00", False),
        # the clocks go forward at 02:00 on this day, and back at 03:00 on that
        (window("02:30", "03:30"), "2026-03-29 03:15", True),
        (window("02:30", "03:30"), "2026-03-29 01:59", False),
        (window("01:00", "02:30"), "2026-10-25 02:15", True),
        (window("03:00", "06:00"), "2026-10-25 02:59", False),
    ],
)
def test_a_moment_is_within_a_window_or_not(of: Window, moment: str, within: bool) -> None:
    assert of.contains(at(moment)) is within


def test_the_hour_that_comes_twice_is_within_both_times() -> None:
    assert window("02:00", "03:00").contains(at("2026-10-25 02:30", fold=0))
    assert window("02:00", "03:00").contains(at("2026-10-25 02:30", fold=1))


def test_the_time_is_that_of_the_place() -> None:
    moment = at("2026-11-25 02:30", ZoneInfo("UTC"))
    assert window("02:00", "03:00", time_zone="UTC").contains(moment)
    assert not window("02:00", "03:00", time_zone="Asia/Kolkata").contains(moment)
    assert window("08:00", "08:01", time_zone="Asia/Kolkata").contains(moment)


def test_a_window_in_words() -> None:
    assert str(window("02:00", "06:30")) == "daily 02:00-06:30 Europe/Berlin"
    assert str(window("02:00", "06:30", ["mon", "sun"])) == "mon, sun 02:00-06:30 Europe/Berlin"


GOOD = {"start": "02:00", "end": "06:00", "time_zone": "UTC"}


@pytest.mark.parametrize(
    ("remediation", "words"),
    [
        (
            {"windows": [GOOD | {"start": "2:00"}]},
            "windows.0.start: expected a time in quotes, such as \"02:30\", found '2:00'",
        ),
        (
            {"windows": [GOOD | {"end": 360}]},
            "windows.0.end: expected a time in quotes, such as \"02:30\", found '360'",
        ),
        ({"windows": [GOOD | {"end": "24:00"}]}, "windows.0.end: expected a time"),
        ({"windows": [GOOD | {"end": "12:60"}]}, "windows.0.end: expected a time"),
        ({"windows": [GOOD | {"days": ["so"]}]}, "windows.0.days.0"),
        ({"windows": [GOOD | {"days": []}]}, "windows.0.days"),
        ({"windows": [GOOD | {"time_zone": "Mars/Olympus"}]}, "windows.0.time_zone: expected a time zone of this host"),
        ({"windows": [GOOD | {"time_zone": "../../etc/passwd"}]}, "windows.0.time_zone: expected a time zone"),
        ({"windows": [{"start": "02:00", "end": "03:00"}]}, "windows.0.time_zone: missing"),
        (
            {"never_install": ["1.2"]},
            "never_install.0: expected versions such as ==1.120.3 or >=1.130,<1.131.2, found '1.2'",
        ),
        (
            {"never_install": [" "]},
            "never_install.0: expected versions such as ==1.120.3: an empty text would mean all",
        ),
        ({"never_install": "==1.2"}, "never_install"),
        ({"dry_run": "perhaps"}, "dry_run"),
        ({"cool_down": 30}, "cool_down: expected a duration"),
        ({"notify": "mail me"}, "notify"),
        ({"notify": []}, "notify"),
    ],
)
def test_rules_that_cannot_be_used_are_named(remediation: dict[str, object], words: str) -> None:
    node = {"name": "alpha", "service": "systemd:a.service", "binary": "/x"}
    config = Config.model_validate({"nodes": [node], "remediation": remediation})
    with pytest.raises(ConfigError) as refused:
        read_rules(config, source="c.yml")
    assert f"c.yml: remediation: {words}" in str(refused.value)


def test_the_cautious_rules() -> None:
    rules = Rules()
    assert (rules.dry_run, rules.never_install, rules.windows, rules.notify) == (False, (), (), None)
    assert rules.cool_down.total_seconds() == 1800
