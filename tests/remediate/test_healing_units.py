"""A node that runs, and its updater too old or blocked, on a real systemd: healed, and nothing else touched."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import OLD, USER, Node
from tests.labs.rootfs import VENV
from tests.remediate.hosting import STATE_DIR, Host, hosted
from tests.remediate.test_invariants import PROGRAM
from tests.simulators import build
from tests.steps import STEPS
from tests.upstream.test_updater import HOLD

pytestmark = pytest.mark.systemd

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
AGED, TODAY, NEXT = "1.104.5", "1.162.3", "1.103.0"
"""Versions of the updater; and the one that the node is to go to."""
UNIT = "storagenode-well-updater.service"
FOLDER = Path("/opt/updater")
UPDATER = FOLDER / "storagenode-updater"
STORE = Path("/var/lib/updater")
LINK = Path("/usr/bin/storagenode-of-well")
"""By which the updater is told where the node's binary is."""
VERDICT, OWN_VERDICT = (STORE / f"last-failed-update.storagenode{which}.json" for which in ("-well", "-updater"))
ASSET = build.ASSET.replace("storagenode_", "storagenode-updater_")
BACKUP = f".storagenode-updater.keeper-old-{AGED}"
MOMENTS = 2 * (2 * len(STEPS) + 1)
"""Of a run about an updater, that starts nothing, and removes what blocks it."""


