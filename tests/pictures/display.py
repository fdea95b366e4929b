"""How a value reads: units, decimals, value mappings, thresholds and colours; as Grafana's dark theme has them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.pictures.frames import Field, Unknown, Value

COLORS = {
    "green": "#73BF69", "dark-green": "#37872D", "semi-dark-green": "#56A64B", "light-green": "#96D98D",
    "super-light-green": "#C8F2C2", "yellow": "#FADE2A", "dark-yellow": "#E0B400", "semi-dark-yellow": "#F2CC0C",
    "light-yellow": "#FFEE52", "red": "#F2495C", "dark-red": "#C4162A", "semi-dark-red": "#E02F44",
    "light-red": "#FF7383", "orange": "#FF9830", "dark-orange": "#FA6400", "semi-dark-orange": "#FF780A",
    "light-orange": "#FFB357", "blue": "#5794F2", "dark-blue": "#1F60C4", "semi-dark-blue": "#3274D9",
    "light-blue": "#8AB8FF", "purple": "#B877D9", "dark-purple": "#8F3BB8", "semi-dark-purple": "#A352CC",
    "light-purple": "#CA95E5", "text": "#CCCCDC", "transparent": "transparent",
}  # fmt: skip
DAY = 86400
_FAR = (
    ("minute", 60, 45),
    ("hour", 3600, 45 * 60),
    ("day", DAY, 22 * 3600),
    ("month", 30.44 * DAY, 26 * DAY),
    ("year", 365.25 * DAY, 320 * DAY),
)
"""Units of time, and from how many seconds on each is used."""
_SECONDS = (("years", 31556900), ("weeks", 7 * DAY), ("days", DAY), ("hours", 3600), ("mins", 60))


@dataclass(frozen=True, slots=True)
class Shown:
    """A value as it is shown: its text, and its colour."""

    text: str
    color: str


def color(name: str) -> str:
    """Return a colour for CSS. Raises Unknown."""
    if name.startswith(("#", "rgb")):
        return name
    if name not in COLORS:
        raise Unknown(f"colour {name!r}")
    return COLORS[name]


def settings(field: Field, config: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve what is configured for a field: the defaults, and each override that is meant for it."""
    resolved: dict[str, Any] = {**config["defaults"], "custom": {**config["defaults"].get("custom", {})}}
    for override in config["overrides"]:
        if not _meant(override["matcher"], field):
            continue
        for one in override["properties"]:
            name = one["id"].removeprefix("custom.")
            if one["id"] not in _PROPERTIES:
                raise Unknown(f"override of {one['id']!r}")
            (resolved if name == one["id"] else resolved["custom"])[name] = one.get("value")
    return resolved


_PROPERTIES = {
    "unit", "decimals", "mappings", "thresholds", "color", "noValue", "displayName", "links", "custom.width",
    "custom.minWidth", "custom.align", "custom.cellOptions", "custom.hidden", "custom.lineStyle", "custom.lineWidth",
    "custom.fillOpacity",
}  # fmt: skip


def _meant(matcher: Mapping[str, Any], field: Field) -> bool:
    options = matcher.get("options")
    match matcher["id"]:
        case "byName":
            return field.title == options
        case "byRegexp":
            return re.search(str(options).strip("/"), field.title) is not None
        case other:
            raise Unknown(f"matcher {other!r}")


def show(value: Value, configured: Mapping[str, Any], now: float) -> Shown:
    """Put a value into words and a colour."""
    for mapping in configured.get("mappings", []):
        if (result := _mapped(mapping, value)) is not None:
            plain = color(result["color"]) if "color" in result else _scale(value, configured)
            return Shown(result.get("text") or _text(value, configured, now), plain)
    return Shown(_text(value, configured, now), _scale(value, configured))


def _mapped(mapping: Mapping[str, Any], value: Value) -> Mapping[str, Any] | None:
    if mapping["type"] != "value":
        raise Unknown(f"mapping {mapping['type']!r}")
    found: Mapping[str, Any] | None = mapping["options"].get(f"{value:g}" if isinstance(value, float) else value)
    return found


def _text(value: Value, configured: Mapping[str, Any], now: float) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return str(configured.get("noValue") or "")
    if isinstance(value, str):
        return value
    decimals = configured.get("decimals")
    match configured.get("unit", "none"):
        case "none":
            return _number(value, decimals)
        case "percentunit":
            return f"{_number(value * 100, decimals)}%"
        case "reqpm":
            return f"{_number(value, decimals)} req/m"
        case "s":
            return _seconds(value, decimals)
        case "dateTimeFromNow":
            return _from_now(value / 1000 - now)
        case other if other.startswith("prefix:"):
            return f"{other.removeprefix('prefix:')}{_number(value, decimals)}"
        case other:
            raise Unknown(f"unit {other!r}")


def _number(value: float, decimals: int | None) -> str:
    if decimals is None:  # three digits that count
        decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value % 1 else 0
    return f"{value:.{decimals}f}"


def _seconds(value: float, decimals: int | None) -> str:
    size = abs(value)
    for unit, factor in (("ms", 1e3), ("µs", 1e6)):
        if 0 < size < 1 <= size * factor:
            return f"{_number(value * factor, decimals)} {unit}"
    for unit, length in _SECONDS:
        if size >= length:
            return f"{_number(value / length, decimals)} {unit}"
    return f"{_number(value, decimals)} s"


def _from_now(seconds: float) -> str:
    left = abs(seconds)
    text = "a few seconds"
    for unit, length, until in _FAR:  # as moment.js rounds
        if left < until:
            break
        count = round(left / length)
        text = f"{count} {unit}s" if count > 1 else f"{'an' if unit == 'hour' else 'a'} {unit}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def _scale(value: Value, configured: Mapping[str, Any]) -> str:
    """Colour by the field's mode: fixed, or by thresholds."""
    scheme = configured["color"]
    match scheme["mode"]:
        case "fixed":
            return color(scheme["fixedColor"])
        case "thresholds":
            return _threshold(value, configured["thresholds"]["steps"])
        case other:
            raise Unknown(f"colour mode {other!r}")


def _threshold(value: Value, steps: Sequence[Mapping[str, Any]]) -> str:
    """Colour a number by the last step that it reaches."""
    number = value if isinstance(value, float) and not math.isnan(value) else -math.inf
    reached = [step for step in steps if step["value"] is None or number >= step["value"]]
    return color(reached[-1]["color"])


def ink(background: str) -> str:
    """Choose the colour of a text on a background, as Grafana does: by brightness."""
    if not background.startswith("#"):
        return COLORS["text"]
    red, green, blue = (int(background[at : at + 2], 16) for at in (1, 3, 5))
    return "#202226" if (red * 299 + green * 587 + blue * 114) / 1000 > 180 else "#F7F8FA"
