"""Three hosts of nodes and two of the monitoring, joined by cables, and kept as docs/many-hosts.md says."""

import os
import re
import shlex
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from exporter import __version__
from tests.alerts import shipped
from tests.documents import ROOT, blocks
from tests.hosts.host import ADDRESSES, BETWEEN, DOMAIN, HOSTS, NETWORK, SECRET, TRACED, WHEELS, Host
from tests.hosts.monitor import Machine
from tests.labs import ansible
from tests.labs.prometheus import Alertmanager, Prometheus, program
from tests.labs.rootfs import wheelhouse
from tests.labs.systemd import Container

DOCUMENT = ROOT / "docs/many-hosts.md"
Recap = dict[str, dict[str, int]]
"""What Ansible counts for each host."""
EXPORTER_DOWN = "StorageNodeExporterDown"
PLACE = "/etc/prometheus/storagenode-keeper"


def addressed(names: Mapping[str, str], text: str) -> str:
    """Put addresses for names."""
    for name, address in names.items():
        text = text.replace(name, address)
    return text


def documented(begins: str) -> str:
    """Return the document's configuration that begins so."""
    (found,) = [block.text for block in blocks(file=DOCUMENT) if block.text.startswith(begins)]
    return found


class Farm:
    """All of them, with nothing of ours on them yet, and a copy of the repository to install it from."""

    prometheus: Prometheus
    alertmanagers: list[Alertmanager]
    installed: str
    """What was said when all was done that the document says."""
    said: str
    """What the last commands have said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder / "storagenode-keeper"
        self.hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.programs = ansible.programs()
            containers = {name: stack.enter_context(Container()) for name in HOSTS}
            self.mon1 = stack.enter_context(Machine())
            self.mon2 = stack.enter_context(Machine(beside=self.mon1))
            self._wire()
            key = self._key()
            for name, container in containers.items():
                (self.folder / name).mkdir()
                prefix = "host1-" if name == "host1" else f"{name}-storagenode-"
                host = Host(container, self.folder / name, name, prefix)
                self.hosts[name] = stack.enter_context(host)
                host.connect(self.mon1, key)
            self._copy_repository()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _wire(self) -> None:
        # Bridges, so that a cable that is pulled takes nobody's address along: that would be a fault of one's own.
        for bridge, address in (("bridge", f"{NETWORK}.{ADDRESSES['mon1']}/24"), ("gossips", f"{BETWEEN}.1/24")):
            self.mon1.ip("link", "add", bridge, "type", "bridge")
            self.mon1.ip("addr", "add", address, "dev", bridge)
            self.mon1.ip("link", "set", bridge, "up")
        for cable, bridge, address in (
            ("mon2", "bridge", f"{NETWORK}.{ADDRESSES['mon2']}/24"),
            ("gossip", "gossips", f"{BETWEEN}.2/24"),
        ):
            self.mon1.link(cable, self.mon2.pid, cable)
            self.mon1.ip("link", "set", cable, "master", bridge, "up")
            self.mon2.ip("addr", "add", address, "dev", cable)
            self.mon2.ip("link", "set", cable, "up")
        lines = ["127.0.0.1 localhost", *(f"{NETWORK}.{last} {name}.{DOMAIN}" for name, last in ADDRESSES.items())]
        self.mon1.write("/etc/hosts", "\n".join(lines) + "\n")
        for file, line in (("passwd", "prometheus:x:977:977::/:/bin/false"), ("group", "prometheus:x:977:")):
            kept = [each for each in self.mon1.read(f"/etc/{file}").splitlines() if not each.startswith("prometheus:")]
            self.mon1.write(f"/etc/{file}", "\n".join([*kept, line]) + "\n")

    def _key(self) -> str:
        """Make an operator's key for ssh, and have ssh use it and keep its memory to itself; return the public half."""
        path = self.folder / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        options = ["Host *", f"IdentityFile {path}", "StrictHostKeyChecking accept-new"]
        self.mon1.write(
            "/etc/ssh/ssh_config", "\n".join([*options, f"UserKnownHostsFile {self.folder}/known_hosts", ""])
        )
        return path.with_suffix(".pub").read_text()

    def _copy_repository(self) -> None:
        for name in ("exporter", "remediate", "packaging"):
            shutil.copytree(ROOT / name, self.copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.copy / name)
        variables = self.copy / "packaging/ansible/host_vars"
        variables.mkdir()
        for host in self.hosts.values():
            own = {
                "storagenode_keeper_settings": host.settings(),
                "storagenode_keeper_pip_args": ["--no-index", f"--find-links={WHEELS}", "--no-compile"],
                "ansible_python_interpreter": TRACED if host.name == "host1" else "/usr/bin/python3",
            }
            (variables / f"{host.fqdn}.yml").write_text(yaml.safe_dump(own))

    def become(self, version: str) -> None:
        """Make the copy of the repository one of another version."""
        for name, before in (("exporter/__init__.py", "__version__ = "), ("pyproject.toml", "version = ")):
            file = self.copy / name
            text = file.read_text()
            assert f'\n{before}"{__version__}"' in text
            file.write_text(text.replace(f'\n{before}"{__version__}"', f'\n{before}"{version}"'))

    def shell(self, script: str) -> str:
        """Run commands on mon1, in the copy of the repository, and return what they say."""
        path = [
            self.programs,
            *(program(name).parent for name in ("promtool", "amtool")),
            *os.environ["PATH"].split(":"),
        ]
        env = {
            "PATH": ":".join(map(str, path)),
            "HOME": str(self.folder),
            "ANSIBLE_NOCOLOR": "1",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheelhouse()),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self.said = self.mon1.shell(script, cwd=self.copy, env=env).stdout
        assert SECRET not in self.said
        return self.said

    def follow(self) -> str:
        """Do all that the document says, in one shell; its configuration is written by then."""
        self.mon1.write("/etc/prometheus/storagenode.rules.yml", shipped.RULES.read_text())
        self.mon1.write("/etc/prometheus/prometheus.yml", documented("# /etc/prometheus/prometheus.yml"))
        self.mon1.write("/etc/prometheus/alertmanager.yml", yaml.safe_dump(alertmanager()))
        steps = "".join(block.text for block in blocks("hosts", DOCUMENT))
        return self.shell(f"umask\n{steps}umask\n")

    def play(self, *options: str) -> Recap:
        """Run the playbook; return what it says of each host, by what is counted."""
        (found,) = recaps(self.shell(f"cd packaging/ansible && ansible-playbook site.yml {shlex.join(options)}"))
        return found

    def fail(self, *options: str) -> Recap:
        """Run the playbook, which does not succeed; return what it says of each host."""
        try:
            self.play(*options)
        except subprocess.CalledProcessError as error:
            assert SECRET not in error.output
            (found,) = recaps(error.output)
            return found
        raise AssertionError("it has succeeded")

    def watch(self) -> None:
        """Start Prometheus and the pair of Alertmanagers on the document's configuration, in a hurry."""
        config = alertmanager()
        (route,) = [each for each in config["route"]["routes"] if "routes" in each and "matchers" in each]
        route |= {"group_interval": "1s"}
        route_file = self.folder / "alertmanager.yml"
        route_file.write_text(yaml.safe_dump(config))
        flags = documented("ARGS=").removeprefix('ARGS="').rstrip('\n"')
        names = {f"mon{number}.{DOMAIN}": f"{BETWEEN}.{number}" for number in (1, 2)}
        swapped = {"mon1": "mon2", "mon2": "mon1"}
        self.alertmanagers = [
            self._stack.enter_context(
                Alertmanager(
                    route_file,
                    network=machine.network,
                    address=f"{NETWORK}.{ADDRESSES[name]}:9093",
                    cluster=addressed(names, each).split(),
                )
            )
            for name, machine, each in (
                ("mon1", self.mon1, flags),
                ("mon2", self.mon2, " ".join(_swap(word, swapped) for word in flags.split())),
            )
        ]

        rules = self.folder / "storagenode.rules.yml"
        rules.write_text(hurried(shipped.rules(StorageNodeDeadlocked="0s")))
        self.prometheus = Prometheus({}, network=self.mon1.network)
        # Two seconds: a scrape gets no more time than its interval.
        self.prometheus.config = yaml.safe_load(documented("# /etc/prometheus/prometheus.yml")) | {
            "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
        }
        self.prometheus.write_config()
        self._stack.enter_context(self.prometheus)

    def ask(self, host: Host, token: str, body: bytes = b'{"version": "4", "alerts": []}') -> int:
        """Post to a host's webhook from mon1, with what is in a file of tokens; return the code of the answer."""
        authority = Path(f"/proc/{self.mon1.pid}/root{PLACE}/ca.crt")
        address = f"{NETWORK}.{ADDRESSES[host.name]}"
        request = urllib.request.Request(f"https://{address}:19652/alertmanager", body)
        request.add_header("Authorization", f"Bearer {self.mon1.read(f'{PLACE}/{token}.token').strip()}")
        context = ssl.create_default_context(cafile=str(authority))
        context.check_hostname = False  # by its name it is asked by Prometheus and Alertmanager
        return self.mon1.network.call(_status, request, context)

    def cable(self, name: str, state: str) -> None:
        """Pull the cable of a host, or of the gossip (`down`), or put it back (`up`)."""
        self.mon1.ip("link", "set", name, state)