@dataclass(frozen=True, slots=True)
class Place:
    host: Host
    node: Node
    programs: dict[str, Path]

    def reset(self, version: str = TODAY, *, active: bool = True) -> None:
        """Put an updater in place, at work or not, that nothing blocks; forget what was."""
        container = self.host.container
        container.systemctl("stop", UNIT, check=False)
        container.run(["rm", "-rf", FOLDER, STORE, STATE_DIR])
        container.put(self.programs[version], UPDATER)
        settings = {"version.server-address": self.host.versions.url, "console.address": "127.0.0.1:15999"}
        container.write(STORE / "config.yaml", "".join(f"{key}: {value}\n" for key, value in settings.items()))
        container.write(STORE / "storage/storage-dir-verification", bytes(32))
        container.run(["chown", "--recursive", f"{USER}:{USER}", FOLDER, STORE])
        container.run(["find", self.node.binary.parent, "-name", "storagenode.*", "-delete"])
        if active:
            container.systemctl("start", UNIT)
        self.host.versions.set(minimum=OLD, suggested=NEXT, updater_minimum="v0.0.1", updater_suggested=TODAY)
        self.host.downloads.set(behaviour="ok")
        self.host.configure(heal_updater=False, cool_down="0s", dry_run=False)

    def write(self, path: Path, content: str = "", *, aged: bool = True) -> None:
        self.host.container.write(path, content)
        if aged:
            self.host.container.run(["touch", "--date=-1 hour", path])

    def remediate(self, *arguments: str, kill_at: int = 0) -> tuple[int, str]:
        """Run a command, which may be killed at a line of the journal; return its exit code, and what it printed."""
        command: list[str | Path] = [VENV / "bin/python", "-c", PROGRAM, *arguments]
        done = self.host.container.run(command, check=False, env={"KILL_AT": str(kill_at)})
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        return done.returncode, done.stdout

    def healed(self, *options: str) -> dict[str, Any]:
        """Heal as a person would; return the report."""
        (report,) = json.loads(self.remediate("run", "--yes", "--json", "--updater", "well", *options)[1])
        found: dict[str, Any] = report
        return found

    def watched(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.remediate("watch", "--once", "--json")[1].splitlines()]

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.remediate("history", "--json")[1])["runs"]
        return found

    def published(self) -> dict[str, Any]:
        path = self.host.container.path("/var/lib/storagenode-keeper/status.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def version(self) -> str:
        """Say which of the releases the updater's binary is, whole and executable."""
        path = self.host.container.path(UPDATER)
        assert path.stat().st_mode & 0o777 == 0o755
        return next(version for version, each in self.programs.items() if each.read_bytes() == path.read_bytes())

    def beside(self) -> set[str]:
        return {path.name for path in self.host.container.path(FOLDER).iterdir()} - {UPDATER.name}

    def exists(self, path: Path) -> bool:
        return self.host.container.path(path).exists()

    def active(self) -> str:
        return self.host.container.show(UNIT, "ActiveState")["ActiveState"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("host")
    programs = {}
    for version in (AGED, TODAY):
        (folder / version).mkdir()
        programs[version] = build.node(version, folder / version / "storagenode-updater")
    (folder / "site").mkdir()
    with hosted(folder / "site", "well") as host:
        build.archive(programs[TODAY], folder / "site/releases" / TODAY / ASSET, "storagenode-updater")
        host.configure({"well": {"updater_service": f"systemd:{UNIT}"}})
        node = host.node("well").install()
        host.container.run(["ln", "--symbolic", node.binary, LINK])
        told = f"--binary-location {LINK} --service-name storagenode-well --binary-store-dir {STORE}"
        start = f"{UPDATER} run --config-dir {STORE} {told}"
        host.container.unit(UNIT, f"[Service]\nUser={USER}\nExecStart={start}\nRestart=on-failure\n", enable=False)
        host.rise(OLD)
        node.start()
        yield Place(host, node, programs)


def verdict(version: str, failure: str) -> str:
    return json.dumps({"Version": version, "Date": "2026-11-23T14:00:00Z", "Failure": f"{failure}\n"})


@pytest.mark.parametrize("active", [True, False])
def test_one_that_is_too_old_is_updated_and_left_as_it_was(place: Place, active: bool) -> None:
    place.reset(AGED, active=active)
    before = place.node.state()
    report = place.healed()
    run = report["run"]
    assert (run["outcome"], run["reason"], run["target"]) == ("updated", "updater_too_old", TODAY)
    assert report["text"].startswith(f"well's updater: updated, {AGED} -> {TODAY} (person, updater_too_old)")
    assert (place.version(), place.beside()) == (TODAY, {BACKUP})
    assert place.active() == ("active" if active else "inactive")
    assert place.node.state() == before
    assert place.healed()["reason"] == "current"


def test_one_that_cannot_be_put_back_yet_has_the_other_left_alone_until_it_can(place: Place) -> None:
    """Two units of one binary: with each try the one that works would be stopped, and started, once more."""
    container, other, broken = place.host.container, "storagenode-well-updater-2.service", "/run/updater-2-broken"
    place.reset(AGED)
    start = container.path(f"/etc/systemd/system/{UNIT}").read_text().replace(str(STORE), f"{STORE}-2")
    container.run(["cp", "--archive", STORE, f"{STORE}-2"])
    container.run(["sed", "--in-place", "s/15999/15998/", f"{STORE}-2/config.yaml"])
    container.unit(other, f'{start}ExecStartPre=/bin/sh -c "! test -e {broken}"\nRestart=no\n', enable=False)
    container.systemctl("start", other)
    ran = place.host.run("well", "--updater", meanwhile={"release": [["touch", broken]]})
    assert (ran.code, ran.report["run"]["outcome"]) == (4, None)
    assert container.show(other, "ActiveState")["ActiveState"] == "failed"
    before = container.show(UNIT, "ActiveState", "MainPID")
    assert before["ActiveState"] == "active"
    assert place.remediate("recover")[0] == 4
    assert place.published()["nodes"][0]["updater_held"]
    assert container.show(UNIT, "ActiveState", "MainPID") == before
    container.path(broken).unlink()
    code, said = place.remediate("recover")
    assert (code, "updated" in said) == (0, True), said
    assert container.show(other, "ActiveState")["ActiveState"] == "active"
    assert container.show(UNIT, "ActiveState", "MainPID") == before
    assert not place.published()["nodes"][0]["updater_held"]
    container.systemctl("stop", other)
    container.run(["rm", "-r", f"/etc/systemd/system/{other}", f"{STORE}-2"])
    container.systemctl("daemon-reload")


@pytest.mark.parametrize("kill_at", range(1, MOMENTS + 1, 1 if EXHAUSTIVE else 13))
def test_killed_at_a_journal_line(place: Place, kill_at: int) -> None:
    """I1 to I3, as of a node's run: whole at every moment, and recovered, the recovery killed as well."""
    place.reset(AGED)
    place.write(beside_node(place))
    before = place.node.state()
    assert place.remediate("run", "--yes", "--updater", "well", kill_at=kill_at)[0] == -signal.SIGKILL
    first = place.version()
    if kill_at > 4 and place.active() != "active":  # it is made known once they are held
        (told,) = place.published()["nodes"]
        assert (told["updater_held"], told["in_progress"]) == (True, False), "nothing is done with the node"
    assert place.remediate("recover", kill_at=2 + kill_at % 7)[0] in (-signal.SIGKILL, 0, 1)
    assert place.version() == first
    assert place.remediate("recover")[0] in (0, 1)
    assert place.version() == first
    (run,) = place.runs()
    assert (run["outcome"], place.beside()) == (("updated", {BACKUP}) if first == TODAY else ("undone", set()))
    assert place.active() == "active"
    now = place.node.state()
    assert (now.inode, now.pid, now.started) == (before.inode, before.pid, before.started)
    assert place.remediate("recover")[1] == "nothing to recover\n"


def beside_node(place: Place) -> Path:
    return place.node.binary.with_name(f"storagenode.{NEXT}")


def beside_link(place: Place) -> Path:
    return LINK.with_name(f"{LINK.name}.{NEXT}")


@pytest.mark.parametrize(("kill_at", "outcome"), [(3, "undone"), (9, "healed")])
def test_killed_while_it_removes_what_blocks(place: Place, kill_at: int, outcome: str) -> None:
    place.reset()
    place.write(beside_node(place))
    assert place.remediate("run", "--yes", "--updater", "well", kill_at=kill_at)[0] == -signal.SIGKILL
    assert place.remediate("recover")[0] == (0 if outcome == "healed" else 1)
    assert place.runs()[0]["outcome"] == outcome
    assert place.exists(beside_node(place)) is (outcome == "undone")
    assert place.active() == "active"


BLOCKS: dict[str, tuple[Callable[[Place], Path], str]] = {
    "a download beside the node": (beside_node, ""),
    "a download beside a link to the node": (beside_link, ""),
    "a download beside the updater": (lambda place: FOLDER / f"storagenode-updater.v{TODAY}", ""),
    "a verdict of a signal": (lambda place: VERDICT, verdict(NEXT, "signal: terminated")),
    "a verdict about the updater": (lambda place: OWN_VERDICT, verdict(TODAY, "signal: killed")),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_what_blocks_it_is_removed(place: Place, block: str) -> None:
    own = "updater" in block
    place.reset(AGED if own else TODAY)
    path = BLOCKS[block][0](place)
    place.write(path, BLOCKS[block][1])
    run = place.healed()["run"]
    assert (run["outcome"], run["reason"]) == (("updated", "updater_too_old") if own else ("healed", "updater_blocked"))
    entries = {(each["step"], each["event"]): each["data"] for each in run["journal"]}
    assert own or ({step for step, _ in entries}, run["detail"]) == ({"hold", "unblock", "release"}, f"removed {path}")
    assert list(entries["unblock", "intent"]["blocks"]) == [str(path)]
    assert entries["unblock", "done"] == {"removed": [str(path)]}
    assert not place.exists(path)
    assert place.active() == "active"


def test_what_being_stopped_does_to_it_is_undone(place: Place) -> None:
    """It was at the node or at itself: the files are those of `test_beside_the_updater.py`, and of its own update."""
    place.reset(AGED)
    container = place.host.container
    caused = [
        beside_node(place),
        beside_link(place),
        FOLDER / f"storagenode-updater.{TODAY}",
        VERDICT,
        OWN_VERDICT,
    ]
    for path in (VERDICT, OWN_VERDICT):
        place.write(path.with_suffix(".kept"), verdict(TODAY, "signal: terminated"))
    lines = [
        f"touch {caused[0]} {caused[1]} {caused[2]}",
        *(f"cp {path.with_suffix('.kept')} {path}" for path in caused[3:]),
    ]
    lines.append(f"mv {UPDATER} {UPDATER}.old")  # killed between its two renamings
    container.write("/root/ends", "\n".join(["#!/bin/sh", *lines, ""]), 0o755)
    drop_in = f"/etc/systemd/system/{UNIT}.d/ends.conf"
    container.write(drop_in, "[Service]\nExecStopPost=+/root/ends\n")
    container.systemctl("daemon-reload")
    try:
        run = place.healed()["run"]
    finally:
        container.run(["rm", drop_in])
        container.systemctl("daemon-reload")
    assert (run["outcome"], run["reason"], place.version()) == ("updated", "updater_too_old", TODAY)
    (released,) = (each["data"] for each in run["journal"] if (each["step"], each["event"]) == ("release", "done"))
    assert sorted(released["undone"]) == sorted(map(str, caused))
    assert not any(map(place.exists, caused))
    assert place.beside() == {BACKUP}
    assert place.active() == "active"


def test_what_being_stopped_for_the_node_does_to_it_is_undone_too(place: Place) -> None:
    place.reset()
    caused = [FOLDER / "storagenode-updater.1.170.0", OWN_VERDICT]
    command: list[str | Path] = [VENV / "bin/python", "-c", HOLD, UNIT, place.node.binary, *caused]
    done = place.host.container.run(command)
    assert json.loads(done.stdout) == list(map(str, caused))
    assert (place.active(), place.beside()) == ("active", set())


def test_all_that_run_it_are_held(place: Place) -> None:
    place.reset(AGED)
    container, other = place.host.container, "storagenode-second-updater.service"
    link = Path("/usr/bin/storagenode-updater")
    container.run(["ln", "--symbolic", UPDATER, link])
    container.write("/var/lib/second/config.yaml", "console.address: 127.0.0.1:15998\n")
    container.write("/var/lib/second/storage/storage-dir-verification", bytes(32))
    start = f"{link} run --config-dir /var/lib/second --binary-location /opt/second/storagenode"
    container.unit(other, f"[Service]\nExecStart={start}\n", enable=False)
    container.systemctl("start", other)
    try:
        run = place.healed()["run"]
        entries = {(each["step"], each["event"]): each["data"] for each in run["journal"]}
        assert sorted(entries["hold", "done"]["held"]) == sorted((UNIT, other))
        assert run["outcome"] == "updated"
        assert container.show(other, "ActiveState")["ActiveState"] == place.active() == "active"
    finally:
        container.systemctl("stop", other)
        container.run(["rm", link, f"/etc/systemd/system/{other}"])
        container.systemctl("daemon-reload")


def test_what_is_no_block_is_left(place: Place) -> None:
    place.reset()
    other = place.node.binary.with_name("storagenode.1.101.0")
    place.write(other)
    young = beside_node(place)
    place.write(young, aged=False)  # what it may be at just now
    place.write(VERDICT, verdict("1.101.0", "signal: terminated"))
    assert place.healed()["reason"] == "current"
    assert place.exists(other)
    assert place.exists(young)
    assert place.exists(VERDICT)
    place.host.container.systemctl("stop", UNIT)
    assert place.healed()["run"]["outcome"] == "healed", "nobody is at it any more"
    assert (place.exists(other), place.exists(young)) == (True, False)
    assert place.active() == "inactive"


def test_a_version_that_does_not_run_here_is_tried_again_for_a_person_alone(place: Place) -> None:
    place.reset()
    place.host.configure(heal_updater=True)
    place.write(VERDICT, verdict(NEXT, "exit status 1"))
    assert place.watched() == []
    assert place.exists(VERDICT)
    assert place.healed()["run"]["outcome"] == "healed"
    assert not place.exists(VERDICT)


def test_nothing_is_done_unasked_unless_the_rules_allow_it(place: Place) -> None:
    place.reset(AGED)
    assert place.watched() == []
    place.host.work("well")
    assert (place.runs(), place.version()) == ([], AGED)
    place.host.configure(heal_updater=True, dry_run=True)
    (report,) = place.watched()
    assert (report["program"], report["reason"]) == ("storagenode-updater", "dry_run")
    assert TODAY in report["detail"]
    place.host.configure(dry_run=False)
    place.remediate("pause", "well")
    (report,) = place.watched()
    assert report["reason"] == "paused"
    place.remediate("resume", "well")
    before = place.node.state()
    (report,) = place.watched()
    assert (report["node"], report["run"]["outcome"], report["run"]["trigger"]) == ("well", "updated", "watch")
    assert place.node.state() == before
    assert place.watched() == []


def test_an_alert_brings_it_about_where_it_is_allowed(place: Place) -> None:
    place.reset(AGED)
    place.host.configure(heal_updater=True)
    place.host.work("well")
    (run,) = place.runs()
    assert (run["program"], run["trigger"], run["outcome"]) == ("storagenode-updater", "alert", "updated")
    decisions = json.loads(place.remediate("history", "--json")[1])["decisions"]
    told = {(each["program"], each["decision"], each["reason"]) for each in decisions}
    assert ("storagenode-updater", "proceed", "updater_too_old") in told
    assert ("storagenode", "skip", "current") in told or ("storagenode", "skip", "only_due") in told
    status = place.published()
    (node,) = status["nodes"]
    assert (node["last_success"], node["in_progress"]) == (None, False), "the node's own, of which there is none"
    assert [each["program"] for each in status["runs"]] == ["storagenode-updater"]


def test_what_fails_is_held_against_the_updater_and_not_the_node(place: Place) -> None:
    place.reset(AGED)
    place.host.configure(heal_updater=True)
    archive = place.host.folder / "releases" / TODAY / ASSET
    good = archive.read_bytes()
    build.archive(place.programs[AGED], archive, "storagenode-updater")
    try:
        (report,) = place.watched()
        assert (report["run"]["outcome"], place.version(), place.active()) == ("bad_version", AGED, "active")
        (report,) = place.watched()
        assert (report["program"], report["reason"]) == ("storagenode-updater", "known_bad")
    finally:
        archive.write_bytes(good)
    place.remediate("resume", "well")
    (report,) = place.watched()
    assert report["run"]["outcome"] == "updated"


def test_what_is_no_updater_is_refused(place: Place) -> None:
    place.reset()
    link = FOLDER / "other-storagenode-updater"
    place.host.container.run(["ln", "--symbolic", place.node.binary, link])
    place.host.container.unit("odd.service", f"[Service]\nExecStart={link} run\n", enable=False)
    stray = Path("/opt/stray/storagenode")
    place.host.container.put(place.programs[AGED], stray)
    place.host.container.unit("stray.service", f"[Service]\nExecStart={stray} run\n", enable=False)
    before = place.node.state()
    try:
        for unit, reason in (
            ("nobody.service", "absent"),
            ("stray.service", "installed_unknown"),
            (place.node.unit, "installed_unknown"),
            ("odd.service", "installed_unknown"),
        ):
            place.host.configure({"well": {"updater_service": f"systemd:{unit}"}})
            report = place.healed("--to", TODAY)
            assert (report["decision"], report["reason"]) == ("refuse", reason)
            assert unit in report["detail"]
        assert place.node.state() == before
    finally:
        place.host.configure({"well": {"updater_service": f"systemd:{UNIT}"}})
