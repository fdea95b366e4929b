"""The units as shipped, in a real systemd, with a stand-in for the command line and our own web, webhook and spool."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.systemd import Container
from tests.serving import Stopwatch

pytestmark = pytest.mark.systemd

SHIPPED = Path(__file__).parents[2] / "packaging/systemd"
SPOOL = "/var/spool/storagenode-keeper"
STATE = "/var/lib/storagenode-remediate"
WORKER = "storagenode-remediate-worker"
WEBHOOK = "storagenode-remediate-webhook.service"
EXPORTER = "storagenode-exporter.service"
UNITS = [EXPORTER, WEBHOOK, f"{WORKER}.path", f"{WORKER}.service"]

STAND_IN = """#!/opt/storagenode-keeper/bin/python
import json, logging, pathlib, subprocess, sys, time
from remediate.spool import Spool
spool = Spool(pathlib.Path("/var/spool/storagenode-keeper"))
state = pathlib.Path("/var/lib/storagenode-remediate")
NODES = ["n1", "n2", "n3.new", "stuck", "sandbox"]

def may_write(folder):
    try:
        (pathlib.Path(folder) / "trial").touch()
        return True
    except OSError:
        return False

if sys.argv[0].endswith("exporter") or sys.argv[1] == "serve":
    from prometheus_client import CollectorRegistry
    from exporter import listening, web
    from remediate.webhook import create_webhook_app
    logging.basicConfig(level=logging.INFO)
    port = 19651 if sys.argv[0].endswith("exporter") else 19652
    app = create_webhook_app(spool=spool, nodes=NODES, status_file=state / "none", access=web.OPEN)
    listening.run(app, f"127.0.0.1:{port}", web.OPEN)
else:
    with (state / "started").open("a") as file:
        file.write("started\\n")
    for node in spool.take(NODES):
        if node == "stuck":
            continue
        if node == "sandbox":
            folders = ["/usr/local/bin", "/opt", "/var/lib", "/home", "/mnt", "/srv", "/usr/bin", "/etc", "/boot"]
            done = subprocess.run(["systemd-run", "--wait", "--quiet", "true"], capture_output=True, text=True)
            ends = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "true"]).returncode
            bare = subprocess.Popen(["sleep", "300"])
            found = {"writable": [folder for folder in folders if may_write(folder)], "systemd-run": done.returncode}
            (state / "found").write_text(json.dumps(found | {"setpriv": ends, "bare": bare.pid}))
        with (state / "ran").open("a") as file:
            file.write(node + "\\n")
        spool.done(node)
    sys.exit(1 if spool.pending() else 0)
"""


@pytest.fixture(scope="module")
def installed(container: Container) -> Iterator[Container]:
    container.install_project()
    for name in ("storagenode-remediate", "storagenode-exporter"):
        container.write(f"/opt/storagenode-keeper/bin/{name}", STAND_IN, 0o755)
    container.put(SHIPPED / "storagenode-keeper.sysusers.conf", "/usr/lib/sysusers.d/storagenode-keeper.conf")
    container.put(SHIPPED / "storagenode-keeper.tmpfiles.conf", "/usr/lib/tmpfiles.d/storagenode-keeper.conf")
    container.run(["systemd-sysusers"])
    container.run(["systemd-tmpfiles", "--create", "storagenode-keeper.conf"])
    for unit in UNITS:
        container.put(SHIPPED / unit, f"/etc/systemd/system/{unit}")
    container.systemctl("daemon-reload")
    yield container
    container.systemctl("disable", "--now", *UNITS, check=False)
    for unit in UNITS:
        container.path(f"/etc/systemd/system/{unit}").unlink()
    container.run(["rm", "-rf", "/opt/storagenode-keeper/bin/storagenode-remediate", SPOOL, STATE])
    container.systemctl("daemon-reload")


@pytest.fixture
def units(installed: Container) -> Iterator[Container]:
    """The path unit and the webhook, enabled and running, and an empty past."""
    installed.run(["rm", "-f", f"{STATE}/started", f"{STATE}/ran", f"{STATE}/found"])
    installed.systemctl("enable", "--now", "--quiet", f"{WORKER}.path", WEBHOOK, EXPORTER)
    yield installed
    installed.run(["find", SPOOL, "-mindepth", "1", "-delete"])
    installed.systemctl("stop", *UNITS)
    installed.systemctl("reset-failed", *UNITS, check=False)


def ask(container: Container, node: str) -> None:
    """Put a request as the webhook's user would."""
    user = ["setpriv", "--reuid=storagenode-remediate", "--regid=storagenode-remediate", "--init-groups"]
    container.run([*user, "touch", f"{SPOOL}/{node}"])


