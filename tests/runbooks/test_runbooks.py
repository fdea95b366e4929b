"""The runbooks: each for its alert, of one form, and with a test that runs its commands."""

import re
from pathlib import Path

import pytest
import yaml

from remediate.journal import Outcome
from tests.alerts.shipped import RULES
from tests.documents import blocks
from tests.runbooks import test_acting, test_watching
from tests.runbooks.book import HEADINGS, RUNBOOKS, SILENCE, placeholders, rules

NAMES = sorted(path.stem for path in RUNBOOKS.glob("StorageNode*.md"))


def test_there_is_one_for_each_alert() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule} == set(NAMES)
    assert sorted([*test_acting.STATES, *test_watching.STATES]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_form_of_all(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    severities = list(dict.fromkeys(rule["labels"]["severity"] for rule in rules(name)))
    said = "Four severities" if len(severities) > 2 else severities[0].capitalize().replace("None", "Severity none")
    assert text.splitlines()[2].startswith(f"{said}")
    assert f"| [{name}]({name}.md) | {', '.join(severities)} |" in (RUNBOOKS / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_what_to_do_now(name: str) -> None:
    first = (RUNBOOKS / f"{name}.md").read_text().split("\n\n")[2]
    assert first.startswith("**Now:** ")
    told = set(re.findall(r"`((?:storagenode-\w+|systemctl|journalctl) [^`]+)`", first))
    assert told <= {line for block in blocks("runbooks") for line in block.commands}, "each is run by some test"


@pytest.mark.parametrize("name", NAMES)
def test_it_silences_itself_for_a_time_and_says_why(name: str) -> None:
    (line,) = [
        line
        for block in blocks("runbooks", RUNBOOKS / f"{name}.md")
        for line in block.commands
        if line.startswith("amtool silence add")
    ]
    assert re.search(r' --duration=\d+[hd] --comment="[^"]+"$', line)
    if name != "StorageNodeWatchdog":
        assert name in line
    block = blocks("runbooks", RUNBOOKS / f"{name}.md")[-1]
    assert (block.heading, block.commands) == (SILENCE, [line])


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_what_is_to_be_filled_in_is_explained(path: Path) -> None:
    for block in blocks("runbooks", path):
        words = set(re.findall(r"\b[A-Z]{3,}\b", block.text))
        assert words - placeholders() - {"ALERTS"} == set(), f"{path.name}:{block.line}"


def test_every_way_to_fail_is_explained() -> None:
    text = (RUNBOOKS / "StorageNodeRemediationFailed.md").read_text()
    said = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert said == {outcome for outcome in Outcome if outcome.exit_code != 0}
