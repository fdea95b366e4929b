"""A runbook in a test: its blocks, run as they are printed, and the alert that it is about."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from tests.alerts.shipped import ROOT, RULES
from tests.documents import Block, blocks
from tests.labs.rootfs import VENV
from tests.runbooks.monitored import Monitored, hurried, until

RUNBOOKS = ROOT / "alerts/runbooks"
LOOK, MEND, SILENCE = "How to look", "How to mend", "How to silence"
HEADINGS = ["What it means", "What happens if nobody acts", LOOK, MEND, SILENCE]
INSTANCE = "127.0.0.1:19651"


@cache
def rules(name: str) -> list[dict[str, Any]]:
    """Return the alert as it ships: once, or once for each of its severities."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if rule.get("alert") == name]


def run(host: Monitored, line: str, ends: int = 0) -> str:
    """Run a line of a document as root, answer its question with yes, and return its output."""
    argv = ["sh", "-c", line]
    answer = None
    if re.match(r"storagenode-remediate run\b", line) and "--yes" not in line:
        argv, answer = ["script", "-qefc", argv[2], "/dev/null"], "y\n"
    done = host.container.run(argv, check=False, input=answer, timeout=120)
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode == ends, f"$ {line}\nexit status {done.returncode}, expected {ends}\n{said[-4000:]}"
    return said


class Book:
    """One runbook; `places` is what stands for each of its words in capitals."""

    def __init__(self, host: Monitored, name: str, **places: str) -> None:
        self.host = host
        self.name = name
        self.places = places
        self.node = places.get("NODE")
        self._blocks = blocks("runbooks", RUNBOOKS / f"{name}.md")
        self._left = list(self._blocks)

    def look(self, *ends: int) -> str:
        """Run the next block of what to look at, whose commands end so (with 0, where nothing is said)."""
        return self._run(LOOK, ends)

    def mend(self, *ends: int) -> str:
        """Run the next block of what to do."""
        return self._run(MEND, ends)

    def prepare_silence(self, *ends: int) -> str:
        """Run the next block that comes before the silence."""
        return self._run(SILENCE, ends)

    def silence(self, *silenced: Mapping[str, str], spares: Mapping[str, str] | None = None) -> None:
        """Run the last block: it silences alerts with these labels, of this name where none is said, and spares one."""
        host = self.host
        spared = spares or {"alertname": "SomethingElse", **silenced[0]}
        alerts = [{"alertname": self.name, **labels} for labels in silenced]
        for each in (*alerts, spared):
            host.post_alert(each)
        until(lambda: all(self._suppressed(each) is False for each in (*alerts, spared)), "nothing is silenced")
        silence = self._run(SILENCE, ()).strip()
        until(lambda: all(map(self._suppressed, alerts)), f"{alerts} are silenced")
        assert self._suppressed(spared) is False
        run(host, f"amtool silence expire {silence}")
        for each in (*alerts, spared):
            host.post_alert(each, endsAt="2020-01-01T00:00:00Z")

    def _suppressed(self, labels: Mapping[str, str]) -> bool | None:
        """Tell whether an alert is silenced; None when it is not there, or nobody has looked at it yet."""
        for alert in self.host.alerts():
            if alert["labels"] == dict(labels) and alert["status"]["state"] != "unprocessed":
                return bool(alert["status"]["silencedBy"])
        return None

    def does(self, text: str, *ends: int) -> str:
        """Run the block that has this in it, be it again, or before its turn."""
        (block,) = (each for each in self._blocks if text in each.text)
        return self._do(block, ends)

    def _run(self, heading: str, ends: tuple[int, ...]) -> str:
        block = next((each for each in self._left if each.heading == heading), None)
        assert block is not None, f"{self.name}: there is no block left under {heading!r}"
        return self._do(block, ends)

    def _do(self, block: Block, ends: tuple[int, ...]) -> str:
        if block in self._left:
            self._left.remove(block)
        lines = block.commands
        assert len(ends) <= len(lines), f"{self.name}: {len(ends)} ends for {lines}"
        ends += (0,) * (len(lines) - len(ends))
        return "".join(run(self.host, fill(line, self.places), end) for line, end in zip(lines, ends, strict=True))

    def fires(self) -> None:
        """Wait until what the alert asks for is so, whatever it would still wait for."""
        found = rules(self.name)
        assert found, f"{RULES.name} has no {self.name}"
        try:
            until(lambda: any(map(self._true, found)), f"{self.name} of {self.node}")
        except TimeoutError as error:
            error.add_note(self.host.container.run([VENV / "bin/storagenode-exporter", "check"], check=False).stdout)
            raise

    def ends(self) -> None:
        """Wait until it is so no longer."""
        host = self.host
        until(
            lambda: host.query("vector(1)") and not any(map(self._true, rules(self.name))),
            f"{self.name} of {self.node} ends",
        )

    def _true(self, rule: Mapping[str, Any]) -> bool:
        found = self.host.query(hurried(rule["expr"]))
        return any(self.node in (None, each["metric"].get("node", self.node)) for each in found)

    def assert_all_run(self, *others: "Book") -> None:
        """Every block was run, in this state or in another of the same alert."""
        left = [block for block in self._left if all(block in other._left for other in others)]
        assert [(each.heading, each.text) for each in left] == []


def fill(line: str, places: Mapping[str, str]) -> str:
    """Put what stands for the words in capitals; raises KeyError for one that is not said."""
    words = placeholders()
    return re.sub(r"\b[A-Z]{3,}\b", lambda match: places[match[0]] if match[0] in words else match[0], line)


def placeholders() -> set[str]:
    """Return the words in capitals that the index of the runbooks explains."""
    return set(re.findall(r"^\| `([A-Z]+)` \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE))
