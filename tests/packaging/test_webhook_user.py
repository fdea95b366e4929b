"""Somebody has become the webhook's user: what he may leave in the spool, and what he reaches, in the real units."""

import json
import os
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.site import OLD, PATH, TOKEN_FILE, WEBHOOK, WORKER, Node, wait
from tests.packaging.host import CONFIG, PYTHON, SPOOL, STATUS, STORE, WEBHOOK_USER, Host
from tests.serving import Stopwatch

pytestmark = pytest.mark.systemd

STRANGERS = 1_000_000 if os.environ.get("EXHAUSTIVE") == "1" else 150_000
AS_WEBHOOK = ["setpriv", *WEBHOOK_USER]
OTHERS_TOKEN = "/etc/prometheus/storagenode-keeper.token"

REACH = f"""
import json, os, socket, subprocess, sys
from pathlib import Path
def read(path):
    Path(path).read_bytes()
def listed(path):
    os.listdir(path)
def write(path):
    os.close(os.open(path, os.O_WRONLY))
def create(path):
    os.close(os.open(path + "/planted", os.O_WRONLY | os.O_CREAT))
def remove(path):
    os.unlink(path)
def moved(path):
    os.rename(path, path + ".away")
def bus(method):
    subprocess.run(["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                    "org.freedesktop.systemd1.Manager", method, "ss", "{WORKER}", "replace"], check=True)
def root(_):
    os.setuid(0)
def signal(pid):
    os.kill(int(pid), 0)
done = {{}}
for name, path in json.loads(sys.argv[1]):
    try:
        globals()[name](path)
        done[f"{{name}} {{path}}"] = "done"
    except (OSError, subprocess.CalledProcessError) as error:
        done[f"{{name}} {{path}}"] = type(error).__name__
print("RESULT " + json.dumps(done), flush=True)
"""


def out_of_reach(alpha: Node) -> list[list[str]]:
    storage = f"{alpha.config_dir}/storage/storage-dir-verification"
    return [
        *(
            ["read", path]
            for path in (f"{STORE}/store.sqlite", OTHERS_TOKEN, "/etc/shadow", storage, "/proc/1/environ")
        ),
        *(["listed", path] for path in (STORE, "/var/lib/storagenode-exporter", "/root", str(alpha.config_dir))),
        *(["write", str(path)] for path in (CONFIG, STATUS, TOKEN_FILE, alpha.binary, f"{STORE}/store.sqlite")),
        *(
            ["write", path]
            for path in (f"/etc/systemd/system/{WORKER}", str(PYTHON), f"{alpha.config_dir}/config.yaml")
        ),
        *(["create", str(path)] for path in (STORE, alpha.binary.parent, "/var/lib/storagenode-keeper", "/etc")),
        *(["create", path] for path in ("/etc/systemd/system", "/usr/local/bin", "/opt", "/var/lib", "/var/spool")),
        *(["remove", str(path)] for path in (STATUS, alpha.binary, f"{SPOOL}/.roots")),
        *(["moved", str(path)] for path in (STATUS, SPOOL, f"{SPOOL}/.roots", alpha.binary)),
        *(["bus", method] for method in ("StartUnit", "StopUnit")),
        ["signal", "1"],
        ["root", ""],
    ]


@pytest.fixture
def attempts(host: Host, alpha: Node) -> Iterator[list[list[str]]]:
    host.container.write(OTHERS_TOKEN, "secret", 0o600)
    host.container.write(f"{SPOOL}/.roots", "")
    host.container.write(f"{STORE}/store.sqlite", "", 0o600)
    host.container.write("/opt/reach.py", REACH)
    yield out_of_reach(alpha)
    host.container.run(["rm", f"{SPOOL}/.roots", f"{STORE}/store.sqlite"])


def test_he_reaches_nothing_even_outside_of_the_sandbox(host: Host, attempts: list[list[str]]) -> None:
    said = host.container.run([*AS_WEBHOOK, PYTHON, "/opt/reach.py", json.dumps(attempts)]).stdout
    assert_denied(said, attempts)


