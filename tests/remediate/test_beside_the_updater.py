"""The official updater, simulated, at work while we are: whenever its cycle falls, both come to a good end."""

import json
import os
import random
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.site import OLD, Site, wait
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.remediate.beside import (
    BEFORE_OFFLINE,
    TODAY,
    UNIT,
    VERDICT,
    Host,
    assert_put_back,
    assert_whole,
    trying,
    undone,
)
from tests.simulators.witness import Witness

pytestmark = pytest.mark.systemd

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
SEED = os.environ.get("SEED") or (str(random.randrange(1 << 32)) if EXHAUSTIVE else "1")
ENDED_WELL = {"updated", "abandoned", "superseded"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Container() as container, Site(container, tmp_path_factory.mktemp("site"), ["beside"]) as site:
        path = container.path("/etc/storagenode-keeper.yml")
        config = yaml.safe_load(path.read_text())
        config["nodes"][0]["updater_service"] = f"systemd:{UNIT}"
        config["remediation"]["confirm_timeout"] = "20s"
        path.write_text(yaml.safe_dump(config))
        site.rise()
        yield site


@pytest.fixture
def host(site: Site) -> Host:
    site.downloads.set(behaviour="ok")
    return Host(site, site.node("beside"))


@pytest.mark.parametrize("number", range(20) if EXHAUSTIVE else (0, 3, 5, 6))
def test_whenever_its_cycle_falls(host: Host, number: int) -> None:
    chance = random.Random(f"{SEED}/{number}")
    release = (BEFORE_OFFLINE, TODAY)[number % 2]
    moment = ("before hold", "while held", "at any moment", "between swap and start")[number // 2 % 4]
    pause = 0.1 if moment == "before hold" else chance.choice([0.0, 0.02, 0.1])
    active, enabled = moment == "before hold" or chance.random() < 0.5, chance.random() < 0.5
    offset = chance.uniform(0, {"before hold": 0.6, "at any moment": 2, "between swap and start": 0.2}.get(moment, 1))
    print(f"SEED={SEED} number={number}: {moment}, {release=} {pause=} {offset=:.3f} {active=} {enabled=}")
    host.reset(release, pause=pause, enabled=enabled)
    runs = len(host.node.runs())
    host.site.downloads.set(behaviour="ok" if moment == "before hold" else "slow:1500000")
    if moment == "before hold":
        host.at_work()
    elif active:
        host.idle()
    with Witness(host.binary) as witness:
        inode = host.inode()
        if moment == "before hold":
            time.sleep(offset)
        process = host.run("--start", "always" if moment == "between swap and start" else "never")
        if moment == "while held" and active:
            wait(lambda: host.updater()[0] == "inactive" or process.poll() is not None, "the updater is held")
        elif moment == "between swap and start":
            wait(lambda: host.inode() not in (inode, None) or process.poll() is not None, "the swap")
        if moment != "before hold":
            time.sleep(offset)
            host.at_work()
        host.site.downloads.set(behaviour="ok")
        said = host.ended(process)
        host.rest()
        if host.node.installed() == OLD:
            # What was seen while the updater of 1.104.5 had its own new version in place, which it then took back.
            assert release == BEFORE_OFFLINE
            assert any(each in said for each in ("(current)", "(installed_unknown)", "somebody has changed it")), said
            host.ended(host.run("--start", "never"))
            host.rest()
    print(witness.seen)
    assert {run["outcome"] for run in host.node.runs()[: len(host.node.runs()) - runs]} <= ENDED_WELL
    assert_whole(host, witness.seen)
    assert_put_back(host, ("active", "enabled" if enabled else "disabled"))


@pytest.mark.parametrize(
    ("service", "left"),
    [("", str(VERDICT)), ("KillSignal=SIGKILL", "/opt/storagenodes/beside/storagenode.v1.104.5")],
    ids=["terminated", "killed"],
)
def test_what_our_stop_does_to_one_that_tries_a_version_is_undone(host: Host, service: str, left: str) -> None:
    """Each would block it for good: the one without a word, the other with an error every fifteen minutes."""
    trying(host, seconds=30, service=service)
    with Witness(host.binary) as witness:
        said = host.ended(host.run("--start", "never"))
    assert "updated" in said
    assert_whole(host, witness.seen)
    assert witness.seen.taken_away == ()
    assert undone(host.node.runs()[0]) == [left]
    assert_put_back(host, ("active", "enabled"))


def test_what_had_blocked_it_before_is_said_and_left_alone(host: Host) -> None:
    host.reset()
    failure = '{"Version": "1.104.5", "Failure": "signal: terminated\\n"}'
    host.container.write(VERDICT, failure)
    host.at_work()
    wait(lambda: "Current binary version" in host.said(), "the updater has looked")
    said, log = host.run("--start", "never").communicate(timeout=60)
    assert "updated" in said
    (line,) = (line for line in log.splitlines() if "blocks the updater" in line)
    assert f"file={VERDICT}" in line
    assert "signal: terminated" in line
    assert undone(host.node.runs()[0]) == []
    assert host.container.path(VERDICT).read_text() == failure


def test_one_that_is_being_stopped_is_waited_for(host: Host) -> None:
    """It is left to try the version to its end, and puts it in place: then nothing is left to be done."""
    trying(host, seconds=10, service="KillMode=process")
    host.container.systemctl("stop", "--no-block", UNIT)
    host.container.wait_state(UNIT, "deactivating")
    fetched = host.site.archives_sent()
    said = host.ended(host.run("--start", "never"))
    assert "somebody has changed it meanwhile" in said
    assert host.site.archives_sent() == fetched, "and this is seen before anything is fetched"
    assert_put_back(host, ("inactive", "enabled"))


MENDED = """
import json, os, pathlib, sys, time
from remediate.journal import Inode
from remediate.steps import hold
binary, unit = pathlib.Path(sys.argv[1]), sys.argv[2]
status = binary.stat()
old = Inode(status.st_dev, status.st_ino)
os.system(f"systemctl start {unit}")
while binary.exists():
    time.sleep(0.001)
held = hold.survey((unit,), binary)
hold.hold(held, binary, [old])
print(json.dumps([binary.exists() and binary.stat().st_ino == old.inode, sorted(os.listdir(binary.parent))]))
hold.release(held, binary, [old])
"""


def test_a_binary_that_a_killed_updater_has_renamed_away_is_put_back(host: Host) -> None:
    host.reset(pause=1.5, service="KillSignal=SIGKILL")
    with Witness(host.binary) as witness:
        said = host.container.run([VENV / "bin/python", "-c", MENDED, host.node.binary, UNIT]).stdout
        there, names = json.loads(said)
        assert there
        assert set(names) == {"storagenode", "storagenode-updater", "storagenode.v1.104.5"}, "the download comes later"
        host.rest()
    assert witness.seen.absent > 10
    assert_whole(host, witness.seen)
    assert_put_back(host, ("active", "enabled"))


def test_one_that_is_started_during_the_run_is_held_before_the_swap(host: Host) -> None:
    host.reset(pause=0, trial=30)
    host.site.downloads.set(behaviour="slow:70000")
    with Witness(host.binary) as witness:
        process = host.run("--start", "never")
        fetched = host.site.archives_sent()
        wait(lambda: host.site.archives_sent() > fetched, "we are fetching")
        host.site.downloads.set(behaviour="ok")
        host.at_work()
        wait(lambda: "Download finished." in host.said(), "the updater tries the new version")
        said = host.ended(process)
    assert "updated" in said
    assert_whole(host, witness.seen)
    assert witness.seen.taken_away == ()
    (run, *_) = host.node.runs()
    intents = {each["step"]: each["data"] for each in run["journal"] if each["event"] == "intent"}
    assert list(intents["hold"]["held"]) == []
    assert list(intents["confirm"]["held"]) == [UNIT]
    assert undone(run) == [str(VERDICT)]
    assert_put_back(host, ("active", "enabled"))


STARTED_AGAIN = """
import os, pathlib, sys, time
from remediate.steps import hold
binary, unit = pathlib.Path(sys.argv[1]), sys.argv[2]
held = hold.survey((unit,), binary)
hold.hold(held, binary, ())
os.system(f"systemctl start {unit}")
while not hold.downloads(binary):
    time.sleep(0.01)
print(hold.release(held, binary, ()))
"""


def test_one_that_was_started_again_does_not_lose_what_it_is_at(host: Host) -> None:
    host.reset(pause=0.05, trial=2)
    host.idle()
    host.container.run([VENV / "bin/python", "-c", STARTED_AGAIN, host.node.binary, UNIT])
    host.rest()
    assert "Error updating service." not in host.said()
    assert_put_back(host, ("active", "enabled"))
