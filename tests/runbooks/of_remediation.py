"""The runbooks about what acts: brought into its state, looked at, mended."""

import json
import time
from pathlib import Path

from remediate.journal import Outcome
from tests.e2e.site import NEW, OLD, PATH, WEBHOOK, WORKER, Node, wait
from tests.packaging.host import STATUS
from tests.runbooks.book import INSTANCE, Book
from tests.runbooks.monitored import Monitored, until
from tests.simulators import build


def failed(host: Monitored) -> None:
    with host.installed("failed") as node:
        in_the_way = fail(host, node, 1)
        places = {"NODE": node.name, "UNIT": node.unit, "RUN": str(node.runs()[0]["id"])}
        book = Book(host, "StorageNodeRemediationFailed", **places)
        book.fires()
        said = book.look(0, 1, 1)
        assert str(in_the_way) in said
        assert "failed" in book.look()
        book.silence({"node": node.name})
        host.container.path(in_the_way).rmdir()
        book.mend()
        assert node.installed() == NEW
        book.ends()
        for ended_so in (
            *(later, told_to_end, killed, bad_version, abandoned),
            *(left_down, start_failed, unconfirmed, unreadable, still_held),
        ):
            ended_so(host, node, book)
            assert node.installed() == NEW
            book.ends()
        book.assert_all_run()


TRY_AGAIN, START, RECOVER = "remediate resume", "systemctl start", "remediate recover"


def later(host: Monitored, node: Node, book: Book) -> None:
    outdate(host, node)
    host.downloads.set(behaviour="status:503")
    ask(host, node, Outcome.LATER)
    book.fires()
    host.downloads.set(behaviour="ok")
    ask(host, node, Outcome.UPDATED)  # as the alert does, as long as it lasts


def told_to_end(host: Monitored, node: Node, book: Book) -> None:
    fetching(host, node)
    host.container.systemctl("stop", WORKER)
    assert host.ended(node)[-1] == Outcome.INTERRUPTED
    try_again(host, book)


def killed(host: Monitored, node: Node, book: Book) -> None:
    fetching(host, node)
    host.container.systemctl("kill", "--signal=KILL", WORKER)
    host.container.systemctl("stop", WORKER)
    book.does(RECOVER, 1)
    assert node.runs()[0]["outcome"] == Outcome.UNDONE
    try_again(host, book)


def bad_version(host: Monitored, node: Node, book: Book) -> None:
    outdate(host, node)
    host.downloads.set(digests="wrong")
    ask(host, node, Outcome.BAD_VERSION)
    host.downloads.set(digests="ok")
    book.fires()
    runs = len(host.ended(node))
    ask(host, node, Outcome.BAD_VERSION)
    assert len(host.ended(node)) == runs, "by itself it is not tried again"
    book.does(TRY_AGAIN)


def abandoned(host: Monitored, node: Node, book: Book) -> None:
    """The binary is changed while its updater, which takes its time to end, is being stopped."""
    outdate(host, node)
    go = Path("/run/go")
    stops = f"ExecStop=/bin/sh -c 'until test -e {go}; do sleep 0.1; done'\nTimeoutStopSec=10min"
    updater = host.updater(node.name).install(service=stops)
    host.ask(node)
    host.container.wait_state(updater.unit, "deactivating", timeout=120)
    host.container.run(["touch", node.binary])
    host.container.write(go, "")
    until(host.spool_is_empty, "the run has ended")
    assert host.ended(node)[-1] == Outcome.ABANDONED
    updater.remove()
    book.fires()
    book.does(TRY_AGAIN)


def left_down(host: Monitored, node: Node, book: Book) -> None:
    """It was killed, for memory perhaps, before the minimum rose."""
    outdate(host, node)
    host.rise(OLD)
    node.start()
    host.container.systemctl("kill", "--signal=KILL", node.unit)
    host.container.wait_state(node.unit, "failed", timeout=60)
    host.rise()
    ask(host, node, Outcome.LEFT_DOWN)
    book.fires()
    book.does(START)
    assert wait(node.version, "it answers", 120) == NEW


def start_failed(host: Monitored, node: Node, book: Book) -> None:
    too_old_to_start(host, node)
    settings = host.container.path(node.config_dir / "config.yaml")
    right = settings.read_text()
    settings.write_text(f"{right}sim.crash-after: 0.1\n")
    ask(host, node, Outcome.START_FAILED)
    book.fires()
    settings.write_text(right)
    book.does(START)
    assert wait(node.version, "it answers", 120) == NEW


def unconfirmed(host: Monitored, node: Node, book: Book) -> None:
    """While it runs there is no alert, whether it answers or not."""
    too_old_to_start(host, node)
    settings = host.container.path(node.config_dir / "config.yaml")
    settings.write_text(f"{settings.read_text()}sim.start-delay: 15\n")
    config = host.config()
    patience = {"remediation": config["remediation"] | {"confirm_timeout": "10s"}}
    host.write_config(config | patience)
    ask(host, node, Outcome.UNCONFIRMED)
    host.write_config(config)
    assert host.container.show(node.unit, "ActiveState")["ActiveState"] == "active"
    assert wait(node.version, "it answers", 120) == NEW


def unreadable(host: Monitored, node: Node, book: Book) -> None:
    """The new one runs wherever it is tried, but not where it is installed."""
    outdate(host, node)
    archive = host.folder / "releases" / NEW / build.ASSET
    build.archive(build.node(NEW, host.folder / "storagenode", misbehave="in-place"), archive)
    ask(host, node, Outcome.UNREADABLE)
    build.archive(host.binaries[NEW], archive)
    book.fires()
    host.container.put(host.binaries[NEW], node.binary)
    book.does(START)
    assert wait(node.version, "it answers", 120) == NEW


