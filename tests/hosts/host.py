"""A host of nodes, with a cable and ssh, and what it is to be told of a network that is a simulation."""

from pathlib import Path
from typing import Any

from exporter.identity import node_id_bytes
from exporter.sources import node_api
from exporter.status import RunningNode
from tests.e2e.site import EXPORTER, PATH, USER, WEBHOOK, WORKER, Node, Site
from tests.hosts.monitor import Machine, ip
from tests.labs.rootfs import VENV, wheelhouse
from tests.labs.systemd import Container

HOSTS = ("host1", "host2", "host3")
DOMAIN = "example.net"
NETWORK, BETWEEN = "203.0.113", "198.51.100"
"""Kept free for documents (RFC 5737): the one that all are in, and the one that the two of the monitoring gossip in."""
ADDRESSES = {"mon1": 1, "mon2": 2} | {name: 11 + number for number, name in enumerate(HOSTS)}
WHEELS = "/srv/wheels"
SECRET = "a-secret-of-who-is-told"
"""Is in the configuration, and in nothing that anybody prints."""
TRACED, TRACE = "/usr/local/bin/traced-python3", "/run/trace"
"""A Python that writes down which modes it gives files, and what it moves where."""
_TRACED = f"""
import os, sys

def note(event, args):
    if event in ("os.chmod", "os.rename"):
        with open("{TRACE}", "a") as trace:
            print(event, *(oct(arg) if isinstance(arg, int) else os.fsdecode(arg) for arg in args[:2]), file=trace)

sys.addaudithook(note)
"""
UNITS = (EXPORTER, WEBHOOK, PATH, WORKER)


class Host(Site):
    """A host of two nodes, with a cable, and a daemon of ssh; it has nothing of ours until Ansible has been there."""

    def __init__(self, container: Container, folder: Path, name: str, node_prefix: str) -> None:
        self.name = name
        self.fqdn = f"{name}.{DOMAIN}"
        super().__init__(container, folder, [f"{node_prefix}{letter}" for letter in "ab"])
        for node, letter in zip(self.nodes, "ab", strict=True):
            node.unit = f"storagenode-{letter}.service"
            node.binary = Path("/opt/storagenodes", letter, "storagenode")

    @property
    def nodes(self) -> list[Node]:
        return list(self._nodes.values())

    def _install(self) -> None:
        container = self.container
        container.run(["useradd", "--system", USER])
        container.run(["rm", "-r", VENV])
        container.put(wheelhouse(), WHEELS)
        container.write(TRACED, '#!/bin/sh\nPYTHONPATH=/srv/traced exec /usr/bin/python3 "$@"\n', 0o755)
        container.write("/srv/traced/sitecustomize.py", _TRACED)
        for node in self.nodes:
            node.install(service="Restart=no").start()
            answer = container.network.call(node_api.read, node.api, 10.0)
            assert isinstance(answer, RunningNode)
            # A node whose ID is known is not started on another one's storage.
            container.path(node.config_dir / "storage/storage-dir-verification").write_bytes(
                node_id_bytes(answer.node_id)
            )

    def connect(self, machine: Machine, key: str) -> None:
        """Lay the cable to a machine that has the bridge, and let in who has the key."""
        machine.link(self.name, self.container.leader, "eth0")
        machine.ip("link", "set", self.name, "master", "bridge", "up")
        ip(self.container.network, "addr", "add", f"{NETWORK}.{ADDRESSES[self.name]}/24", "dev", "eth0")
        ip(self.container.network, "link", "set", "eth0", "up")
        self.container.write("/root/.ssh/authorized_keys", key, 0o600)
        self.container.systemctl("unmask", "ssh.service")
        self.container.systemctl("start", "ssh.service")

    def settings(self) -> dict[str, Any]:
        """Return what is to be configured for a network that is a simulation."""
        remediation = {"releases": self.downloads.releases, "digests": self.downloads.tags, "cool_down": "0s"}
        notify = ["/bin/sh", "-c", "cat > /dev/null", SECRET]
        return {
            "version_server": self.versions.url,
            "refresh": "500ms",
            "remediation": remediation | {"verify": "require", "notify": notify},
        }

    def files(self) -> set[str]:
        """Say of every file of ours and of the system's configuration what it is, and when it was changed."""
        found = self.container.run(["find", "/etc", VENV, "-printf", "%p %i %y %m %U %G %s %T@ %l\\n"]).stdout
        return set(found.splitlines())

    def pids(self) -> list[str]:
        """Return the processes of our services that stay."""
        return [self.container.show(unit, "MainPID")["MainPID"] for unit in (EXPORTER, WEBHOOK)]
