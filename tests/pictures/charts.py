"""The panel of lines, areas and bars over time: timeseries."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tests.pictures.axes import GRID, HEIGHT, INK, Axis, Series, element, legend, series, words
from tests.pictures.display import color, show
from tests.pictures.drawing import Panel, nothing, wide
from tests.pictures.frames import Unknown, Value

_TOP = 10
_REGION_OPACITY = 0.15
_CUSTOM = {
    "drawStyle", "lineInterpolation", "lineWidth", "lineStyle", "fillOpacity", "showPoints", "spanNulls", "stacking",
    "axisPlacement", "axisLabel", "axisSoftMin", "axisSoftMax", "thresholdsStyle",
}  # fmt: skip
Height = Callable[[float], float]
Corners = list[tuple[float, float]]


def timeseries(panel: Panel) -> str:
    """Draw a line a series, and its legend."""
    drawn = [each for each in series(panel) if any(isinstance(value, float) for value in each[0].values)]
    if not drawn:
        return nothing(panel)
    defaults = panel.config["defaults"]
    if odd := {name for _, _, configured in drawn for name in configured["custom"]} - _CUSTOM:
        raise Unknown(f"custom setting {sorted(odd)}")
    below, high = legend(panel, [(configured["displayName"], _stroke(configured)) for _, _, configured in drawn])
    bases: list[list[Value] | None] = [None] * len(drawn)
    if defaults["custom"].get("stacking", {}).get("mode", "none") == "normal":
        drawn, bases = _stacked(drawn)
    height = panel.height - high - HEIGHT - 8
    low, top, ticks = _scale(panel, drawn, height)
    texts = [show(tick, drawn[0][2], panel.end).text for tick in ticks]
    named = defaults["custom"].get("axisLabel", "")
    left = max(map(wide, texts)) + (34 if named else 16)
    axis = Axis(panel=panel, left=left, right=panel.width - 8, height=height)

    def y(value: float) -> float:
        return _TOP + (top - min(max(value, low), top)) / (top - low) * (height - _TOP)

    parts = list(_regions(defaults, axis, y, low, top))
    for tick, text in zip(ticks, texts, strict=True):
        parts.append(element("path", d=f"M{left:.1f} {y(tick):.1f}H{axis.right:.1f}", stroke=GRID))
        parts.append(words(text, left - 6, y(tick) + 4))
    if named:
        turned = f"translate(14 {height / 2:.0f}) rotate(-90)"
        parts.append(element("text", named, transform=turned, text_anchor="middle", fill=INK))
    for one, base in zip(drawn, bases, strict=True):
        bars = one[2]["custom"].get("drawStyle", "line") == "bars"
        parts += _bars(one, axis, y) if bars else _line(one, base, axis, y)
    return axis.svg(parts) + below


def _stacked(drawn: list[Series]) -> tuple[list[Series], list[list[Value] | None]]:
    """Put each series on the one before it; return them, and what each stands on."""
    raised, bases = list[Series](), list[list[Value] | None]()
    base = [0.0 for _ in drawn[0][1]]
    for field, times, configured in drawn:
        bases.append(list(base))
        base = [low + (value if isinstance(value, float) else 0) for low, value in zip(base, field.values, strict=True)]
        raised.append((replace(field, values=list(base)), times, configured))
    return raised, bases


def _scale(panel: Panel, drawn: list[Series], height: float) -> tuple[float, float, list[float]]:
    """Return the ends of the axis of values, and where its ticks are."""
    numbers = [value for field, _, _ in drawn for value in field.values if isinstance(value, float)]
    defaults = panel.config["defaults"]
    custom = defaults["custom"]
    low = min([*numbers, custom["axisSoftMin"]] if "axisSoftMin" in custom else numbers)
    top = max([*numbers, custom["axisSoftMax"]] if "axisSoftMax" in custom else numbers)
    low, top = defaults.get("min", low), defaults.get("max", top)
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
    if style == "off":
        return
    if style != "area":
        raise Unknown(f"thresholds as {style!r}")
    ends: list[dict[str, Any]] = [*defaults["thresholds"]["steps"], {"value": top}]
    for step, following in pairwise(ends):
        begins, ends_at = low if step["value"] is None else step["value"], following["value"]
        height = y(begins) - y(ends_at)
        if height > 0:
            box: dict[str, Any] = {"x": axis.left, "y": y(ends_at), "width": axis.right - axis.left, "height": height}
            yield element("rect", fill=color(step["color"]), fill_opacity=f"{_REGION_OPACITY}", **box)


def _stroke(configured: dict[str, Any]) -> str:
    return show(None, configured, 0).color


def _opacity(configured: dict[str, Any]) -> float:
    return float(configured["custom"].get("fillOpacity", 0)) / 100


def _bars(one: Series, axis: Axis, y: Height) -> Iterator[str]:
    field, times, configured = one
    width = (axis.x(times[1]) - axis.x(times[0])) * 0.6
    shade = {"fill": _stroke(configured), "fill_opacity": f"{_opacity(configured)}"}
    for at, value in zip(times, field.values, strict=True):
        if isinstance(value, float) and value:
            left, top, height = axis.x(at) - width / 2, min(y(value), y(0)), abs(y(0) - y(value))
            yield element("rect", x=left, y=top, width=width, height=height, **shade)


def _line(one: Series, base: list[Value] | None, axis: Axis, y: Height) -> Iterator[str]:
    field, times, configured = one
    custom = configured["custom"]
    steps = custom.get("lineInterpolation", "linear")
    if steps not in ("linear", "stepAfter") or custom.get("drawStyle", "line") != "line" or custom.get("spanNulls"):
        raise Unknown(f"line {custom}")
    upper = _parts(field.values, times, steps, axis, y)
    lower = _parts(base, times, steps, axis, y) if base else [[(x, y(0)) for x, _ in part] for part in upper]
    if opacity := _opacity(configured):
        for above, under in zip(upper, lower, strict=True):
            area = " ".join(f"{x:.1f},{at:.1f}" for x, at in [*above, *reversed(under)])
            yield element("polygon", points=area, fill=_stroke(configured), fill_opacity=f"{opacity}")
    style = custom.get("lineStyle", {"fill": "solid"})
    dashes = {"stroke_dasharray": " ".join(map(str, style.get("dash", [])))} if style["fill"] != "solid" else {}
    if style["fill"] == "dot":
        dashes["stroke_linecap"] = "round"
    path = "".join("M" + "L".join(f"{x:.1f} {at:.1f}" for x, at in part) for part in upper)
    width = f"{custom.get('lineWidth', 1)}"
    yield element("path", d=path, fill="none", stroke=_stroke(configured), stroke_width=width, **dashes)


def _parts(values: list[Value], times: list[float], steps: str, axis: Axis, y: Height) -> list[Corners]:
    """Return the corners of a line, from one gap to the next."""
    parts: list[Corners] = [[]]
    for at, value in zip(times, values, strict=True):
        if not isinstance(value, float):
            parts.append([])
            continue
        if parts[-1] and steps == "stepAfter":
            parts[-1].append((axis.x(at), parts[-1][-1][1]))
        parts[-1].append((axis.x(at), y(value)))
    return [part for part in parts if part]