def lines(container: Container, name: str) -> list[str]:
    path = container.path(f"{STATE}/{name}")
    return path.read_text().split() if path.exists() else []


def wait_for(container: Container, name: str, count: int, timeout: float = 90) -> list[str]:
    watch = Stopwatch()
    while len(found := lines(container, name)) < count:
        assert watch.seconds < timeout, f"{name}: {found}\n{container.journal(f'{WORKER}.service')}"
        time.sleep(0.02)
    return found


def post(container: Container, payload: object) -> str:
    program = (
        "import sys, time, urllib.request as u\n"
        "for _ in range(100):\n"
        "    try:\n"
        "        request = u.Request('http://127.0.0.1:19652/alertmanager', sys.argv[1].encode(), method='POST')\n"
        "        print(u.urlopen(request, timeout=30).status)\n"
        "        break\n"
        "    except ConnectionRefusedError: time.sleep(0.05)\n"
        "    except u.URLError as error:\n"
        "        if not isinstance(error.reason, ConnectionRefusedError): raise\n"
        "        time.sleep(0.05)\n"
    )
    return container.run(["/opt/storagenode-keeper/bin/python", "-c", program, json.dumps(payload)]).stdout.strip()


def test_systemd_has_nothing_to_say_about_the_units(installed: Container) -> None:
    paths = [f"/etc/systemd/system/{unit}" for unit in UNITS]
    said = installed.run(["systemd-analyze", "verify", *paths])
    assert (said.stdout, said.stderr) == ("", "")


@pytest.mark.parametrize(("unit", "limit"), [(EXPORTER, 1.5), (WEBHOOK, 1.5), (f"{WORKER}.service", 3.3)])
def test_the_exposure_of_the_units(installed: Container, unit: str, limit: float) -> None:
    assert exposure(installed, unit) < limit


def test_the_exposure_with_the_drop_in_for_known_folders(installed: Container) -> None:
    folder = f"{WORKER}.service.d"
    installed.put(SHIPPED / folder, f"/etc/systemd/system/{folder}")
    installed.systemctl("daemon-reload")
    try:
        assert exposure(installed, f"{WORKER}.service") < 3.0
        said = installed.run(["systemd-analyze", "verify", f"/etc/systemd/system/{WORKER}.service"])
        assert (said.stdout, said.stderr) == ("", "")
    finally:
        installed.run(["rm", "-r", f"/etc/systemd/system/{folder}"])
        installed.systemctl("daemon-reload")


def exposure(container: Container, unit: str) -> float:
    said = container.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found
    return float(found[1])


def test_the_webhooks_user_may_put_a_name_and_nothing_else(installed: Container) -> None:
    user = ["setpriv", "--reuid=storagenode-remediate", "--regid=storagenode-remediate", "--init-groups", "--"]
    installed.write(f"{SPOOL}/.roots", "")
    assert installed.run(["stat", "-c", "%a %U %G", SPOOL]).stdout == "1770 root storagenode-remediate\n"
    for attempt, works in (
        (["touch", f"{SPOOL}/.mine"], True),
        (["rm", f"{SPOOL}/.mine"], True),
        (["rm", "-f", f"{SPOOL}/.roots"], False),
        (["mv", f"{SPOOL}/.roots", f"{SPOOL}/n1"], False),
        (["chmod", "777", SPOOL], False),
        (["mv", SPOOL, f"{SPOOL}.away"], False),
        (["ls", STATE], False),
        (["ls", "/var/lib/storagenode-keeper"], True),
        (["touch", "/var/lib/storagenode-keeper/status.json"], False),
    ):
        done = installed.run([*user, *attempt], check=False)
        assert (done.returncode == 0) is works, (attempt, done.stderr)
    other = ["setpriv", "--reuid=storagenode-exporter", "--regid=storagenode-exporter", "--init-groups", "--"]
    assert installed.run([*other, "ls", SPOOL], check=False).returncode != 0
    installed.run(["rm", f"{SPOOL}/.roots"])


