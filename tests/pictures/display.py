"""How a value reads: units, decimals, value mappings, thresholds and colours; as Grafana's dark theme has them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.pictures.frames import Field, Unknown, Value

COLORS = {
    "green": "#73BF69", "yellow": "#FADE2A", "dark-yellow": "#E0B400", "red": "#F2495C", "orange": "#FF9830",
    "blue": "#5794F2", "purple": "#B877D9", "semi-dark-purple": "#A352CC", "text": "#CCCCDC",
    "transparent": "transparent",
}  # fmt: skip
_DAY = 86400
_FAR = (
    ("minute", 60, 45),
    ("hour", 3600, 45 * 60),
    ("day", _DAY, 22 * 3600),
    ("month", 30.44 * _DAY, 26 * _DAY),
    ("year", 365.25 * _DAY, 320 * _DAY),
)
"""Units of time, and from how many seconds on each is used."""
_SECONDS = (("years", 31556900), ("weeks", 7 * _DAY), ("days", _DAY), ("hours", 3600), ("mins", 60))
_PROPERTIES = {
    "unit", "decimals", "mappings", "thresholds", "color", "noValue", "links", "custom.width", "custom.minWidth",
    "custom.cellOptions", "custom.lineStyle", "custom.lineWidth",
}  # fmt: skip
"""What an override may change."""


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
        kind, wanted = override["matcher"]["id"], override["matcher"].get("options")
        if kind not in ("byName", "byRegexp"):
            raise Unknown(f"matcher {kind!r}")
        if field.title != wanted if kind == "byName" else not re.search(wanted.strip("/"), field.title):
            continue
        for one in override["properties"]:
            name = one["id"].removeprefix("custom.")
            if one["id"] not in _PROPERTIES:
                raise Unknown(f"override of {one['id']!r}")
            (resolved if name == one["id"] else resolved["custom"])[name] = one.get("value")
    return resolved


def show(value: Value, configured: Mapping[str, Any], now: float) -> Shown:
    """Put a value into words and a colour."""
    result: Mapping[str, Any] = {}
    for mapping in configured.get("mappings", []):
        if mapping["type"] != "value":
            raise Unknown(f"mapping {mapping['type']!r}")
        result = result or mapping["options"].get(f"{value:g}" if isinstance(value, float) else value, {})
    text = result.get("text") or _text(value, configured, now)
    return Shown(text, color(result["color"]) if "color" in result else _scale(value, configured))


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
    for unit, factor in (("ms", 1e3), ("µs", 1e6)):
        if 0 < value < 1 <= value * factor:
            return f"{_number(value * factor, decimals)} {unit}"
    for unit, length in _SECONDS:
        if value >= length:
            return f"{_number(value / length, decimals)} {unit}"
    return f"{_number(value, decimals)} s"


def _from_now(seconds: float) -> str:
    left, text = abs(seconds), "a few seconds"
    for unit, length, begins in _FAR:  # as moment.js rounds
        if left >= begins:
            count = round(left / length)
            text = f"{count} {unit}s" if count > 1 else f"{'an' if unit == 'hour' else 'a'} {unit}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def _scale(value: Value, configured: Mapping[str, Any]) -> str:
    """Colour by the field's mode: fixed, or by the last threshold that a number reaches."""
    match configured["color"]["mode"]:
        case "fixed":
            return color(configured["color"]["fixedColor"])
        case "thresholds":
            number = value if isinstance(value, float) and not math.isnan(value) else -math.inf
            steps = configured["thresholds"]["steps"]
            return color([step for step in steps if step["value"] is None or number >= step["value"]][-1]["color"])
        case other:
            raise Unknown(f"colour mode {other!r}")


def ink(background: str) -> str:
    """Choose the colour of a text on a background, as Grafana does: by brightness."""
    if not background.startswith("#"):
        return COLORS["text"]
    red, green, blue = (int(background[at : at + 2], 16) for at in (1, 3, 5))
    return "#202226" if (red * 299 + green * 587 + blue * 114) / 1000 > 180 else "#F7F8FA"
