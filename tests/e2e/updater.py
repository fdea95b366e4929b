"""The official updater of a node: its unit, what it runs, and the folder with its settings."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.e2e.site import USER, Node, remove
from tests.simulators import build, updater

RELEASE = "1.162.3"
ASSET = build.ASSET.replace("storagenode_", "storagenode-updater_")
PROGRAM = Path("/opt/updaters/updater.py")
"""What one that works runs."""


class Updater:
    """One in the host of its node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.unit = f"storagenode-{node.name}-updater.service"
        self.binary = Path("/opt/updaters", node.name, "storagenode-updater")
        self.store = Path("/var/lib/updaters", node.name)
        self.settings = self.store / "config.yaml"

    def config(self) -> dict[str, str]:
        """Return its node's part of our configuration, and it."""
        return self.node.config() | {"updater_service": f"systemd:{self.unit}"}

    def install(
        self,
        release: str = RELEASE,
        *,
        works: bool = False,
        service: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Set it up and start it; unless it works, it stays a process that logs nothing, and never updates anything."""
        node, container = self.node, self.node.container
        with tempfile.TemporaryDirectory() as scratch:
            container.put(program(release, Path(scratch), works=works), self.binary)
        container.write(PROGRAM, f"#!/usr/bin/python3\n{Path(updater.__file__).read_text()}", 0o755)
        # The one that does not work is a node: it needs an address of its own.
        address = f"127.0.0.1:{int(node.api.rpartition(':')[2]) + 1000}"
        told = {"version.server-address": node.site.versions.url, "console.address": address} | dict(settings or {})
        container.write(self.settings, "".join(f"{key}: {value}\n" for key, value in told.items()))
        container.run(["chown", "-R", USER, self.binary.parent, self.store])
        flags = f"--binary-location {node.binary} --service-name {node.unit.removesuffix('.service')}"
        start = f"{self.binary} run --config-dir {self.store} {flags} --binary-store-dir {self.store}"
        lines = ["[Service]", f"User={USER}", f"ExecStart={start}", "Restart=on-failure", service]
        content = "\n".join([*lines, "[Install]", "WantedBy=multi-user.target", ""])
        container.write(f"/etc/systemd/system/{self.unit}", content)
        container.systemctl("enable", "--now", "--quiet", self.unit)
        return self

    def says(self, text: str) -> bool:
        """Tell whether it has logged this, ever."""
        return text in self.node.container.journal(self.unit)

    def remove(self) -> None:
        """Take it away again."""
        remove(self.node.container, self.unit, self.binary.parent, self.store)


def program(release: str, folder: Path, *, works: bool = False) -> Path:
    """Build the program of a release in a folder."""
    return build.node(release, folder / "storagenode-updater", misbehave=f"exec:{PROGRAM}" if works else "")
