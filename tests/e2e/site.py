"""A host in a container: nodes under systemd, the project as it ships, and what they speak to of the Storj network."""

import hashlib
import json
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from tests.labs.rootfs import REPOSITORY, VENV
from tests.labs.systemd import Container
from tests.simulators import build
from tests.simulators.download_host import DownloadHost
from tests.simulators.version_server import VersionServer

OLD, NEW = "1.102.3", "1.104.5"
TOKEN = "a-token-for-the-end-to-end-tests"
TOKEN_FILE = "/etc/storagenode-keeper.token"
EXPORTER, WEBHOOK = "storagenode-exporter.service", "storagenode-remediate-webhook.service"
WORKER, PATH = "storagenode-remediate-worker.service", "storagenode-remediate-worker.path"
USER = "storagenode"
FIRST_PORT = 14002
PAD_BYTES = 1_000_000

T = TypeVar("T")


def wait(found: Callable[[], T | None], what: str, timeout: float = 60) -> T:
    """Return what `found` finds, as soon as that is something; raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while not (result := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.02)
    return result


@dataclass(frozen=True)
class State:
    """What must not change of a node that is left alone: its binary to the inode, its service to the process."""

    inode: int
    modified_ns: int
    sha256: str
    beside: frozenset[str]
    active: str
    pid: str
    started: str


class Node:
    """A configured node. It is there once it is installed; until then neither its binary nor its unit is."""

    def __init__(self, site: "Site", name: str, number: int) -> None:
        self.site = site
        self.container = site.container
        self.name = name
        self.unit = f"storagenode-{name}.service"
        self.binary = Path("/opt/storagenodes", name, "storagenode")
        self.config_dir = Path("/var/lib/storagenodes", name)
        self.api = f"127.0.0.1:{FIRST_PORT + number}"

    def config(self) -> dict[str, str]:
        """Return the node's part of our configuration."""
        return {
            "name": self.name,
            "service": f"systemd:{self.unit}",
            "binary": str(self.binary),
            "config_dir": str(self.config_dir),
            "api": self.api,
        }

    def install(self, version: str = OLD, *, service: str = "Restart=always\nRestartSec=1", limit: str = "") -> Self:
        """Set the node up and enable it, as a package would; it is not started."""
        storage = self.config_dir / "storage"
        settings = {
            "storage.path": storage,
            "console.address": self.api,
            "version.server-address": self.site.versions.url,
        }
        self.container.write(
            self.config_dir / "config.yaml", "".join(f"{key}: {value}\n" for key, value in settings.items())
        )
        self.container.write(storage / "storage-dir-verification", bytes(32))
        self.container.put(self.site.binaries[version], self.binary)
        self.container.run(["chown", "-R", f"{USER}:{USER}", self.config_dir, self.binary.parent])
        self.container.run(["chmod", "0700", self.config_dir])
        self.container.run(["chmod", "0775", self.binary])
        self.container.write(
            f"/etc/systemd/system/{self.unit}",
            f"[Unit]\n{limit}\n[Service]\nUser={USER}\nExecStart={self.binary} run --config-dir {self.config_dir}\n"
            f"{service}\n[Install]\nWantedBy=multi-user.target\n",
        )
        self.container.systemctl("enable", "--quiet", self.unit)  # which has systemd read all units anew
        return self

    def remove(self) -> None:
        """Take the node away again."""
        remove(self.container, self.unit, self.binary.parent, self.config_dir)

    def start(self) -> None:
        """Start the node and wait until its API answers."""
        self.container.systemctl("start", self.unit)
        wait(self.version, f"an answer of {self.name}")

    def stop(self) -> None:
        """Stop the node, as a person would."""
        self.container.systemctl("stop", self.unit)

    def version(self) -> str | None:
        """Return what the node's API says it runs; None when it does not answer."""
        try:
            version: str = self.container.network.call(_get, f"http://{self.api}/api/sno/")["version"]
        except OSError:
            return None
        return version

    def installed(self) -> str:
        """Return which of the releases the binary is, byte for byte."""
        return self.site.release_of(self.container.path(self.binary).read_bytes())

    def state(self) -> State:
        """Return everything about the node that we could have touched."""
        path = self.container.path(self.binary)
        status = path.stat()
        unit = self.container.show(self.unit, "ActiveState", "MainPID", "ExecMainStartTimestampMonotonic")
        return State(
            inode=status.st_ino,
            modified_ns=status.st_mtime_ns,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            beside=frozenset(each.name for each in path.parent.iterdir()),
            active=unit["ActiveState"],
            pid=unit["MainPID"],
            started=unit["ExecMainStartTimestampMonotonic"],
        )

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of this node, newest first, as `history` tells them."""
        found: list[dict[str, Any]] = json.loads(self.site.remediate("history", "--json", self.name))["runs"]
        return found


def remove(container: Container, unit: str, *folders: Path) -> None:
    """Take a unit, which may be there or not, and its folders away again."""
    container.systemctl("stop", unit, check=False)
    container.systemctl("reset-failed", unit, check=False)
    files = [f"/etc/systemd/system/{folder}{unit}" for folder in ("", "multi-user.target.wants/")]
    container.run(["rm", "-rf", *files, *folders])
    container.systemctl("daemon-reload")


class Site:
    """The host. The programs listen where they do by default, since the container's network is theirs alone."""

    def __init__(self, container: Container, folder: Path, names: Sequence[str]) -> None:
        self.container = container
        self.folder = folder
        self._stack = ExitStack()
        releases = folder / "releases"
        self.binaries: dict[str, Path] = {}
        for version in (OLD, NEW):
            place = folder / version / "storagenode"
            place.parent.mkdir()
            self.binaries[version] = build.node(version, place, pad=PAD_BYTES)
        build.archive(self.binaries[NEW], releases / NEW / build.ASSET)
        prefix = container.network.enter
        self.versions = VersionServer(prefix=prefix, minimum=f"v{OLD}", suggested=f"v{OLD}")
        self.downloads = DownloadHost(releases, prefix=prefix)
        self._nodes = {name: Node(self, name, number) for number, name in enumerate(names)}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        """Start what is to run, and leave on the stack how it is ended."""
        stack.enter_context(self.versions)
        stack.enter_context(self.downloads)
        self.versions.set(url=f"{self.downloads.releases}/{{version}}/storagenode_{{os}}_{{arch}}.zip")
        self._install()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _install(self) -> None:
        """Install the project as its README says."""
        container, shipped = self.container, REPOSITORY / "packaging/systemd"
        container.install_project()
        for unit in (EXPORTER, WEBHOOK, WORKER, PATH):
            container.put(shipped / unit, f"/etc/systemd/system/{unit}")
        for kind in ("sysusers", "tmpfiles"):
            container.put(shipped / f"storagenode-keeper.{kind}.conf", f"/usr/lib/{kind}.d/storagenode-keeper.conf")
        container.run(["systemd-sysusers", "storagenode-keeper.conf"])
        container.run(["systemd-tmpfiles", "--create", "storagenode-keeper.conf"])
        container.run(["useradd", "--system", USER])
        container.write(TOKEN_FILE, f"{TOKEN}\n", mode=0o640)
        container.run(["chown", "root:storagenode-keeper", TOKEN_FILE])
        config = {
            "version_server": self.versions.url,
            "refresh": "500ms",
            "web": {"token_file": TOKEN_FILE},
            "remediation": {
                "releases": self.downloads.releases,
                "digests": self.downloads.tags,
                "verify": "require",
                "cool_down": "0s",
                "webhook": {"token_file": TOKEN_FILE},
            },
            "nodes": [node.config() for node in self._nodes.values()],
        }
        container.write("/etc/storagenode-keeper.yml", yaml.safe_dump(config))
        container.systemctl("daemon-reload")

    def node(self, name: str) -> Node:
        """Return a configured node."""
        return self._nodes[name]

    def rise(self, minimum: str = NEW) -> None:
        """Let the network demand a version; everybody sees it at his next look."""
        self.versions.set(minimum=f"v{minimum}", suggested=f"v{minimum}", behaviour="ok")

    def release_of(self, content: bytes) -> str:
        """Return the version whose binary this is; raises StopIteration."""
        return next(version for version, path in self.binaries.items() if path.read_bytes() == content)

    def archives_sent(self) -> int:
        """Return how often an archive has been asked for."""
        return len(self.downloads.requests("/asset/"))

    def remediate(self, *arguments: str) -> str:
        """Return what a command prints that ends well."""
        return self.container.run([VENV / "bin/storagenode-remediate", *arguments]).stdout

    def log(self, unit: str) -> list[dict[str, str]]:
        """Return the lines one of our programs has logged, by their fields."""
        return [_fields(line) for line in self.container.journal(unit).splitlines() if line.startswith("time=")]

    def tracebacks(self) -> list[str]:
        """Return the lines of our programs' logs that have one."""
        said = [line for unit in (EXPORTER, WEBHOOK, WORKER) for line in self.container.journal(unit).splitlines()]
        return [line for line in said if "Traceback" in line]


def _fields(line: str) -> dict[str, str]:
    """Read a logfmt line."""
    found = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return json.load(answer)
