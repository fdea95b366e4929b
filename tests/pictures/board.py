"""A dashboard's JSON and a Prometheus into a page: variables, queries, the grid; the panels are drawn elsewhere."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from tests.labs.prometheus import Prometheus
from tests.pictures import charts, panels, timelines
from tests.pictures.drawing import CELL, FIT, GAP, HEADER, SCROLLBAR, STYLE, Panel
from tests.pictures.frames import Frame, Unknown, ask, series, table, transform

LABEL = "rendering of the panels' queries by tests/pictures, not Grafana"
_INTERVALS = ((1.5, 1), (3.5, 2), (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120))
_COARSER = ((450, 300), (750, 600), (1050, 900), (1500, 1200), (2700, 1800), (5400, 3600), (9000, 7200))
DRAWN: Mapping[str, Callable[[Panel], str]] = {
    "stat": panels.stat,
    "table": panels.table,
    "timeseries": charts.timeseries,
    "state-timeline": timelines.state_timeline,
    "status-history": timelines.status_history,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Who looks at what, when: the time shown, how often is scraped (both in seconds), and what is chosen."""

    prometheus: Prometheus
    begin: float
    end: float
    scraped: float
    chosen: Mapping[str, str] = field(default_factory=dict)
    """By variable; for those not named: all."""
    width: int = 1400
    menu: int = 0
    """Pixels that Grafana's menu takes on the left when it is docked."""


def draw(path: Path, look: Look) -> str:
    """Return the page of a dashboard.

    Raises:
        Unknown: something of the dashboard is not known here; names the panel.
    """
    board = json.loads(path.read_text())
    values = {variable["name"]: _chosen(variable, look) for variable in board["templating"]["list"]}
    named = {variable: look.chosen.get(variable, "All") for variable in values}
    events = _annotations(board, values, look)
    column = (look.width - look.menu - 32 - SCROLLBAR - GAP * 23) / 24
    drawn, bottom = [], 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        left, top = at["x"] * (column + GAP), at["y"] * (CELL + GAP)
        width, height = at["w"] * column + (at["w"] - 1) * GAP, at["h"] * CELL + (at["h"] - 1) * GAP
        bottom = max(bottom, top + height)
        place = f"left:{left:.1f}px;top:{top}px;width:{width:.1f}px;height:{height}px"
        title = escape(_substitute(panel.get("title", ""), named, look, 0))
        if panel.get("repeat") or panel.get("collapsed"):
            raise Unknown(f"{path.name}: repeated, or collapsed: {panel.get('title')!r}")
        if panel["type"] == "row":
            drawn.append(f'<div class="row" style="{place}"><span class="clip">⌄ {title}</span></div>')
            continue
        try:
            body = _body(panel, values, look, events, width - 2, height - 2 - HEADER)
        except Unknown as error:
            raise Unknown(f"{path.name}, panel {panel.get('title')!r}: {error}") from None
        mark = '<i class="hint">i</i>' if panel.get("description") else ""
        drawn.append(
            f'<section class="panel" style="{place}" data-panel="{title}">'
            f'<h2><span class="clip">{title}</span>{mark}</h2><div class="body">{body}</div></section>'
        )
    shown = "".join(
        f'<span class="variable"><b>{escape(v.get("label") or v["name"])}</b>'
        f"{escape(look.chosen.get(v['name'], 'All' if v['type'] == 'query' else 'Prometheus'))}</span>"
        for v in board["templating"]["list"]
        if not v.get("hide")
    )
    links = "".join(f'<span class="variable link">{escape(one["title"])}</span>' for one in board.get("links", []))
    ends = [datetime.fromtimestamp(at, UTC) for at in (look.begin, look.end)]
    span = f'<span class="variable when">{ends[0]:%Y-%m-%d %H:%M} to {ends[1]:%H:%M} UTC</span>'
    menu = f'<nav style="width:{look.menu}px"></nav>' if look.menu else ""
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(board["title"])}</title><style>{STYLE}</style>{menu}'
        f'<main style="margin-left:{look.menu}px"><header><h1>{escape(board["title"])}</h1>'
        f"<em>{LABEL}</em></header><header>{shown}{links}{span}</header>"
        f'<div class="grid" style="height:{bottom}px">{"".join(drawn)}</div></main><script>{FIT}</script>'
    )


