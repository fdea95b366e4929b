"""A release that is somebody else's program: what it reaches while it is asked for its version, and what it leaves."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import USER
from tests.labs.systemd import Container
from tests.packaging.host import CONFIG, PYTHON, STORE
from tests.simulators import build

pytestmark = pytest.mark.systemd

PORT = 18878
HOME = Path("/home/storj")
IDENTITY, DATA = HOME / "identity/identity.key", Path("/mnt/storage/blobs/piece")
PROGRAM = Path("/opt/node/storagenode")
READ: list[str | Path] = [
    IDENTITY,
    DATA,
    CONFIG,
    f"{STORE}/store.sqlite",
    "/etc/passwd",
    "/etc/machine-id",
    "/proc/1/environ",
    "/run/secret",
]
READ += ["/root/secret", "/tmp/secret", "/var/tmp/secret", PROGRAM]
WRITE: list[str | Path] = [
    DATA,
    IDENTITY,
    PROGRAM,
    "/proc/sys/kernel/hostname",
    "/proc/self/oom_score_adj",
    "/sys/fs/cgroup/cgroup.procs",
]
CREATE: list[str | Path] = [
    PROGRAM.parent,
    DATA.parent,
    "/usr/local/bin",
    "/etc",
    "/var/lib",
    "/run",
    "/srv",
    "/home",
    "/",
    "/dev",
]
HARMLESS = {"write /proc/self/oom_score_adj"}
"""Its own, and gone with it."""
NAMESPACE = {"make a user namespace", "chroot /tmp"}
"""As the kernel lets everybody."""
DATAGRAM = {"connect /run/systemd/notify"}

PROBE = """
import json, os, pathlib, sys
from remediate.rules import Rules
from remediate.steps import probe
booted, hidden, path = json.loads(sys.argv[1])
if not booted:
    probe._BOOTED_WITH_SYSTEMD = pathlib.Path("/nowhere")
execute = probe.executor([pathlib.Path(each) for each in hidden], Rules())
binary = os.open(path, os.O_RDONLY)
os.environ["SECRET"] = "only the worker's"
done = execute(binary, ("version",), 15)
print(json.dumps([done.exit_code, done.stdout.decode()]))
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("mischief")
    with Container() as container:
        container.install_project()
        container.run(["useradd", "--system", USER])
        for path in (*READ, *WRITE):
            if not str(path).startswith(("/proc", "/sys", "/dev", "/etc")) or path == CONFIG:
                container.write(path, "secret", 0o666)
        container.run(["chown", "-R", USER, HOME, DATA.parent, PROGRAM.parent])
        container.run(["chmod", "0755", STORE])  # worse than it is
        container.put(mischief(folder), PROGRAM)
        yield container


def mischief(folder: Path) -> Path:
    """Compile it, with what to try."""
    lists = {"READ": READ, "WRITE": WRITE, "CREATE": CREATE}
    defines = [
        f"-DMISCHIEF_{name}={', '.join(json.dumps(str(path)) for path in paths)}" for name, paths in lists.items()
    ]
    source = Path(__file__).with_name("mischief.c")
    for compiler in build.compilers(str(folder)):
        command = [
            *compiler,
            "-std=c99",
            "-o",
            str(folder / "storagenode"),
            *defines,
            f"-DMISCHIEF_PORT={PORT}",
            str(source),
        ]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return folder / "storagenode"
    raise build.BuildError("no compiler builds mischief.c")


@pytest.fixture
def listener(host: Container) -> Iterator[None]:
    code = f"import socket,time; s=socket.create_server(('127.0.0.1', {PORT})); print('up', flush=True); time.sleep(60)"
    process = host.popen([PYTHON, "-c", code])
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield
    host.signal(process, 9)
    process.wait()


def attempts(said: str) -> dict[str, str]:
    """What it tried, and how that ended."""
    lines = [line.partition(": ") for line in said.splitlines()]
    return {what: how for how, _, what in lines if how not in ("environment", "forks", "Version", "Release build")}


