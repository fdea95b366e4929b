"""The exporter's unit as it is shipped, on a host without a configuration file: what its sandbox leaves it to see."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.exporter.test_discover import node, service, wait_answers
from tests.labs.systemd import Container

pytestmark = pytest.mark.systemd

SHIPPED = Path(__file__).parents[2] / "packaging/systemd"
UNIT = "storagenode-exporter.service"
ADDRESS = "http://127.0.0.1:19651"


@pytest.fixture(scope="module")
def host() -> Iterator[Container]:
    with Container() as container:
        container.install_project()
        container.put(SHIPPED / "storagenode-keeper.sysusers.conf", "/etc/sysusers.d/storagenode-keeper.conf")
        container.run(["systemd-sysusers"])
        container.put(SHIPPED / UNIT, f"/etc/systemd/system/{UNIT}")
        container.systemctl("daemon-reload")
        yield container


def serve_anew(container: Container) -> str:
    """Start it again, and return what it has logged once it listens."""
    container.systemctl("stop", UNIT)
    before = container.journal(UNIT)
    container.systemctl("start", UNIT)
    wait_answers(container, f"{ADDRESS}/-/ready")
    assert container.show(UNIT, "NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}
    return container.journal(UNIT).removeprefix(before)


def get(container: Container, path: str) -> str:
    with container.network.call(urllib.request.urlopen, ADDRESS + path, timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def samples(text: str) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
    return {
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_with_no_node_it_serves_the_page_that_says_what_it_looked_for(host: Container) -> None:
    logged = serve_anew(host)
    page = get(host, "/")
    assert "no storage node was found on this host" in page
    assert "systemd services whose ExecStart" in page
    assert "service: systemd:storagenode.service" in page
    assert "units were not looked at" not in page
    assert "processes were not looked at: /proc hides those of others from us" in page
    assert {name for name, _, _ in samples(get(host, "/metrics"))} == {"storagenode_exporter_build_info"}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(host, "/metrics?node=n1")
    assert "Traceback" not in logged


def test_the_nodes_that_are_there_are_discovered_and_served(host: Container) -> None:
    host.run(["useradd", "--create-home", "storj"])
    # The one that runs has its API where it is by default; only the node's user may read where else it is.
    node(host, "alpha", 14002)
    host.unit("alpha.service", service("/var/lib/alpha/storagenode run --config-dir /etc/alpha"))
    node(host, "beta", 14102)
    host.unit("beta.service", service("/var/lib/beta/storagenode run --config-dir /etc/beta"))
    host.systemctl("start", "alpha")
    wait_answers(host, "http://127.0.0.1:14002/api/sno/")
    logged = serve_anew(host)
    assert 'nodes="alpha, beta"' in logged
    seen = samples(get(host, "/metrics"))
    for name, state in {"alpha": "running", "beta": "stopped"}.items():
        installed = {"node": name, "source": "installed", "version": "1.104.5", "release": "true"}
        assert ("storagenode_version_info", frozenset(installed.items()), 1.0) in seen
        is_so = {"node": name, "manager": "systemd", "state": state}
        assert ("storagenode_service_state", frozenset(is_so.items()), 1.0) in seen
    # With two nodes, what answers at the default address may be the other one.
    assert {value for name, _, value in seen if name == "storagenode_up"} == {0.0}
    page = get(host, "/")
    assert all(name in page for name in ("alpha", "beta", "1.104.5"))
    began = time.monotonic()
    assert {dict(labels).get("node") for name, labels, _ in samples(get(host, "/metrics?node=beta"))} == {None, "beta"}
    assert time.monotonic() - began < 9
    assert "Traceback" not in logged


@pytest.fixture
def limited(host: Container) -> Iterator[Callable[[str], str]]:
    """A function that starts the unit for 200 nodes that hang, with so many threads and processes at most."""
    drop_in, config = f"/etc/systemd/system/{UNIT}.d/tasks.conf", "/etc/storagenode-keeper.yml"
    host.write("/opt/hangs", "#!/bin/sh\nexec sleep 60\n", 0o755)

    def start(tasks: str) -> str:
        # The container has no controller for TasksMax; this limit counts the same.
        host.write(drop_in, f"[Service]\nLimitNPROC={tasks}\n")
        host.systemctl("daemon-reload")
        return serve_anew(host)

    with host.network.call(socket.create_server, ("127.0.0.1", 0), backlog=4096) as mute:
        common = {"service": "process", "binary": "/opt/hangs", "api": f"127.0.0.1:{mute.getsockname()[1]}"}
        host.write(config, json.dumps({"nodes": [{"name": f"n{number}", **common} for number in range(200)]}))
        yield start
    for path in (drop_in, config):
        host.path(path).unlink()
    host.systemctl("daemon-reload")


def test_two_hundred_nodes_that_hang_stay_within_what_the_unit_allows(
    host: Container, limited: Callable[[str], str]
) -> None:
    limited(host.show(UNIT, "TasksMax")["TasksMax"])
    before = host.journal(UNIT)
    for _ in range(2):
        seen = samples(get(host, "/metrics"))
        assert len([name for name, _, _ in seen if name == "storagenode_up"]) == 200
    logged = host.journal(UNIT).removeprefix(before)
    assert [line for line in logged.splitlines() if "allowed versions could not be fetched" not in line] == []


def test_what_hangs_costs_itself_also_where_no_more_threads_are_allowed(
    host: Container, limited: Callable[[str], str]
) -> None:
    limited("40")
    for _ in range(2):
        seen = samples(get(host, "/metrics"))
        assert len([name for name, _, _ in seen if name == "storagenode_up"]) == 200
