"""A host with the shipped units on it, a node with its official updater, and what one does to them."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.site import NEW, OLD, TOKEN, WORKER, Node, Site, wait
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.simulators import build

CONFIG = "/etc/storagenode-keeper.yml"
SPOOL, STORE, STATUS = (
    "/var/spool/storagenode-keeper",
    "/var/lib/storagenode-remediate",
    "/var/lib/storagenode-keeper/status.json",
)
PYTHON = VENV / "bin/python"


class Host(Site):
    """The site, where every alert is acted on however often, and each node has an updater."""

    def __init__(self, container: Container, folder: Path, names: Sequence[str]) -> None:
        super().__init__(container, folder, names)
        self._releases = folder / "releases"

    def publish(self, program: Path) -> None:
        """Make a program the release of the new version."""
        build.archive(program, self._releases / NEW / build.ASSET)

    def _install(self) -> None:
        super()._install()
        self.configure()
        for name in self._nodes:
            self.container.unit(
                updater(name), "[Service]\nExecStart=/bin/sleep 100000\n[Install]\nWantedBy=multi-user.target\n"
            )
            self.container.systemctl("start", updater(name))

    def configure(self, **rules: object) -> None:
        """Write the nodes as they are now, and rules, into the configuration."""
        config = yaml.safe_load(self.container.path(CONFIG).read_text())
        config["nodes"] = [
            node.config() | {"updater_service": f"systemd:{updater(name)}"} for name, node in self._nodes.items()
        ]
        config["remediation"] |= {"cool_down": "0s"} | rules
        self.container.write(CONFIG, yaml.safe_dump(config))

    def post(self, *names: str) -> int:
        """Send the webhook an alert for nodes, and return the code of its answer."""
        alerts = [{"status": "firing", "labels": {"remediation": "offline-update", "node": name}} for name in names]
        body = json.dumps({"version": "4", "alerts": alerts}).encode()
        request = urllib.request.Request("http://127.0.0.1:19652/alertmanager", body)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        code: int = self.container.network.call(_status, request)
        return code

    def ask(self, *names: str) -> None:
        """Leave requests in the spool, as the webhook does."""
        for name in names:
            self.container.run(["setpriv", *WEBHOOK_USER, "touch", f"{SPOOL}/{name}"])

    def steps(self) -> list[str]:
        """List the steps the worker has logged, oldest first."""
        return [line["step"] for line in self.log(WORKER) if line.get("message") == "step"]

    def wait_step(self, step: str, seen: int = 0) -> None:
        """Wait until the worker has begun a step that it had begun `seen` times before."""
        wait(lambda: self.steps().count(step) > seen, f"the step {step}")

    def wait_ended(self, node: Node, runs: int = 1) -> dict[str, Any]:
        """Wait until a node has had so many runs, and the worker is at rest; return the newest."""

        def newest() -> dict[str, Any] | None:
            found = node.runs()
            return found[0] if len(found) >= runs and found[0]["outcome"] else None

        try:
            found = wait(newest, f"run {runs} of {node.name} has ended", 120)
        except TimeoutError as error:
            error.add_note(self.container.journal(WORKER)[-4000:])
            raise
        self.container.wait_state(WORKER, "inactive")
        return found

    def crash_for_its_age(self, node: Node) -> None:
        """Let a node run, and then be restarted when it has become too old to start."""
        self.rise(OLD)
        node.start()
        self.rise()
        self.container.systemctl("restart", node.unit)
        self.container.wait_state(node.unit, "failed")

    def entries(self, node: Node) -> list[str]:
        """List what is in the folder of a node's binary."""
        return sorted(path.name for path in self.container.path(node.binary.parent).iterdir())

    def assert_updated(self, node: Node) -> None:
        """The new binary whole in its place, the old one kept, everything put back."""
        assert node.installed() == NEW
        assert self.entries(node) == [f".storagenode.keeper-old-{OLD}", "storagenode"]
        self.assert_released(node)

    def assert_untouched(self, node: Node) -> None:
        """The old binary whole in its place and nothing beside it, everything put back."""
        assert node.installed() == OLD
        assert self.entries(node) == ["storagenode"]
        self.assert_released(node)

    def assert_released(self, node: Node) -> None:
        """The updater is at work as it was."""
        assert self.container.show(updater(node.name), "ActiveState")["ActiveState"] == "active"

    @contextmanager
    def dropped_in(self, name: str, content: str, *, unit: str = WORKER) -> Iterator[None]:
        """Add a drop-in to a unit, the worker's as a rule, for a while."""
        path = f"/etc/systemd/system/{unit}.d/{name}.conf"
        self.container.write(path, content)
        self.container.systemctl("daemon-reload")
        try:
            yield
        finally:
            self.container.path(path).unlink()
            self.container.systemctl("daemon-reload")

    def outside(self) -> set[str]:
        """Say of every file that is neither ours nor the system's scratch what it is, and when it was changed."""
        folders = ["/boot", "/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var/lib", "/var/spool", "/var/cache"]
        ours = [STORE, SPOOL, STATUS.rpartition("/")[0], str(VENV), "/var/lib/systemd", "/var/lib/storagenode-exporter"]
        pruned = [part for path in ours for part in ("-path", path, "-prune", "-o")]
        found = self.container.run(["find", *folders, *pruned, "-printf", "%p %i %y %m %U %G %s %T@ %l\\n"]).stdout
        return set(found.splitlines())

    def forget(self, node: Node) -> None:
        """Take back what was done: the old binary alone, and an empty past."""
        self.container.systemctl("stop", f"{WORKER.removesuffix('.service')}.path", WORKER)
        self.container.systemctl("reset-failed", WORKER, check=False)
        self.container.run(["find", STORE, SPOOL, node.binary.parent, "-mindepth", "1", "-delete"], check=False)
        self.container.systemctl("stop", node.unit, check=False)
        self.container.systemctl("reset-failed", node.unit, check=False)
        self.container.systemctl("start", updater(node.name))
        self.downloads.set(behaviour="ok")
        self.publish(self.binaries[NEW])


WEBHOOK_USER = ("--reuid=storagenode-remediate", "--regid=storagenode-remediate", "--init-groups", "--")


def updater(name: str) -> str:
    """Name the unit of a node's updater."""
    return f"storagenode-{name}-updater.service"


def _status(request: urllib.request.Request) -> int:
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.status)
