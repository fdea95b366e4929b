"""The runbooks about what acts: brought into its state, looked at, mended."""

import json
import time
from pathlib import Path

from tests.e2e.site import NEW, OLD, PATH, WEBHOOK, WORKER, Node
from tests.packaging.host import SPOOL, STATUS
from tests.runbooks.book import INSTANCE, Book
from tests.runbooks.monitored import Monitored, until


def failed(host: Monitored) -> None:
    with host.installed("failed") as node:
        in_the_way = fail(host, node, 1)
        book = Book(host, "StorageNodeRemediationFailed", NODE=node.name, RUN=str(node.runs()[0]["id"]))
        book.fires()
        said = book.look(0, 1, 1)
        assert str(in_the_way) in said
        assert "failed" in book.look()
        book.silence({"node": node.name})
        host.container.path(in_the_way).rmdir()
        book.mend()
        assert node.installed() == NEW
        book.ends()
        book.assert_all_run()


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
        host.ask(node)
        until(lambda: not any(host.container.path(SPOOL).iterdir()), "what was asked for is tried")
    assert [run["outcome"] for run in node.runs()] == ["failed"] * times
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
