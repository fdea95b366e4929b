"""The page for people: every node, how it is and what to do about it, as `check` says it. No script. Pure."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from urllib.parse import quote

from exporter import __version__
from exporter.check import HEADINGS, Level, advice, level, row
from exporter.status import NodeStatus

_LEVELS = (Level.OUTDATED, Level.UNCLEAR, Level.WELL)
"""What needs a person most comes first."""
_WORDS = {Level.OUTDATED: "below the minimum", Level.UNCLEAR: "down, not reached or not known", Level.WELL: "well"}
_NOTHING = "Nothing to do."
_DOWN = "Its version does not keep it from starting."

_STYLE = """
:root { color-scheme: light dark; --text: #1d2330; --faint: #5a6375; --page: #f4f5f8; --card: #fff; --line: #dde1e9;
  --link: #0b57c2; --outdated: #b3181d; --unclear: #8a5a00; --well: #1b6e3c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9f0; --faint: #a3acbd; --page: #12151c; --card: #1b202b;
  --line: #323a4a; --link: #8ab8ff; --outdated: #ff8a85; --unclear: #f2c04f; --well: #74d69a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1.5rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.4rem; }
p { margin: .25rem 0; }
a { color: var(--link); }
pre { margin: 1rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--line);
  white-space: pre-wrap; overflow-wrap: anywhere; }
.faint { color: var(--faint); }
.summary b { display: inline-block; margin-right: 1rem; }
.outdated { --level: var(--outdated); }
.unclear { --level: var(--unclear); }
.well { --level: var(--well); }
.level { color: var(--level); font-weight: 600; }
table { width: 100%; margin: 1rem 0; border-collapse: collapse; background: var(--card);
  border: 1px solid var(--line); }
th, td { padding: .4rem .75rem; text-align: left; vertical-align: top; }
th { min-width: 12rem; overflow-wrap: anywhere; }
thead th:not(:first-child) { min-width: 0; }
thead th { color: var(--faint); font-weight: 500; font-size: .875rem; }
thead { border-bottom: 1px solid var(--line); }
tbody { border-left: .3rem solid var(--level); border-bottom: 1px solid var(--line); }
.advice td { padding-top: 0; overflow-wrap: anywhere; }
@media (max-width: 46rem) {
  body { padding: .75rem; }
  thead { display: none; }
  table, tbody, tr, th, td { display: block; width: auto; }
  tbody { padding: .5rem .75rem; }
  th, td, .advice td { padding: .1rem 0; }
  tbody th { font-size: 1.125rem; }
  td[data-heading] { display: flex; }
  td[data-heading]::before { content: attr(data-heading); flex: 0 0 7rem; color: var(--faint); font-weight: 400; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""What the page is served with: nothing in it may run or load anything."""


def page(statuses: Sequence[NodeStatus], *, now: datetime, without: str) -> str:
    """Lay the nodes out as HTML, those that need a person first; `without` says why there are none."""
    ordered = sorted(statuses, key=lambda status: _LEVELS.index(level(status)))
    nodes = "".join(_node(status, now) for status in ordered)
    headings = "".join(f"<th scope=col>{escape(_heading(each))}" for each in HEADINGS)
    content = f"<table><thead><tr>{headings}</thead>{nodes}</table>" if statuses else f"<pre>{escape(without)}</pre>"
    return (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>Storage nodes</title><style>{_STYLE}</style></head><body>"
        f"<h1>Storage nodes on this host</h1>{_summary(statuses)}{content}"
        '<p><a href="metrics">Metrics</a> · <a href="-/healthy">Health</a>'
        f"<p class=faint>Seen {now:%Y-%m-%d %H:%M:%S} UTC by storagenode-exporter {__version__}; reload to look again."
        "</body></html>\n"
    )


def _summary(statuses: Sequence[NodeStatus]) -> str:
    counts = Counter(level(status) for status in statuses)
    words = [f'<b class="level {each}">{counts[each]} {_WORDS[each]}</b>' for each in _LEVELS if counts[each]]
    return f"<p class=summary>{' '.join(words)}"


def _node(status: NodeStatus, now: datetime) -> str:
    name, *cells, verdict = row(status, now)
    described = "".join(
        f'<td data-heading="{escape(_heading(heading))}">{escape(cell)}'
        for heading, cell in zip(HEADINGS[1:-1], cells, strict=True)
    )
    said = advice(status) or [_NOTHING if level(status) is Level.WELL else _DOWN]
    advised = "<br>".join(map(escape, said))
    link = f'<a href="metrics?node={quote(name, safe="")}">Metrics</a>'
    return (
        f"<tbody class={level(status)}><tr><th scope=rowgroup>{escape(name)}{described}"
        f'<td class=level data-heading="{escape(_heading(HEADINGS[-1]))}">{escape(verdict)}'
        f"<tr class=advice><td><td colspan={len(cells)}>{advised}<td>{link}</tbody>"
    )


def _heading(text: str) -> str:
    return text.capitalize()
