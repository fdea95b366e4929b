"""Installed as the documents say, word by word, on a host with one node; then upgraded, and removed."""

import json
import os
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from exporter import __version__
from tests.documents import blocks
from tests.e2e.site import EXPORTER, NEW, OLD, PATH, USER, WEBHOOK, WORKER, Site, wait
from tests.labs.rootfs import REPOSITORY, VENV, wheelhouse
from tests.labs.systemd import Container

pytestmark = pytest.mark.systemd

SOURCE, NEWER, WHEELS = "/root/storagenode-keeper", "/root/newer", "/root/wheels"
CONFIG, TOKEN_FILE = "/etc/storagenode-keeper.yml", "/etc/storagenode-keeper.token"
WATCH, TIMER = "storagenode-remediate-watch.service", "storagenode-remediate-watch.timer"
UNITS = (EXPORTER, WEBHOOK, PATH, WORKER)
RECORDED = REPOSITORY / "tests/data/alertmanager_payloads.json"


class Bare(Site):
    """A host with what the nodes need, and nothing of ours."""

    def _install(self) -> None:
        self.container.run(["useradd", "--system", USER])
        self.container.run(["rm", "-r", VENV])
        self.container.put(wheelhouse(), WHEELS)
        self.copy(SOURCE, __version__)
        self.copy(NEWER, "99.0.0")

    def copy(self, path: str, version: str) -> None:
        """Put a copy of the repository there, as of a version."""
        for name in ("exporter", "remediate", "packaging", "pyproject.toml", "README.md", "LICENSE"):
            self.container.put(REPOSITORY / name, f"{path}/{name}")
        for name, before in (("exporter/__init__.py", "__version__ = "), ("pyproject.toml", "version = ")):
            file = self.container.path(f"{path}/{name}")
            text = file.read_text()
            assert f'\n{before}"{__version__}"' in text
            file.write_text(text.replace(f'\n{before}"{__version__}"', f'\n{before}"{version}"'))

    def shell(self, line: str, *, source: str = SOURCE, ends: tuple[int, ...] = (0,)) -> None:
        """Run a line of a document as root, in a copy of the repository."""
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
        done = self.container.run(["sh", "-c", f"cd {source} && {line}"], check=False, env=env, timeout=300)
        assert done.returncode in ends, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"

    def files(self) -> dict[str, str]:
        """Say of every file of the host what it is, and how large."""
        folders = ["/boot", "/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var"]
        directories = ["-type", "d", "-printf", "%p\\t%y %m %U %G\\n", "-o"]
        found = self.container.run(["find", *folders, *directories, "-printf", "%p\\t%y %m %U %G %s %l\\n"]).stdout
        return dict(line.split("\t", 1) for line in found.splitlines())

    def get(self, url: str) -> str:
        """Fetch a page from inside."""
        return self.container.network.call(_fetch, urllib.request.Request(url))

    def post(self, payload: object) -> None:
        """Send an alert with the token there is."""
        token = self.container.path(TOKEN_FILE).read_text().strip()
        request = urllib.request.Request("http://127.0.0.1:19652/alertmanager", json.dumps(payload).encode())
        request.add_header("Authorization", f"Bearer {token}")
        self.container.network.call(_fetch, request)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Container() as container, Bare(container, tmp_path_factory.mktemp("bare"), ["storagenode"]) as bare:
        yield bare


def recorded(node: str) -> object:
    """An alert as Alertmanager 0.33 sends it, of this node."""
    text = json.dumps(json.loads(RECORDED.read_text())["prom3.5_am0.33"]["firing"])
    labelled = text.replace('"node": "node1"', f'"node": "{node}", "remediation": "offline-update"')
    assert labelled != text
    payload: object = json.loads(labelled)
    return payload