def alertmanager() -> dict[str, Any]:
    """Return the example for Alertmanager, with the document's route and receivers instead of those for one host."""
    config: dict[str, Any] = yaml.safe_load(shipped.ALERTMANAGER.read_text())
    for place, parts, key in (("routes", config["route"], "receiver"), ("receivers", config, "name")):
        (at,) = [number for number, each in enumerate(parts[place]) if each[key] == "storagenode-remediate"]
        parts[place][at : at + 1] = yaml.safe_load(documented(f"# In `{place}`"))
    return config


def hurried(rules: str) -> str:
    """Have an exporter that does not answer alerted on after seconds, not minutes."""
    content = yaml.safe_load(rules)
    named = [rule for group in content["groups"] for rule in group["rules"] if rule.get("alert") == EXPORTER_DOWN]
    (rule,) = [rule for rule in named if "[5m]" in rule["expr"]]
    rule |= {"expr": rule["expr"].replace("[5m]", "[10s]"), "for": "0s"}
    return yaml.safe_dump(content)


def _swap(text: str, names: Mapping[str, str]) -> str:
    first, second = names
    return text.replace(first, "\0").replace(second, first).replace("\0", second)


def recaps(said: str) -> list[Recap]:
    """Read the last lines of each run of ansible-playbook."""
    return [_recap(lines) for lines in said.split("PLAY RECAP")[1:]]


def _recap(lines: str) -> Recap:
    rows = re.findall(r"^(\S+) +: (ok=.*)$", lines, re.MULTILINE)
    return {
        host: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())} for host, counts in rows
    }


def _status(request: urllib.request.Request, context: ssl.SSLContext) -> int:
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
