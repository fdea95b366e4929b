"""A Prometheus that knows the story, and which of the shipped alerts would have fired in it.

It does not evaluate rules over what is loaded into it: that is done here, as it does it. For what other rules record or
alert on, their expressions are put; what they did so in the hour before, and since when, is not known here.
"""

import math
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from tests.alerts.shipped import RULES
from tests.labs.prometheus import Prometheus, promtool
from tests.pictures.board import Look
from tests.pictures.frames import Unknown, seconds
from tests.pictures.samples import Fleet
from tests.pictures.story import BEGIN, LENGTH

_HOST = '{{ reReplaceAll ":[0-9]+$" "" $labels.instance }}'
"""The one template that labels of ours have: the host of an instance."""


@contextmanager
def told(nodes: int, every: float) -> Iterator[Look]:
    """Look at the whole story of so many nodes, scraped at such an interval, from its end."""
    first, second = Prometheus({}), Prometheus({})
    lines = second.folder / "lines"
    load: list[str | Path] = ["tsdb", "create-blocks-from", "openmetrics", lines, second.folder / "data"]
    with lines.open("w") as file:
        file.writelines(Fleet(nodes).samples(every))
    promtool(*load)
    shutil.copytree(second.folder / "data", first.folder / "data")
    look = Look(prometheus=first, begin=BEGIN, end=BEGIN + LENGTH - every, scraped=every)
    with first, lines.open("w") as file:
        file.writelines(_alerts(look))
    promtool(*load)
    with second:
        yield replace(look, prometheus=second)


def _alerts(look: Look) -> Iterator[str]:
    """Yield lines of OpenMetrics: ALERTS and ALERTS_FOR_STATE."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    known = {rule.get("record") or f'ALERTS{{alertname="{rule["alert"]}"}}': rule["expr"] for rule in rules}

    def whole(expr: str) -> str:
        return re.sub(r'\b(?:\w+:\w+:\w+\b|ALERTS\{alertname="\w+"\})(?!\[)', put, expr)

    def put(match: re.Match[str]) -> str:
        expr = whole(known[match[0]])
        return f"(0 * ({expr}) + 1)" if match[0].startswith("ALERTS") else f"({expr})"

    for rule in (rule for rule in rules if "alert" in rule):
        waits, stays = (seconds(rule.get(name, "0s")) for name in ("for", "keep_firing_for"))
        for one in look.ask(whole(rule["expr"]), start=look.begin, end=look.end, step=look.scraped):
            labels = {name: value for name, value in one["metric"].items() if name != "__name__"}
            host = re.sub(":[0-9]+$", "", labels.get("instance", ""))
            labels |= {name: text.replace(_HOST, host) for name, text in rule.get("labels", {}).items()}
            if any("{{" in text for text in labels.values()):
                raise Unknown(f"template in the labels {labels}")
            times = {float(at) for at, _ in one["values"]}
            yield from history(labels | {"alertname": rule["alert"]}, times, waits, stays, look.end, look.scraped)
    yield "# EOF\n"


def history(
    labels: Mapping[str, str], true: set[float], waits: float, stays: float, end: float, every: float
) -> Iterator[str]:
    """Yield the samples of one alert whose expression is true at these times, all in seconds."""
    since, last, fires, at = math.inf, -math.inf, False, min(true)
    inner = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    while at <= end:
        if at in true:
            since, last = min(since, at), at
            fires = fires or at - since >= waits
        elif not (fires and at - last <= stays):
            since, fires = math.inf, False
        if since < math.inf:
            yield f'ALERTS{{{inner},alertstate="{"firing" if fires else "pending"}"}} 1 {at:.0f}\n'
            yield f"ALERTS_FOR_STATE{{{inner}}} {since:.0f} {at:.0f}\n"
        at += every
