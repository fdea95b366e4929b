"""The panels of words and numbers: stat and table."""

from html import escape
from typing import Any

from tests.pictures.display import ink, settings, show
from tests.pictures.drawing import Panel, nothing
from tests.pictures.frames import Field, Unknown, distinct

_ROW = 36
_SHARE = 150
"""Least width of a column to which none is given."""
_BIGGEST = 100


def stat(panel: Panel) -> str:
    """Draw one big value a series, side by side: what it is, or what the series is called."""
    reduce, mode = panel.options["reduceOptions"], panel.options["textMode"]
    if mode not in ("value", "name") or reduce["values"] or reduce["calcs"] != ["lastNotNull"] or reduce["fields"]:
        raise Unknown(f"stat {panel.options}")
    found = [f for frame in panel.frames for f in frame if f.name != "Time" and any(v is not None for v in f.values)]
    size, empty, drawn = min((panel.height - 24) / 1.2, _BIGGEST), "", []
    for one in found or [Field("Value", [None])]:
        last = next((value for value in reversed(one.values) if value is not None), None)
        shown = show(last, settings(one, panel.config), panel.end)
        text = escape((one.title if mode == "name" and found else shown.text) or "No data")
        if not found:
            empty = f' data-empty="{text}"'
        style = f"color:{shown.color}"
        if panel.options["colorMode"].startswith("background"):
            style = f"background:{shown.color};color:{ink(shown.color)}"
        inner = f'<span class="clip" data-size="{size:.0f}" style="font-size:{size:.0f}px">{text}</span>'
        drawn.append(f'<div class="stat" style="{style}">{inner}</div>')
    return f'<div class="stats"{empty} style="height:{panel.height}px">{"".join(drawn)}</div>'


def table(panel: Panel) -> str:
    """Draw a table, as many rows as fit; what does not fit is scrolled to."""
    if len(panel.frames) > 1 or "sortBy" in panel.options:
        raise Unknown(f"a table of {len(panel.frames)} frames, or sorted by the panel: join, and sort, before")
    frame = distinct(panel.frames[0]) if panel.frames else []
    rows = len(frame[0].values) if frame else 0
    if not rows:
        return nothing(panel)
    columns = [(field, settings(field, panel.config)) for field in frame]
    fixed = [s["custom"].get("width") for _, s in columns]
    share = (panel.width - sum(width or 0 for width in fixed)) / max(fixed.count(None), 1)
    widths = [s["custom"].get("width") or max(share, s["custom"].get("minWidth") or _SHARE) for _, s in columns]
    heads = "".join(f'<th><span class="clip">{escape(field.title)}</span>' for field in frame)
    fitting = range(min(rows, int(panel.height // _ROW)))
    lines = "".join(f"<tr>{''.join(_cell(f, s, row, panel.end) for f, s in columns)}" for row in fitting)
    cols = "".join(f'<col style="width:{each:.1f}px">' for each in widths)
    total = sum(widths)
    return (
        f'<div data-wide="{total:.0f}" data-room="{panel.width:.0f}" style="height:{panel.height}px">'
        f'<table style="width:{total:.1f}px"><colgroup>{cols}</colgroup><tr>{heads}{lines}</table></div>'
    )


def _cell(field: Field, configured: dict[str, Any], row: int, now: float) -> str:
    shown = show(field.values[row], configured, now)
    kind, align = configured["custom"]["cellOptions"]["type"], configured["custom"]["align"]
    if kind not in ("auto", "color-text") or align != "left":
        raise Unknown(f"cell of type {kind!r}, at its {align}")
    color = shown.color if kind == "color-text" else "#6e9fff" if configured.get("links") else "inherit"
    return f'<td style="color:{color}"><span class="clip">{escape(shown.text)}</span>'
