"""discover on a real host: systemd in a container, with nodes of every kind it can meet."""

import json
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from exporter.config import NodeConfig, load
from exporter.identity import node_id_from_certificates
from tests.exporter.test_identity import certificate, pem
from tests.labs.systemd import Container
from tests.simulators import build

pytestmark = pytest.mark.systemd

PROGRAMS = Path("/opt/storagenode-keeper/bin")
NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
OTHER_ID = "129MF8ha7SLjB4XECabmPHXCLoZ1tCvzfNx62fCzw84xSUqLGHJ"
"""What the API of some nodes says that they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    container: Container
    identity: str
    """The node ID in /etc/alpha/identity.cert."""
    empty: dict[str, CompletedProcess[str]]
    """What the commands said while there was no node."""
    empty_page: str
    scratch: Path

    def exporter(self, *arguments: str | Path, prefix: list[str] | None = None) -> CompletedProcess[str]:
        done = self.container.run([*(prefix or []), PROGRAMS / "storagenode-exporter", *arguments], check=False)
        assert "Traceback" not in done.stderr
        return done

    def nodes(self, text: str) -> dict[str, NodeConfig]:
        """Load a printed configuration as it is, and return its nodes."""
        path = self.scratch / "discovered.yml"
        path.write_text(text)
        return {node.name: node for node in load(path).nodes}


def node(container: Container, name: str, port: int, **settings: object) -> None:
    """Put a node's program and its settings, which are for its user alone, in place."""
    with tempfile.TemporaryDirectory() as scratch:
        container.put(build.node("1.104.5", Path(scratch, "storagenode")), f"/var/lib/{name}/storagenode")
    content = {"console.address": f"127.0.0.1:{port}", "version.server-address": "http://127.0.0.1:1"} | settings
    container.write(f"/etc/{name}/config.yaml", yaml.safe_dump(content), 0o600)
    container.run(["mkdir", "-p", str(settings.get("storage.path", f"/etc/{name}/storage"))])
    container.run(["chown", "-R", "storj", f"/etc/{name}"])
    container.path(f"/etc/{name}").chmod(0o700)


def service(start: str, settings: str = "") -> str:
    return f"[Service]\nUser=storj\nExecStart={start}\n{settings}\n[Install]\nWantedBy=multi-user.target\n"


def serve_once(container: Container, path: str) -> tuple[str, list[dict[str, Any]]]:
    """Start the exporter without a configuration, and return a page of it, and what it logged until it listened."""
    port = container.network.free_port()
    arguments = ["serve", "--web.listen-address", f"127.0.0.1:{port}", "--log.format", "json"]
    process = container.popen([PROGRAMS / "storagenode-exporter", *arguments])
    assert process.stderr is not None
    logged: list[dict[str, Any]] = []
    try:
        while not logged or logged[-1]["message"] != "listening":
            logged.append(json.loads(process.stderr.readline()))
        return container.run(["python3", "-c", _GET, f"http://127.0.0.1:{port}{path}"]).stdout, logged
    finally:
        process.kill()
        process.communicate()


_GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Container() as container:
        container.install_project()
        programs = {"discover": "exporter", "check": "exporter", "history": "remediate"}
        empty = {
            command: container.run([PROGRAMS / f"storagenode-{program}", command], check=False)
            for command, program in programs.items()
        }
        empty_page, _ = serve_once(container, "/")
        arrange(container)
        key = ec.generate_private_key(ec.SECP256R1())
        chain = pem(certificate(key, key), certificate(key, key))
        container.write("/etc/alpha/identity.cert", chain, 0o600)
        as_dora = ["setpriv", "--reuid=dora", "--regid=dora", "--clear-groups", "--"]
        program = ["/var/lib/delta/storagenode", "run", "--config-dir", "/home/dora/node"]
        bare = container.popen([*as_dora, *program])
        for port in (14102, 14104, 14105, 14106):
            wait_answers(container, f"http://127.0.0.1:{port}/api/sno/")
        yield Host(
            container=container,
            identity=node_id_from_certificates(chain),
            empty=empty,
            empty_page=empty_page,
            scratch=tmp_path_factory.mktemp("discover"),
        )
        container.signal(bare, signal.SIGKILL)
        bare.communicate()


