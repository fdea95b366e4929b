"""A dashboard's JSON and a Prometheus into a page: variables, queries, the grid; the panels are drawn elsewhere."""

import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from tests.grafana.boards import EVERY, FLEET, fill, worst
from tests.labs.prometheus import Prometheus
from tests.pictures import charts, panels, timelines
from tests.pictures.drawing import CELL, FIT, GAP, HEADER, SCROLLBAR, STYLE, Panel
from tests.pictures.frames import Frame, Unknown, seconds, series, table, transform

LABEL = "rendering of the panels' queries by tests/pictures, not Grafana"
_FINEST = 15
"""Seconds between two points, or so many times that."""
DRAWN: Mapping[str, Callable[[Panel], str]] = {
    "stat": panels.stat,
    "table": panels.table,
    "timeseries": charts.timeseries,
    "state-timeline": timelines.state_timeline,
    "status-history": timelines.status_history,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Who looks at what, when: the time shown, how often is scraped (both in seconds), and which node is chosen."""

    prometheus: Prometheus
    begin: float
    end: float
    scraped: float
    node: str | None = None
    """None: all."""
    width: int = 1400
    """Pixels: less where Grafana's menu is docked."""

    def ask(self, query: str, **span: float) -> list[dict[str, Any]]:
        """Ask at the end of the time shown, or for each `step` from `start` to `end`; however long that takes."""
        asked = urllib.parse.urlencode({"query": query, **(span or {"time": self.end})})
        url = f"{self.prometheus.url}/api/v1/query{'_range' if span else ''}?{asked}"
        with urllib.request.urlopen(url, timeout=120) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


def draw(path: Path, look: Look) -> str:
    """Return the page of a dashboard.

    Raises:
        Unknown: something of the dashboard is not known here; names the panel.
    """
    board = json.loads(path.read_text())
    values = {"node": look.node or EVERY, "__range": f"{look.end - look.begin:.0f}s"}
    if board["title"] == json.loads(FLEET.read_text())["title"]:
        values["worst"] = worst(look.ask, values["node"])
    events = _annotations(board, values, look)
    column = (look.width - 32 - SCROLLBAR - GAP * 23) / 24
    drawn, bottom = [], 0
    for panel in board["panels"]:
        at, title = panel["gridPos"], escape(panel.get("title", ""))
        left, top = at["x"] * (column + GAP), at["y"] * (CELL + GAP)
        width, height = at["w"] * column + (at["w"] - 1) * GAP, at["h"] * CELL + (at["h"] - 1) * GAP
        bottom = max(bottom, top + height)
        place = f"left:{left:.1f}px;top:{top}px;width:{width:.1f}px;height:{height}px"
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
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (look.begin, look.end))
    shown = {"Data source": "Prometheus", "Node": look.node or "All"}
    bar = "".join(f'<span class="variable"><b>{name}</b>{escape(value)}</span>' for name, value in shown.items())
    bar += "".join(f'<span class="variable link">{escape(one["title"])}</span>' for one in board["links"])
    bar += f'<span class="variable when">{begin:%Y-%m-%d %H:%M} to {end:%H:%M} UTC</span>'
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(board["title"])}</title><style>{STYLE}</style>'
        f"<main><header><h1>{escape(board['title'])}</h1><em>{LABEL}</em></header><header>{bar}</header>"
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
    points = panel.get("maxDataPoints") or int(width)
    frames: list[Frame] = []
    for target in panel["targets"]:
        fine = round((look.end - look.begin) / points / _FINEST) * _FINEST
        every = max(fine, seconds(target.get("interval") or f"{_FINEST}s"))
        rate = max(every + look.scraped, 4 * look.scraped)
        expr = fill(target["expr"], {**values, "__interval": f"{every:.0f}s", "__rate_interval": f"{rate:.0f}s"})
        if target.get("format") == "table":
            frames += table(target["refId"], len(panel["targets"]) > 1, look.ask(expr), look.end)
            continue
        begin, end = (at // every * every for at in (look.begin, look.end))
        times = [look.end] if target["instant"] else [begin + n * every for n in range(int((end - begin) / every) + 1)]
        result = look.ask(expr, **({} if target["instant"] else {"start": begin, "end": end, "step": every}))
        frames += series(target.get("legendFormat", ""), result, times)
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


def _annotations(board: Mapping[str, Any], values: Mapping[str, str], look: Look) -> list[tuple[float, str]]:
    """Return when something happened, in seconds, and its colour."""
    found = set[tuple[float, str]]()
    for note in board["annotations"]["list"]:
        if "expr" in note:
            span = {"start": look.begin, "end": look.end, "step": seconds(note["step"])}
            for one in look.ask(fill(note["expr"], values), **span):
                moments = {float(value) / 1000 for _, value in one["values"]}
                found |= {(at, note["iconColor"]) for at in moments if look.begin <= at <= look.end}
    return sorted(found)
