"""The alert rules, by a linter that knows what goes wrong with rules that are valid."""

from pathlib import Path

import pytest

from tests.alerts.mutated import mutate
from tests.alerts.shipped import RULES
from tests.labs.pint import pint

pytestmark = pytest.mark.prometheus

CONFIG = RULES.parent / ".pint.hcl"


def test_nothing_is_found() -> None:
    done = pint(f"--config={CONFIG}", "lint", "--fail-on=info", "--min-severity=info", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "entries=" in done.stderr, "it looked at no rule"


@pytest.mark.parametrize(
    ("name", "right", "wrong", "found"),
    [
        ("StorageNodeUpdaterHeld", "== 1", "", "alerts/comparison"),
        ("StorageNodeCrashLooping", "max without (manager, state)", "max without (node)", "promql/impossible"),
        ("StorageNodeRemediationPaused", "severity: info", "severity: '{{ $value }}'", "alerts/template"),
        ("StorageNodeWebhookDown", "for: 5m", "for: 0s", "alerts/for"),
        ("StorageNodeWatchdog", "StorageNodeWatchdog", "StorageNodeWatched", "alerts/comparison"),
    ],
)
def test_a_fault_is_found(name: str, right: str, wrong: str, found: str, tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(mutate(RULES.read_text(), name, right, wrong))
    done = pint(f"--config={CONFIG}", "lint", "--fail-on=info", "--min-severity=info", tmp_path / RULES.name)
    assert done.returncode == 1
    assert found in done.stdout + done.stderr
