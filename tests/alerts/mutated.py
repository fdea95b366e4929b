"""Break one rule and see that promtool's tests notice: of that rule, of what it needs, and of what needs it."""

import json
import re
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml

from tests.alerts.shipped import RULES, RULES_TESTS
from tests.labs.prometheus import promtool

_RULE = re.compile(r"(?m)^(?=      - (?:alert|record): )")


def assert_noticed(name: str, right: str, wrong: str, folder: Path) -> None:
    """Demand that promtool's tests fail, for what they see of a rule, once something of it is wrong."""
    done = run_alone(name, mutate(RULES.read_text(), name, right, wrong), folder)
    assert done.returncode == 1
    assert "got:" in done.stdout + done.stderr, "it failed for another reason than what it saw"


def mutate(rules: str, name: str, right: str, wrong: str) -> str:
    """Replace the first of the text's `right` in the rules of this name; raises ValueError when there is none."""
    pieces = _RULE.split(rules)
    for number, piece in enumerate(pieces):
        if re.match(rf"      - (alert|record): {re.escape(name)}\n", piece) and right in piece:
            return "".join([*pieces[:number], piece.replace(right, wrong, 1), *pieces[number + 1 :]])
    raise ValueError(f"no rule {name} has {right!r}")


def run_alone(name: str, rules: str, folder: Path) -> CompletedProcess[str]:
    """Run what the shipped tests say of a rule, and of those that are built on it, on given rules."""
    content = yaml.safe_load(rules)
    texts: dict[str, str] = {}
    for rule in (rule for group in content["groups"] for rule in group["rules"]):
        texts[name_of(rule)] = texts.get(name_of(rule), "") + json.dumps(rule)
    dependents = {other for other, text in texts.items() if name in text}
    kept = dependents
    while needed := {other for other in texts if any(other in texts[each] for each in kept)} - kept:
        kept = kept | needed
    for group in content["groups"]:
        group["rules"] = [rule for rule in group["rules"] if name_of(rule) in kept]
    content["groups"] = [group for group in content["groups"] if group["rules"]]
    (folder / RULES.name).write_text(json.dumps(content))
    files = []
    for file in RULES_TESTS:
        tests = []
        for test in _tests(file)["tests"]:
            alerts = [each for each in test.get("alert_rule_test", []) if each["alertname"] in dependents]
            exprs = [
                each for each in test.get("promql_expr_test", []) if any(other in each["expr"] for other in dependents)
            ]
            if alerts or exprs:
                tests.append(test | {"alert_rule_test": alerts, "promql_expr_test": exprs})
        if tests:
            (folder / file.name).write_text(json.dumps(_tests(file) | {"tests": tests}))
            files.append(folder / file.name)
    return promtool("test", "rules", *files, check=False)


def name_of(rule: dict[str, Any]) -> str:
    """Give the name of an alert, or of what is recorded."""
    name: str = rule.get("alert") or rule["record"]
    return name


@cache
def _tests(file: Path) -> Any:
    """Read a test file, every scalar as it stands there: 0x140 is a row of zeros and no number."""
    content = yaml.load(file.read_text(), Loader=yaml.BaseLoader)
    for test in content["tests"]:
        for sample in (sample for each in test.get("promql_expr_test", []) for sample in each["exp_samples"]):
            sample["value"] = float(sample["value"])
    return content
