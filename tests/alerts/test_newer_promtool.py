"""The alert rules, and what they promise, by promtools that are newer than the oldest that they are written for."""

import subprocess
from pathlib import Path

import pytest

from tests.alerts.shipped import RULES, RULES_TESTS
from tests.labs import promtool

pytestmark = [pytest.mark.prometheus, pytest.mark.parametrize("release", promtool.RELEASES)]


def _run(release: str, *args: str | Path) -> str:
    done = subprocess.run([promtool.of(release), *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_clean(release: str) -> None:
    assert not _run(release, "--version").startswith("promtool, version 2.42")
    _run(release, "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("tests", RULES_TESTS, ids=lambda path: path.name)
def test_rules_do_what_they_promise(release: str, tests: Path) -> None:
    _run(release, "test", "rules", tests)
