"""systemd as it is told, the probe's transient unit, and the updater held: in a real systemd."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.labs.systemd import Container
from tests.simulators import build
from tests.simulators.node import configure

pytestmark = pytest.mark.systemd

PYTHON = "/opt/storagenode-keeper/bin/python"
PREAMBLE = """
import json, os, pathlib, sys, time
from exporter.version import NodeVersion
from remediate.rules import Rules
from remediate.services.errors import NoServiceError, ServiceError
from remediate.services.systemd import SystemdControl
from remediate.steps import StepError, hold, probe
def outcome(action):
    try:
        action()
    except NoServiceError as error:
        return ["no service", str(error)]
    except ServiceError as error:
        return ["refused", str(error)]
    except StepError as error:
        return [str(error.outcome), error.detail]
    return ["done", ""]
"""


@pytest.fixture(scope="module")
def host(container: Container) -> Iterator[Container]:
    container.install_project()
    yield container
    for name in ("kt-loop", "kt-masked", "kt-nosy", "kt-updater", "kt-updater2", "kt-stopped"):
        container.systemctl("stop", f"{name}.service", check=False)
        container.systemctl("unmask", f"{name}.service", check=False)


def python(host: Container, code: str) -> Any:
    """Run Python with what is installed there; what it prints is JSON."""
    done = host.run([PYTHON, "-c", PREAMBLE + code], check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def told(host: Container, unit: str, what: str) -> list[str]:
    result: list[str] = python(host, f"print(json.dumps(outcome(lambda: SystemdControl('{unit}').{what})))")
    return result


def service(command: str, *lines: str) -> str:
    return "\n".join(["[Service]", f"ExecStart={command}", *lines, "[Install]", "WantedBy=multi-user.target", ""])


def appears(host: Container, path: str) -> None:
    """Wait for a file, by which a unit says that its trap is set."""
    deadline = time.monotonic() + 30
    while not host.path(path).exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_a_unit_is_started_and_stopped(host: Container) -> None:
    host.unit("kt-plain.service", service("/bin/sleep 1000"))
    assert told(host, "kt-plain.service", "start()") == ["done", ""]
    assert host.show("kt-plain.service")["ActiveState"] == "active"
    assert told(host, "kt-plain.service", "start()") == ["done", ""], "it runs already"
    assert told(host, "kt-plain.service", "stop()") == ["done", ""]
    assert host.show("kt-plain.service")["ActiveState"] == "inactive"
    assert told(host, "kt-plain.service", "stop()") == ["done", ""], "it is down already"


def test_a_start_limit_that_was_hit_does_not_count_against_us(host: Container) -> None:
    lines = ["Restart=always", "RestartSec=10ms"]
    unit = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n" + service("/bin/sh -c '. /run/kt-loop'", *lines)
    host.write("/run/kt-loop", "exit 1\n")
    host.unit("kt-loop.service", unit)
    host.systemctl("start", "kt-loop.service", check=False)
    host.wait_state("kt-loop.service", "failed")
    host.write("/run/kt-loop", "exec sleep 1000\n")
    assert host.run(["systemctl", "start", "kt-loop.service"], check=False).returncode != 0, "the limit holds"
    assert told(host, "kt-loop.service", "start()") == ["done", ""]
    assert host.show("kt-loop.service")["ActiveState"] == "active"
    # Stopped by us in the middle of a loop: nothing has failed, and yet its starts were counted.
    for _ in range(3):
        assert told(host, "kt-loop.service", "stop()") == ["done", ""]
        assert told(host, "kt-loop.service", "start()") == ["done", ""]
    assert told(host, "kt-loop.service", "stop()") == ["done", ""]


def test_a_unit_that_systemd_has_not_loaded_is_started(host: Container) -> None:
    host.unit("kt-cold.service", service("/bin/sleep 1000"), enable=False)
    assert told(host, "kt-cold.service", "start()") == ["done", ""]
    assert told(host, "kt-cold.service", "stop()") == ["done", ""]


def test_a_unit_that_waits_for_its_restart_is_stopped(host: Container) -> None:
    host.unit("kt-waits.service", service("/bin/false", "Restart=always", "RestartSec=1h"))
    host.systemctl("start", "kt-waits.service", check=False)
    host.wait_state("kt-waits.service", "activating", "auto-restart")
    assert told(host, "kt-waits.service", "stop()") == ["done", ""]
    assert host.show("kt-waits.service")["ActiveState"] == "inactive"


def test_what_cannot_be_started_is_told_from_what_will_not_start(host: Container) -> None:
    host.systemctl("mask", "kt-masked.service")
    assert told(host, "kt-masked.service", "start()")[0] == "no service"
    assert told(host, "kt-nothing.service", "start()")[0] == "no service"
    host.unit("kt-fails.service", service("/bin/false", "Type=oneshot"))
    kind, said = told(host, "kt-fails.service", "start()")
    assert (kind, said) == ("refused", "systemd could not start kt-fails.service: failed")


def test_without_a_bus_nothing_can_be_told(host: Container) -> None:
    code = "os.environ['DBUS_SYSTEM_BUS_ADDRESS'] = 'unix:path=/nowhere'\n"
    code += "print(json.dumps(outcome(SystemdControl('kt-plain.service').start)))"
    kind, said = python(host, code)
    assert kind == "refused"
    assert "the system bus cannot be reached" in said


def test_a_stop_that_takes_its_time_is_waited_for(host: Container) -> None:
    loop = "/bin/sh -c 'trap \"sleep 1; exit 0\" TERM; touch /run/kt-slow; while :; do sleep 0.1; done'"
    # With the default KillMode= systemd may also kill the trap's own `sleep`, and the stop is over at once.
    host.unit("kt-slow.service", service(loop, "KillMode=mixed"))
    host.systemctl("start", "kt-slow.service")
    appears(host, "/run/kt-slow")
    began = time.monotonic()
    assert told(host, "kt-slow.service", "stop()") == ["done", ""]
    assert time.monotonic() - began > 0.9
    assert host.show("kt-slow.service")["ActiveState"] == "inactive"


# The probe


def probed(host: Container, path: str, *hidden: str) -> list[str]:
    code = f"""