def wait_answers(container: Container, url: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            container.network.call(urllib.request.urlopen, url, timeout=30).close()
            return
        except OSError as error:
            assert time.monotonic() < deadline, f"{url}: {error}"
            time.sleep(0.05)


def arrange(container: Container) -> None:
    for user in ("storj", "dora"):
        container.run(["useradd", "--create-home", user])
    # Stopped; its settings tell everything.
    settings = {"identity.cert-path": "/etc/alpha/identity.cert", "storage.path": "/srv/alpha"}
    node(container, "alpha", 14101, **settings, **{"version.check-interval": "1m"})
    container.unit("alpha.service", service('/var/lib/alpha/storagenode run --config-dir "/etc/alpha"'))
    container.write("/var/lib/alpha/storagenode-updater", "", 0o755)
    updater = "/var/lib/alpha/storagenode-updater run --config-dir /etc/alpha --service-name alpha"
    container.unit("watch-alpha.service", service(f"{updater} --binary-location /var/lib/alpha/storagenode"))
    # Running; a drop-in puts a wrapper, a symbolic link and a variable in the place of something else.
    node(container, "beta", 14102, **{"sim.node-id": OTHER_ID})
    container.run(["ln", "-s", "/var/lib/beta/storagenode", "/usr/local/bin/node-b"])
    container.write(
        "/etc/systemd/system/beta.service.d/override.conf",
        "[Service]\nEnvironment=DIR=/etc/beta\nExecStart=\n"
        "ExecStart=/usr/bin/nice -n 5 /usr/local/bin/node-b run --config-dir=${DIR} --storage.path /srv/beta\n",
    )
    container.unit("beta.service", service("/bin/false"))
    # Stopped; files that are for root alone say what it is given. Its updater is told all by the node's config.yaml.
    node(container, "epsilon", 14199, **{"binary-location": "/var/lib/epsilon/storagenode"})
    container.write("/etc/default/epsilon", "DIR=/etc/epsilon\nMORE=--storage.path '/srv/e p'\n", 0o600)
    container.write("/etc/default/epsilon.env", "STORJ_CONSOLE_ADDRESS=:14107\nDIR=/etc/none\n", 0o600)
    files = "EnvironmentFile=/etc/default/epsilon.*\nEnvironmentFile=/etc/default/epsilon\nEnvironmentFile=-/etc/none\n"
    start = "/var/lib/epsilon/storagenode run --config-dir ${DIR} $MORE"
    container.unit(
        "epsilon.service", service(start, f"{files}Environment=DIR=/etc/nothing STORJ_STORAGE_PATH=/srv/not")
    )
    start = "/var/lib/alpha/storagenode-updater run --config-dir /etc/epsilon"
    container.unit("watch-epsilon.service", service(start))
    # Two of a template, that share a binary; one runs. Each has an updater of its own.
    for number in (1, 2):
        node(container, f"sn{number}", 14102 + number, **{"sim.node-id": "nonsense"})
        start = f"/var/lib/sn1/storagenode-updater run --config-dir /etc/sn{number}"
        container.unit(f"updates{number}.service", service(f"{start} --binary-location /usr/bin/storagenode"))
    container.write("/var/lib/sn1/storagenode-updater", "", 0o755)
    container.run(["ln", "-s", "/var/lib/sn1/storagenode", "/usr/bin/storagenode"])
    template = service("/usr/bin/storagenode run --config-dir /etc/sn%i --identity-dir /etc/sn%i")
    container.unit("storagenode@.service", template, enable=False)
    container.systemctl("enable", "--quiet", "storagenode@1.service", "storagenode@2.service")
    # A script that becomes the node: only the process shows it.
    node(container, "gamma", 14105)
    container.write("/opt/gamma.sh", "#!/bin/sh\nexec /var/lib/gamma/storagenode run --config-dir /etc/gamma\n", 0o755)
    container.unit("gamma.service", service("/opt/gamma.sh"))
    # What is none: a shell's text, a program that a file names, our own, the name of a container, a masked node.
    container.unit("shell.service", service('/bin/sh -c "/usr/bin/storagenode run --config-dir /etc/shell"'))
    container.write("/etc/default/named", "BIN=/var/lib/alpha/storagenode\n")
    named = "Environment=BIN=/var/lib/beta/storagenode\nEnvironmentFile=/etc/default/named"
    container.unit("named.service", service("/usr/bin/nice ${BIN} run --config-dir /etc/named", named))
    container.unit("worker.service", service(f"{PROGRAMS}/storagenode-remediate run --yes alpha"))
    container.unit("docker.service", service("/usr/bin/env run --name storagenode storjlabs/storagenode:latest"))
    container.systemctl("mask", "masked.service")
    # And one that nothing manages.
    node(container, "delta", 14106)
    container.run(["mv", "/etc/delta", "/home/dora/node"])
    container.run(["chown", "-R", "dora", "/home/dora/node"])
    container.systemctl("daemon-reload")
    container.systemctl("start", "beta", "storagenode@2", "gamma")


def test_all_that_there_is_to_see_is_found_by_root(host: Host) -> None:
    done = host.exporter("discover")
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)
    nodes = host.nodes(done.stdout)
    written = {each["name"]: each for each in yaml.safe_load(done.stdout)["nodes"]}
    assert written["alpha"] == {
        "name": "alpha",
        "service": "systemd:alpha.service",
        "binary": "/var/lib/alpha/storagenode",
        "config_dir": "/etc/alpha",
        "api": "127.0.0.1:14101",
        "identity": "/etc/alpha/identity.cert",
        "node_id": host.identity,
        "storage": "/srv/alpha",
        "updater_service": "systemd:watch-alpha.service",
    }
    assert "updater_service: systemd:watch-alpha.service  # it looks every 1m\n" in done.stdout
    beta = written["beta"]
    assert (beta["binary"], beta["config_dir"], beta["storage"]) == ("/usr/local/bin/node-b", "/etc/beta", "/srv/beta")
    assert (beta["api"], beta["node_id"]) == ("127.0.0.1:14102", OTHER_ID)
    epsilon = written["epsilon"]
    assert (epsilon["config_dir"], epsilon["storage"]) == ("/etc/epsilon", "/srv/e p")
    assert epsilon["api"] == "127.0.0.1:14107"
    assert epsilon["updater_service"] == "systemd:watch-epsilon.service"
    assert "# variables were not read" not in done.stdout
    for number in (1, 2):
        each = written[f"storagenode-{number}"]
        assert each["service"] == f"systemd:storagenode@{number}.service"
        assert (each["binary"], each["config_dir"]) == ("/usr/bin/storagenode", f"/etc/sn{number}")
        assert each["identity"] == f"/etc/sn{number}/identity.cert"
        assert each["updater_service"] == f"systemd:updates{number}.service"
        assert "node_id" not in each
    assert written["gamma"]["service"] == "systemd:gamma.service"
    assert written["gamma"]["binary"] == "/var/lib/gamma/storagenode"
    bare = written["home-dora-node"]
    start = ["/var/lib/delta/storagenode", "run", "--config-dir", "/home/dora/node"]
    assert bare["service"] == {"process": {"start": start, "user": "dora"}}
    assert (bare["binary"], bare["api"]) == ("/var/lib/delta/storagenode", "127.0.0.1:14106")
    assert list(nodes) == ["alpha", "beta", "epsilon", "storagenode-1", "storagenode-2", "gamma", "home-dora-node"]
    assert "127.0.0.1:1\n" not in done.stdout
    assert "version" not in done.stdout
    assert "docker" not in done.stdout


