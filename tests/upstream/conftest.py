"""The loop as it is shipped, in a container, around real Storj programs: nodes, updaters and the version server."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.alerts.shipped import alertmanager, rules
from tests.labs.prometheus import Alertmanager, Prometheus, Target
from tests.labs.systemd import Container
from tests.labs.upstream import (
    DEFECTIVE,
    FIXED,
    USER,
    VERSION_SERVER,
    StorjNode,
    programs,
    serve_versions,
    storagenode_zip,
)
from tests.simulators.download_host import DownloadHost

OUR_PROGRAMS = Path("/opt/storagenode-keeper/bin")
UNITS = Path(__file__).parents[2] / "packaging/systemd"
WATCHED = Path("/etc/storagenode-keeper.yml")
BY_HAND = Path("/etc/by-hand.yml")
"""A second configuration, with nodes that the loop knows nothing of."""
STORE = Path("/var/lib/updater")
"""Where the updater of `delta` keeps what it remembers."""
OLD, NEW = DEFECTIVE.removeprefix("v"), FIXED.removeprefix("v")
ASSET = "storagenode_linux_amd64.zip"
T = TypeVar("T")

_SCHEMA = """
import contextlib, pathlib, sqlite3, sys
highest = 0
for path in pathlib.Path(sys.argv[1]).glob("*.db"):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'versions'").fetchone():
            highest = max(highest, *database.execute("SELECT max(version) FROM versions").fetchone())
print(highest)
"""


def configure(container: Container, host: DownloadHost, nodes: Iterable[StorjNode]) -> None:
    """Write a configuration with these nodes, for runs by hand that take nothing but what a digest vouches for."""
    allowed = {
        "releases": host.releases,
        "digests": host.tags,
        "verify": "require",
        "status_file": "/run/keeper.json",
    }
    described = [node.config() for node in nodes]
    config = {"nodes": described, "version_server": VERSION_SERVER, "remediation": allowed}
    container.write(WATCHED, yaml.safe_dump(config))


def wait_for(look: Callable[[], T], what: str, timeout: float = 90) -> T:
    """Return what `look` returns as soon as that is true; an OSError is a look that saw nothing yet."""
    deadline = time.monotonic() + timeout
    problem = "nothing"
    while time.monotonic() < deadline:
        try:
            if seen := look():
                return seen
        except OSError as error:
            problem = str(error)
        time.sleep(0.05)
    raise TimeoutError(f"waited {timeout} s for {what}; the last problem was: {problem}")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    container: Container
    host: DownloadHost
    archives: Path
    prometheus: Prometheus
    nodes: dict[str, StorjNode]

    def ours(self, program: str, *arguments: str, config: Path = WATCHED) -> tuple[int, str, str]:
        """Run one of our programs as root; return its exit code, stdout and stderr."""
        argv: list[str | Path] = [OUR_PROGRAMS / program, *arguments, "--config.file", config]
        done = self.container.run(argv, check=False)
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    def last_run(self, node: str, config: Path = WATCHED) -> Any:
        """Return the newest run of a node once it has ended; None before."""
        runs = json.loads(self.ours("storagenode-remediate", "history", "--json", node, config=config)[1])["runs"]
        return runs[0] if runs and runs[0]["finished"] is not None else None

    def installed(self, node: StorjNode) -> str:
        """Return the sha256 of a node's binary."""
        return digest(self.container.path(node.binary))

    def files(self, node: StorjNode) -> set[str]:
        """Name what there is beside a node's binary."""
        return {path.name for path in self.container.path(node.folder).iterdir()}

    def schema(self, node: StorjNode) -> int:
        """Return the highest version of a schema in the databases of a node that is stopped."""
        return int(self.container.run(["python3", "-c", _SCHEMA, node.storage]).stdout)

    def processes(self) -> set[str]:
        """Name what runs in the container."""
        return {path.read_text().strip() for path in self.container.path("/proc").glob("[0-9]*/comm")}

    def wait_runs(self, node: StorjNode, version: str) -> None:
        """Wait until the real API reports a version."""
        wait_for(lambda: node.status()["version"] == version, f"{node.unit} to run {version}")


