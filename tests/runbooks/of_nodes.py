"""The runbooks about a node: brought into its state, looked at, mended."""

import json
import re
import time

from tests.e2e.site import EXPORTER, NEW, OLD, wait
from tests.runbooks.book import INSTANCE, Book
from tests.runbooks.monitored import Monitored, until

LOOPS = {"service": "Restart=always\nRestartSec=1", "limit": "StartLimitIntervalSec=0"}
LAST_CONTACT = "/var/lib/storagenode-exporter/last-contact.json"


def deadlocked(host: Monitored) -> None:
    with host.installed("deadlocked") as node:
        book = Book(host, "StorageNodeDeadlocked", NODE=node.name, UNIT=node.unit)
        node.install().start()
        node.stop()
        host.watch(node)
        host.rise()
        book.fires()
        said = book.look(1)
        assert "DEADLOCKED" in said
        assert f"{OLD} -> {NEW} (below_minimum)" in said

        book.prepare_silence()
        host.ask(node)
        until(host.spool_is_empty, "the worker has decided")
        assert node.runs() == [], "it is let alone"
        book.silence({"node": node.name})
        host.remediate("resume")

        book.mend()
        assert node.installed() == NEW
        assert node.version() is None, "somebody stopped it"
        book.ends()
        book.mend()
        assert wait(node.version, "it answers", 120) == NEW
        book.assert_all_run()


def below_minimum(host: Monitored) -> None:
    with host.installed("below") as node:
        updater = host.updater(node.name).install()
        book = Book(host, "StorageNodeBelowMinimum", NODE=node.name, UPDATER=updater.unit)
        node.install().start()
        host.watch(node, updater)
        host.container.systemctl("stop", updater.unit)
        host.rise()
        book.fires()
        assert "below minimum" in book.look(1, 3)
        book.silence({"node": node.name})
        book.mend()
        assert host.container.show(updater.unit, "ActiveState")["ActiveState"] == "active"
        book.mend()
        book.ends()
        assert node.version() == NEW
        book.assert_all_run()


def crash_looping(host: Monitored) -> None:
    with host.installed("loops") as node:
        book = Book(host, "StorageNodeCrashLooping", NODE=node.name, UNIT=node.unit)
        node.install(**LOOPS)
        storage = host.container.path(node.config_dir / "storage/storage-dir-verification")
        storage.unlink()
        settings = host.container.path(node.config_dir / "config.yaml")
        right = settings.read_text()
        settings.write_text(f"{right}sim.crash-after: 0.1\n")
        host.watch(node)
        host.container.systemctl("start", node.unit)
        book.fires()
        host.container.wait_state(node.unit, "activating", "auto-restart", 60)
        said = book.look(0, 3, 0, 1)
        assert "It fails for another reason than its version" in said
        assert "simulated crash" in said
        assert "storage-dir-verification" in said
        book.silence({"node": node.name})
        settings.write_text(right)
        storage.write_bytes(bytes(32))
        book.mend()
        # What has looped counts as looping for ten minutes more, so that the alert's own end is not waited for.
        assert wait(node.version, "it answers", 120) == OLD
        assert host.container.show(node.unit, "NRestarts")["NRestarts"] == "0"
        book.assert_all_run()


def near_minimum(host: Monitored) -> None:
    with host.installed("near") as node:
        book = Book(host, "StorageNodeNearMinimum", NODE=node.name, VERSION=NEW)
        node.install().start()
        host.watch(node)
        host.versions.set(suggested=f"v{NEW}")
        book.fires()
        said = book.look(0, 1)
        assert f"update to {NEW} is due" in said
        assert f"{node.name}: no, it should not be down for 3 days" in said
        assert "below_minimum" in book.look()
        book.silence({"node": node.name})
        book.mend()
        book.ends()
        assert node.version() == NEW
        book.assert_all_run()


def update_due(host: Monitored) -> None:
    with host.installed("due") as node:
        updater = host.updater(node.name).install()
        book = Book(host, "StorageNodeUpdateDue", NODE=node.name, UPDATER=updater.unit)
        node.install().start()
        host.container.systemctl("stop", updater.unit)
        host.watch(node, updater)
        host.versions.set(suggested=f"v{NEW}")
        book.fires()
        assert f"update to {NEW} is due" in book.look(0, 3, 0, 1)
        book.silence({"node": node.name})
        book.mend()
        book.ends()
        assert node.version() == NEW
        book.assert_all_run()


