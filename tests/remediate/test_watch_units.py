"""The timer and the service for those without Prometheus, as shipped, in a real systemd."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import NEW, OLD, WORKER, Site, wait
from tests.labs.rootfs import REPOSITORY, VENV
from tests.labs.systemd import Container

SHIPPED = REPOSITORY / "packaging/systemd"
SERVICE, TIMER = "storagenode-remediate-watch.service", "storagenode-remediate-watch.timer"
NAMES = ("stopped", "looping", "running", "ended", "slow")
AT_ONCE = "[Timer]\nOnActiveSec=0\nOnUnitActiveSec=2s\nAccuracySec=100ms\n"

in_systemd = pytest.mark.systemd


def settings(unit: str) -> set[str]:
    lines = (SHIPPED / unit).read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_it_is_the_worker_but_for_what_it_runs() -> None:
    """Neither may be less confined than the other."""
    watch, worker = settings(SERVICE), settings(WORKER)
    assert {line.partition("=")[0] for line in watch - worker} == {"Description", "ExecStart"}
    assert {line.partition("=")[0] for line in worker - watch} == {
        "Description",
        "StartLimitIntervalSec",
        "ExecStart",
        "Restart",
        "RestartSec",
        "[Install]",
        "WantedBy",
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Container() as container, Site(container, tmp_path_factory.mktemp("watched"), NAMES) as site:
        for unit in (SERVICE, TIMER):
            container.put(SHIPPED / unit, f"/etc/systemd/system/{unit}")
        container.systemctl("daemon-reload")
        yield site


@in_systemd
def test_systemd_has_nothing_to_say_about_them(site: Site) -> None:
    said = site.container.run(
        ["systemd-analyze", "verify", *(f"/etc/systemd/system/{unit}" for unit in (SERVICE, TIMER))]
    )
    assert (said.stdout, said.stderr) == ("", "")
    exposure = site.container.run(["systemd-analyze", "security", "--no-pager", SERVICE]).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", exposure)
    assert found
    assert float(found[1]) < 3.3


@in_systemd
def test_a_run_that_the_service_is_stopped_in_is_put_back(site: Site) -> None:
    node = site.node("ended").install()
    site.rise()
    before = node.state()
    site.downloads.set(behaviour="slow:20000")
    site.container.systemctl("start", SERVICE)
    wait(lambda: site.archives_sent() or None, "a download")
    site.container.systemctl("stop", SERVICE)
    site.downloads.set(behaviour="ok")
    ended = site.container.show(SERVICE, "Result", "ExecMainStatus", "ActiveState")
    assert ended == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}
    assert [run["outcome"] for run in node.runs()] == ["interrupted"]
    assert node.state() == before
    node.remove()


@in_systemd
def test_a_loop_is_seen_in_one_look_also_while_it_is_alive(site: Site) -> None:
    node = site.node("slow")
    command = f"/bin/sh -c 'sleep 2; exec {node.binary} run --config-dir {node.config_dir}'"
    node.install(
        service=f"Restart=always\nRestartSec=100ms\nExecStart=\nExecStart={command}", limit="StartLimitIntervalSec=0"
    )
    site.rise()
    site.container.systemctl("start", node.unit)
    wait(lambda: site.container.show(node.unit, "NRestarts")["NRestarts"] != "0" or None, "a restart")
    wait(lambda: site.container.show(node.unit, "SubState")["SubState"] == "running" or None, "its short life")
    # how its last process ended, systemd has forgotten while the next one is alive: then it is left down
    said = site.container.run([VENV / "bin/storagenode-remediate", "watch", "--once"], check=False).stdout
    assert re.match(f"slow: (updated|left_down), {OLD} -> {NEW} \\(watch, below_minimum\\)", said), said
    assert node.installed() == NEW
    node.remove()


@in_systemd
def test_what_is_down_and_too_old_is_updated_and_what_runs_is_not_touched(site: Site) -> None:
    container = site.container
    site.rise(OLD)
    stopped, looping, running = (site.node(name).install() for name in ("stopped", "looping", "running"))
    looping.start()
    running.start()
    site.rise()
    container.systemctl("kill", "--signal=KILL", looping.unit)
    before = running.state()
    container.write(f"/etc/systemd/system/{TIMER}.d/at-once.conf", AT_ONCE)
    container.systemctl("daemon-reload")
    container.systemctl("enable", "--now", "--quiet", TIMER)
    wait(lambda: looping.version() == NEW or None, container.journal(SERVICE), timeout=40)
    wait(lambda: stopped.runs() or None, "a run of the stopped node")
    looks = len(site.log(SERVICE))
    wait(lambda: container.show(SERVICE, "ActiveState")["ActiveState"] == "inactive" or None, "the end of the look")
    container.systemctl("stop", TIMER)
    assert (stopped.installed(), looping.installed(), running.installed()) == (NEW, NEW, OLD)
    assert container.show(stopped.unit, "ActiveState")["ActiveState"] == "inactive", "what was stopped stays stopped"
    assert running.state() == before
    assert [(run["trigger"], run["outcome"]) for node in (stopped, looping) for run in node.runs()] == [
        ("watch", "updated"),
        ("watch", "updated"),
    ]
    assert looks
    assert "Traceback" not in container.journal(SERVICE)


@in_systemd
def test_the_timer_goes_on_after_a_look_and_asks_for_nothing_twice(site: Site) -> None:
    container = site.container
    container.systemctl("start", TIMER)
    first = wait(lambda: container.show(TIMER, "LastTriggerUSec")["LastTriggerUSec"] or None, "a look")
    wait(lambda: container.show(TIMER, "LastTriggerUSec")["LastTriggerUSec"] != first or None, "another look")
    container.systemctl("stop", TIMER)
    assert len(site.node("looping").runs()) == 1
    assert not Path(container.path("/etc/systemd/system/multi-user.target.wants") / SERVICE).exists()