def program_digest(version: str) -> str:
    return digest(programs(version)["storagenode"])


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nodes of 1.104.5 that began to run before the minimum rose to 1.162.3, and run still; `gamma` has never run."""
    archives = tmp_path_factory.mktemp("archives")
    (archives / NEW).mkdir()
    shutil.copy(storagenode_zip(FIXED), archives / NEW / ASSET)
    with ExitStack() as stack:
        container = stack.enter_context(Container())
        container.install_project()
        host = stack.enter_context(DownloadHost(archives, prefix=container.network.enter))
        nodes = {
            "alpha": StorjNode(container, "alpha", number=1),
            "beta": StorjNode(container, "beta", number=2, service="Restart=always\nRestartSec=30"),
            "gamma": StorjNode(container, "gamma", number=3),
            "delta": StorjNode(
                container, "delta", number=4, updater=FIXED, updater_options=f"--binary-store-dir {STORE}"
            ),
            "epsilon": StorjNode(container, "epsilon", number=5),
        }
        container.run(["install", "--directory", f"--owner={USER}", STORE])
        serve_versions(container, minimum="1.100.1", suggested=OLD, url="")
        running = [nodes[name] for name in ("alpha", "beta", "delta", "epsilon")]
        container.systemctl("start", *(node.unit for node in running))
        for node in running:
            wait_for(lambda node=node: node.status()["version"] == OLD, f"{node.unit} to run")  # type: ignore[misc]
        serve_versions(container, minimum=NEW, url=f"{host.releases}/v{NEW}/storagenode_{{os}}_{{arch}}.zip")

        token = tmp_path_factory.mktemp("token") / "token"
        token.write_text("fedcba9876543210\n")
        _install_loop(container, nodes, host, token)
        config = token.with_name("alertmanager.yml")
        config.write_text(alertmanager("http://127.0.0.1:19652/alertmanager", token))
        rule_file = token.with_name("storagenode.rules.yml")
        rule_file.write_text(rules(StorageNodeDeadlocked="0s", StorageNodeBelowMinimum="0s"))
        receiver = stack.enter_context(Alertmanager(config, network=container.network))
        authorization = {"credentials_file": str(token)}
        targets: dict[str, Target] = {
            "storagenode": "127.0.0.1:19651",
            "remediation": {"static_configs": [{"targets": ["127.0.0.1:19652"]}], "authorization": authorization},
        }
        prometheus = stack.enter_context(
            Prometheus(targets, rule_files=[rule_file], alertmanager=receiver.url, network=container.network)
        )
        yield World(container=container, host=host, archives=archives, prometheus=prometheus, nodes=nodes)


def _install_loop(container: Container, nodes: dict[str, StorjNode], host: DownloadHost, token: Path) -> None:
    """Install the units as they are shipped, with a configuration that says of a node no more than it has to."""
    container.put(UNITS / "storagenode-keeper.sysusers.conf", "/usr/lib/sysusers.d/storagenode-keeper.conf")
    container.put(UNITS / "storagenode-keeper.tmpfiles.conf", "/usr/lib/tmpfiles.d/storagenode-keeper.conf")
    container.run(["systemd-sysusers"])
    container.run(["systemd-tmpfiles", "--create", "storagenode-keeper.conf"])
    for path in UNITS.glob("storagenode-*.[sp]*"):
        if path.suffix in (".service", ".path"):
            container.put(path, f"/etc/systemd/system/{path.name}")

    kept_token = Path("/etc/storagenode-keeper.token")
    container.write(kept_token, token.read_text(), mode=0o640)
    container.run(["chgrp", "storagenode-keeper", kept_token])
    remediation = {"releases": host.releases, "digests": host.tags, "verify": "require"}
    watched = remediation | {"webhook": {"token_file": str(kept_token)}}
    apart = {key: f"/var/lib/by-hand/{key}" for key in ("spool", "state_dir", "status_file")}
    for name, node in nodes.items():
        container.run(["ln", "--symbolic", node.binary, f"/usr/bin/storagenode-{name}"])
    for path, names, allowed in (
        (WATCHED, ("alpha", "beta"), watched),
        (BY_HAND, ("gamma", "delta", "epsilon"), remediation | apart),
    ):
        described = [nodes[name].config() | {"binary": f"/usr/bin/storagenode-{name}"} for name in names]
        content = {"nodes": described, "version_server": VERSION_SERVER, "refresh": "1s", "remediation": allowed}
        container.write(path, yaml.safe_dump(content))
    container.run(["mkdir", "/var/lib/by-hand"])

    container.systemctl("daemon-reload")
    units = ["storagenode-exporter.service", "storagenode-remediate-webhook.service"]
    units += ["storagenode-remediate-worker.path", "storagenode-remediate-worker.service"]
    container.systemctl("enable", "--now", *units)