def test_in_the_webhooks_own_unit_he_reaches_less(host: Host, attempts: list[list[str]]) -> None:
    attempts += [["listed", "/home"], ["listed", "/proc/1"], ["create", "/var/tmp/.."], ["listed", "/dev/disk"]]
    attempts += [["create", "/run"], ["read", "/proc/sys/kernel/random/boot_id"]]
    command = json.dumps(attempts).replace('"', '\\"')
    unit = f'[Service]\nType=exec\nRestart=no\nExecStart=\nExecStart={PYTHON} /opt/reach.py "{command}"\n'
    host.container.systemctl("stop", WEBHOOK)
    with host.dropped_in("reach", unit, unit=WEBHOOK):
        host.container.systemctl("start", WEBHOOK)
        host.container.wait_state(WEBHOOK, "inactive")
    assert_denied(host.container.journal(WEBHOOK), attempts)
    host.container.systemctl("start", WEBHOOK)


def assert_denied(said: str, attempts: list[list[str]]) -> None:
    (result,) = [line.removeprefix("RESULT ") for line in said.splitlines() if line.startswith("RESULT ")]
    found = json.loads(result)
    assert len(found) == len({tuple(attempt) for attempt in attempts})
    assert {attempt: how for attempt, how in found.items() if how == "done"} == {}


def test_names_are_all_that_the_webhook_needs_of_the_configuration(host: Host, alpha: Node) -> None:
    """It may not ask systemd for the rest, as the worker does: the binary, and where the node's settings are."""
    written = host.container.path(CONFIG).read_text()
    config = yaml.safe_load(written)
    config["nodes"] = [{"name": "alpha", "service": f"systemd:{alpha.unit}"}]
    host.container.write(CONFIG, yaml.safe_dump(config))
    try:
        host.container.systemctl("restart", WEBHOOK)
        assert host.post("alpha") == 202
        assert host.wait_ended(alpha)["outcome"] == "updated"
    finally:
        host.container.write(CONFIG, written)
        host.container.systemctl("restart", WEBHOOK)
    host.assert_updated(alpha)


RUBBISH = r"""
import os, socket, sys
os.chdir(sys.argv[1])
os.umask(0)
names = [b"..x", b"-rf", b"new\nline", b"\x1b[2J", b"\xff\xfe", "\u202egpj".encode(), b"x" * 255, b"$(reboot)",
         b"alpha ", b"Alpha", b"alpha.service", b"%s%n"]
for name in names:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT))
for name in (b"../x", b"../../etc/x", b"../storagenode-remediate/x"):
    try:
        os.open(name, os.O_WRONLY | os.O_CREAT)
    except OSError:
        pass
    else:
        print("escaped")
targets = ["/etc/storagenode-keeper.yml", "/opt/storagenodes/alpha/storagenode", "/var/lib", "nowhere"]
for number, target in enumerate(targets):
    os.symlink(target, f"link{number}")
    try:
        os.link(target, f"hard{number}")
    except OSError:
        pass
    else:
        print("linked", target)
os.symlink("/opt/storagenodes/alpha/storagenode", "beta")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for kind in (0o020000, 0o060000):
    try:
        os.mknod(f"device{kind}", kind | 0o666, os.makedev(1, 8))
    except OSError:
        pass
    else:
        print("device")
os.makedirs("deep/" + "d/" * 200)
os.mkdir("closed", 0o000)
os.mkdir("empty")
with open("alpha", "w") as file:
    file.write("--to 9.9.9\n" * 100000)
os.chmod("alpha", 0)
"""


