"""The runbooks about a node's official updater: brought into its state, looked at, mended."""

import json
import time

from tests.e2e.site import NEW, OLD, PATH, USER, WORKER, wait
from tests.e2e.updater import RELEASE
from tests.runbooks.book import Book
from tests.runbooks.monitored import Monitored, until


def blocked(host: Monitored) -> None:
    taken_back(host).assert_all_run(in_its_own_way(host))


def taken_back(host: Monitored) -> Book:
    """Its node does not run, and keeps ending for its age; before 1.106 the updater does nothing for such a one."""
    with host.installed("stuck") as node:
        container, updater = host.container, host.updater(node.name)
        book = Book(host, "StorageNodeUpdaterBlocked", NODE=node.name, UPDATER=updater.unit)
        about_node = '{"Process": "storagenode-updater", "Service": "storagenode-stuck"'
        node.install(service="Restart=always\nRestartSec=1h").start()
        host.rise()
        container.systemctl("restart", node.unit)
        container.wait_state(node.unit, "activating", "auto-restart", 60)
        updater.install("1.104.5", works=True)
        until(lambda: updater.says("os: process not initialized"), "it has taken an update back")
        assert node.installed() == OLD
        host.watch(node, updater)
        book.fires()
        said = book.look(1, 1)
        assert "DEADLOCKED" in said
        assert "fetches each update and takes it back, since the node does not run" in said
        assert "os: process not initialized" in said
        book.silence({"node": node.name, "kind": "not_initialized"})
        book.mend()
        assert wait(node.version, "it answers", 120) == NEW
        until(lambda: updater.says("Version is up to date\t" + about_node), "its updater has looked again")
        host.look_again()
        book.ends()
        book.mend()
        until(lambda: updater.says(f'"version": "v{RELEASE}"'), "the new one is at work")
        return book


def in_its_own_way(host: Monitored) -> Book:
    """By a download left over; then, by hand, by a version written off."""
    with host.installed("blocked") as node:
        updater = host.updater(node.name).install()
        file = f"{updater.store}/last-failed-update.storagenode-blocked.json"
        book = Book(host, "StorageNodeUpdaterBlocked", NODE=node.name, UPDATER=updater.unit, FILE=file)
        node.install().start()
        left = node.binary.with_name(f"storagenode.{NEW}")
        host.container.write(left, b"half of it")
        host.container.run(["touch", "--date=-1 hour", left])
        host.container.run(["chown", USER, left])
        host.versions.set(suggested=f"v{NEW}")
        host.watch(node, updater)
        book.fires()
        assert f"{left}: left by the official updater" in book.look(0, 1)
        book.does("run --updater")
        assert not host.container.path(left).exists()
        host.look_again()
        book.ends()

        verdict = {"Version": NEW, "Date": "2026-01-02T03:04:05Z", "Failure": "signal: terminated"}
        host.container.write(file, json.dumps(verdict))
        host.look_again()
        book.fires()
        assert "signal: terminated" in host.remediate_says("doctor", node.name, ends=1)
        book.does("rm FILE")
        host.look_again()
        book.ends()
        assert node.version() == OLD, "the node was let alone"
        return book


def down(host: Monitored) -> None:
    with host.installed("unguarded") as node:
        updater = host.updater(node.name).install()
        book = Book(host, "StorageNodeUpdaterDown", NODE=node.name, UPDATER=updater.unit)
        node.install().start()
        host.container.systemctl("disable", "--now", "--quiet", updater.unit)
        host.watch(node, updater)
        book.fires()
        book.look(3)
        book.silence({"node": node.name})
        book.mend()
        host.look_again()
        book.ends()
        assert host.container.show(updater.unit, "UnitFileState")["UnitFileState"] == "enabled"
        book.assert_all_run()


def outdated(host: Monitored) -> None:
    with host.installed("outdated") as node:
        updater = host.updater(node.name).install("1.104.5")
        book = Book(host, "StorageNodeUpdaterOutdated", NODE=node.name, UPDATER=updater.unit)
        node.install().start()
        host.watch(node, updater)
        book.fires()
        said = book.look()
        assert f"1.104.5 -> {RELEASE} (updater_too_old)" in said
        book.silence({"node": node.name})
        book.mend()
        host.look_again()
        book.ends()
        assert host.container.show(updater.unit, "ActiveState")["ActiveState"] == "active"
        book.assert_all_run()


def silent(host: Monitored) -> None:
    """One that asks, and gets no answer: its log ends an hour ago."""
    with host.installed("silent") as node:
        updater = host.updater(node.name)
        log = updater.store / "updater.log"
        checked = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
        fields = {"process": "storagenode-updater", "service": "storagenode-silent", "version": f"v{OLD}"}
        host.container.write(log, f"{checked}\tINFO\tCurrent binary version\t{json.dumps(fields)}\n")
        node.install().start()
        host.versions.set(behaviour="status:500")
        updater.install(works=True, service=f"StandardError=append:{log}", settings={"log.output": str(log)})
        host.watch(node, updater)
        book = Book(host, "StorageNodeUpdaterSilent", NODE=node.name, UPDATER=updater.unit)
        book.fires()
        assert "the official updater runs, and last learned" in book.look(0, 0, 1)
        assert "Error retrieving version info." in host.container.path(log).read_text()
        book.silence({"node": node.name})
        host.versions.set(behaviour="ok")
        book.mend()
        until(lambda: host.container.path(log).read_text().count("Current binary version") > 1, "it has looked")
        host.look_again()
        book.ends()
        book.assert_all_run()


def asks_elsewhere(host: Monitored) -> None:
    with host.installed("elsewhere") as node:
        updater = host.updater(node.name).install(settings={"version.server-address": "https://version.example.org"})
        book = Book(host, "StorageNodeUpdaterAsksElsewhere", NODE=node.name, UPDATER=updater.unit)
        node.install().start()
        host.watch(node, updater)
        book.fires()
        assert "version.example.org" in book.look()
        book.silence({"node": node.name})
        settings = host.container.path(updater.settings)
        settings.write_text(settings.read_text().replace("https://version.example.org", host.versions.url))
        book.mend()
        book.ends()
        book.assert_all_run()


def held(host: Monitored) -> None:
    """The worker was killed while it fetched, and nothing starts it again."""
    with host.installed("held") as node:
        container = host.container
        updater = host.updater(node.name).install()
        book = Book(host, "StorageNodeUpdaterHeld", NODE=node.name, UPDATER=updater.unit)
        node.install(service="Restart=no").start()
        node.stop()
        host.watch(node, updater, webhook=True)
        host.downloads.set(behaviour="slow:10000")
        host.rise()
        host.ask(node)
        until(lambda: host.at_step(node, "fetch"), "it fetches")
        container.systemctl("kill", "--signal=KILL", WORKER)
        container.systemctl("disable", "--now", "--quiet", PATH, WORKER)
        book.fires()
        said = book.look(0, 1, 3)
        assert "not finished" in said
        assert "was interrupted" in said
        book.silence({"node": node.name})
        host.downloads.set(behaviour="ok")
        book.mend(1)
        assert container.show(updater.unit, "ActiveState")["ActiveState"] == "active"
        book.ends()
        book.mend()
        until(lambda: node.installed() == NEW, "what was asked for is done")
        book.assert_all_run()
