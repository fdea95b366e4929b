"""A node of our own to update: its folders, the servers it asks, and the ways to ask for a remediation."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from exporter.config import load
from exporter.version import NodeVersion
from remediate.assembly import Assembly, assembled
from remediate.cli import main
from remediate.decision import Request, Trigger
from remediate.journal import Run
from remediate.report import Report
from remediate.rules import rules
from remediate.steps import exchange, start, verify
from tests.labs.network import HOST
from tests.simulators import build
from tests.simulators.download_host import DownloadHost
from tests.simulators.node import configure
from tests.simulators.version_server import VersionServer

OLD, NEW = "1.102.3", "1.104.5"
TARGET = NodeVersion.parse(NEW)
NO_BUS = "unix:path=/nonexistent/bus"


@dataclass(kw_only=True)
class Stage:
    """One node, or more that share its binary, and everything around it."""

    root: Path
    versions: VersionServer
    host: DownloadHost
    releases: Path
    old: Path
    new: Path
    rules: dict[str, Any] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.root / "bin"
        self.folder.mkdir(parents=True)
        self.binary = self.folder / "storagenode"
        self.install(self.old)
        self.spool = self.root / "spool"
        self.spool.mkdir()
        self.config_file = self.root / "keeper.yml"
        self.status_file = self.root / "status.json"
        self.state_dir = self.root / "state"
        self.exporter_dir = self.root / "exporter"
        self.add("alpha")

    def install(self, program: Path) -> None:
        """Put a copy of a program in place, as a new file."""
        staged = self.binary.with_name("copying")
        shutil.copy(program, staged)
        staged.replace(self.binary)

    def add(self, name: str, **settings: Any) -> dict[str, Any]:
        """Configure one more node of the same binary."""
        api = f"127.0.0.1:{HOST.free_port()}"
        folder = self.root / name
        configure(folder, {"version.server-address": self.versions.url, "console.address": api})
        command = [str(self.binary), "run", "--config-dir", str(folder)]
        service = {"process": {"pid_file": str(self.root / f"{name}.pid"), "start": command}}
        paths = {"binary": str(self.binary), "config_dir": str(folder)}
        self.nodes.append({"name": name, "service": service, "api": api, **paths, **settings})
        return self.nodes[-1]

    def write(self) -> Path:
        """Write the configuration file."""
        where = {"spool": self.spool, "state_dir": self.state_dir, "status_file": self.status_file}
        remediation = {"releases": self.host.releases, "digests": self.host.tags, "cool_down": "0s"}
        remediation |= {key: str(path) for key, path in where.items()} | self.rules
        content = {"nodes": self.nodes, "version_server": self.versions.url, "remediation": remediation}
        content |= {"state_dir": str(self.exporter_dir)}
        self.config_file.write_text(yaml.safe_dump(content))
        return self.config_file

    @contextmanager
    def assembly(self) -> Iterator[Assembly]:
        config = load(self.write())
        with assembled(config, rules(config, source="test")) as assembly:
            yield assembly

    def run(self, node: str = "alpha", trigger: Trigger = Trigger.PERSON, **asked: Any) -> Report:
        with self.assembly() as assembly:
            return assembly.remediation.run(Request(node=node, trigger=trigger, **asked))

    def ran(self, **asked: Any) -> Run:
        """Run, and return the run: there must have been one."""
        report = self.run(**asked)
        assert report.run is not None, str(report)
        return report.run

    def recover(self) -> list[Run]:
        with self.assembly() as assembly:
            return assembly.remediation.recover()

    def cli(self, command: str, *arguments: str) -> Result:
        """Run a command of the program in this process; nothing but an exit may come out of it."""
        result = CliRunner().invoke(main, [command, "--config.file", str(self.write()), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def publish(self, program: Path, version: str = NEW) -> str:
        """Make a program the release of a version, and return the archive's sha256."""
        return build.archive(program, self.releases / version / build.ASSET)

    @property
    def archive(self) -> Path:
        return self.releases / NEW / build.ASSET

    @property
    def installed(self) -> str:
        return build.sha256(self.binary)

    def entries(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def assert_untouched(self) -> None:
        """The old binary is where it was, and nothing else is there."""
        assert self.installed == build.sha256(self.old)
        assert self.entries() == ["storagenode"]

    def assert_updated(self) -> None:
        assert self.installed == build.sha256(self.new)
        assert self.entries() == [f".storagenode.keeper-old-{OLD}", "storagenode"]

    def pid(self, node: str = "alpha") -> int:
        return int((self.root / f"{node}.pid").read_text())

    def running(self, node: str = "alpha") -> bool:
        with suppress(OSError, ValueError):
            return Path(f"/proc/{self.pid(node)}/exe").exists()
        return False

    def end(self) -> None:
        """Kill the nodes that were started."""
        for node in self.nodes:
            if self.running(node["name"]):
                os.kill(self.pid(node["name"]), 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    versions: VersionServer
    host: DownloadHost
    releases: Path
    old: Path
    new: Path


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    old, new = build.node(OLD, folder / "old"), build.node(NEW, folder / "new")
    with VersionServer() as versions, DownloadHost(folder / "releases") as host:
        yield Servers(versions=versions, host=host, releases=folder / "releases", old=old, new=new)


@pytest.fixture(scope="session")
def archived(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good archive of the new version."""
    path = tmp_path_factory.mktemp("archived") / build.ASSET
    build.archive(servers.new, path)
    return path


@pytest.fixture
def stage(servers: Servers, archived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A node that is stopped and below the minimum, with a good release of the minimum."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", NO_BUS)
    servers.versions.set(behaviour="ok", minimum=NEW, suggested=NEW, url="", cursor="f" * 64)
    servers.host.set(behaviour="ok", digests="ok")
    release = servers.releases / NEW / build.ASSET
    release.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(archived, release)
    made = Stage(
        root=tmp_path / "host",
        versions=servers.versions,
        host=servers.host,
        releases=servers.releases,
        old=servers.old,
        new=servers.new,
    )
    yield made
    made.end()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are long for a person's sake, cut short."""
    monkeypatch.setattr(exchange, "_STALL_SECONDS", 2.0)
    monkeypatch.setattr(verify, "_TIMEOUT", 4.0)
    monkeypatch.setattr(start, "_STAYS_UP_SECONDS", 0.2)


def peak() -> int:
    """Say how many bytes of memory this process has held at once since it was asked this last."""
    most = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    Path("/proc/self/clear_refs").write_text("5")
    assert most is not None
    return int(most[1]) << 10


def wait_until(condition: Any, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


def as_json(result: Result) -> Any:
    return json.loads(result.stdout)
