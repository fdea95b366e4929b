"""What all panels over time are drawn with: elements, the axis of time, what happened when, and the legend."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

from tests.pictures.display import color, settings
from tests.pictures.drawing import Panel, wide
from tests.pictures.frames import Field, Unknown

HEIGHT = 26
"""Of the axis of time, below."""
GRID, INK = "#2a2c33", "#ccccdc"
_LINE = 20
_STEPS = (300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
Series = tuple[Field, list[float], dict[str, Any]]


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
    """The time shown, in seconds, from a left to a right edge, above which there is so much height, in pixels."""

    panel: Panel
    left: float
    right: float
    height: float

    def x(self, at: float) -> float:
        """Say where a time is."""
        shown = self.panel.end - self.panel.begin
        return self.left + (at - self.panel.begin) / shown * (self.right - self.left)

    def draw(self) -> Iterator[str]:
        """Draw a line and its time, wherever there is room for one."""
        shown = self.panel.end - self.panel.begin
        room = max((self.right - self.left) // 70, 2)
        step = next((each for each in _STEPS if shown / each <= room), _STEPS[-1])
        for at in range(math.ceil(self.panel.begin / step) * step, int(self.panel.end) + 1, step):
            when = f"{datetime.fromtimestamp(at, UTC):{'%H:%M' if step < 86400 else '%m/%d'}}"
            yield element("path", d=f"M{self.x(at):.1f} 0V{self.height:.1f}", stroke=GRID)
            yield words(when, self.x(at), self.height + 18, anchor="middle")

    def events(self) -> Iterator[str]:
        """Draw the annotations."""
        for at, colour in self.panel.events:
            x, shade = self.x(at), color(colour)
            yield element("path", d=f"M{x:.1f} 0V{self.height:.1f}", stroke=shade, stroke_dasharray="3 3")
            yield element("path", d=f"M{x - 4:.1f} {self.height + 5:.1f}l4 -5l4 5z", fill=shade)

    def svg(self, parts: Iterable[str], **attributes: object) -> str:
        """Wrap up what is drawn."""
        size = f'width="{self.panel.width:.0f}" height="{self.height + HEIGHT:.0f}"'
        data = "".join(f' data-{name}="{value}"' for name, value in attributes.items())
        return f"<svg {size}{data}>{''.join([*self.draw(), *parts, *self.events()])}</svg>"


def series(panel: Panel) -> Iterator[Series]:
    """Yield each series with its times, in seconds, and what is configured for it."""
    for frame in panel.frames:
        if frame[0].name != "Time":
            raise Unknown(f"series without time: {[f.title for f in frame]}")
        times = [float(at) / 1000 for at in frame[0].values if at is not None]
        for field in frame[1:]:
            configured = settings(field, panel.config)
            configured.setdefault("displayName", field.title)
            yield field, times, configured


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
