"""When something may be done with nobody asking for it: days, hours and a time zone."""

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from exporter.config import Part

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)


def _time(value: object) -> object:
    """Read `02:30`; YAML 1.1 makes a number of what has no quotes."""
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return time.fromisoformat(value)
    raise ValueError('expected a time in quotes, such as "02:30"')


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("expected a time zone of this host, such as Europe/Berlin or UTC") from None
    return name


Time = Annotated[time, BeforeValidator(_time)]


class Window(Part):
    """A stretch of each of some days, in the time of a place; one that ends before it begins lasts over midnight."""

    days: Annotated[tuple[Literal[_DAYS], ...], Field(min_length=1)] = _DAYS  # type: ignore[valid-type]
    """The days on which it begins."""
    start: Time
    end: Time
    """Excluded; the same as `start` means a whole day."""
    time_zone: Annotated[str, AfterValidator(_zone)]

    def contains(self, now: float) -> bool:
        """Say whether a moment, in Unix seconds, is within it, by the clock on the wall there."""
        wall = datetime.fromtimestamp(now, ZoneInfo(self.time_zone)).replace(tzinfo=None)
        return any(self._from(day) <= wall < self._until(day) for day in (wall, wall - _DAY) if self._begins(day))

    def _begins(self, day: datetime) -> bool:
        return _DAYS[day.weekday()] in self.days

    def _from(self, day: datetime) -> datetime:
        return datetime.combine(day, self.start)

    def _until(self, day: datetime) -> datetime:
        return datetime.combine(day, self.end) + (_DAY if self.end <= self.start else timedelta())

    def __str__(self) -> str:
        days = "daily" if self.days == _DAYS else ", ".join(self.days)
        return f"{days} {self.start:%H:%M}-{self.end:%H:%M} {self.time_zone}"
