"""What the reference says is what the code says: tables, keys, states, reasons, outcomes and exit codes."""

import re
from enum import StrEnum
from pathlib import Path

import pytest
import yaml
from click import Group
from pydantic import TypeAdapter

from exporter.config import Config, NodeConfig, Part, ProcessService, WebConfig
from exporter.status import ServiceState
from remediate.decision import Reason
from remediate.journal import Outcome
from remediate.rules import Rules, Start, VerifyMode
from remediate.starting import StartReason
from tests.documents import ROOT
from tests.reference import PROGRAMS, TABLES, states, with_table

DECISIONS = (ROOT / "docs/reference/decisions.md").read_text()
VERIFICATION, UPDATING, WATCHING, CONFIGURATION = (
    (ROOT / "docs" / name).read_text()
    for name in ("reference/verification.md", "updating.md", "watching.md", "configuration.md")
)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_code_and_the_tests(path: Path) -> None:
    text = path.read_text()
    assert with_table(path) == text, "run: python -m tests.reference"
    assert text.count(f"<!-- {path.stem} -->\n") == text.count(f"<!-- /{path.stem} -->") == 1


def test_every_state_happens_in_the_tests() -> None:
    table = states()
    assert [state for state in ServiceState if f"`{state}` |" not in table] == []
    assert "|  |" not in table


KEYS = [line.split(" | ")[:2] for line in CONFIGURATION.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize(
    ("kind", "prefix"), [(Config, ""), (NodeConfig, "nodes[]."), (WebConfig, "web."), (Rules, "remediation.")]
)
def test_every_configuration_key_is_explained_with_its_default(kind: type[Part], prefix: str) -> None:
    told: dict[str, str] = {}
    for cell, default in KEYS:
        first, *others = re.findall(r"`([^`]+)`", cell)
        before = first[: first.rfind(".") + 1]
        told |= {before + name.removeprefix(before): default for name in (first, *others)}
    for key, field in kind.model_fields.items():
        if key in ("nodes", "web", "remediation"):
            continue  # told of by what is in it
        default = told.pop(prefix + key)
        if re.fullmatch(r"`[^`]+`", default) and not field.is_required():
            says = TypeAdapter(field.rebuild_annotation()).validate_python(yaml.safe_load(default.strip("`")))
            assert says == field.default, key
    assert [key for key in told if key.startswith(prefix) and "." not in key.removeprefix(prefix)] == []


def test_how_a_bare_process_is_started_is_explained() -> None:
    assert [key for key in ProcessService.model_fields if key != "manager" and f"`{key}`" not in CONFIGURATION] == []


@pytest.mark.parametrize(("names", "text"), [(ServiceState, WATCHING), (Start, UPDATING), (VerifyMode, VERIFICATION)])
def test_every_state_and_rule_is_named(names: type[StrEnum], text: str) -> None:
    first_cells = "".join(re.findall(r"^\| `[^|]*", text, re.MULTILINE))
    assert [name for name in names if f"`{name}`" not in first_cells] == []


@pytest.mark.parametrize("names", [Reason, StartReason, Outcome])
def test_every_reason_and_outcome_has_its_sentence(names: type[StrEnum]) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in DECISIONS.splitlines() if line[:2] == "| "]
    explained = {cell.strip("`"): row[-1] for row in rows for cell in row[:-1]}
    assert [name for name in names if not re.fullmatch(r"\S.{10,}\.", explained.get(name, ""))] == []


def test_every_decision_is_where_it_belongs() -> None:
    """`proceed`, `skip` and `refuse` as the code says them, and each outcome with its exit code."""
    for outcome in Outcome:
        assert f"| `{outcome}` | {outcome.exit_code} |" in DECISIONS, outcome
    for reason in Reason:
        assert len(re.findall(rf"^\| (?:proceed|skip|refuse) \| `{reason}` \|", DECISIONS, re.MULTILINE)) == 1, reason


@pytest.mark.parametrize(("program", "group"), PROGRAMS.items(), ids=PROGRAMS)
def test_every_command_has_an_example_and_its_exit_codes(program: str, group: Group) -> None:
    table = [line.partition(" | ")[0] for line in DECISIONS.splitlines() if line.startswith("| `storagenode-")]
    for name, command in group.commands.items():
        assert "Example: storagenode-" in (command.help or ""), name
        assert any(row.startswith(f"| `{program} ") and re.search(rf"[ `]{name}`", row) for row in table), name
