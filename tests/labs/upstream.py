"""Build the real Storj programs and run them inside a container, never on the host's own network."""

import json
import shutil
import time
import urllib.request
import zipfile
from functools import cache as once
from pathlib import Path
from typing import Any

from tests.labs import Unavailable, cached, command, say
from tests.labs.systemd import Container

DEFECTIVE = "v1.104.5"
"""A release whose updater will not touch a node that is not running."""
FIXED = "v1.162.3"
PROGRAMS = {
    DEFECTIVE: ["storagenode", "storagenode-updater"],
    FIXED: ["storagenode", "storagenode-updater", "versioncontrol", "identity"],
}
VERSION_SERVER = "http://127.0.0.1:8080"
USER = "storj-storagenode"

# Up to v1.104 a release carries its own stamp. Later ones are stamped when they are linked, else they are no release.
_STAMP = {
    "buildVersion": FIXED,
    "buildRelease": "true",
    "buildTimestamp": "1770000000",
    "buildCommitHash": "0123456789abcdef0123456789abcdef01234567",
}
_LINK = {
    DEFECTIVE: "",
    FIXED: " ".join(f"-X storj.io/common/version.{key}={value}" for key, value in _STAMP.items()),
}


@once
def programs(version: str) -> dict[str, Path]:
    """Return the programs of this release by name, built into the cache if they are not there yet.

    Takes some minutes and about 1.5 GB the first time. Raises Unavailable without Go, a C compiler or the modules.
    """
    sources = Path(__file__).parent / "upstream" / version
    made_of = (sources / "go.mod").read_bytes() + (sources / "go.sum").read_bytes() + _LINK[version].encode()

    def build(folder: Path) -> None:
        for need in ("go", "gcc"):
            if shutil.which(need) is None:
                raise Unavailable(f"building the Storj programs needs {need}")
        for name in PROGRAMS[version]:
            begin = time.monotonic()
            say(f"building {name} {version} with Go (once)")
            # "service" compiles in, up to v1.144, how the updater restarts the node.
            options = ["-mod=readonly", "-trimpath", "-tags=service", f"-ldflags={_LINK[version]}"]
            package = f"storj.io/storj/cmd/{name}"
            command(["nice", "go", "build", *options, "-o", folder / name, package], cwd=sources)
            say(f"built {name} {version} in {time.monotonic() - begin:.0f} s")

    folder = cached(f"upstream/{version}", build, made_of)
    return {name: folder / name for name in PROGRAMS[version]}


