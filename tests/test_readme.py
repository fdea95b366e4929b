import re
from enum import StrEnum

import pytest
import yaml
from click import Group

from exporter.cli import main as exporter_main
from exporter.config import Config, NodeConfig, validate
from exporter.status import ServiceState
from remediate.cli import main as remediate_main
from remediate.decision import Reason
from remediate.journal import Outcome
from remediate.rules import Rules, Start, VerifyMode, rules
from remediate.starting import StartReason
from tests.readme import README, states, with_tables

TEXT = README.read_text()


def test_the_tables_are_those_of_the_code_and_the_tests() -> None:
    assert with_tables(TEXT) == TEXT, "run: python -m tests.readme"
    for name in ("metrics", "states"):
        assert TEXT.count(f"<!-- {name} -->\n") == TEXT.count(f"<!-- /{name} -->") == 1


def test_every_state_happens_in_the_tests() -> None:
    table = states()
    assert [state for state in ServiceState if f"`{state}` |" not in table] == []
    assert "|  |" not in table


def test_the_configuration_it_shows_is_valid() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    (shown,) = (block for block in blocks if "nodes" in block)
    assert rules(validate(Config, shown, source="README.md"), source="README.md").webhook.token_file


@pytest.mark.parametrize("kind", [Config, NodeConfig, Rules])
def test_every_configuration_key_is_explained(kind: type[Config | NodeConfig | Rules]) -> None:
    section = TEXT.partition("### Configuration")[2].partition("## Figures")[0]
    missing = [key for key in kind.model_fields if key not in ("nodes", "remediation") and f"{key}" not in section]
    assert not missing


@pytest.mark.parametrize("names", [ServiceState, Start, VerifyMode])
def test_every_state_and_rule_is_named(names: type[StrEnum]) -> None:
    assert [name for name in names if f"`{name}`" not in TEXT and f": {name}`" not in TEXT] == []


@pytest.mark.parametrize("names", [Reason, StartReason, Outcome])
def test_every_reason_and_outcome_has_its_sentence(names: type[StrEnum]) -> None:
    table = TEXT.partition("<!-- reasons -->\n")[2].partition("<!-- /reasons -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    explained = {cell.strip("`"): row[-1] for row in rows for cell in row[:-1]}
    assert [name for name in names if not re.fullmatch(r"\S.{10,}\.", explained.get(name, ""))] == []


def test_every_decision_is_where_it_belongs() -> None:
    """`proceed`, `skip` and `refuse` as the code says them, and each outcome with its exit code."""
    for outcome in Outcome:
        assert f"| `{outcome}` | {outcome.exit_code} |" in TEXT, outcome
    for reason in Reason:
        assert len(re.findall(rf"^\| (?:proceed|skip|refuse) \| `{reason}` \|", TEXT, re.MULTILINE)) == 1, reason


@pytest.mark.parametrize("program", [exporter_main, remediate_main])
def test_every_command_has_an_example(program: Group) -> None:
    without = [
        name for name, command in program.commands.items() if "Example: storagenode-" not in (command.help or "")
    ]
    assert without == []
