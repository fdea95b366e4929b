"""The panels over time: what all are drawn with, and those of lanes, state-timeline and status-history."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

from tests.pictures.display import color, ink, settings, show
from tests.pictures.drawing import Panel, nothing, wide
from tests.pictures.frames import Unknown, Value

HEIGHT = 26
"""Of the axis of time, below."""
GRID, INK = "#2a2c33", "#ccccdc"
_LINE = 20
_PAGER = 36
_READABLE = 14
"""Least height of a block that has room for its text."""
_STEPS = (300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The values of a series, their times in seconds, and what is configured for it."""

    name: str
    values: list[Value]
    times: list[float]
    configured: dict[str, Any]


def element(name: str, text: str = "", **attributes: float | str) -> str:
    """Write an element; numbers to a tenth of a pixel, `_` in a name for `-`."""
    written = "".join(
        f' {key.replace("_", "-")}="{f"{value:.1f}" if isinstance(value, float) else escape(str(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{escape(text)}</{name}>"


def words(text: str, x: float, y: float, *, anchor: str = "end", fill: str = INK) -> str:
    """Write a text beside, or around, a point."""
    return element("text", text, x=float(x), y=float(y), text_anchor=anchor, fill=fill)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The time shown, in seconds, from a left edge on, above which there is so much height, in pixels."""

    panel: Panel
    left: float
    height: float

    @property
    def right(self) -> float:
        return self.panel.width - 8

    def x(self, at: float) -> float:
        """Say where a time is."""
        shown = self.panel.end - self.panel.begin
        return self.left + (at - self.panel.begin) / shown * (self.right - self.left)

    def svg(self, parts: Iterable[str], **data: object) -> str:
        """Wrap up what is drawn, on a line and its time wherever there is room for one, and under the annotations."""
        size = f'width="{self.panel.width:.0f}" height="{self.height + HEIGHT:.0f}"'
        said = "".join(f' data-{name}="{value}"' for name, value in data.items())
        return f"<svg {size}{said}>{''.join([*self._grid(), *parts, *self._events()])}</svg>"

    def _grid(self) -> Iterator[str]:
        shown, room = self.panel.end - self.panel.begin, max((self.right - self.left) // 70, 2)
        step = next((each for each in _STEPS if shown / each <= room), _STEPS[-1])
        for at in range(math.ceil(self.panel.begin / step) * step, int(self.panel.end) + 1, step):
            yield element("path", d=f"M{self.x(at):.1f} 0V{self.height:.1f}", stroke=GRID)
            when = f"{datetime.fromtimestamp(at, UTC):%H:%M}"
            yield words(when, self.x(at), self.height + 18, anchor="middle")

    def _events(self) -> Iterator[str]:
        for at, colour in self.panel.events:
            x, shade = self.x(at), color(colour)
            yield element("path", d=f"M{x:.1f} 0V{self.height:.1f}", stroke=shade, stroke_dasharray="3 3")
            yield element("path", d=f"M{x - 4:.1f} {self.height + 5:.1f}l4 -5l4 5z", fill=shade)


def series(panel: Panel) -> list[Series]:
    """Return each series of a panel."""
    drawn = []
    for times, *fields in panel.frames:
        if times.name != "Time" or any(field.shown is None for field in fields):
            raise Unknown(f"series without time, or without a name: {[field.title for field in fields]}")
        for field in fields:
            seconds, configured = [float(at or 0) / 1000 for at in times.values], settings(field, panel.config)
            drawn.append(Series(name=field.title, values=field.values, times=seconds, configured=configured))
    return drawn


def legend(panel: Panel, entries: Iterable[tuple[str, str]]) -> tuple[str, float]:
    """Return the legend of these names and colours, and its height."""
    options, shown = panel.options["legend"], list(entries)
    if not options["showLegend"]:
        return "", 0
    if (options["displayMode"], options["placement"]) != ("list", "bottom"):
        raise Unknown(f"legend {options}")
    lines, used = 1, 0.0
    for name, _ in shown:
        length = wide(name) + 32
        lines, used = (lines, used + length) if used + length <= panel.width - 16 else (lines + 1, length)
    high = min(lines * _LINE + 4, max(panel.height * 0.35, _LINE + 4))
    spans = "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in shown)
    return f'<div class="legend" data-legend style="height:{high:.0f}px">{spans}</div>', high


def state_timeline(panel: Panel) -> str:
    """Draw a lane a series, a block as long as its value stays the same."""
    return _lanes(panel, merged=True)


def status_history(panel: Panel) -> str:
    """Draw a lane a series, a cell a sample."""
    points = max((len(frame[0].values) for frame in panel.frames), default=0)
    if points > panel.width / 2:
        raise Unknown(f"{points} points in {panel.width:.0f} px: Grafana refuses more than one in two pixels")
    return _lanes(panel, merged=False)


def _lanes(panel: Panel, *, merged: bool) -> str:
    drawn = series(panel)
    if not drawn:
        return nothing(panel)
    seen = [show(value, each.configured, panel.end) for each in drawn for value in each.values if value is not None]
    below, high = legend(panel, {shown.text: shown.color for shown in seen}.items())
    lanes, pager = drawn[: panel.options.get("perPage")], ""
    if len(lanes) < len(drawn):
        pager = f'<div class="pages" style="position:static">1 of {-(-len(drawn) // len(lanes))}</div>'
    height = panel.height - high - HEIGHT - 8 - (_PAGER if pager else 0)
    pitch = height / len(lanes)
    axis = Axis(panel=panel, left=min(max(wide(each.name) for each in lanes) + 16, panel.width / 2), height=height)
    parts = []
    for number, lane in enumerate(lanes):
        middle = (number + 0.5) * pitch
        parts.append(words(lane.name, axis.left - 8, middle + 4))
        parts += _lane(lane, axis, middle, pitch * panel.options["rowHeight"], merged=merged)
    return axis.svg(parts, pitch=f"{pitch:.1f}", lanes=len(drawn)) + pager + below


def _lane(lane: Series, axis: Axis, middle: float, thick: float, *, merged: bool) -> Iterator[str]:
    options, opacity = axis.panel.options, lane.configured["custom"]["fillOpacity"] / 100
    for begins, ends, value in _blocks(lane, axis.panel.end, merged=merged):
        shown = show(value, lane.configured, axis.panel.end)
        at, width = axis.x(begins), max(axis.x(ends) - axis.x(begins), 1)
        if not merged:  # a cell around its sample
            width *= options["colWidth"]
            at -= width / 2
        box: dict[str, Any] = {"x": at, "y": middle - thick / 2, "width": width, "height": thick}
        yield element("rect", **box, fill=shown.color, fill_opacity=opacity)
        if wide(shown.text) + 8 < width and thick >= _READABLE:
            put = (at + 4, "start") if options.get("alignValue") == "left" else (at + width / 2, "middle")
            yield words(shown.text, put[0], middle + 4, anchor=put[1], fill=ink(shown.color))


def _blocks(lane: Series, end: float, *, merged: bool) -> Iterator[tuple[float, float, Value]]:
    """Yield from when to when a value is what it is; where there is none, nothing."""
    last = lane.times[-1] + lane.times[1] - lane.times[0]
    begins, now = lane.times[0], lane.values[0]
    for at, value in zip(lane.times[1:], lane.values[1:], strict=True):
        if value != now or not merged:
            if now is not None:
                yield begins, at, now
            begins, now = at, value
    if now is not None:
        yield begins, min(last, end) if merged else last, now
