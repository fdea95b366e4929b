"""The runbooks about a node's official updater: brought into its state, looked at, mended."""

import json
import time
from pathlib import Path

from tests.e2e.site import NEW, OLD, PATH, USER, WORKER
from tests.runbooks.book import Book
from tests.runbooks.monitored import UPDATER_RELEASE, Monitored, until
from tests.simulators import updater as simulator


def blocked(host: Monitored) -> None:
    """By a download left over; then, by hand, by a version written off."""
    with host.installed("blocked") as node:
        updater = host.updater(node.name).install()
        book = Book(
            host,
            "StorageNodeUpdaterBlocked",
            NODE=node.name,
            UPDATER=updater.unit,
            FILE=f"{updater.store}/last-failed-update.storagenode-blocked.json",
        )
        node.install().start()
        left = node.binary.with_name(f"storagenode.{NEW}")
        host.container.write(left, b"half of it")
        host.container.run(["touch", "--date=-1 hour", left])
        host.container.run(["chown", USER, left])
        host.versions.set(suggested=f"v{NEW}")
        host.watch(node, updater)
        book.fires()
        said = book.look(0, 1)
        assert f"{left}: left by the official updater" in said.replace(str(left).capitalize(), str(left))
        book.silence({"node": node.name, "kind": "left_over"})
        book.mend()
        assert not host.container.path(left).exists()
        host.look_again()
        book.ends()

        verdict = {"Version": NEW, "Date": "2026-01-02T03:04:05Z", "Failure": "signal: terminated"}
        host.container.write(book.places["FILE"], json.dumps(verdict))
        host.look_again()
        book.fires()
        assert "signal: terminated" in host.remediate_says("doctor", node.name, ends=1)
        book.mend()
        host.look_again()
        book.ends()
        assert node.version() == OLD, "the node was let alone"
        book.assert_all_run()


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
        assert f"1.104.5 -> {UPDATER_RELEASE} (updater_too_old)" in said
        book.silence({"node": node.name})
        book.mend()
        host.look_again()
        book.ends()
        assert host.container.show(updater.unit, "ActiveState")["ActiveState"] == "active"
        book.assert_all_run()


def silent(host: Monitored) -> None:
    """One that asks, and gets no answer: its log ends an hour ago."""
    with host.installed("silent") as node:
        updater = host.updater(node.name).install()
        container = host.container
        container.systemctl("stop", updater.unit)
        log = updater.store / "updater.log"
        checked = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
        fields = {"Process": "storagenode-updater", "Service": "storagenode-silent", "Version": f"v{OLD}"}
        container.write(log, f"{checked}\tINFO\tCurrent binary version\t{json.dumps(fields)}\n")
        unit = container.path(f"/etc/systemd/system/{updater.unit}").read_text()
        program = Path(simulator.__file__).read_text()
        container.write(updater.binary, f"#!/usr/bin/python3\n{program}", mode=0o755)
        container.run(["chown", "-R", USER, updater.binary.parent, updater.store])
        container.path(updater.settings).open("a").write(f"log.output: {log}\n")
        container.unit(updater.unit, unit.replace("\nRestart=", f"\nStandardError=append:{log}\nRestart="))
        node.install().start()
        host.versions.set(behaviour="status:500")
        container.systemctl("start", updater.unit)
        host.watch(node, updater)
        book = Book(host, "StorageNodeUpdaterSilent", NODE=node.name, UPDATER=updater.unit)
        book.fires()
        assert "the official updater runs, and last learned" in book.look(0, 0, 1)
        book.silence({"node": node.name})
        host.versions.set(behaviour="ok")
        book.mend()
        until(lambda: container.path(log).read_text().count("Current binary version") > 1, "it has looked")
        host.look_again()
        book.ends()
        book.assert_all_run()


def asks_elsewhere(host: Monitored) -> None:
    with host.installed("elsewhere") as node:
        updater = host.updater(node.name).install(**{"version.server-address": "https://version.example.org"})
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