execute = probe.executor([pathlib.Path(path) for path in {list(hidden)!r}], Rules())
probe._PROBE_SECONDS = 1.5
binary = os.open({path!r}, os.O_RDONLY)
print(json.dumps(outcome(lambda: probe.probe(binary, NodeVersion.parse("1.104.5"), execute))))
"""
    result: list[str] = python(host, code)
    units = host.systemctl("list-units", "--all", "--plain", "--no-legend", "storagenode-keeper-probe-*")
    assert units == "", "no unit stays behind"
    return result


def place(host: Container, path: str, tmp_path: Path, misbehave: str = "", mode: int = 0o755) -> str:
    program = build.node("1.104.5", tmp_path / "program", misbehave=misbehave)
    program.chmod(mode)
    host.put(program, path)
    return path


def test_a_good_binary_says_its_version(host: Container, tmp_path: Path) -> None:
    assert probed(host, place(host, "/opt/kt/good", tmp_path)) == ["done", ""]


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o500])
def test_also_from_a_home_that_is_closed_to_others(host: Container, tmp_path: Path, mode: int) -> None:
    path = place(host, "/home/storj/bin/storagenode", tmp_path, mode=mode)
    host.run(["chmod", "0700", "/home/storj"])
    assert probed(host, path, "/home/storj/identity") == ["done", ""]


@pytest.mark.parametrize(
    ("misbehave", "said"),
    [
        ("hang", "did not print its version within"),
        ("endless", "ended with exit code"),
        ("exit1", "does not say its version"),
        ("says:1.0.0", "is 1.0.0, expected 1.104.5"),
    ],
)
def test_a_bad_binary_is_to_blame_itself(host: Container, tmp_path: Path, misbehave: str, said: str) -> None:
    outcome, detail = probed(host, place(host, "/opt/kt/bad", tmp_path, misbehave))
    assert outcome == "bad_version"
    assert said in detail


@pytest.mark.parametrize(
    "path",
    [
        "/mnt/kt/storage/storage-dir-verification",
        "/etc/shadow",
        "/root/.bashrc",
        "/home/storj/identity/identity.key",
        "/tmp/kt-secret",
        "/proc/1/environ",
        "/run/dbus/system_bus_socket",
    ],
)
def test_a_nosy_binary_reads_nothing(host: Container, tmp_path: Path, path: str) -> None:
    for readable in ("/mnt/kt/storage/storage-dir-verification", "/home/storj/identity/identity.key", "/tmp/kt-secret"):
        host.write(readable, "secret", 0o644)
    # It says its version, and ends well, only if it could not read.
    program = place(host, "/opt/kt/nosy", tmp_path, f"read:{path}")
    assert probed(host, program, "/mnt/kt/storage", "/home/storj/identity") == ["done", ""]
    assert host.run(["/opt/kt/nosy", "version"], check=False).returncode == (0 if "socket" in path else 7)


def test_a_talkative_binary_reaches_nobody(host: Container, tmp_path: Path) -> None:
    code = "import socket,time; s=socket.create_server(('127.0.0.1', 18877)); print('up', flush=True); time.sleep(60)"
    listener = host.popen([PYTHON, "-c", code])
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "up\n"
        program = place(host, "/opt/kt/talks", tmp_path, "connect:127.0.0.1:18877")
        assert host.run([program, "version"], check=False).returncode == 7, "outside it could"
        assert probed(host, program) == ["done", ""]
    finally:
        listener.kill()
        listener.wait()


def test_the_storage_that_only_the_nodes_own_configuration_names_is_hidden_too(host: Container, tmp_path: Path) -> None:
    node = configure(tmp_path / "node", {"storage.path": tmp_path / "node/elsewhere"})
    (node / "config.yaml").write_text("storage.path: /mnt/kt-far/storage\n")
    host.put(node / "config.yaml", "/mnt/kt-node/config.yaml")
    host.write("/mnt/kt-far/storage/storage-dir-verification", "secret", 0o644)
    place(host, "/opt/kt/far", tmp_path, "read:/mnt/kt-far/storage/storage-dir-verification")
    configured = {
        "nodes": [
            {
                "name": "far",
                "service": "systemd:kt-nosy.service",
                "binary": "/opt/kt/far",
                "config_dir": "/mnt/kt-node",
                "api": "127.0.0.1:1",
            }
        ],
        "version_server": "http://127.0.0.1:1",
        "remediation": {"state_dir": "/var/lib/kt-far", "status_file": "/var/lib/kt-far/status.json"},
    }
    host.unit("kt-nosy.service", service("/opt/kt/far run"))
    host.write("/etc/kt-far.yml", json.dumps(configured))
    command = ["/opt/storagenode-keeper/bin/storagenode-remediate", "plan", "--config.file", "/etc/kt-far.yml", "far"]
    said = host.run(command, check=False).stdout
    # Could it have read the storage, then the installed version would not be known.
    assert "installed_unknown" not in said
    assert "allowed_unknown" in said


# The updater


VERDICT = "/var/lib/kt-up/last-failed-update.storagenode.json"
TERMINATED = '{"Version":"1.104.5","Failure": "signal: terminated"}'


def updater(host: Container, name: str, on_term: str = "") -> str:
    host.write("/opt/kt-up/storagenode", "the old one", 0o755)
    host.path("/var/lib/kt-up").mkdir(parents=True, exist_ok=True)
    script = f"#!/bin/sh\ntrap '{on_term} exit 0' TERM\ntouch /run/{name}\nwhile :; do sleep 0.05; done\n"
    host.path(f"/run/{name}").unlink(missing_ok=True)
    host.write(f"/opt/kt-up/{name}", script, 0o755)
    command = f"/opt/kt-up/{name} run --binary-store-dir /var/lib/kt-up"
    host.unit(f"{name}.service", service(command))
    host.systemctl("restart", f"{name}.service")
    appears(host, f"/run/{name}")
    return f"{name}.service"


HOLD = """
binary = pathlib.Path("/opt/kt-up/storagenode")
held = hold.survey(({units}), binary)
held = json.loads(json.dumps(held))
hold.hold(held, binary, ())
{meanwhile}
state = lambda unit: os.popen("systemctl is-active " + unit).read().strip()
during = [state(unit) for unit in ({units})]
undone = hold.release(held, binary, ())
print(json.dumps([list(held), during, undone, [state(unit) for unit in ({units})]]))
"""


def held(host: Container, *units: str, meanwhile: str = "") -> Any:
    names = "".join(f"{unit!r}," for unit in units)
    return python(host, HOLD.format(units=names, meanwhile=meanwhile))


def test_an_updater_at_work_is_stopped_and_started_again(host: Container) -> None:
    unit = updater(host, "kt-updater")
    before = host.show(unit, "MainPID")
    assert held(host, unit) == [[unit], ["inactive"], [], ["active"]]
    assert host.show(unit, "MainPID") != before


def test_a_stopped_updater_is_left_stopped(host: Container) -> None:
    unit = updater(host, "kt-stopped")
    other = updater(host, "kt-updater2")
    host.systemctl("stop", unit)
    assert held(host, unit, other) == [[other], ["inactive", "inactive"], [], ["inactive", "active"]]


def test_what_stopping_it_caused_is_undone(host: Container) -> None:
    host.path(VERDICT).unlink(missing_ok=True)
    blame = f"echo '\\''{TERMINATED}'\\'' > {VERDICT}; : > /opt/kt-up/storagenode.1.104.5;"
    unit = updater(host, "kt-updater", blame)
    _, _, undone, after = held(host, unit)
    assert sorted(undone) == ["/opt/kt-up/storagenode.1.104.5", VERDICT]
    assert after == ["active"]
    assert not host.path(VERDICT).exists()
    assert not host.path("/opt/kt-up/storagenode.1.104.5").exists()


def test_what_was_there_before_is_kept(host: Container) -> None:
    unit = updater(host, "kt-updater")
    host.path("/opt/kt-up/storagenode.1.104.5").unlink(missing_ok=True)  # left by the one before, when it was ended
    host.write(VERDICT, TERMINATED)
    host.write("/opt/kt-up/storagenode.1.104.4", "a download of long ago")
    os.utime(host.path("/opt/kt-up/storagenode.1.104.4"), (0, 0))
    host.write("/opt/kt-up/storagenode.old.1.90.0", "its backup")
    assert held(host, unit)[2] == []
    assert host.path(VERDICT).read_text() == TERMINATED
    assert host.path("/opt/kt-up/storagenode.1.104.4").exists()
    host.path("/opt/kt-up/storagenode.1.104.4").unlink()


def test_a_verdict_about_the_version_itself_is_kept(host: Container) -> None:
    host.path(VERDICT).unlink(missing_ok=True)
    verdict = '{"Version":"1.104.5","Failure": "exit status 1"}'
    unit = updater(host, "kt-updater", f"echo '\\''{verdict}'\\'' > {VERDICT};")
    assert held(host, unit)[2] == []
    assert "exit status 1" in host.path(VERDICT).read_text()
    host.path(VERDICT).unlink()


def test_a_backup_of_the_updaters_own_is_kept(host: Container) -> None:
    unit = updater(host, "kt-updater", ": > /opt/kt-up/storagenode.old.1.102.3;")
    assert held(host, unit)[2] == []
    assert host.path("/opt/kt-up/storagenode.old.1.102.3").exists()


@pytest.mark.parametrize("trap", ["symlink", "fifo", "directory"])
def test_a_trap_in_place_of_the_verdict_does_not_keep_the_updater_held(host: Container, trap: str) -> None:
    host.run(["rm", "-rf", VERDICT])
    unit = updater(host, "kt-updater")
    make = {
        "symlink": f"os.symlink('/etc/passwd', {VERDICT!r})",
        "fifo": f"os.mkfifo({VERDICT!r})",
        "directory": f"os.mkdir({VERDICT!r})",
    }[trap]
    assert held(host, unit, meanwhile=make) == [[unit], ["inactive"], [], ["active"]]
    assert host.path("/etc/passwd").exists()
    host.run(["rm", "-rf", VERDICT])


def test_one_that_cannot_be_started_keeps_no_other_from_it(host: Container) -> None:
    first, second = updater(host, "kt-updater"), updater(host, "kt-updater2")
    unit = "[Service]\\nType=oneshot\\nExecStart=/bin/false\\n"
    replace = f"open('/etc/systemd/system/kt-updater.service', 'w').write('{unit}')\n"
    replace += "os.system('systemctl daemon-reload')"
    code = HOLD.format(units=f"{first!r}, {second!r}", meanwhile=replace)
    code = code.replace(
        "undone = hold.release(held, binary, ())", "undone = outcome(lambda: hold.release(held, binary, ()))"
    )
    names, during, (kind, said), after = python(host, code)
    assert (names, during) == ([first, second], ["inactive", "inactive"])
    assert (kind, after[1]) == ("still_held", "active")
    assert said == f"{first}: systemd could not start {first}: failed"


def test_a_masked_updater_is_not_waited_for(host: Container) -> None:
    unit = updater(host, "kt-updater")
    mask = "os.remove('/etc/systemd/system/kt-updater.service')\nos.system('systemctl mask -q kt-updater.service')"
    assert held(host, unit, meanwhile=mask) == [[unit], ["inactive"], [], ["inactive"]]
    host.systemctl("unmask", unit)


def written(host: Container, name: str, command: str, *lines: str, config: str = "") -> str:
    """Say where an updater of this command line, with settings in /etc/NAME/config.yaml, writes down what failed."""
    host.write(f"/etc/{name}/config.yaml", config)
    host.unit(f"{name}.service", service(command, *lines))
    code = "from exporter.units import read_unit\n"
    path: str = python(host, code + f"print(json.dumps(str(hold.verdict(read_unit('{name}.service', 5)))))")
    return path


def test_an_updater_is_told_by_its_config_file_and_variables_too(host: Container) -> None:
    config = "service-name: sn-file\nbinary-store-dir: /var/lib/kt-file\n"
    command = "/opt/kt-up/storagenode-updater run --config-dir /etc/kt-told"
    host.write("/opt/kt-up/storagenode-updater", "", 0o755)
    failed = "last-failed-update"
    assert written(host, "kt-told", command) == f"/{failed}.storagenode.json"
    assert written(host, "kt-told", command, config=config) == f"/var/lib/kt-file/{failed}.sn-file.json"
    host.write("/etc/kt-told/env", "STORJ_SERVICE_NAME=sn-env\nDIR=relative\n")
    lines = ["WorkingDirectory=-/var/lib", "EnvironmentFile=/etc/kt-told/env"]
    assert written(host, "kt-told", command, *lines, config=config) == f"/var/lib/kt-file/{failed}.sn-env.json"
    command += " --service-name=sn-flag --binary-store-dir ${DIR}"
    assert written(host, "kt-told", command, *lines, config=config) == f"/var/lib/relative/{failed}.sn-flag.json"
    # A script is read by its command line alone.
    assert written(host, "kt-told", "/opt/kt-up/any --service-name sn") == f"/{failed}.sn.json"


def test_nothing_that_an_updater_is_told_leads_elsewhere(host: Container) -> None:
    command = "/opt/kt-up/storagenode-updater run --config-dir /etc/kt-told"
    found = Path(written(host, "kt-told", command, config="service-name: /../../etc/passwd\nbinary-store-dir: /srv\n"))
    assert (found.parent, found.name) == (Path("/srv"), "last-failed-update.....etcpasswd.json")


def test_every_updater_of_a_binary_is_found(host: Container) -> None:
    host.write("/opt/kt-many/storagenode", "", 0o755)
    host.write("/opt/kt-many/storagenode-updater", "", 0o755)
    host.write("/etc/kt-many/config.yaml", "binary-location: /opt/kt-many/storagenode\n")
    run = "/opt/kt-many/storagenode-updater run --binary-location"
    units = {
        "kt-many-1": f"{run} /opt/kt-many/storagenode",
        "kt-many-2": "/opt/kt-many/storagenode-updater run --config-dir /etc/kt-many",
        "kt-many-3": f"{run} /opt/kt-many/../kt-many/storagenode --service-name b",
        "kt-other": f"{run} /opt/kt-other/storagenode --config-dir /etc/kt-many",
    }
    for name, command in units.items():
        host.unit(f"{name}.service", service(command))
    code = """
