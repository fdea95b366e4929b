"""The panel of lines, areas and bars over time: timeseries."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tests.pictures.display import color, show
from tests.pictures.drawing import Panel, nothing, wide
from tests.pictures.frames import Unknown, Value
from tests.pictures.timelines import GRID, HEIGHT, Axis, Series, element, legend, series, words

_TOP = 10
_REGION_OPACITY = 0.15
_CUSTOM = {
    "drawStyle", "lineInterpolation", "lineWidth", "lineStyle", "fillOpacity", "showPoints", "spanNulls", "stacking",
    "axisPlacement", "axisSoftMin", "axisSoftMax", "thresholdsStyle",
}  # fmt: skip
Height = Callable[[float], float]
Corners = list[tuple[float, float]]


def timeseries(panel: Panel) -> str:
    """Draw a line a series, and its legend."""
    drawn = [each for each in series(panel) if _numbers(each)]
    if not drawn:
        return nothing(panel)
    defaults = panel.config["defaults"]
    if odd := {name for each in drawn for name in each.configured["custom"]} - _CUSTOM:
        raise Unknown(f"custom setting {sorted(odd)}")
    below, high = legend(panel, [(each.name, _stroke(each)) for each in drawn])
    bases: list[list[Value] | None] = [None] * len(drawn)
    if defaults["custom"].get("stacking", {}).get("mode", "none") == "normal":
        drawn, bases = _stacked(drawn)
    height = panel.height - high - HEIGHT - 8
    low, top, ticks = _scale(defaults, [number for each in drawn for number in _numbers(each)], height)
    texts = [show(tick, drawn[0].configured, panel.end).text for tick in ticks]
    axis = Axis(panel=panel, left=max(map(wide, texts)) + 16, height=height)

    def y(value: float) -> float:
        return _TOP + (top - min(max(value, low), top)) / (top - low) * (height - _TOP)

    parts = list(_regions(defaults, axis, y, low, top))
    for tick, text in zip(ticks, texts, strict=True):
        parts.append(element("path", d=f"M{axis.left:.1f} {y(tick):.1f}H{axis.right:.1f}", stroke=GRID))
        parts.append(words(text, axis.left - 6, y(tick) + 4))
    for one, base in zip(drawn, bases, strict=True):
        parts += _bars(one, axis, y) if one.configured["custom"]["drawStyle"] == "bars" else _line(one, base, axis, y)
    return axis.svg(parts) + below


def _numbers(one: Series) -> list[float]:
    return [value for value in one.values if isinstance(value, float)]


def _stacked(drawn: list[Series]) -> tuple[list[Series], list[list[Value] | None]]:
    """Put each series on the one before it; return them, and what each stands on."""
    raised, bases = list[Series](), list[list[Value] | None]()
    base = [0.0 for _ in drawn[0].times]
    for one in drawn:
        bases.append(list(base))
        base = [low + (value if isinstance(value, float) else 0) for low, value in zip(base, one.values, strict=True)]
        raised.append(replace(one, values=list(base)))
    return raised, bases


def _scale(defaults: dict[str, Any], numbers: list[float], height: float) -> tuple[float, float, list[float]]:
    """Return the ends of the axis of values, and where its ticks are."""
    soft = [defaults["custom"][name] for name in ("axisSoftMin", "axisSoftMax") if name in defaults["custom"]]
    low, top = defaults.get("min", min(numbers + soft)), defaults.get("max", max(numbers + soft))
    if low == top:
        low, top = low - 1, top + 1
    whole = defaults.get("decimals") == 0 and defaults["unit"] == "none"
    rough = max((top - low) / max(height // 40, 2), 1 if whole else 0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    ticks = [number * step for number in range(math.floor(low / step), math.ceil(top / step) + 1)]
    low, top = defaults.get("min", ticks[0]), defaults.get("max", ticks[-1])
    return low, top, [tick for tick in ticks if low <= tick <= top]


def _regions(defaults: dict[str, Any], axis: Axis, y: Height, low: float, top: float) -> Iterator[str]:
    """Draw what the thresholds part the panel into."""
    style = defaults["custom"].get("thresholdsStyle", {}).get("mode", "off")
    if style not in ("off", "area"):
        raise Unknown(f"thresholds as {style!r}")
    ends: list[dict[str, Any]] = [*defaults["thresholds"]["steps"], {"value": top}] if style == "area" else []
    for step, following in pairwise(ends):
        upper, lower = y(following["value"]), y(low if step["value"] is None else step["value"])
        if lower > upper:
            box: dict[str, Any] = {"x": axis.left, "y": upper, "width": axis.right - axis.left, "height": lower - upper}
            yield element("rect", fill=color(step["color"]), fill_opacity=f"{_REGION_OPACITY}", **box)


def _stroke(one: Series) -> str:
    return show(None, one.configured, 0).color


def _shade(one: Series) -> dict[str, str]:
    return {"fill": _stroke(one), "fill_opacity": f"{one.configured['custom']['fillOpacity'] / 100}"}


def _bars(one: Series, axis: Axis, y: Height) -> Iterator[str]:
    width = (axis.x(one.times[1]) - axis.x(one.times[0])) * 0.6
    for at, value in zip(one.times, one.values, strict=True):
        if isinstance(value, float) and value:
            box: dict[str, Any] = {
                "x": axis.x(at) - width / 2,
                "y": min(y(value), y(0)),
                "height": abs(y(0) - y(value)),
            }
            yield element("rect", width=width, **box, **_shade(one))


def _line(one: Series, base: list[Value] | None, axis: Axis, y: Height) -> Iterator[str]:
    custom = one.configured["custom"]
    if custom["lineInterpolation"] not in ("linear", "stepAfter") or custom["drawStyle"] != "line":
        raise Unknown(f"line {custom}")
    upper = _parts(one, one.values, axis, y)
    lower = _parts(one, base, axis, y) if base else [[(x, y(0)) for x, _ in part] for part in upper]
    for above, under in zip(upper, lower, strict=True) if custom["fillOpacity"] else ():
        area = " ".join(f"{x:.1f},{at:.1f}" for x, at in [*above, *reversed(under)])
        yield element("polygon", points=area, **_shade(one))
    style = custom.get("lineStyle", {"fill": "solid"})
    dashes = {"stroke_dasharray": " ".join(map(str, style["dash"]))} if style["fill"] != "solid" else {}
    if style["fill"] == "dot":
        dashes["stroke_linecap"] = "round"
    path = "".join("M" + "L".join(f"{x:.1f} {at:.1f}" for x, at in part) for part in upper)
    yield element("path", d=path, fill="none", stroke=_stroke(one), stroke_width=f"{custom['lineWidth']}", **dashes)


def _parts(one: Series, values: list[Value], axis: Axis, y: Height) -> list[Corners]:
    """Return the corners of a line, from one gap to the next."""
    parts: list[Corners] = [[]]
    for at, value in zip(one.times, values, strict=True):
        if not isinstance(value, float):
            parts.append([])
            continue
        if parts[-1] and one.configured["custom"]["lineInterpolation"] == "stepAfter":
            parts[-1].append((axis.x(at), parts[-1][-1][1]))
        parts[-1].append((axis.x(at), y(value)))
    return [part for part in parts if part]