def test_rubbish_in_the_spool_costs_nothing_but_a_line_in_the_log(host: Host, alpha: Node) -> None:
    """And the one request among it is worked: the node is not below the minimum, so nothing is to be done."""
    host.rise(OLD)
    host.container.systemctl("stop", PATH)
    before = host.outside()
    assert host.container.run([*AS_WEBHOOK, PYTHON, "-c", RUBBISH, SPOOL]).stdout == ""
    # What he cannot make himself, as if he could.
    host.container.run(["mknod", f"{SPOOL}/zero", "c", "1", "5"])
    host.container.run(["ln", "/etc/shadow", f"{SPOOL}/shadow"])
    host.container.systemctl("start", PATH)
    left = wait_empty(host)
    assert all(name.startswith(".") for name in left)
    host.container.wait_state(WORKER, "inactive")
    assert host.container.show(WORKER, "Result")["Result"] == "success"
    assert host.outside() ^ before == set()
    journal = host.container.journal(WORKER)
    assert "removed from the spool what is no request" in journal
    assert "\x1b" not in journal
    assert [line["node"] for line in host.log(WORKER) if line.get("message") == "decision"][-1:] == ["alpha"]
    assert alpha.runs() == []


def test_any_number_of_strangers(host: Host, alpha: Node) -> None:
    """A million of names, and the one that counts is worked at once; the rest goes by and by."""
    many = "import os, sys\nos.chdir(sys.argv[1])\nfor n in range(int(sys.argv[2])): os.close(os.open(f's{n}', 577))"
    host.container.systemctl("stop", PATH)
    host.container.run([*AS_WEBHOOK, PYTHON, "-c", many, SPOOL, str(STRANGERS)], timeout=300)
    host.ask("alpha")
    watch = Stopwatch()
    with host.dropped_in("hurry", "[Service]\nRestartSec=100ms\n"):
        host.container.systemctl("start", PATH)
        wait(lambda: [run for run in alpha.runs() if run["outcome"] == "updated"], "the run has ended", 120)
        print(f"{STRANGERS} strangers: the request took {watch.seconds:.1f} s")
        wait_empty(host, 300)
        host.container.wait_state(WORKER, "inactive", timeout=60)
        print(f"{STRANGERS} strangers: gone after {watch.seconds:.1f} s")
    host.assert_updated(alpha)
    assert host.container.show(PATH, "ActiveState")["ActiveState"] == "active"


PLAYING = """
import os, sys
os.chdir(sys.argv[1])
target = "/opt/storagenodes/alpha/storagenode"
kinds = [os.mkdir, os.mkfifo, lambda name: os.symlink(target, name), lambda name: os.close(os.open(name, 577))]
while True:
    for kind in kinds:
        for name in ("alpha", "beta", ".hidden", "other"):
            for action in (kind, os.unlink, os.rmdir):
                try:
                    action(name)
                except OSError:
                    pass
"""


def test_names_that_change_while_they_are_looked_at(host: Host, alpha: Node) -> None:
    host.rise(OLD)
    since = len(host.container.journal(WORKER))
    with host.dropped_in("hurry", "[Service]\nRestartSec=100ms\n"):
        before = host.outside()
        playing = host.container.popen([*AS_WEBHOOK, PYTHON, "-c", PLAYING, SPOOL])
        try:
            time.sleep(6)
            assert host.container.show(PATH, "ActiveState")["ActiveState"] == "active"
        finally:
            host.container.signal(playing, 9)
            playing.wait()
        wait_empty(host)
        host.container.wait_state(WORKER, "inactive")
        assert host.outside() ^ before == set()
    assert host.container.show(WORKER, "Result")["Result"] == "success"
    said = host.container.journal(WORKER)[since:]
    assert "Traceback" not in said
    assert "cannot be used" not in said
    host.assert_released(alpha)


def wait_empty(host: Host, timeout: float = 90) -> list[str]:
    """Wait until nothing is in the spool that starts anybody, and return what else is there."""

    def empty() -> list[str] | None:
        names = os.listdir(host.container.path(SPOOL))
        return ["", *names] if all(name.startswith(".") for name in names) else None

    return wait(empty, "the spool is empty", timeout)[1:]
