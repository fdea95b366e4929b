"""The metrics and what is made of them: no rule and no board asks for what is not there, and none is there unused."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.shipped import ROOT, RULES
from tests.labs.prometheus import Alertmanager
from tests.reference import metric_families, metric_name

BOARDS = tuple(sorted((ROOT / "grafana").glob("*.json")))
DOCUMENTS = [
    path
    for folder in ("alerts", "grafana")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".md", ".yml", ".json", ".hcl"}
]
NAME = re.compile(r"\bstoragenode_[a-z_]*[a-z]\b(?!_)")
PROMETHEUS = {"up", "ALERTS", "ALERTS_FOR_STATE"}
ALERTMANAGER = {"alertmanager_notifications_failed_total"}
UNUSED: dict[str, str] = {}
"""Metrics that neither a rule nor a board asks for, each with the reason why it is there all the same."""


def exported() -> set[str]:
    return {metric_name(family) for family in metric_families()}


def asked() -> Iterator[str]:
    """Yield everything that Prometheus is asked: by the rules, the words of alerts, and the boards."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
            for words in rule.get("annotations", {}).values():
                yield from re.findall(r'query (?:\(printf )?"((?:\\.|[^"\\])*)"', words)
    for board in BOARDS:
        yield from _queries(json.loads(board.read_text()))


def _queries(content: Any) -> Iterator[str]:
    match content:
        case dict():
            for key, value in content.items():
                if key in ("expr", "query", "definition") and isinstance(value, str):
                    yield value
                else:
                    yield from _queries(value)
        case list():
            for value in content:
                yield from _queries(value)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_named_is_one_we_export(path: Path) -> None:
    assert set(NAME.findall(path.read_text())) <= exported()


def test_every_metric_is_used_or_it_is_said_why_not() -> None:
    used = {name for expr in asked() for name in NAME.findall(expr)}
    assert exported() - used == set(UNUSED)
    assert len(used) > len(UNUSED)


def test_of_others_only_these_metrics_are_asked_for() -> None:
    foreign = {
        name
        for expr in asked()
        for name in re.findall(r"(?<!:)\b(?:alertmanager|prometheus|node|go|process)_\w+", expr)
    }
    assert foreign == ALERTMANAGER
    assert {name for expr in asked() for name in re.findall(r"\bup\b|\bALERTS\w*", expr)} <= PROMETHEUS


@pytest.mark.prometheus
def test_alertmanager_has_what_is_asked_of_it() -> None:
    with Alertmanager({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}) as running:
        metrics = running.request("GET", "/metrics").decode()
    for name in ALERTMANAGER:
        assert f'{name}{{integration="webhook"' in metrics