SURVIVORS = """
import glob, os, sys
found = 0
for folder in glob.glob("/proc/[0-9]*"):
    try:
        if open(folder + "/comm").read() == "mischief\\n":
            found += 1
            os.kill(int(folder.split("/")[2]), 9)
    except OSError:
        pass
print(found)
"""


def survivors(host: Container) -> int:
    """Count what it has left behind, and end that."""
    return int(host.run([PYTHON, "-c", SURVIVORS]).stdout)


def planted(host: Container) -> str:
    return host.run(["find", "/", "-xdev", "-name", "planted", "-print", "-delete"]).stdout


def probed(host: Container, *, booted: bool) -> str:
    asked = json.dumps([booted, [str(HOME / "identity"), "/mnt/storage"], str(PROGRAM)])
    code, said = json.loads(host.run([PYTHON, "-c", PROBE, asked]).stdout)
    assert code == 0, said
    assert "Version: v1.104.5" in said
    assert "SECRET" not in said
    return str(said)


@pytest.mark.usefixtures("listener")
def test_by_itself_it_could(host: Container) -> None:
    """Else the others show nothing."""
    said = host.run([PROGRAM, "version"], input="").stdout
    # A program that runs cannot be written to, and PID 1 of a container is not ended like that.
    denied = {what for what, how in attempts(said).items() if how != "done"}
    assert denied <= {"write itself", f"write {PROGRAM}", "write /proc/sys/kernel/hostname", "mount /tmp"} | DATAGRAM, (
        said
    )
    assert "forks: 2000" in said
    assert survivors(host) == 2000
    assert len(planted(host).split()) >= 8


@pytest.mark.usefixtures("listener")
def test_probed_by_systemd_it_can_do_nothing(host: Container) -> None:
    said = probed(host, booted=True)
    assert "chmod standard input" in attempts(said)
    assert {what for what, how in attempts(said).items() if how == "done"} == HARMLESS, said
    assert int(said.partition("forks: ")[2].split()[0]) < 64
    assert survivors(host) == 0
    assert planted(host) == ""
    names = {
        line.removeprefix("environment: ").partition("=")[0] for line in said.splitlines() if "environment" in line
    }
    assert names <= {"LANG", "PATH", "LOGNAME", "USER", "HOME", "SHELL", "INVOCATION_ID", "SYSTEMD_EXEC_PID"}
    assert host.systemctl("list-units", "--all", "--plain", "--no-legend", "storagenode-keeper-probe-*") == ""


@pytest.mark.usefixtures("listener")
def test_probed_as_a_user_it_can_change_nothing_of_others(host: Container) -> None:
    """What it can all the same (reach the network, read what everybody may, leave processes behind) is in the docs."""
    said = probed(host, booted=False)
    tried = attempts(said)
    allowed = {what for what, how in tried.items() if how == "done"}
    everybody = {f"{verb} {path}" for verb, paths in (("read", READ), ("write", WRITE)) for path in paths}
    assert allowed - everybody <= {
        "connect /run/dbus/system_bus_socket",
        "connect 127.0.0.1",
        "talk netlink",
        *NAMESPACE,
    }
    assert not allowed & {f"read {path}" for path in ("/root/secret", "/proc/1/environ")}
    assert not {what for what in allowed if what.startswith("create") and "blobs" not in what}
    assert f"write {PROGRAM}" not in allowed
    assert "environment" not in said
    survivors(host)


def test_a_huge_binary_that_only_its_owner_may_run_is_not_copied(host: Container) -> None:
    """It would be copied into memory: a hole of a terabyte costs the node's user nothing."""
    host.write("/opt/node/huge", "", 0o700)
    host.run(["truncate", "--size=1T", "/opt/node/huge"])
    asked = json.dumps([True, [], "/opt/node/huge"])
    done = host.run([PYTHON, "-c", PROBE, asked], check=False)
    assert "OSError: [Errno 27] File too large" in done.stderr
