"""What holds the shape of the project: who may import whom, what the exporter may not do, and how long a module is."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import exporter

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for package in ("exporter", "remediate") for path in (ROOT / package).rglob("*.py"))
EXPORTER = [path for path in MODULES if path.is_relative_to(ROOT / "exporter")]
LONGEST_LINES = 300
# Each has a reason: running `version`; the one connection; what is kept over a restart.
MAY_START_PROCESSES = {"exporter/sources/binary.py"}
MAY_WRITE = {"exporter/cache.py", "exporter/serve.py"}
CHANGES = {"unlink", "rename", "replace", "mkdir", "rmdir", "chmod", "chown", "symlink_to", "hardlink_to", "touch"}
CHANGES |= {"write_text", "write_bytes", "truncate", "kill", "killpg", "system", "execv", "fork", "rmtree"}
STARTS_PROCESSES = {"killpg", "chmod"}  # the program's own group; the empty folder it is shown


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively"
            yield node.module or ""


def attributes(path: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def test_there_is_something_to_look_at() -> None:
    assert len(EXPORTER) > 15
    assert "exporter.version" in set(imports(ROOT / "exporter" / "allowed.py"))


@pytest.mark.parametrize("path", EXPORTER, ids=name)
def test_the_exporter_does_not_know_the_remediation(path: Path) -> None:
    assert not [module for module in imports(path) if module.split(".")[0] == "remediate"]


@pytest.mark.parametrize("path", EXPORTER, ids=name)
def test_the_exporter_changes_nothing(path: Path) -> None:
    if name(path) not in MAY_START_PROCESSES:
        assert not {"subprocess", "multiprocessing", "pty"} & {module.split(".")[0] for module in imports(path)}
    allowed = STARTS_PROCESSES if name(path) in MAY_START_PROCESSES else CHANGES if name(path) in MAY_WRITE else set()
    # `replace` is a method of texts and dates too.
    assert not (attributes(path) & CHANGES) - allowed - {"replace"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LONGEST_LINES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_module_is_named_after_nothing(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "base", "common", "misc")


def test_the_version_is_the_distributions() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == exporter.__version__
