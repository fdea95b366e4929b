"""A node that is stopped and too old, in a container, beside a simulated official updater."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.site import NEW, OLD, USER, Node, Site, wait
from tests.labs.rootfs import REPOSITORY, VENV
from tests.labs.systemd import Container
from tests.simulators import build
from tests.simulators.witness import Seen

SERVICE = "storagenode-beside"
UNIT = f"{SERVICE}-updater.service"
STORE = Path("/var/lib/updater")
VERDICT = STORE / f"last-failed-update.{SERVICE}.json"
BACKUP = f".storagenode.keeper-old-{OLD}"
BEFORE_OFFLINE, TODAY = "1.104.5", "1.162.3"
CONTENT = ("Version is up to date", "Cleaning up old binary.")


@dataclass(frozen=True, slots=True)
class Host:
    """A node that is stopped and below the minimum, with an updater."""

    site: Site
    node: Node

    @property
    def container(self) -> Container:
        return self.site.container

    @property
    def binary(self) -> Path:
        return self.container.path(self.node.binary)

    def reset(
        self,
        release: str = TODAY,
        *,
        pause: float = 0.02,
        trial: float | None = None,
        service: str = "",
        enabled: bool = True,
    ) -> None:
        """Install the old version again, and an updater of a release, not started."""
        container = self.container
        container.systemctl("stop", UNIT, self.node.unit, check=False)
        container.systemctl("reset-failed", UNIT, self.node.unit, check=False)
        container.run(["rm", "-rf", self.node.binary.parent, STORE])
        self.node.install(OLD)
        container.run(["install", "--directory", f"--owner={USER}", STORE])
        program = self.node.binary.with_name("storagenode-updater")
        source = (REPOSITORY / "tests/simulators/updater.py").read_text()
        container.write(program, f"#!/usr/bin/python3\n{source}", 0o755)
        command = f"{program} run --config-dir {self.node.config_dir} --binary-location {self.node.binary}"
        command += f" --service-name {SERVICE} --binary-store-dir {STORE} --release {release} --pause {pause}"
        command += f" --trial {pause if trial is None else trial}"
        lines = ["[Service]", f"User={USER}", f"ExecStart={command}", "Restart=on-failure", service]
        container.unit(UNIT, "\n".join([*lines, "[Install]", "WantedBy=multi-user.target", ""]), enable=enabled)
        if not enabled:
            container.systemctl("disable", "--quiet", UNIT)

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a run, as a person would."""
        command: list[str | Path] = [VENV / "bin/storagenode-remediate", "run", "--yes", self.node.name, *arguments]
        return self.container.popen(command)

    def ended(self, process: subprocess.Popen[str]) -> str:
        """Wait for the end of a run, and return what it said."""
        said, log = process.communicate(timeout=60)
        print(process.returncode, said, log)
        assert "Traceback" not in log
        return said

    def updater(self) -> tuple[str, str]:
        """Say whether the updater runs, and whether it is enabled."""
        shown = self.container.show(UNIT, "ActiveState", "UnitFileState")
        return shown["ActiveState"], shown["UnitFileState"]

    def inode(self) -> int | None:
        """Say which file the binary is; None while an updater has taken it away."""
        try:
            return self.binary.stat().st_ino
        except FileNotFoundError:
            return None

    def at_work(self) -> None:
        """Start the updater, as anybody might."""
        self.container.systemctl("start", UNIT, check=False)  # a stop of ours may cancel it

    def idle(self) -> None:
        """Start the updater while the network demands nothing yet, and let it wait for its next cycle."""
        self.site.rise(OLD)
        self.at_work()
        self.rest()
        self.site.rise()

    def rest(self) -> None:
        """Wait until the updater, if it runs, has come to the end of its cycle."""
        ends = (*CONTENT, "Error updating service.")
        if self.updater()[0] == "active":
            wait(lambda: any(end in self.said() for end in ends), "the updater rests")

    def said(self) -> str:
        """Return what the updater that runs has said of the node, and not of itself."""
        pid = self.container.show(UNIT, "MainPID")["MainPID"]
        said = self.container.run(["journalctl", "--no-pager", "--output=cat", f"_PID={pid}"]).stdout
        return "\n".join(line for line in said.splitlines() if 'ervice": "storagenode-updater"' not in line)

    def beside(self) -> set[str]:
        """Name the files of the binary's folder that are neither the binary nor the updater."""
        return {path.name for path in self.binary.parent.iterdir()} - {"storagenode", "storagenode-updater"}


def assert_whole(host: Host, seen: Seen) -> None:
    """The path has always named one of the releases, whole, but between an updater's own two renamings."""
    seen.assert_always(build.sha256(path) for path in host.site.binaries.values())


def assert_put_back(host: Host, updater: tuple[str, str]) -> None:
    """The updater is as it was, and content; nothing of ours is left, and nothing is open."""
    assert host.node.installed() == NEW
    assert host.updater() == updater
    if updater[0] == "active":
        wait(lambda: any(end in host.said() for end in CONTENT), "the updater is content")
    assert host.beside() <= {BACKUP, f"storagenode.old.v{OLD}"}
    assert not host.container.path(VERDICT).exists()
    assert all(run["finished"] for run in host.node.runs())
    assert host.site.remediate("recover") == "nothing to recover\n"


def trying(host: Host, *, seconds: float, service: str = "") -> None:
    """Begin with an updater of today in the middle of trying the new version."""
    host.reset(pause=0, trial=seconds, service=service)
    host.at_work()
    wait(lambda: "Download finished." in host.said(), "the updater tries the new version")


def undone(run: dict[str, Any]) -> list[str]:
    (released,) = (each["data"] for each in run["journal"] if (each["step"], each["event"]) == ("release", "done"))
    found: list[str] = released["undone"]
    return found
