"""A host in a container for whole runs under systemd, and what happens to a node while one lasts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.site import OLD, WORKER, Node, Site
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container

CONFIG = "/etc/storagenode-keeper.yml"
STATE_DIR = "/var/lib/storagenode-remediate"
SPOOL = "/var/spool/storagenode-keeper"
MEANWHILE = """
import json, subprocess, sys
from remediate.apply import Application
from remediate import remediation
from remediate.steps import start
remediation._SETTLE_SECONDS = 6.0
acts, step = json.loads(sys.argv.pop(1)), Application._step
start._STAYS_UP_SECONDS = 0.3

def interrupted(self, each):
    for act in acts.pop(each.name, ()):
        subprocess.run(act, check=False)
    step(self, each)

Application._step = interrupted
from remediate.cli import main
main()
"""
"""The real program, but that at the beginning of a step somebody does something; and less patient."""
Acts = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a run."""

    code: int
    report: dict[str, Any]

    @property
    def outcome(self) -> str | None:
        run = self.report["run"]
        return str(run["outcome"]) if run else None

    @property
    def detail(self) -> str:
        return str(self.report["run"]["detail"])

    @property
    def starts(self) -> dict[str, str]:
        """Why each node is started, or is not."""
        return {name: each["reason"] for name, each in self.report["run"]["starts"].items()}


class Host(Site):
    """The host, and the ways to run on it."""

    def __init__(self, container: Container, folder: Path, names: Sequence[str]) -> None:
        super().__init__(container, folder, names)
        self.folder = folder

    def configure(self, nodes: dict[str, dict[str, Any]] | None = None, **rules: Any) -> None:
        """Change the configuration: settings of nodes, and rules."""
        config = yaml.safe_load(self.container.path(CONFIG).read_text())
        config["remediation"] |= rules
        for node in config["nodes"]:
            node |= (nodes or {}).get(node["name"], {})
        self.container.write(CONFIG, yaml.safe_dump(config))

    def run(self, node: str, *options: str, meanwhile: Acts | None = None) -> Ran:
        """Run by hand; `meanwhile` has the commands that somebody gives when a step begins."""
        program: list[str | Path] = [VENV / "bin/python", "-c", MEANWHILE, json.dumps(meanwhile or {})]
        done = self.container.run([*program, "run", "--yes", "--json", *options, node], check=False)
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        assert done.stdout, done.stderr[-3000:]
        (report,) = json.loads(done.stdout)
        return Ran(done.returncode, report)

    def work(self, *nodes: str) -> None:
        """Let the worker's unit work off a request for each node, and wait for its end."""
        for node in nodes:
            self.container.write(f"{SPOOL}/{node}", "")
        self.container.systemctl("start", "--wait", WORKER)

    def clear(self, *nodes: Node) -> None:
        """Forget everything: runs, nodes, and what the network demands."""
        units = " ".join(node.unit for node in nodes)
        files = " ".join(f"/etc/systemd/system/{node.unit}* {node.binary.parent} {node.config_dir}" for node in nodes)
        script = f"systemctl disable --now {units}; systemctl reset-failed {units}; rm -rf {STATE_DIR} {files}"
        self.container.run(["sh", "-c", f"systemctl unmask {units}; {script}; systemctl daemon-reload"])
        self.rise(OLD)


@contextmanager
def hosted(folder: Path, *names: str) -> Iterator[Host]:
    """Boot a container with nodes that can be installed."""
    with Container() as container, Host(container, folder, names) as host:
        yield host