def test_anybody_else_is_told_what_could_not_be_seen(host: Host) -> None:
    done = host.exporter("discover", prefix=NOBODY)
    assert done.returncode == 0
    print(done.stdout)
    nodes = host.nodes(done.stdout)
    assert "# As root more can be seen" in done.stdout
    denied = "/etc/alpha/config.yaml: Permission denied\n"
    assert f"    # api: 127.0.0.1:14002 is assumed: {denied}" in done.stdout
    assert f"    # storage: {denied}" in done.stdout
    assert f"    # identity: {denied}" in done.stdout
    assert nodes["alpha"].config_dir == Path("/etc/alpha")
    assert nodes["alpha"].binary == Path("/var/lib/alpha/storagenode")
    assert nodes["alpha"].updater_service is not None
    assert nodes["alpha"].updater_service.unit == "watch-alpha.service"
    assert nodes["beta"].storage == Path("/srv/beta")
    assert {"alpha", "beta", "epsilon", "storagenode-1", "storagenode-2"} <= set(nodes)
    denied = "/etc/default/epsilon: Permission denied"
    unread = f"variables were not read from /etc/default/epsilon.env: Permission denied; {denied}\n"
    assert f"    service: systemd:epsilon.service  # {unread}" in done.stdout


def test_a_node_run_by_hand_beside_its_unit_is_one_node(host: Host) -> None:
    program = ["/var/lib/alpha/storagenode", "run", "--config-dir", "/etc/alpha"]
    by_hand = host.container.popen(program)
    try:
        wait_answers(host.container, "http://127.0.0.1:14101/api/sno/")
        text = host.exporter("discover").stdout
    finally:
        by_hand.kill()
        by_hand.communicate()
    assert "alpha" in host.nodes(text)
    assert "etc-alpha" not in host.nodes(text)
    remark = f"runs a node that is listed, but not where it is listed: {' '.join(program)}\n"
    assert remark in text


