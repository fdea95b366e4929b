"""docs/faq.md: its commands on a host with a node `alpha`, in the states that its blocks are named after."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks
from tests.e2e.site import EXPORTER, NEW, OLD, PATH, WORKER, Node, wait
from tests.guides.transcript import Reader
from tests.labs.rootfs import VENV
from tests.labs.systemd import ENVIRONMENT, Container
from tests.packaging.host import Host, updater
from tests.simulators import build

PAGE = ROOT / "docs/faq.md"
NEWEST = "1.105.4"
EXPORTER_PROGRAM = VENV / "bin/storagenode-exporter"
LOOPS = {"service": "Restart=always\nRestartSec=1", "limit": "StartLimitIntervalSec=0"}
LAST_CONTACT = "/var/lib/storagenode-exporter/last-contact.json"
ISSUES = [6986, 3909, 3785, 3768, 4040, 5333, 5673, 4261, 3627, 5936, 6700, 7004, 7445, 6009, 4772, 4739, 3293]
ISSUES += [5845, 3770, 4235, 7279, 3730, 6486]


class Asked(Host):
    """A host with one node; `archive` is the release that is offered."""

    def __init__(self, container: Container, folder: Path) -> None:
        super().__init__(container, folder, ["alpha"])
        self.scratch = folder / "scratch"
        self.archive = folder / "releases" / NEW / build.ASSET


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with Container() as container, Asked(container, tmp_path_factory.mktemp("host")) as host:
        container.put(host.archive, "/root/storagenode_linux_amd64.zip")
        container.systemctl("enable", "--now", "--quiet", EXPORTER, WORKER, PATH)
        yield host


@pytest.fixture
def alpha(host: Asked) -> Iterator[Node]:
    """A node that is current and runs; its host is afterwards as it was."""
    node, release = host.node("alpha"), host.archive.read_bytes()
    host.rise(OLD)
    node.install(**LOOPS).start()
    yield node
    host.archive.write_bytes(release)
    host.rise(OLD)
    host.remediate("resume", "alpha")
    host.container.systemctl("start", updater("alpha"))
    node.remove()


def fine(host: Asked, node: Node) -> None:
    """It is current and runs."""


def running(host: Asked, node: Node) -> None:
    """The minimum has risen above it while it runs."""
    host.rise(NEW)


def looping(host: Asked, node: Node) -> None:
    """It has been restarted since, and cannot start."""
    host.rise(NEW)
    host.container.systemctl("restart", node.unit)
    host.container.wait_state(node.unit, "activating", "auto-restart")


def behind(host: Asked, node: Node) -> None:
    """It was stopped, and both minimum and suggested version have risen."""
    node.stop()
    host.versions.set(minimum=f"v{NEW}", suggested=f"v{NEWEST}")


def bad_release(host: Asked, node: Node) -> None:
    """It was stopped, and the release that it would need does not run here."""
    host.publish(build.node(NEW, host.scratch, misbehave="exit1"))
    node.stop()
    host.rise(NEW)


def updater_down(host: Asked, node: Node) -> None:
    """Its updater has been stopped."""
    host.container.systemctl("stop", updater("alpha"))


def no_server(host: Asked, node: Node) -> None:
    """It was stopped below the minimum, and the version server fails since."""
    node.stop()
    host.rise(NEW)
    wait(lambda: "DEADLOCKED" in host.container.run([EXPORTER_PROGRAM, "check"], check=False).stdout, "it is seen")
    host.versions.set(behaviour="status:500")


def away(host: Asked, node: Node) -> None:
    """It was stopped, and its last contact was three days ago."""
    node.stop()
    host.container.systemctl("stop", EXPORTER)
    kept = json.loads(host.container.path(LAST_CONTACT).read_text())
    kept["kept"]["alpha"] = {"since": time.time() - 3 * 86400, "basis": "contact", "known": time.time()}
    host.container.path(LAST_CONTACT).write_text(json.dumps(kept))
    host.container.systemctl("start", EXPORTER)


STATES: tuple[tuple[Callable[[Asked, Node], None], list[Block]], ...] = (
    (fine, blocks("faq-fine")),
    (running, blocks("faq-running")),
    (looping, blocks("faq-looping")),
    (behind, blocks("faq-behind")),
    (bad_release, blocks("faq-bad-release")),
    (updater_down, blocks("faq-updater-down")),
    (no_server, blocks("faq-no-server")),
    (away, blocks("faq-away")),
)


@pytest.mark.e2e
@pytest.mark.systemd
@pytest.mark.parametrize(("state", "steps"), STATES, ids=[steps[0].runner for _, steps in STATES])
def test_its_commands_say_what_it_shows(
    host: Asked, alpha: Node, state: Callable[[Asked, Node], None], steps: list[Block]
) -> None:
    state(host, alpha)
    inside = ("nsenter", f"--target={host.container.leader}", "--all", "--")
    digest = hashlib.sha256(host.archive.read_bytes()).hexdigest()
    environment = {**ENVIRONMENT, "SHA256": digest, "PATH": f"{VENV}/bin:{ENVIRONMENT['PATH']}"}
    with Reader(Path("/"), environment, {"29001": host.versions.url.rpartition(":")[2]}, inside) as person:
        person.enter("cd /root")
        for step in steps:
            person.read(step)


def test_it_has_the_questions_that_were_asked() -> None:
    text = PAGE.read_text()
    assert [issue for issue in ISSUES if not re.search(rf"#{issue}\b", text)] == []
    for issue, linked in re.findall(r"#(\d+)\]\(https://github\.com/[^)]*?/(\d+)\)", text):
        assert issue == linked
