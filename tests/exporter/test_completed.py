"""What a configuration file leaves out of a node, on a host without systemd."""

import socket
import time
from pathlib import Path

import pytest
import yaml

from exporter.config import ConfigError, NodeConfig
from exporter.dbus import SYSTEM_BUS
from exporter.discover import load_or_discover


@pytest.fixture(autouse=True)
def no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    SYSTEM_BUS.close()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/not/there")


def loaded(tmp_path: Path, **node: object) -> NodeConfig:
    path = tmp_path / "keeper.yml"
    path.write_text(yaml.safe_dump({"nodes": [{"name": "a", "service": "process", **node}]}))
    return load_or_discover(path).nodes[0]


def test_a_nodes_own_settings_need_not_be_said_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"console.address: :14009\nstorage.path: /srv/a\nidentity.cert-path: {tmp_path}/id.cert\n"
    )
    (tmp_path / "id.cert").touch()
    node = loaded(tmp_path, binary="/b", config_dir=str(tmp_path))
    assert (node.api, node.storage, node.identity) == ("127.0.0.1:14009", Path("/srv/a"), tmp_path / "id.cert")
    # What is said counts, and an ID that is known needs no identity.
    node_id = "129MF8ha7SLjB4XECabmPHXCLoZ1tCvzfNx62fCzw84xSUqLGHJ"
    node = loaded(tmp_path, binary="/b", config_dir=str(tmp_path), api="127.0.0.1:1", storage="/c", node_id=node_id)
    assert (node.api, node.storage, node.identity) == ("127.0.0.1:1", Path("/c"), None)


def test_without_systemd_what_is_said_is_enough(tmp_path: Path) -> None:
    node = loaded(tmp_path, service="systemd:a.service", binary="/b")
    assert (node.binary, node.api, node.config_dir) == (Path("/b"), "127.0.0.1:14002", None)


def test_a_binary_that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keeper\.yml: nodes\.0\.binary: missing, and the system bus cannot be"):
        loaded(tmp_path, service="systemd:a.service")
    with pytest.raises(ConfigError, match=r"nodes\.0\.binary: missing, and expected the path of the storagenode"):
        loaded(tmp_path)
    for wrong in ("process", None, 3, ["process"], "systemd:", "systemd:x/../y.service\n"):
        with pytest.raises(ConfigError, match=r"nodes\.0\.binary: missing"):
            loaded(tmp_path, service=wrong)
    with pytest.raises(ConfigError, match=r"nodes\.0\.config_dir: "):
        loaded(tmp_path, binary="/b", config_dir=["x"])


@pytest.mark.slow
def test_a_bus_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.discover._SYSTEMD_SECONDS", 3)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        nodes = [{"name": f"n{n}", "service": f"systemd:n{n}.service", "binary": "/b"} for n in range(20)]
        (tmp_path / "keeper.yml").write_text(yaml.safe_dump({"nodes": nodes}))
        began = time.monotonic()
        assert len(load_or_discover(tmp_path / "keeper.yml").nodes) == 20
        assert 0.25 < time.monotonic() - began < 30  # for each of them it would be 60
