from datetime import timedelta
from pathlib import Path

import pytest

from exporter.config import Config, ConfigError, NodeConfig, ProcessService, SystemdService, load, validate

NODE = "name: n1\n  service: systemd:storagenode.service\n  binary: /usr/local/bin/storagenode\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keeper.yml"
    path.write_text(text)
    return path


def test_the_shortest_configuration(tmp_path: Path) -> None:
    config = load(write(tmp_path, f"nodes:\n- {NODE}"))
    (node,) = config.nodes
    assert node.service == SystemdService(unit="storagenode.service")
    assert node.api == "127.0.0.1:14002"
    assert config.version_server == "https://version.storj.io"
    assert config.refresh == timedelta(minutes=5)
    assert config.allowed_versions_max_age == timedelta(hours=24)
    assert config.node("n1") is node
    assert config.node("n2") is None


def test_an_address_is_assumed_for_one_node_at_most(tmp_path: Path) -> None:
    nodes = ["- {name: a, service: process, binary: /b}\n", "- {name: b, service: process, binary: /b}\n"]
    assert [node.api for node in load(write(tmp_path, f"nodes:\n{''.join(nodes)}")).nodes] == [None, None]
    usual, other = "127.0.0.1:14002", "127.0.0.1:1"
    for said, expected in ((usual, [None, usual]), (other, [usual, other])):
        nodes[1] = f"- {{name: b, service: process, binary: /b, api: '{said}'}}\n"
        assert [node.api for node in load(write(tmp_path, f"nodes:\n{''.join(nodes)}")).nodes] == expected


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            """
version_server: http://127.0.0.1:8080/
refresh: 90s
allowed_versions_max_age: 1d12h
state_dir: /tmp/state
web: {token_file: /etc/token}
remediation: {anything: [at, all]}
nodes:
- name: bare.1_a-b
  service: {process: {pid_file: /run/node.pid, start: [/opt/storagenode, run], user: storj}}
  binary: /opt/storagenode
  api: "[::1]:14003"
  config_dir: /srv/node
  identity: /srv/identity
  node_id: 129MF8ha7SLjB4XECabmPHXCLoZ1tCvzfNx62fCzw84xSUqLGHJ
  storage: /srv/storage
  updater_service: systemd:storagenode-updater@1.service
- name: other
  service: process
  binary: /opt/other
""",
        )
    )
    assert config.version_server == "http://127.0.0.1:8080"
    assert config.allowed_versions_max_age == timedelta(hours=36)
    assert config.nodes[0].service == ProcessService(
        pid_file=Path("/run/node.pid"), start=("/opt/storagenode", "run"), user="storj"
    )
    assert config.nodes[0].updater_service == SystemdService(unit="storagenode-updater@1.service")
    assert config.nodes[1].service == ProcessService()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "found NoneType, expected keys and values"),
        ("just words", "found str, expected keys and values"),
        ("nodes: [", "not YAML"),
        ("nodes: !!python/object/apply:os.system [reboot]", "not YAML"),
        ("\x00", "not YAML"),
        ("{}", "nodes: missing"),
        ("nodes: []", "nodes: empty, expected at least one node"),
        ("nodes: 3", "nodes: .*found '3'"),
        (f"nodes:\n- {NODE}version_servr: https://x", "version_servr: unknown key"),
        (f"version: 2\nnodes:\n- {NODE}", "version: Input should be 1, found '2'"),
        (f"version: '1'\nnodes:\n- {NODE}", "version: Input should be 1"),
        (f"nodes:\n- {NODE}refresh: {'9' * 40}w", "refresh: expected a shorter duration"),
        (f"nodes:\n- {NODE}  servise: x", "nodes.0.servise: unknown key"),
        (f"nodes:\n- {NODE}- {NODE}", "the name 'n1' is given to 2 nodes, expected one each"),
        ("nodes:\n- " + NODE.replace("/usr/local/bin/", "bin/"), "nodes.0.binary: expected an absolute path"),
        ("nodes:\n- " + NODE.replace("/bin/", "/../"), "nodes.0.binary: expected an absolute path"),
        ("nodes:\n- " + NODE.replace("/usr/local/bin/storagenode", "[]"), "nodes.0.binary: .*found"),
        ("nodes:\n- " + NODE.replace("n1", '"../n1"'), "nodes.0.name: .*found '../n1'"),
        ("nodes:\n- " + NODE.replace("n1", '"$(reboot)"'), r"nodes.0.name: .*found '\$\(reboot\)'"),
        ("nodes:\n- " + NODE.replace("n1", "a" * 65), "nodes.0.name: "),
        ("nodes:\n- " + NODE.replace("n1", '"n1\\n"'), "nodes.0.name: "),
        ("nodes:\n- " + NODE.replace("n1", "3"), "nodes.0.name: .*string.*found '3'"),
        ("nodes:\n- " + NODE.replace("systemd:", "systemd:../"), "nodes.0.service"),
        ("nodes:\n- " + NODE.replace(".service\n", ".timer\n"), "nodes.0.service"),
        (
            "nodes:\n- " + NODE.replace("systemd:storagenode.service", "docker"),
            "nodes.0.service: expected systemd:UNIT",
        ),
        ("nodes:\n- " + NODE.replace("systemd:storagenode.service", "{process: {pid: 3}}"), "pid: unknown key"),
        (f"nodes:\n- {NODE}  api: 14002", "nodes.0.api: "),
        (f"nodes:\n- {NODE}  api: null", "nodes.0.api: expected host:port"),
        (f"nodes:\n- {NODE}  api: localhost", "nodes.0.api: expected host:port"),
        (f"nodes:\n- {NODE}  api: localhost:70000", "nodes.0.api: expected host:port"),
        (f"nodes:\n- {NODE}  api: http://localhost:1/x", "nodes.0.api: expected host:port"),
        (f"nodes:\n- {NODE}  node_id: 12xyz", "nodes.0.node_id: not a node ID"),
        (f"nodes:\n- {NODE}refresh: 300", "refresh: expected a duration such as .*found '300'"),
        (f"nodes:\n- {NODE}refresh: 5 minutes", "refresh: expected a duration"),
        (f"nodes:\n- {NODE}version_server: http://version.storj.io", "version_server: expected https"),
        (f"nodes:\n- {NODE}version_server: file:///etc/passwd", "version_server: expected"),
        (f"nodes:\n- {NODE}version_server: https://user@host", "version_server: expected"),
        (f"nodes:\n- {NODE}web: {{token_file: token}}", "web.token_file: expected an absolute path"),
    ],
)
def test_bad_configurations_are_refused_with_one_clear_line(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=problem) as error:
        load(path)
    for line in str(error.value).splitlines():
        assert line.startswith(f"{path}: ")
        assert len(line) < 400


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, "nodes:\n- {name: n1, service: x, binary: y}\nrefresh: z"))
    assert len(str(error.value).splitlines()) == 3


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read: No such file or directory"):
        load(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_parts_are_validated_by_themselves() -> None:
    node = validate(NodeConfig, {"name": "a", "service": "process", "binary": "/b"}, source="here")
    assert validate(Config, {"nodes": [node]}, source="here").nodes == (node,)
    with pytest.raises(ConfigError, match="here: name: missing"):
        validate(NodeConfig, {"service": "process", "binary": "/b"}, source="here")