def test_what_is_printed_works_as_it_is(host: Host) -> None:
    host.container.write("/etc/printed.yml", host.exporter("discover").stdout)
    done = host.exporter("check", "--json", "--config.file", "/etc/printed.yml")
    seen = {each["node"]: each for each in json.loads(done.stdout)}
    assert {name: each["service"]["state"] for name, each in seen.items()} == {
        "alpha": "stopped",
        "beta": "running",
        "epsilon": "stopped",
        "storagenode-1": "stopped",
        "storagenode-2": "running",
        "gamma": "running",
        "home-dora-node": "running",
    }
    plan = host.container.run(
        [PROGRAMS / "storagenode-remediate", "plan", "alpha", "--config.file", "/etc/printed.yml"], check=False
    )
    assert plan.returncode != 2


def test_without_a_configuration_the_nodes_are_discovered(host: Host) -> None:
    done = host.exporter("check", "--json")
    assert done.returncode == 4  # there is no version server here
    assert [each["node"] for each in json.loads(done.stdout)][:2] == ["alpha", "beta"]
    assert 'message="no configuration file, the nodes were discovered"' in done.stderr
    page, logged = serve_once(host.container, "/metrics")
    assert 'storagenode_service_state{manager="systemd",node="beta",state="running"} 1.0' in page
    assert logged[0]["message"] == "no configuration file, the nodes were discovered"
    assert logged[0]["nodes"].startswith("alpha, beta, ")
    plan = host.container.run([PROGRAMS / "storagenode-remediate", "plan", "alpha"], check=False)
    assert plan.returncode != 2


def test_a_file_that_was_asked_for_has_to_be_there(host: Host) -> None:
    for path in ("/etc/storagenode-keeper.yml", "/etc/none.yml"):
        done = host.exporter("check", "--config.file", path)
        assert (done.returncode, done.stderr) == (
            2,
            f"error: {path}: cannot be read: No such file or directory\n",
        )


def test_with_no_node_it_says_what_it_looked_for(host: Host) -> None:
    for done in host.empty.values():
        assert done.returncode == 2
        assert "no storage node was found on this host" in done.stderr
        assert "systemd services whose ExecStart" in done.stderr
        assert "service: systemd:storagenode.service" in done.stderr
    assert "no storage node was found on this host" in host.empty_page
    assert "service: systemd:storagenode.service" in host.empty_page


def test_what_systemd_says_need_not_be_said_again(host: Host) -> None:
    container = host.container
    nodes = [
        {"name": "a", "service": "systemd:alpha.service"},
        {"name": "b", "service": "systemd:storagenode@2.service"},
        {"name": "c", "service": "systemd:beta.service"},
        {"name": "d", "service": "systemd:storagenode@1.service", "updater_service": "systemd:other.service"},
    ]
    container.write("/etc/short.yml", yaml.safe_dump({"nodes": nodes}))
    code = (
        "import pathlib; from exporter.discover import load_or_discover as load;"
        "[print(n.binary, n.config_dir, n.api, n.storage, n.identity, n.updater_service and n.updater_service.unit)"
        " for n in load(pathlib.Path('/etc/short.yml')).nodes]"
    )
    python: list[str | Path] = [PROGRAMS / "python", "-c", code]
    seen = container.run(python).stdout.splitlines()
    assert seen == [
        "/var/lib/alpha/storagenode /etc/alpha 127.0.0.1:14101 /srv/alpha /etc/alpha/identity.cert watch-alpha.service",
        "/usr/bin/storagenode /etc/sn2 127.0.0.1:14104 /etc/sn2/storage None updates2.service",  # no identity.cert
        "/usr/local/bin/node-b /etc/beta 127.0.0.1:14102 /srv/beta None None",
        "/usr/bin/storagenode /etc/sn1 127.0.0.1:14103 /etc/sn1/storage None other.service",
    ]
    seen = container.run([*NOBODY, *python]).stdout.splitlines()  # several with the same API address assumed have none
    assert seen[:2] == [
        "/var/lib/alpha/storagenode /etc/alpha None None None watch-alpha.service",
        "/usr/bin/storagenode /etc/sn2 None None None updates2.service",
    ]
    for name, reason in {
        "shell": "the ExecStart of shell.service is not seen to run a storagenode",
        "none": "the ExecStart of none.service is not seen to run a storagenode",
    }.items():
        container.write("/etc/short.yml", f"nodes:\n- {{name: a, service: 'systemd:{name}.service'}}\n")
        done = host.exporter("check", "--config.file", "/etc/short.yml")
        assert done.returncode == 2
        assert done.stderr == f"error: /etc/short.yml: nodes.0.binary: missing, and {reason}\n"