def test_an_alert_starts_the_worker_through_the_hardened_webhook(units: Container) -> None:
    alert = {"status": "firing", "labels": {"remediation": "offline-update", "node": "n1"}}
    assert post(units, {"version": "4", "alerts": [alert]}) == "202", units.journal(WEBHOOK)
    assert wait_for(units, "ran", 1) == ["n1"]
    units.wait_state(f"{WORKER}.service", "inactive")
    assert units.show(WEBHOOK, "User")["User"] == "storagenode-remediate"
    assert units.wait_state(EXPORTER, "active")["NRestarts"] == "0"
    assert post(units, {"version": "4", "alerts": []}) == "200"


def test_a_node_whose_name_systemd_takes_for_a_backup_has_its_requests_worked(units: Container) -> None:
    alert = {"status": "firing", "labels": {"remediation": "offline-update", "node": "n3.new"}}
    assert post(units, {"version": "4", "alerts": [alert]}) == "202", units.journal(WEBHOOK)
    assert wait_for(units, "ran", 1) == ["n3.new"]


@pytest.mark.parametrize(("unit", "port"), [(EXPORTER, 19651), (WEBHOOK, 19652)])
def test_who_has_been_started_listens(units: Container, unit: str, port: int) -> None:
    program = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/-/ready').status)"
    for _ in range(3):
        units.systemctl("restart", unit)
        assert units.run(["/opt/storagenode-keeper/bin/python", "-c", program]).stdout == "200\n"


def test_the_webhook_stops_at_once(units: Container) -> None:
    post(units, {"version": "4", "alerts": []})
    watch = Stopwatch()
    units.systemctl("stop", WEBHOOK)
    assert watch.seconds < 20  # systemd itself would wait for 90
    assert units.show(WEBHOOK, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}


def test_fifteen_requests_in_a_row_are_all_worked(units: Container) -> None:
    for number in range(15):
        ask(units, "n1")
        wait_for(units, "ran", number + 1)
        time.sleep(0.3)
    assert units.show(f"{WORKER}.path", "ActiveState")["ActiveState"] == "active"


def test_a_request_that_cannot_be_worked_does_not_spin_the_worker(units: Container) -> None:
    ask(units, "stuck")
    wait_for(units, "started", 1)
    units.wait_state(f"{WORKER}.service", "activating", "auto-restart")
    ask(units, "n1")
    time.sleep(5)
    assert lines(units, "started") == ["started"]
    assert units.show(f"{WORKER}.path", "ActiveState")["ActiveState"] == "active"
    assert wait_for(units, "ran", 1) == ["n1"]
    assert len(lines(units, "started")) == 2
    units.path(f"{SPOOL}/stuck").unlink()


def test_names_that_begin_with_a_dot_start_nobody(units: Container) -> None:
    units.write(f"{SPOOL}/.temporary", "")
    time.sleep(1)
    assert lines(units, "started") == []


def test_what_the_worker_may_and_may_not(units: Container) -> None:
    ask(units, "sandbox")
    wait_for(units, "ran", 1)
    found = json.loads(units.path(f"{STATE}/found").read_text())
    assert found["writable"] == ["/usr/local/bin", "/opt", "/var/lib", "/home", "/mnt", "/srv"]
    assert found["systemd-run"] == 0
    assert found["setpriv"] == 0
    units.wait_state(f"{WORKER}.service", "inactive")
    # A node that is a bare process outlives the worker that started it.
    units.run(["sh", "-c", f"kill {found['bare']}"])


def test_the_worker_is_started_at_boot_without_holding_the_boot_up(units: Container) -> None:
    units.systemctl("enable", "--quiet", f"{WORKER}.service")
    wanted = units.show("multi-user.target", "Wants")["Wants"].split()
    assert {f"{WORKER}.service", f"{WORKER}.path", WEBHOOK, EXPORTER} <= set(wanted)
    assert units.show(f"{WORKER}.service", "Type")["Type"] == "exec"
