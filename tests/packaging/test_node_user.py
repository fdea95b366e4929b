"""Somebody has become the node's user, who owns the binary's folder and the node's settings: what root does there."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.site import NEW, OLD, USER, WORKER, Node
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.packaging.host import CONFIG, PYTHON, Host

pytestmark = pytest.mark.systemd

RACES = 40 if os.environ.get("EXHAUSTIVE") == "1" else 2
SECRET = "only-root-may-read-this"
SECRET_FILE = "/srv/root/secret"
HOME = Path("/srv/storj")
FOLDER = HOME / "a/bin"
AS_NODE = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
STAGED, BACKUP = ".storagenode.keeper-new", f".storagenode.keeper-old-{OLD}"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Container() as container, Host(container, tmp_path_factory.mktemp("host"), ["alpha"]) as made:
        made.node("alpha").binary = FOLDER / "storagenode"
        made.configure()
        container.write(SECRET_FILE, SECRET, 0o600)
        container.run(["chmod", "0755", "/srv/root"])
        container.put(made.binaries[OLD], "/srv/root/a/bin/storagenode")
        yield made


@pytest.fixture
def alpha(host: Host) -> Node:
    host.rise(NEW)
    return fresh(host)


def fresh(host: Host) -> Node:
    node = host.node("alpha")
    host.forget(node)
    host.container.run(["rm", "-rf", HOME, node.config_dir])
    node.install(service="Restart=no")
    host.container.run(["chown", "-R", f"{USER}:{USER}", HOME])
    return node


@contextmanager
def nothing_leaks(host: Host) -> Iterator[None]:
    """Nothing but his own folders changes, no secret gets into them, and nothing there has root's rights."""
    before = elsewhere(host)
    yield
    assert elsewhere(host) ^ before == set()
    container = host.container
    assert container.run(["grep", "-rlFs", SECRET, HOME], check=False).stdout in ("", f"{FOLDER}/hard\n")
    assert container.run(["find", HOME, "-perm", "/6000"]).stdout == ""
    assert container.run(["getcap", "-r", HOME], check=False).stdout == ""
    assert SECRET not in container.journal(WORKER)


def elsewhere(host: Host) -> set[str]:
    return {line for line in host.outside() if not line.startswith((f"{HOME}/", f"{HOME} ", "/srv "))}


def run(host: Host) -> str:
    """Run it as root, with no sandbox at all; return how it ended."""
    done = host.container.run([VENV / "bin/storagenode-remediate", "run", "--yes", "alpha"], check=False, timeout=120)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.stdout


def as_node(host: Host, code: str, *arguments: str) -> None:
    host.container.run([*AS_NODE, PYTHON, "-c", f"import os, sys\nos.chdir('{FOLDER}')\n{code}", *arguments])


@pytest.mark.parametrize(
    "plant",
    [
        f"os.symlink('{SECRET_FILE}', sys.argv[1])",
        f"os.symlink('{CONFIG}', sys.argv[1])",
        "os.symlink('/etc/cron.d/planted', sys.argv[1])",
        "os.link('storagenode', sys.argv[1])",
        "os.mkfifo(sys.argv[1])",
        "open(sys.argv[1], 'w').write('x')",
    ],
    ids=["link-to-secret", "link-to-configuration", "dangling", "hard-link", "fifo", "file"],
)
def test_what_is_planted_where_we_write(host: Host, alpha: Node, plant: str) -> None:
    with nothing_leaks(host):
        for name in (STAGED, BACKUP):
            as_node(host, plant, name)
        assert "updated" in run(host)
    host.assert_updated(alpha)


def test_hard_links_to_roots_files_as_old_kernels_allow_them(host: Host, alpha: Node) -> None:
    host.container.run(["ln", SECRET_FILE, f"{FOLDER}/hard"])
    for name in (STAGED, BACKUP):
        host.container.run(["ln", SECRET_FILE, f"{FOLDER}/{name}"])
    with nothing_leaks(host):
        assert "updated" in run(host)
        host.container.run(["rm", f"{FOLDER}/hard"])
    host.assert_updated(alpha)


def test_a_set_user_id_program_of_roots_in_place_of_the_binary(host: Host, alpha: Node) -> None:
    host.container.run(["chown", "root:root", alpha.binary])
    host.container.run(["chmod", "6755", alpha.binary])
    assert "updated" in run(host)
    assert host.container.run(["stat", "-c", "%a %U", alpha.binary]).stdout == "755 root\n"