from exporter.config import NodeConfig
from remediate.updaters import updaters_on
a = {"name": "a", "service": "process", "binary": "/opt/kt-many/storagenode", "updater_service": "systemd:z.service"}
b = {"name": "b", "service": "systemd:b.service", "binary": "/opt/kt-many/storagenode", "config_dir": "/etc/kt-many"}
print(json.dumps([updaters_on([NodeConfig.model_validate(node) for node in nodes]) for nodes in ([a], [b])]))
"""
    by_name, by_closeness = python(host, code)
    assert by_name == ["z.service", *(f"kt-many-{number}.service" for number in (1, 2, 3))]
    assert by_closeness == [f"kt-many-{number}.service" for number in (2, 3, 1)]
    for name in units:
        host.path(f"/etc/systemd/system/{name}.service").unlink()


def test_restarting_a_node_that_was_stopping_is_not_forgotten(host: Container) -> None:
    """Killed while the node was being stopped for an update: it is started again, though it is still stopping."""
    loop = "/bin/sh -c 'trap \"sleep 5; exit 0\" TERM; touch /run/kt-stopping; while :; do sleep 0.1; done'"
    host.unit("kt-stopping.service", service(loop, "KillMode=mixed"))
    host.systemctl("start", "kt-stopping.service")
    appears(host, "/run/kt-stopping")
    host.systemctl("stop", "--no-block", "kt-stopping.service")
    host.wait_state("kt-stopping.service", "deactivating")
    code = """
from exporter.config import NodeConfig
from exporter.services import reader
from remediate.steps.confirm import start_again
node = NodeConfig.model_validate({"name": "a", "service": "systemd:kt-stopping.service", "binary": "/bin/sh"})
look = reader(node).read
start_again(node, lambda _: look(5), time.time())
print(json.dumps(look(5).state))
"""
    assert python(host, code) in ("running", "starting")
    host.systemctl("stop", "kt-stopping.service")


def test_a_node_that_fails_again_when_put_back_is_as_it_was(host: Container) -> None:
    host.unit("kt-again.service", service("/bin/false", "Type=oneshot"))
    code = """
from exporter.config import NodeConfig
from exporter.services import reader
from remediate.steps.confirm import start_again
node = NodeConfig.model_validate({"name": "a", "service": "systemd:kt-again.service", "binary": "/bin/sh"})
look = reader(node).read
print(json.dumps(outcome(lambda: start_again(node, lambda _: look(5), time.time()))))
"""
    assert python(host, code) == ["done", ""]
