"""The real updaters of both kinds at work while we are, in one-shot runs: tests/remediate has the same, simulated."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.labs.systemd import Container
from tests.labs.upstream import DEFECTIVE, FIXED, StorjNode, programs, serve_versions, storagenode_zip
from tests.simulators import build
from tests.simulators.download_host import DownloadHost
from tests.simulators.witness import Witness
from tests.upstream.conftest import ASSET, NEW, OLD, OUR_PROGRAMS, WATCHED, configure, wait_for

pytestmark = [pytest.mark.upstream, pytest.mark.systemd]

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
SEED = os.environ.get("SEED") or (str(random.randrange(1 << 32)) if EXHAUSTIVE else "1")
MOMENTS = {"before hold": 1.0, "while held": 2.0, "between swap and start": 0.5}
"""What the updater's start is counted from, and how many seconds after it that may be."""


@dataclass(frozen=True, slots=True)
class Place:
    container: Container
    nodes: dict[str, StorjNode]

    def remediate(self, *arguments: str) -> list[str | Path]:
        return [OUR_PROGRAMS / "storagenode-remediate", *arguments, "--config.file", WATCHED]

    def last_run(self, name: str) -> Any:
        runs = json.loads(self.container.run(self.remediate("history", "--json", name)).stdout)["runs"]
        return runs[0] if runs else None

    def at_rest(self, node: StorjNode) -> None:
        """Wait for the end of the updater's one cycle."""
        self.container.wait_state(node.updater_unit, "inactive", timeout=30)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Nodes that are too old and have not been started, one with an updater of each kind."""
    archives = tmp_path_factory.mktemp("archives")
    (archives / NEW).mkdir()
    shutil.copy(storagenode_zip(FIXED), archives / NEW / ASSET)
    with Container() as container, DownloadHost(archives, prefix=container.network.enter) as host:
        container.install_project()
        once = "--version.check-interval=0s"
        nodes = {
            "offline": StorjNode(container, "offline", number=1, updater=FIXED, updater_options=once),
            "online": StorjNode(container, "online", number=2, updater=DEFECTIVE, updater_options=once),
        }
        serve_versions(container, minimum=NEW, url=f"{host.releases}/v{NEW}/storagenode_{{os}}_{{arch}}.zip")
        configure(container, host, nodes.values())
        yield Place(container, nodes)


@pytest.mark.parametrize("number", range(20 if EXHAUSTIVE else 4))
def test_whenever_its_cycle_falls(place: Place, number: int) -> None:
    chance = random.Random(f"{SEED}/{number}")
    name, moment = ("online", "offline")[number % 2], [*MOMENTS][(number // 2 + number % 2) % 3]
    offset, enabled = chance.uniform(0, MOMENTS[moment]), chance.random() < 0.5
    kill = chance.choice(["SIGTERM", "SIGKILL"])
    print(f"SEED={SEED} number={number}: {name}, {moment}, {offset=:.3f} {enabled=} {kill=}")
    container, node = place.container, place.nodes[name]
    container.systemctl("stop", node.unit, node.updater_unit)
    container.run(["find", node.folder, "-name", "*storagenode.*", "-delete"])
    node.install(DEFECTIVE)
    container.write(f"/etc/systemd/system/{node.updater_unit}.d/kill.conf", f"[Service]\nKillSignal={kill}\n")
    container.systemctl("enable" if enabled else "disable", "--quiet", "--no-reload", node.updater_unit)
    container.systemctl("daemon-reload")
    path = container.path(node.binary)
    command = place.remediate("run", "--yes", "--start", "always" if "start" in moment else "never", name)
    releases = [build.sha256(programs(version)["storagenode"]) for version in (DEFECTIVE, FIXED)]
    with Witness(path) as witness:
        inode = path.stat().st_ino
        start = ["start", "--no-block", node.updater_unit]
        if moment == "before hold":
            container.systemctl(*start)
            time.sleep(offset)
        process = container.popen(command)
        if moment == "between swap and start":
            wait_for(lambda: path.stat().st_ino != inode, "the swap")
        if moment != "before hold":
            time.sleep(offset)
            container.systemctl(*start)
        said, log = process.communicate(timeout=60)
        print(process.returncode, said, log)
        place.at_rest(node)
        if build.sha256(path) == releases[0]:
            # What was seen while the updater of 1.104.5 had its own new version in place, which it then took back.
            assert name == "online"
            assert any(each in said for each in ("(current)", "(installed_unknown)", "somebody has changed it")), said
            container.run(place.remediate("run", "--yes", "--start", "never", name))
            place.at_rest(node)
    print(witness.seen)
    assert "Traceback" not in log
    witness.seen.assert_always(releases)
    assert build.sha256(path) == releases[1]
    assert container.show(node.updater_unit)["UnitFileState"] == ("enabled" if enabled else "disabled")
    beside = {each.name for each in path.parent.iterdir()} - {"storagenode", "storagenode-updater"}
    # Where the updater was first, and was killed when it had swapped, its own backup stays, as always before 1.111.
    theirs = {f"storagenode.old.v{OLD}"} if "somebody has changed it" in said else set()
    assert beside <= {f".storagenode.keeper-old-{OLD}"} | theirs
    assert not list(container.path("/").glob("last-failed-update*"))
    run = place.last_run(name)
    assert run is None or (run["finished"] and run["outcome"] in {"updated", "abandoned"})
    assert container.run(place.remediate("recover")).stdout == "nothing to recover\n"
    # It is not blocked: once more, and it finds nothing to do.
    container.systemctl("start", node.updater_unit)
    place.at_rest(node)
    last = container.journal(node.updater_unit).rpartition("Running on version")[2]
    assert last.count("Version is up to date") == 2, last
