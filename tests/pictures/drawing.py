"""What all panels are drawn with: sizes and colours of Grafana's dark theme, and what a panel is given to draw."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from tests.pictures.frames import Frame

CELL, GAP, HEADER, SCROLLBAR = 30, 8, 32, 8
LETTER = 0.53
"""Width of a letter of the type, on the average, in its size."""

STYLE = """
* { box-sizing: border-box; margin: 0; }
html { overflow: hidden; }
body { background: #111217; color: #ccccdc; font: 14px/1.57 Inter, "DejaVu Sans", sans-serif; }
body, table, svg { letter-spacing: -.024em; } /* as wide as Inter, which Grafana brings along */
main { padding: 8px 24px 24px 16px; }
header { display: flex; gap: 8px; align-items: center; height: 40px; }
header h1 { font-size: 18px; font-weight: 500; }
header em { margin-left: auto; color: #f2cc0c; font-size: 13px; font-style: normal; }
.variable { padding: 4px 8px; border: 1px solid #34363f; border-radius: 2px; background: #111217; }
.variable b { margin-right: 8px; font-weight: 500; color: #6e9fff; }
.when { margin-left: auto; }
.grid { position: relative; }
.panel, .row { position: absolute; }
.panel { border: 1px solid #25272d; border-radius: 2px; background: #181b1f; overflow: hidden; }
.row { font-weight: 500; line-height: 30px; }
h2 { display: flex; gap: 6px; height: 32px; padding: 0 8px; align-items: center; font-size: 14px; font-weight: 500; }
.clip { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; display: block; }
.hint { flex: none; width: 14px; height: 14px; border: 1px solid #8e8e9a; border-radius: 50%; color: #8e8e9a;
  font: 600 10px/12px serif; text-align: center; }
.body { position: relative; overflow: hidden; }
.none { display: flex; height: 100%; align-items: center; justify-content: center; color: #8e8e9a; font-size: 16px; }
.stats { display: flex; gap: 8px; height: 100%; padding: 0 8px 8px; }
.stat { flex: 1; min-width: 0; padding: 0 8px; border-radius: 2px; text-align: center; align-content: center; }
.stat .clip { line-height: 1.2; letter-spacing: -.06em; }
table { border-collapse: collapse; table-layout: fixed; }
th, td { height: 36px; padding: 0 6px; border: 1px solid #25272d; font-weight: 400; }
th { font-weight: 500; text-align: left; }
.pages { position: absolute; bottom: 0; width: 100%; height: 36px; text-align: center; background: #181b1f;
  color: #8e8e9a; line-height: 36px; }
svg { display: block; font: 12px Inter, "DejaVu Sans", sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: 0 12px; padding: 2px 8px; font-size: 12px; overflow: hidden; }
.legend i { display: inline-block; width: 14px; height: 4px; margin-right: 6px; border-radius: 2px;
  vertical-align: 3px; }
.legend span { display: inline-block; line-height: 20px; white-space: nowrap; }
.link { color: #6e9fff; }
"""

FIT = """
const wide = e => { const range = document.createRange(); range.selectNodeContents(e);
  return range.getBoundingClientRect().width; };
for (const e of document.querySelectorAll("[data-size]"))
  for (; wide(e) > e.clientWidth - 2 && e.dataset.size > 4; e.style.fontSize = e.dataset.size + "px") e.dataset.size--;
"""
"""Makes big values smaller until they fit, as Grafana does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What a panel draws: its data, what is configured for it, and its room in pixels; times in seconds."""

    options: Mapping[str, Any]
    config: Mapping[str, Any]
    frames: list[Frame]
    events: list[tuple[float, str]]
    begin: float
    end: float
    width: float
    height: float


def nothing(panel: Panel) -> str:
    """Say that there is no data, in the words of the panel or Grafana's."""
    words = escape(panel.config["defaults"].get("noValue") or "No data")
    return f'<div class="none" style="height:{panel.height}px" data-empty="{words}">{words}</div>'


def wide(text: str, size: float = 12) -> float:
    """Estimate the width of a text, in pixels."""
    return len(text) * size * LETTER