def still_held(host: Monitored, node: Node, book: Book) -> None:
    """Its updater cannot be started any more. The run is not finished, and its alert is StorageNodeUpdaterHeld."""
    outdate(host, node)
    in_its_way = Path("/run/broken")
    host.updater(node.name).install(service=f"ExecStartPre=/usr/bin/test ! -e {in_its_way}")
    host.container.write(in_its_way, "")
    host.ask(node)
    held = {"node": node.name, "message": "still held"}
    until(lambda: any(held.items() <= line.items() for line in host.log(WORKER)), "the run cannot be finished")
    host.container.systemctl("stop", PATH, WORKER)
    host.container.path(in_its_way).unlink()
    book.does(RECOVER)
    assert node.runs()[0]["outcome"] == Outcome.UPDATED


def outdate(host: Monitored, node: Node) -> None:
    """Have it stopped by somebody, and too old to start."""
    node.stop()
    host.container.put(host.binaries[OLD], node.binary)
    host.rise()


def too_old_to_start(host: Monitored, node: Node) -> None:
    """Have it try to start, and end for its age."""
    outdate(host, node)
    host.container.systemctl("start", node.unit)
    host.container.wait_state(node.unit, "failed", timeout=60)


def fetching(host: Monitored, node: Node) -> None:
    """Have the worker, which nothing starts again, in the middle of fetching, which takes it minutes."""
    outdate(host, node)
    host.downloads.set(behaviour="slow:2000")
    sent = host.archives_sent()
    host.ask(node)
    until(lambda: host.archives_sent() > sent, "it fetches")
    host.container.systemctl("stop", PATH)
    host.downloads.set(behaviour="ok")


def try_again(host: Monitored, book: Book) -> None:
    book.fires()
    book.does(TRY_AGAIN)
    host.container.systemctl("start", PATH)
    until(host.spool_is_empty, "what was left of the request is gone")


def ask(host: Monitored, node: Node, outcome: Outcome) -> None:
    host.ask(node)
    until(host.spool_is_empty, "what was asked for is done")
    assert host.ended(node)[-1] == outcome


def circuit_open(host: Monitored) -> None:
    with host.installed("thrice") as node:
        in_the_way = fail(host, node, 3)
        book = Book(host, "StorageNodeRemediationCircuitOpen", NODE=node.name)
        book.fires()
        said = book.look(0, 1)
        assert "three times within a day" in said
        assert str(in_the_way) in said
        book.silence({"node": node.name})
        host.container.path(in_the_way).rmdir()
        book.mend()
        assert node.installed() == NEW
        book.ends()
        book.assert_all_run()


def fail(host: Monitored, node: Node, times: int) -> Path:
    """Have the worker fail so often at a node that is deadlocked; return what is in its way."""
    node.install(service="Restart=no").start()
    node.stop()
    host.watch(node, webhook=True)
    in_the_way = node.binary.with_name(f".storagenode.keeper-old-{OLD}")
    host.container.path(in_the_way).mkdir()
    host.rise()
    for _ in range(times):
        ask(host, node, Outcome.FAILED)
    assert len(host.ended(node)) == times
    return in_the_way


def missing(host: Monitored) -> None:
    """Neither webhook nor worker is there."""
    with host.installed("missed") as node:
        container = host.container
        book = Book(host, "StorageNodeRemediationMissing", NODE=node.name)
        node.install(service="Restart=no").start()
        node.stop()
        host.watch(node, webhook=True)
        container.systemctl("disable", "--now", "--quiet", WEBHOOK, PATH, WORKER)
        host.rise()
        book.fires()
        assert "below_minimum" in book.look()
        assert "storagenode-remediate" in book.look()
        book.look(3)
        book.look()
        book.look(3, 3)
        book.silence({"node": node.name})
        book.mend()
        assert node.installed() == NEW
        book.ends()
        book.mend()
        until(lambda: host.query('up{job="storagenode-remediate"} == 1'), "the webhook is back")
        assert container.show(PATH, "ActiveState", "UnitFileState") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
        }
        book.assert_all_run()


def paused(host: Monitored) -> None:
    with host.installed("paused") as node:
        book = Book(host, "StorageNodeRemediationPaused", NODE=node.name)
        node.install().start()
        host.watch(node, webhook=True)
        host.remediate("pause", node.name, "--reason", "forgotten")
        book.fires()
        assert "paused, nothing is done unasked: forgotten" in book.look()
        book.silence({"node": node.name})
        assert "nothing is paused" in book.mend()
        book.ends()
        host.remediate("pause")
        book.fires()
        assert "nothing is paused" in book.mend()
        book.ends()
        assert "until" in book.mend()
        host.remediate("resume")
        book.assert_all_run()


def worker_not_seen(host: Monitored) -> None:
    with host.installed("waits") as node:
        container = host.container
        book = Book(host, "StorageNodeWorkerNotSeen", INSTANCE=INSTANCE)
        node.install(service="Restart=no").start()
        node.stop()
        host.watch(node, webhook=True)
        host.rise()
        container.systemctl("disable", "--now", "--quiet", PATH, WORKER)
        status = json.loads(container.path(STATUS).read_text())
        container.path(STATUS).write_text(json.dumps(status | {"worker_last_seen": time.time() - 1200}))
        host.ask(node)
        book.fires()
        assert f"{PATH} is disabled and inactive: no alert is acted on" in book.look(3, 3, 0, 1)
        assert f'node="{node.name}"' in book.look()
        book.silence({"instance": INSTANCE})
        book.mend()
        until(lambda: node.installed() == NEW, "what was asked for is done")
        book.ends()
        book.mend()
        book.assert_all_run()