def _body(
    panel: Mapping[str, Any],
    values: Mapping[str, str],
    look: Look,
    events: list[tuple[float, str]],
    width: float,
    height: float,
) -> str:
    if panel["type"] not in DRAWN:
        raise Unknown(f"type {panel['type']!r}")
    # It asks for a point a pixel, but no more often than is scraped.
    low = _length(panel.get("interval") or "0") or min(look.scraped, 15)
    step = max(_round((look.end - look.begin) / (panel.get("maxDataPoints") or int(width))), low)
    frames: list[Frame] = []
    targets = [target for target in panel.get("targets", []) if not target.get("hide")]
    tables = sum(target.get("format") == "table" for target in targets)
    for target in targets:
        every = max(step, _length(target.get("interval") or "0"))
        expr = _substitute(target["expr"], values, look, every)
        if target.get("instant"):
            times = [look.end]
            result = ask(look.prometheus, "query", query=expr, time=look.end)
        else:
            begin, end = (at // every * every for at in (look.begin, look.end))
            times = [begin + number * every for number in range(int((end - begin) / every) + 1)]
            result = ask(look.prometheus, "query_range", query=expr, start=begin, end=end, step=every)
        if target.get("format") == "table":
            if not target.get("instant"):
                raise Unknown("a range query in table format")
            frames += table(target["refId"], tables > 1, result, look.end)
        else:
            frames += series(target["refId"], target.get("legendFormat", ""), expr, result, times)
    content = Panel(
        options=panel["options"],
        config=panel["fieldConfig"],
        frames=transform(frames, panel.get("transformations", [])),
        events=events,
        begin=look.begin,
        end=look.end,
        width=width,
        height=height,
    )
    return DRAWN[panel["type"]](content)


def _chosen(variable: Mapping[str, Any], look: Look) -> str:
    match variable["type"]:
        case "datasource":
            return "prometheus"
        case "query":
            asked = re.fullmatch(r"label_values\((.+), *(\w+)\)", variable["query"]["query"])
            if asked is None:
                raise Unknown(f"variable query {variable['query']['query']!r}")
            wanted = look.chosen.get(variable["name"])
            return str(variable.get("allValue") or ".*") if wanted is None else re.escape(wanted).replace(r"\-", "-")
        case other:
            raise Unknown(f"variable type {other!r}")


def _substitute(text: str, values: Mapping[str, str], look: Look, step: float) -> str:
    span = int(look.end - look.begin)
    builtin = {
        "__range": f"{span}s",
        "__range_s": str(span),
        "__interval": f"{step:.0f}s",
        "__from": f"{look.begin:.0f}",
        "__to": f"{look.end:.0f}",
        "__rate_interval": f"{max(step + look.scraped, 4 * look.scraped):.0f}s",
    }
    known = {**values, **builtin}

    def put(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2]
        if name not in known or form not in (("date:seconds",) if name in ("__from", "__to") else (None, "regex")):
            raise Unknown(f"variable {match[0]!r}")
        return known[name]

    return re.sub(r"\$(?:\{([A-Za-z_]\w*)(?::([\w:]+))?\}|([A-Za-z_]\w*))", put, text)


def _annotations(board: Mapping[str, Any], values: Mapping[str, str], look: Look) -> list[tuple[float, str]]:
    """Return when something happened, in seconds, and its colour."""
    found = []
    for note in board["annotations"]["list"]:
        if "expr" not in note or not note["enable"]:
            continue
        every = _length(note.get("step") or "60s")
        expr = _substitute(note["expr"], values, look, every)
        result = ask(look.prometheus, "query_range", query=expr, start=look.begin, end=look.end, step=every)
        for one in result:
            for at, value in one["values"]:
                when = float(value) / 1000 if note.get("useValueForTime") else float(at)
                if float(value) and look.begin <= when <= look.end:
                    found.append((when, str(note["iconColor"])))
    return sorted(set(found))


def _length(text: str) -> float:
    match = re.fullmatch(r">?(\d+)(ms|s|m|h|d)?", text)
    if match is None:
        raise Unknown(f"length of time {text!r}")
    return int(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}[match[2]]


def _round(step: float) -> float:
    return next((to for below, to in (*_INTERVALS, *_COARSER) if step < below), 10800)
