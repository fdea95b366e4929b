"""Our documents: every command is run by a test and says by which, every configuration is accepted by whom it is for,
every link leads somewhere, and what is named is there."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
import yaml

from exporter.config import Config, validate
from remediate.rules import rules
from tests.alerts import shipped
from tests.documents import FENCE, ROOT, Block, blocks, documents
from tests.labs.prometheus import amtool, program, promtool
from tests.reference import PROGRAMS, metric_families, metric_name

COMMANDS = [block for block in blocks() if block.language in ("", "sh", "console")]
SETTINGS = [block for block in blocks() if block.language == "yaml"]
PROSE = {path: FENCE.sub("", path.read_text()) for path in documents()}
LINKS = [(path, target) for path, text in PROSE.items() for target in re.findall(r"\]\(([^)\s]+)\)", text)]
CODE = {(path, code) for path, text in PROSE.items() for code in re.findall(r"`([^`\n]+)`", text)}
CODE |= {(block.file, command) for block in COMMANDS for command in block.commands}
COMMAND_LINE = re.compile(
    r"(?:^|[;&|] |\$\(|sudo |-- )(?:/\S+/)?(storagenode-(?:exporter|remediate)) ([^|;&<>]+)", re.MULTILINE
)
IGNORED = (ROOT / ".gitignore").read_text().splitlines()
"""What tests and builds leave; it is not there in a fresh copy."""
MAKEFILE = (ROOT / "Makefile").read_text()
PROMETHEUS = ROOT / "README.md"
"""Where the prometheus.yml is that the alert rules rely on."""


def folder(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.where)
def test_every_command_block_names_a_test_that_runs_it(block: Block) -> None:
    assert block.language, f"{block.where}: say what it is: sh, console, yaml, text"
    assert block.runner, f"{block.where}: name the test that runs it, as in ```sh install"
    asking = f'blocks("{block.runner}"'
    assert any(asking in path.read_text() for path in (ROOT / "tests").rglob("*.py")), f"nobody asks for {asking})"


def test_no_block_is_in_a_language_that_nobody_reads() -> None:
    assert [block.where for block in blocks() if block.language not in ("", "sh", "console", "yaml", "text")] == []


def test_no_command_hides_in_an_indented_block() -> None:
    for path, text in PROSE.items():
        for line in text.splitlines():
            assert not re.match(r" {4,}(storagenode-|systemctl|journalctl|curl|make|promtool|amtool) ?", line), path


@pytest.mark.parametrize("path", PROSE, ids=folder)
def test_every_link_leads_somewhere(path: Path) -> None:
    inside = [target for source, target in LINKS if source == path and not re.match(r"https?://|mailto:", target)]
    assert [target for target in inside if not _leads_somewhere(path, target)] == []


def _leads_somewhere(path: Path, target: str) -> bool:
    place, _, anchor = unquote(target).partition("#")
    there = (path.parent / place).resolve() if place else path
    return there.exists() and there.is_relative_to(ROOT) and (not anchor or anchor in anchors(there))


def anchors(path: Path) -> list[str]:
    """The names by which a document's headings are linked to, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", path.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return found


def test_every_document_is_led_to() -> None:
    """From the README, over other documents, and folders that are linked to."""
    reached, ahead = set[Path](), {PROMETHEUS}
    while ahead:
        path = ahead.pop()
        reached.add(path)
        linked = {
            (path.parent / unquote(target.partition("#")[0])).resolve() for source, target in LINKS if source == path
        }
        inside = {each for place in linked if place.is_dir() for each in place.glob("*.md")}
        ahead |= {each for each in linked | inside if each.suffix == ".md"} - reached
    assert set(PROSE) - reached == set()


@pytest.mark.parametrize("path", PROSE, ids=folder)
def test_commands_options_and_names_are_those_there_are(path: Path) -> None:
    metrics = {metric_name(family) for family in metric_families()}
    done = "".join(block.text for block in COMMANDS if block.file == path)
    for code in [code for source, code in CODE if source == path]:
        for ours, rest in COMMAND_LINE.findall(code):
            assert list(_unknown(PROGRAMS[ours], rest.split())) == [], code
        for named in re.findall(r"^(?:exporter|remediate|tests|docs|packaging|alerts|grafana)/[\w./*-]+$", code):
            made = f" {named}\n" in done or named in IGNORED
            assert made or "*" in named or (ROOT / named).exists(), f"{named}: there is no such file"
        for named in re.findall(r"^make ([a-z-]+)", code):
            assert re.search(rf"^{named}:", MAKEFILE, re.MULTILINE), f"{code}: there is no such target"
        for named in re.findall(r"\bstoragenode_[a-z_]*[a-z](?![a-z_…{*]|\d|\.\w)", code):
            known = any(named in (name, f"{name}_count", f"{name}_sum") for name in metrics)
            assert known or named.startswith("storagenode_keeper"), f"{named}: there is no such metric"