def restart_pending(host: Monitored) -> None:
    """First a newer one is put under the node, then an older one."""
    with host.installed("pending") as node:
        book = Book(host, "StorageNodeRestartPending", NODE=node.name, UNIT=node.unit, VERSION=NEW)
        node.install().start()
        host.watch(node)
        host.container.put(host.binaries[NEW], node.binary)
        book.fires()
        assert "The installed version is not the running one" in book.look()
        book.silence({"node": node.name})
        book.mend()
        book.ends()
        assert wait(node.version, "it answers", 120) == NEW
        host.container.put(host.binaries[OLD], node.binary)
        book.fires()
        host.versions.set(minimum="v1.103.2", suggested="v1.103.2")
        assert "(downgrade)" in host.remediate_says("run", "--yes", "--stop-running", node.name, ends=3)
        book.mend()
        book.ends()
        assert (node.installed(), node.version()) == (NEW, NEW)
        book.assert_all_run()


def unknown(host: Monitored) -> None:
    with host.installed("unknown") as node:
        book = Book(host, "StorageNodeUnknown", NODE=node.name, GROUP="storagenode")
        node.install().start()
        host.watch(node)
        host.wait_query(f'storagenode_update_state{{node="{node.name}", state="current"}} == 1')
        host.container.run(["chmod", "0750", node.binary])
        book.fires()
        assert "Verdict not known" in book.look(0, 4)
        book.silence({"node": node.name})
        book.mend()
        book.ends()
        book.assert_all_run()


def gone(host: Monitored) -> None:
    with host.installed("gone") as node:
        book = Book(host, "StorageNodeGone", NODE=node.name)
        node.install().start()
        host.watch(node)
        host.wait_query(f'storagenode_up{{node="{node.name}"}} offset 5s == 1')
        right = host.config()
        host.watch(host.node("healthy"))
        book.fires()
        said = book.look()
        assert "can be used; nodes: healthy" in said
        assert f"systemd:{node.unit}" in said, "discover prints it"
        book.silence({"node": node.name})
        host.write_config(right)
        book.mend()
        book.ends()
        host.wait_query(f'storagenode_up{{node="{node.name}"}} == 1')
        book.assert_all_run()


def not_reached(host: Monitored) -> None:
    with host.installed("away") as node:
        book = Book(host, "StorageNodeNotReached", NODE=node.name, UNIT=node.unit)
        node.install()
        host.container.systemctl("stop", EXPORTER)
        clock = {"since": time.time() - 5 * 3600, "basis": "contact", "known": time.time()}
        host.container.write(LAST_CONTACT, json.dumps({"format": 1, "kept": {node.name: clock}}))
        host.watch(node)
        book.fires()
        assert "Not reached for 5 hours" in book.look(0, 3)
        book.prepare_silence(1)
        book.silence({"node": node.name, "severity": "info"})
        book.mend()
        book.ends()
        assert node.version() == OLD
        book.assert_all_run()


def allowed_versions_stale(host: Monitored) -> None:
    with host.installed("stale") as node:
        places = {"NODE": node.name, "INSTANCE": INSTANCE, "VERSION": NEW}
        archive = next((host.folder / "releases" / NEW).glob("storagenode_*.zip"))
        host.container.put(archive, "/root/storagenode.zip")
        digest = host.container.run(["sha256sum", "/root/storagenode.zip"]).stdout.split()[0]
        book = Book(host, "StorageNodeAllowedVersionsStale", FILE="/root/storagenode.zip", DIGEST=digest, **places)
        node.install(service="Restart=no").start()
        node.stop()
        host.watch(node)
        host.rise()
        host.wait_query(f'storagenode_below_minimum{{node="{node.name}"}} == 1')
        host.versions.set(behaviour="status:500")
        host.container.systemctl("stop", EXPORTER)
        # The state's six hours are not waited for: what the exporter keeps is made seven hours older.
        cache = host.container.path("/var/lib/storagenode-exporter/allowed-versions.json")
        kept = json.loads(cache.read_text())
        kept["kept"]["fetched"] -= 7 * 3600
        cache.write_text(json.dumps(kept))
        host.container.systemctl("start", EXPORTER)
        book.fires()
        said = book.look(0, 1, 1)
        assert "allowed versions could not be fetched" in said
        assert "DEADLOCKED" in said
        book.silence({"instance": INSTANCE})
        assert "allowed_unknown" in host.remediate_says("plan", node.name, ends=3)
        book.mend()
        assert node.installed() == NEW
        host.rise()
        book.ends()
        book.assert_all_run()


def inconsistent(host: Monitored) -> None:
    with host.installed("between") as node:
        book = Book(host, "StorageNodeVersionServerInconsistent", NODE=node.name, VERSION=NEW)
        node.install(service="Restart=no").start()
        node.stop()
        host.watch(node)
        host.versions.set(minimum=f"v{NEW}", suggested=f"v{OLD}")
        book.fires()
        said = book.look()
        assert re.search(rf"^{node.name} .* {NEW} +current$", said, re.MULTILINE)
        assert f'version="{NEW}"' in said
        book.silence({"job": "storagenode"})
        book.mend()
        assert node.installed() == NEW
        host.rise()
        book.ends()
        book.assert_all_run()