CONFIGS = [
    "storage.path: /srv/root\nconsole.address: 198.51.100.1:14002\nidentity.cert-path: /etc/shadow\n",
    "version.server-address: http://127.0.0.1:18999\nbinary-location: /usr/bin/env\nbinary-store-dir: /srv/root\n"
    "service-name: ../../srv/root/secret\n",
    "- not\n- a mapping\n",
    "storage.path: [" + "[" * 5000 + "\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nstorage.path: *d\n",
]


@pytest.mark.parametrize("content", CONFIGS, ids=["elsewhere", "servers", "list", "deep", "aliases"])
def test_settings_that_point_elsewhere(host: Host, alpha: Node, content: str) -> None:
    host.container.write(alpha.config_dir / "config.yaml", content)
    with nothing_leaks(host):
        assert "updated" in run(host)
    host.assert_updated(alpha)


@pytest.mark.parametrize("plant", [f"os.symlink('{SECRET_FILE}', path)", "os.mkfifo(path)", "os.mkdir(path)"])
def test_something_else_in_place_of_the_settings(host: Host, alpha: Node, plant: str) -> None:
    as_node(host, f"path = '{alpha.config_dir}/config.yaml'\nos.unlink(path)\n{plant}")
    with nothing_leaks(host):
        assert "updated" in run(host)
    host.assert_updated(alpha)


RACING = f"""
import os, random, sys, time
dice = random.Random(int(sys.argv[2]))
def leave(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        pass
def pause():
    time.sleep(dice.choice([0, 0.0001, 0.001, 0.01, 0.1, 0.3]))
staged, backup, binary = "{FOLDER}/{STAGED}", "{FOLDER}/{BACKUP}", "{FOLDER}/storagenode"
def folder():
    os.rename("{FOLDER}", "{FOLDER}.away")
    dice.choice([lambda: os.symlink("/srv/root/a/bin", "{FOLDER}"), lambda: os.mkdir("{FOLDER}")])()
    pause()
    leave(os.unlink, "{FOLDER}")
    leave(os.rename, "{FOLDER}", "{FOLDER}.decoy%d" % dice.randrange(1 << 60))
    os.rename("{FOLDER}.away", "{FOLDER}")
def ancestor():
    os.rename("{HOME}/a", "{HOME}/a.away")
    os.symlink("/srv/root/a", "{HOME}/a")
    pause()
    os.unlink("{HOME}/a")
    os.rename("{HOME}/a.away", "{HOME}/a")
def link(name, *targets):
    leave(dice.choice([os.symlink, os.link]), dice.choice(targets), name)
def names():
    for name in (staged, backup):
        leave(os.rename, name, name + ".taken")
        link(name, "{SECRET_FILE}", "{CONFIG}", binary, "{FOLDER}/hard")
        pause()
        leave(os.unlink, name)
def itself():
    os.rename(binary, binary + ".away")
    link(binary, "{SECRET_FILE}", "/srv/root/a/bin/storagenode", "{FOLDER}/hard")
    pause()
    leave(os.unlink, binary)
    os.rename(binary + ".away", binary)
while True:
    leave(globals()[sys.argv[1]])
    time.sleep(dice.choice([0.01, 0.1, 0.3, 1]))
"""


@pytest.mark.parametrize("game", ["folder", "ancestor", "names", "itself"])
def test_names_that_change_while_we_work(host: Host, alpha: Node, game: str) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    outcomes = []
    for number in range(RACES):
        fresh(host)
        # As if the kernel let him: a hard link to what only root may read.
        host.container.run(["ln", SECRET_FILE, f"{FOLDER}/hard"])
        with nothing_leaks(host):
            racing = host.container.popen([*AS_NODE, PYTHON, "-c", RACING, game, str(seed + number)])
            try:
                outcomes.append(run(host))
            finally:
                host.container.signal(racing, 9)
                racing.wait()
            host.container.run(["find", HOME, "-samefile", SECRET_FILE, "-delete"])
        # Whatever he did is his own loss; when he has ended, what is on record is brought to its end.
        host.container.run([VENV / "bin/storagenode-remediate", "recover"], check=False)
        host.assert_released(alpha)
        assert not [run for run in alpha.runs() if run["outcome"] is None]
    print("\n".join(outcomes))