def _unknown(group: click.Group, words: list[str]) -> Iterator[str]:
    """Yield what a command line says that the program does not know: its command, or options of that."""
    command = group.commands.get("serve" if words[0].startswith("--") else words[0])
    if command is None:
        yield words[0]
        return
    known = {option for each in (command, group) for param in each.params for option in param.opts} | {"--help"}
    yield from (word for word in words if word.startswith("--") and word.partition("=")[0] not in known)


def test_every_alert_that_is_named_is_there() -> None:
    alerts = {rule.get("alert") for group in groups() for rule in group["rules"]}
    for path in PROSE:
        text = path.read_text()
        alerts |= set(re.findall(r"amtool alert add alertname=(\w+)", text))
        assert set(re.findall(r"\bStorageNode[A-Z]\w+", text)) <= alerts, path


def groups() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(shipped.RULES.read_text())["groups"]
    return found


def test_the_rules_rely_on_the_jobs_that_the_readme_scrapes() -> None:
    relied_on = set(re.findall(r'\bjob="([^"]+)"', shipped.RULES.read_text()))
    (shown,) = (
        yaml.safe_load(block.text) for block in SETTINGS if block.file == PROMETHEUS and "job_name" in block.text
    )
    assert relied_on == {scrape["job_name"] for scrape in shown["scrape_configs"]}


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: block.where)
def test_every_configuration_of_ours_is_accepted(block: Block) -> None:
    content = yaml.safe_load(block.text) if "\n---" not in block.text else list(yaml.safe_load_all(block.text))
    assert isinstance(content, dict | list), f"{block.where}: neither keys and values nor a list"
    if not isinstance(content, dict) or not content.keys() <= Config.model_fields.keys():
        return  # of another program
    content = {"nodes": [{"name": "any", "service": "process"}]} | content
    for node in content["nodes"]:
        node.setdefault("binary", "/from/the/unit")  # what is found out when it is loaded
    rules(validate(Config, content, source=block.where), source=block.where)


@pytest.mark.prometheus
def test_every_configuration_of_prometheus_is_accepted(tmp_path: Path) -> None:
    shutil.copy(shipped.RULES, tmp_path)
    file = tmp_path / "prometheus.yml"
    for block in [block for block in SETTINGS if re.search("job_name:|scrape_configs:|alertmanagers:", block.text)]:
        content = yaml.safe_load(block.text)
        file.write_text(yaml.safe_dump({"scrape_configs": content} if isinstance(content, list) else content))
        checked = promtool("check", "config", "--syntax-only", file, check=False)
        assert checked.returncode == 0, f"{block.where}: {checked.stderr}"
        for named in content.get("rule_files", []) if isinstance(content, dict) else []:
            assert (tmp_path / Path(named).name).exists(), f"{block.where}: {named}: not the name of our rules"


@pytest.mark.prometheus
def test_every_configuration_of_alertmanager_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    for block in [block for block in SETTINGS if re.search("receiver|matchers:|webhook_configs:", block.text)]:
        file.write_text(yaml.safe_dump(_whole(yaml.safe_load(block.text))))
        checked = amtool("check-config", file, check=False)
        assert checked.returncode == 0, f"{block.where}: {checked.stdout}{checked.stderr}"


def _whole(part: Any) -> dict[str, Any]:
    """Put a part of Alertmanager's configuration (routes, receivers, what is in one, inhibition) into our example."""
    whole: dict[str, Any] = yaml.safe_load(shipped.ALERTMANAGER.read_text())
    match part:
        case {"webhook_configs": _}:
            whole["receivers"].append({"name": "any"} | part)
        case dict():
            whole |= part
        case [{"name": _}, *_]:
            whole["receivers"] += part
        case _:
            whole["route"]["routes"] = part
    known = {receiver["name"] for receiver in whole["receivers"]}
    named = set(re.findall(r"receiver: ([\w.-]+)", yaml.safe_dump(whole["route"])))
    whole["receivers"] += [{"name": name} for name in sorted(named - known)]
    return whole


@pytest.mark.parametrize("command", [command for block in blocks("make") for command in block.commands])
def test_what_is_to_be_made_can_be_made(command: str) -> None:
    """The targets are there; `make test` is what runs this, and the demo is run below."""
    made = subprocess.run(["make", "--dry-run", *command.partition("#")[0].split()[1:]], cwd=ROOT, capture_output=True)
    assert made.returncode == 0, made.stderr


@pytest.mark.prometheus
def test_the_demo_ends_well() -> None:
    program("prometheus")  # without one it tells less
    dry = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m tests.demo --manager process" in dry.stdout
    demo = subprocess.run([sys.executable, "-m", "tests.demo"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "alert resolved" in demo.stdout
    assert "everything that was started is stopped" in demo.stdout
