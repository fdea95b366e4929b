"""Read what operators are given in alerts/, with only addresses and waiting times changed for a test."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "alerts/storagenode.rules.yml"
RULES_TESTS = tuple(sorted((ROOT / "alerts").glob("*.test.yml")))
ALERTMANAGER = ROOT / "alerts/alertmanager.example.yml"


def unslowed() -> str:
    """Return the rule file without the groups' own intervals: every rule is looked at as often as the others."""
    return re.sub(r"(?m)^    interval: .+\n", "", RULES.read_text())


def rules(**waits: str) -> str:
    """Return that with another `for` for some alerts: `rules(StorageNodeDeadlocked="0s")`."""
    content = yaml.safe_load(unslowed())
    by_name = {rule["alert"]: rule for group in content["groups"] for rule in group["rules"] if "alert" in rule}
    for name, wait in waits.items():
        by_name[name]["for"] = wait
    return yaml.safe_dump(content)


def alertmanager(url: str, token_file: Path, *, group_interval: str = "1s", repeat_interval: str = "1h") -> str:
    """Return the example with the webhook's address, its token and its route's intervals replaced, and nothing else."""
    changes = {
        "http://127.0.0.1:19652/alertmanager": url,
        "/etc/prometheus/storagenode-keeper.token": str(token_file),
        "group_interval: 1m": f"group_interval: {group_interval}",
        "repeat_interval: 1h\n": f"repeat_interval: {repeat_interval}\n",
    }
    return changed(ALERTMANAGER.read_text(), changes)


def changed(text: str, changes: Mapping[str, str]) -> str:
    """Replace what is shipped by something else; raises ValueError for what does not stand in the text once."""
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands there {text.count(old)} times, expected once")
        text = text.replace(old, new)
    return text
