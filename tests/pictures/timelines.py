"""The panels of lanes over time: state-timeline and status-history."""

from collections.abc import Iterator

from tests.pictures.axes import HEIGHT, Axis, Series, element, legend, series, words
from tests.pictures.display import ink, show
from tests.pictures.drawing import Panel, nothing, wide
from tests.pictures.frames import Unknown, Value

_PAGER = 36
_READABLE = 14
"""Least height of a block that has room for its text."""


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
    drawn = list(series(panel))
    if not drawn:
        return nothing(panel)
    seen: dict[str, str] = {}
    for field, _, configured in drawn:
        for value in dict.fromkeys(field.values):
            if value is not None:
                shown = show(value, configured, panel.end)
                seen.setdefault(shown.text, shown.color)
    below, high = legend(panel, seen.items())
    lanes = drawn[: panel.options.get("perPage") or None]
    pager = ""
    if len(lanes) < len(drawn):
        pager = f'<div class="pages" style="position:static">1 of {-(-len(drawn) // len(lanes))}</div>'
    height = panel.height - high - HEIGHT - 8 - (_PAGER if pager else 0)
    pitch = height / len(lanes)
    left = min(max(wide(configured["displayName"]) for _, _, configured in lanes) + 16, panel.width / 2)
    axis = Axis(panel=panel, left=left, right=panel.width - 8, height=height)
    parts = []
    for number, lane in enumerate(lanes):
        middle = (number + 0.5) * pitch
        parts.append(words(lane[2]["displayName"], left - 8, middle + 4))
        parts += _lane(lane, axis, middle, pitch * panel.options["rowHeight"], merged=merged)
    return axis.svg(parts, pitch=f"{pitch:.1f}", lanes=len(drawn)) + pager + below


def _lane(lane: Series, axis: Axis, middle: float, thick: float, *, merged: bool) -> Iterator[str]:
    field, times, configured = lane
    options, opacity = axis.panel.options, configured["custom"]["fillOpacity"] / 100
    for begins, ends, value in _blocks(field.values, times, axis.panel.end, merged=merged):
        shown = show(value, configured, axis.panel.end)
        at, width = axis.x(begins), max(axis.x(ends) - axis.x(begins), 1)
        if not merged:  # a cell around its sample
            width *= options["colWidth"]
            at -= width / 2
        top = middle - thick / 2
        yield element("rect", x=at, y=top, width=width, height=thick, fill=shown.color, fill_opacity=opacity)
        if options["showValue"] != "never" and wide(shown.text) + 8 < width and thick >= _READABLE:
            put = (at + 4, "start") if options.get("alignValue") == "left" else (at + width / 2, "middle")
            yield words(shown.text, put[0], middle + 4, anchor=put[1], fill=ink(shown.color))


def _blocks(
    values: list[Value], times: list[float], end: float, *, merged: bool
) -> Iterator[tuple[float, float, Value]]:
    """Yield from when to when a value is what it is; where there is none, nothing."""
    step = times[1] - times[0]
    begins, now = times[0], values[0]
    for at, value in zip(times[1:], values[1:], strict=True):
        if value != now or not merged:
            if now is not None:
                yield begins, at, now
            begins, now = at, value
    if now is not None:
        yield begins, min(times[-1] + step, end) if merged else times[-1] + step, now
