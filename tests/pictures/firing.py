"""Which of the shipped alerts would have fired: a Prometheus does not evaluate rules over what is loaded into it."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.alerts.shipped import RULES
from tests.labs.prometheus import Prometheus
from tests.pictures.frames import Unknown, ask

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def samples(prometheus: Prometheus, begin: float, end: float, every: float) -> Iterator[str]:
    """Yield lines of OpenMetrics: ALERTS and ALERTS_FOR_STATE as a Prometheus that evaluates the rules writes them."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" not in rule:
                continue  # a recorded series builds on itself; the alerts on those are not of this story
            waits = _seconds(rule.get("for", "0s"))
            stays = _seconds(rule.get("keep_firing_for", "0s"))
            for one in ask(prometheus, "query_range", query=rule["expr"], start=begin, end=end, step=every):
                series = {name: value for name, value in one["metric"].items() if name != "__name__"}
                labels = series | {name: _put(text, series) for name, text in rule.get("labels", {}).items()}
                labels["alertname"] = rule["alert"]
                yield from history(labels, [float(at) for at, _ in one["values"]], waits, stays, end, every)
    yield "# EOF\n"


def history(
    labels: Mapping[str, str], times: list[float], waits: float, stays: float, end: float, every: float
) -> Iterator[str]:
    """Yield the samples of one alert whose expression is true at `times`, all in seconds."""
    since, last, fires = math.inf, -math.inf, False
    at = times[0]
    true = set(times)
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


def _put(text: str, labels: Mapping[str, Any]) -> str:
    """Fill in the one template that labels of ours have: the host of an instance."""
    if text == '{{ reReplaceAll ":[0-9]+$" "" $labels.instance }}':
        return re.sub(":[0-9]+$", "", labels.get("instance", ""))
    if "{{" in text:
        raise Unknown(f"template {text!r}")
    return text


def _seconds(text: str) -> float:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))
