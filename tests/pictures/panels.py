"""The panels of words and numbers: stat and table."""

from html import escape
from typing import Any

from tests.pictures.display import color, ink, settings, show
from tests.pictures.drawing import PADDING, Panel, nothing
from tests.pictures.frames import Field, Unknown, distinct, order

_ROW = 36
_SHARE = 150
"""Least width of a column to which none is given."""
_BIGGEST = 100


def stat(panel: Panel) -> str:
    """Draw one big value a series, side by side: what it is, or what the series is called."""
    options = panel.options
    reduce, mode = options["reduceOptions"], options["textMode"]
    if mode not in ("value", "name") or reduce["values"] or reduce["calcs"] != ["lastNotNull"] or reduce["fields"]:
        raise Unknown(f"stat {options}")
    found = [f for frame in panel.frames for f in frame if f.name != "Time" and any(v is not None for v in f.values)]
    empty, drawn = "", []
    for one in found or [Field("Value", [None])]:
        shown = show(
            next((value for value in reversed(one.values) if value is not None), None),
            settings(one, panel.config),
            panel.end,
        )
        text = one.title if mode == "name" and found else shown.text
        if not found:
            text = text or "No data"
            empty = f' data-empty="{escape(text)}"'
        filled = options["colorMode"].startswith("background")
        style = f"background:{shown.color};color:{ink(shown.color)}" if filled else f"color:{shown.color}"
        size = min((panel.height - 3 * PADDING) / 1.2, _BIGGEST)
        inner = f'<span class="clip" data-size="{size:.0f}" style="font-size:{size:.0f}px">{escape(text)}</span>'
        drawn.append(f'<div class="stat" style="{style}">{inner}</div>')
    return f'<div class="stats"{empty} style="height:{panel.height}px">{"".join(drawn)}</div>'


def table(panel: Panel) -> str:
    """Draw a table, as many rows as fit; what does not fit is scrolled to or paged through."""
    if len(panel.frames) > 1:
        raise Unknown(f"a table of {len(panel.frames)} frames: join or merge them")
    frame = distinct(panel.frames[0]) if panel.frames else []
    rows = len(frame[0].values) if frame else 0
    if not rows:
        return nothing(panel)
    titles = {_title(f, panel): f.title for f in frame}
    for rule in reversed(panel.options.get("sortBy", [])):
        if rule["displayName"] not in titles:
            raise Unknown(f"sorting by {rule['displayName']!r}, which is none of the columns {list(titles)}")
        frame = order(frame, titles[rule["displayName"]], bool(rule.get("desc")))
    columns = [(f, settings(f, panel.config)) for f in frame]
    columns = [(f, s) for f, s in columns if not s["custom"].get("hidden")]
    fixed = [s["custom"].get("width") for _, s in columns]
    share = (panel.width - sum(width or 0 for width in fixed)) / max(fixed.count(None), 1)
    widths = [s["custom"].get("width") or max(share, s["custom"].get("minWidth") or _SHARE) for _, s in columns]
    paged = panel.options["footer"].get("enablePagination")
    fitting = int((panel.height - _ROW) // _ROW) + (-1 if paged else 1)
    heads = "".join(
        f'<th style="text-align:{_align(f, s)}"><span class="clip">{escape(_title(f, panel))}</span>'
        for f, s in columns
    )
    lines = "".join(
        f"<tr>{''.join(_cell(f, s, row, panel.end) for f, s in columns)}" for row in range(min(rows, fitting))
    )
    cols = "".join(f'<col style="width:{each:.1f}px">' for each in widths)
    pages = f'<div class="pages">1 - {min(rows, fitting)} of {rows} rows</div>' if paged and rows > fitting else ""
    total = sum(widths)
    return (
        f'<div data-wide="{total:.0f}" data-room="{panel.width:.0f}" style="height:{panel.height}px">'
        f'<table style="width:{total:.1f}px"><colgroup>{cols}</colgroup><tr>{heads}{lines}</table>{pages}</div>'
    )


def _title(field: Field, panel: Panel) -> str:
    return str(settings(field, panel.config).get("displayName") or field.title)


def _align(field: Field, configured: dict[str, Any]) -> str:
    align = configured["custom"].get("align") or "auto"
    number = field.name != "Time" and not any(isinstance(value, str) for value in field.values)
    return align if align != "auto" else "right" if number else "left"


def _cell(field: Field, configured: dict[str, Any], row: int, now: float) -> str:
    shown = show(field.values[row], configured, now)
    style = f"text-align:{_align(field, configured)}"
    match configured["custom"].get("cellOptions", {}).get("type", "auto"):
        case "auto":
            style += f";color:{color('#6e9fff')}" if configured.get("links") else ""
        case "color-text":
            style += f";color:{shown.color}"
        case "color-background":
            style += f";background:{shown.color};color:{ink(shown.color)}"
        case other:
            raise Unknown(f"cell type {other!r}")
    return f'<td style="{style}"><span class="clip">{escape(shown.text)}</span>'