def test_installed_upgraded_and_removed_as_the_documents_say(host: Bare) -> None:
    node = host.node("storagenode").install(service="Restart=no")
    node.start()  # as root discovers more while it answers
    before = host.files()
    container = host.container

    # Install
    install, discover, token = blocks("install")
    for line in (*install.commands, *discover.commands):
        host.shell(line)
    config = yaml.safe_load(container.path(CONFIG).read_text())
    (found,) = config["nodes"]
    assert (found["service"], found["binary"]) == (f"systemd:{node.unit}", str(node.binary))
    remediation = {"releases": host.downloads.releases, "digests": host.downloads.tags, "verify": "require"}
    config |= {"version_server": host.versions.url, "refresh": "500ms"}
    config["remediation"] = remediation | {"webhook": {"token_file": TOKEN_FILE}}
    container.path(CONFIG).write_text(yaml.safe_dump(config))
    node.stop()
    host.rise()
    for line in token.commands:
        host.shell(line, ends=(0, 1) if line.endswith(" check") else (0,))
    modes = container.run(["stat", "-c", "%a %U %G", TOKEN_FILE, CONFIG]).stdout.splitlines()
    assert modes == 2 * ["640 root storagenode-keeper"]
    container.wait_state(WORKER, "inactive")

    # It works
    deadlocked = f'storagenode_deadlocked{{node="{found["name"]}"}} 1.0'
    wait(lambda: deadlocked in host.get("http://127.0.0.1:19651/metrics"), "the exporter sees it")
    host.post(recorded(found["name"]))
    wait(lambda: node.installed() == NEW, "the worker updates it", 30)
    container.wait_state(WORKER, "inactive")
    assert container.show(node.unit, "ActiveState")["ActiveState"] == "inactive", "somebody stopped it"

    # Upgrade
    pids = [container.show(unit, "MainPID")["MainPID"] for unit in (EXPORTER, WEBHOOK)]
    history = host.remediate("history", "--json", found["name"])
    state = node.state()
    (upgrade,) = blocks("upgrade")
    for line in upgrade.commands:
        host.shell(line, source=NEWER)
    assert host.remediate("--version").split() == ["storagenode-remediate", "99.0.0"]
    assert json.loads(host.remediate("history", "--json", found["name"]))["runs"] == json.loads(history)["runs"]
    assert [container.show(unit, "MainPID")["MainPID"] for unit in (EXPORTER, WEBHOOK)] != pids
    assert 'version="99.0.0"' in host.get("http://127.0.0.1:19651/metrics")
    host.post(recorded(found["name"]))
    wait(lambda: not os.listdir(container.path("/var/spool/storagenode-keeper")), "the alert that comes again is seen")
    container.wait_state(WORKER, "inactive")
    assert node.state() == state

    # Without Prometheus
    container.systemctl("stop", PATH)
    for block in blocks("watch"):
        for line in block.commands:
            host.shell(line, source=NEWER)
    assert container.show(TIMER, "ActiveState")["ActiveState"] == "active"
    assert container.run(["stat", "-c", "%a", f"{VENV}/notify-mail.py"]).stdout == "755\n"
    container.systemctl("start", WATCH)
    assert container.wait_state(WATCH, "inactive")["Result"] == "success"
    assert node.state() == state

    # Remove
    for block in (*blocks("remove-watch"), *blocks("remove")):
        for line in block.commands:
            host.shell(line)
    after = host.files()
    assert node.state() == state
    assert container.systemctl("list-unit-files", "--no-legend", "storagenode-*").split()[:1] == [node.unit]
    assert "storagenode-exporter" not in container.path("/etc/passwd").read_text()
    added = {path for path in after.keys() - before.keys() if not path.startswith(SCRATCH)}
    assert added - {"/etc/sysusers.d"} == {f"{node.binary.parent}/.storagenode.keeper-old-{OLD}"}
    changed = {path for path in before if before[path] != after.get(path) and not path.startswith(SCRATCH)}
    assert changed <= {str(node.binary), *ACCOUNTS}


ACCOUNTS = {f"/etc/{name}{copy}" for name in ("passwd", "group", "shadow", "gshadow") for copy in ("", "-")}
SCRATCH = ("/var/log/", "/var/tmp", "/var/cache/", "/var/lib/systemd/", "/root/.cache")


def _fetch(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert 200 <= answer.status < 300
        content: str = answer.read().decode()
        return content