@once
def storagenode_zip(version: str, program: str = "storagenode") -> Path:
    """Return the archive of a program as upstream releases it: one deflated entry, named as the program."""
    binary = programs(version)[program]

    def build(folder: Path) -> None:
        with zipfile.ZipFile(folder / f"{program}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(binary, program)

    return cached(f"upstream/{binary.parent.name}-{program}-zip", build) / f"{program}.zip"


class StorjNode:
    """A real node with its official updater, set up in a container as upstream's Debian package does; nothing started.

    `number` keeps the ports of several nodes apart. Its owner is storj-storagenode, and its folder is its owner's.
    """

    def __init__(
        self,
        container: Container,
        name: str = "storagenode",
        *,
        version: str = DEFECTIVE,
        updater: str = DEFECTIVE,
        version_server: str = VERSION_SERVER,
        number: int = 0,
        service: str = "Restart=always\nRestartSec=2",
        updater_options: str = "--version.check-interval=1m",
    ) -> None:
        self.container = container
        self.name = name
        self.unit = f"{name}.service"
        self.updater_unit = f"{name}-updater.service"
        self.folder = Path("/var/lib", name)
        self.config_dir = Path("/etc", name)
        self.identity_dir = self.config_dir / "identity"
        self.storage = self.config_dir / "storage"
        self.binary = self.folder / "storagenode"
        self.updater_binary = self.folder / "storagenode-updater"
        self.api = f"http://127.0.0.1:{14002 + number}"

        if container.run(["id", USER], check=False).returncode != 0:
            container.run(["useradd", "--system", USER])
        owned = ["install", "--directory", f"--owner={USER}", f"--group={USER}"]
        container.run([*owned, self.folder])
        container.run([*owned, "--mode=0700", self.config_dir])
        self.install(version)
        self.install(updater, "storagenode-updater")
        container.put(programs(FIXED)["identity"], "/usr/local/bin/identity")
        self._run(
            "/usr/local/bin/identity", "create", "identity", "--difficulty=1", f"--identity-dir={self.config_dir}"
        )
        trust = self.config_dir / "trusted-satellites"  # none
        settings = {
            "config-dir": self.config_dir,
            "identity-dir": self.identity_dir,
            "operator.email": "operator@example.com",
            "operator.wallet": "0x0000000000000000000000000000000000000001",
            "storage.allocated-disk-space": "2GB",
            "console.address": self.api.removeprefix("http://"),
            "server.address": f"127.0.0.1:{28967 + number}",
            "server.private-address": f"127.0.0.1:{7778 + number}",
            "version.server-address": version_server,
            "storage2.trust.sources": trust,
            "storage2.monitor.minimum-disk-space": "1GB",
            "preflight.local-time-check": "false",
            "metrics.addr": "",
            "metrics.event-addr": "",
            "tracing.enabled": "false",
        }
        self._run(self.binary, "setup", *(f"--{key}={value}" for key, value in settings.items()))
        container.write(trust, "")

        start = f"{self.binary} run --config-dir {self.config_dir} --identity-dir {self.identity_dir}"
        container.unit(self.unit, _UNIT.format(start=start, service=service))
        start = (
            f"{self.updater_binary} run --config-dir {self.config_dir} --identity-dir {self.identity_dir}"
            f" --binary-location {self.binary} --service-name {name} {updater_options}"
        )
        container.unit(self.updater_unit, _UNIT.format(start=start, service="Restart=on-failure"), enable=False)

    def install(self, version: str, program: str = "storagenode") -> None:
        """Put a release of the node, or of the updater, in its place."""
        self.container.put(programs(version)[program], self.folder / program)
        self.container.run(["chown", f"{USER}:{USER}", self.folder / program])

    def config(self) -> dict[str, str]:
        """Return the node's part of our configuration."""
        return {
            "name": self.name,
            "service": f"systemd:{self.unit}",
            "binary": str(self.binary),
            "config_dir": str(self.config_dir),
            "api": self.api.removeprefix("http://"),
            "updater_service": f"systemd:{self.updater_unit}",
        }

    def _run(self, *argv: str | Path) -> None:
        as_owner = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        self.container.run([*as_owner, *argv], env={"HOME": str(self.folder)})

    def status(self) -> dict[str, Any]:
        """Return what the node's API says of it; raises OSError when it does not answer."""
        return self.container.network.call(_get, f"{self.api}/api/sno/")


_UNIT = f"""\
[Service]
User={USER}
Group={USER}
ExecStart={{start}}
{{service}}

[Install]
WantedBy=multi-user.target
"""


def serve_versions(
    container: Container,
    *,
    minimum: str,
    suggested: str | None = None,
    url: str = "http://127.0.0.1:9000/storagenode_{os}_{arch}.zip",
    seed: str = "ab" * 32,
    cursor: int = 100,
    address: str = VERSION_SERVER,
    updater: str | None = None,
) -> None:
    """Run the real version server in a container, at `address`, as versioncontrol.service; again to change it.

    It allows every version of the updater, and the rollout of the one that it suggests, if it does, reaches nobody: so
    it does not update itself.
    """
    container.put(programs(FIXED)["versioncontrol"], "/usr/local/bin/versioncontrol")
    listen = address.removeprefix("http://")
    settings: dict[str, object] = {
        "config-dir": "/run/versioncontrol",
        "address": listen,
        "safe-rate": 0,
        "regen-interval": "0s",
    }
    settings |= {"metrics.addr": "", "tracing.enabled": "false"}
    settings |= {
        "binary.storagenode.minimum.version": minimum,
        "binary.storagenode.minimum.url": url,
        "binary.storagenode.suggested.version": suggested or minimum,
        "binary.storagenode.suggested.url": url,
        "binary.storagenode.rollout.seed": seed,
        "binary.storagenode.rollout.cursor": cursor,
    }
    if updater is not None:
        settings |= {
            "binary.storagenode-updater.minimum.version": "v0.0.1",
            "binary.storagenode-updater.suggested.version": updater,
            "binary.storagenode-updater.suggested.url": url.replace("storagenode_", "storagenode-updater_"),
            "binary.storagenode-updater.rollout.seed": seed,
            "binary.storagenode-updater.rollout.cursor": 0,
            "binary.storagenode-updater.rollout.previous-cursor": 0,
        }
    options = " ".join(f"--{key}={value}" for key, value in settings.items())
    service = f"[Service]\nExecStart=/usr/local/bin/versioncontrol run {options}\nRuntimeDirectory=versioncontrol\n"
    container.unit("versioncontrol.service", service, enable=False)
    container.systemctl("restart", "versioncontrol.service")
    deadline = time.monotonic() + 10
    while True:
        try:
            container.network.call(_get, address)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(container.journal("versioncontrol.service")) from error
        time.sleep(0.02)


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
