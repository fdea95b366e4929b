"""The alert rules, and what they promise, by a promtool that is newer than the oldest that they are written for."""

import subprocess
from pathlib import Path

import pytest

from tests.alerts.shipped import RULES, RULES_TESTS
from tests.labs.promtool import newer

pytestmark = pytest.mark.prometheus


def _run(*args: str | Path) -> str:
    done = subprocess.run([newer(), *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_clean() -> None:
    assert not _run("--version").startswith("promtool, version 2.42")
    _run("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("tests", RULES_TESTS, ids=lambda path: path.name)
def test_rules_do_what_they_promise(tests: Path) -> None:
    _run("test", "rules", tests)
