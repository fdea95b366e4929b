"""discover on a host where upstream's own programs wrote the settings."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from exporter.config import load
from tests.labs.systemd import Container
from tests.labs.upstream import DEFECTIVE, StorjNode, serve_versions

pytestmark = [pytest.mark.upstream, pytest.mark.systemd]

PROGRAM = Path("/opt/storagenode-keeper/bin/storagenode-exporter")


def test_what_a_real_node_has_written_is_read(new_container: Callable[[], Container], tmp_path: Path) -> None:
    container = new_container()
    container.install_project()
    node = StorjNode(container, "alpha", number=1)
    serve_versions(container, minimum="1.100.1", suggested=DEFECTIVE.removeprefix("v"), url="")
    text = container.run([PROGRAM, "discover"]).stdout
    (written,) = yaml.safe_load(text)["nodes"]
    node_id = written.pop("node_id")
    assert written == {
        "name": "alpha",
        "service": f"systemd:{node.unit}",
        "binary": str(node.binary),
        "config_dir": str(node.config_dir),
        "api": node.api.removeprefix("http://"),
        "identity": f"{node.identity_dir}/identity.cert",
        "storage": str(node.storage),
        "updater_service": f"systemd:{node.updater_unit}",
    }
    (tmp_path / "keeper.yml").write_text(text)
    assert load(tmp_path / "keeper.yml").node("alpha")

    container.systemctl("start", node.unit)
    deadline = time.monotonic() + 40
    while True:
        try:
            assert node.status()["nodeID"] == node_id
            break
        except OSError:
            assert time.monotonic() < deadline, container.journal(node.unit)
            time.sleep(0.1)
    # Anybody else gets the ID from the API, if the node's address is the usual one; here it is not.
    done = container.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", PROGRAM, "discover"])
    assert "# api: 127.0.0.1:14002 is assumed: /etc/alpha/config.yaml: Permission denied" in done.stdout
    assert "node_id" not in yaml.safe_load(done.stdout)["nodes"][0]
