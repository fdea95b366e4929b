"""Setting the boards up: Grafana's provisioning files, the stack in containers, and the README's commands."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documents import blocks
from tests.grafana.boards import BOARDS, GRAFANA, ROOT
from tests.labs.prometheus import amtool, program, promtool

COMPOSE: dict[str, Any] = yaml.safe_load((GRAFANA / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TOKEN = Path("/etc/prometheus/storagenode-keeper.token")
KEYS = {"image", "network_mode", "restart", "group_add", "command", "environment", "volumes"}
"""Of those that Compose knows."""
README = GRAFANA / "README.md"


def mounts(service: str) -> dict[Path, Path]:
    """Return which folders of ours and of the host a container finds where; of a named volume, its name."""
    found = dict[Path, Path]()
    for mount in SERVICES[service]["volumes"]:
        if isinstance(mount, dict):
            assert (mount["type"], mount["read_only"], mount["bind"]) == ("bind", True, {"create_host_path": False})
            found[Path(mount["target"])] = Path(mount["source"])
            continue
        source, target, *mode = mount.split(":")
        if source.startswith("."):
            assert mode == ["ro"], mount
            # A container would go on seeing a single file when another has taken its name.
            assert (GRAFANA / source).is_dir(), mount
            found[Path(target)] = (GRAFANA / source).resolve()
        else:
            assert source in COMPOSE["volumes"], mount
            found[Path(target)] = Path(source)
    return found


def seen(service: str, path: str | Path) -> Path:
    """Return what a container finds at a path, outside of it."""
    (found,) = (
        source / Path(path).relative_to(at) for at, source in mounts(service).items() if Path(path).is_relative_to(at)
    )
    return found


def test_provisioning() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", "prometheus")
    assert source["url"] == f"http://{_option('prometheus', 'web.listen-address')}"
    scraped = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    assert _provider()["type"] == "file"
    assert _provider()["allowUiUpdates"] is False


def test_images_are_pinned_and_only_loopback_is_listened_on() -> None:
    assert set(SERVICES) == {"prometheus", "alertmanager", "grafana"}
    for service in SERVICES.values():
        assert {*service} <= KEYS
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), service["image"]
        assert service["network_mode"] == "host"
        assert "ports" not in service
    assert _option("prometheus", "web.listen-address").startswith("127.0.0.1:")
    assert _option("alertmanager", "web.listen-address").startswith("127.0.0.1:")
    assert _option("alertmanager", "cluster.listen-address") == ""
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_what_is_mounted_is_there_and_is_what_the_programs_read() -> None:
    config = seen("prometheus", _option("prometheus", "config.file"))
    assert config == GRAFANA / "prometheus.yml"
    (rules,) = yaml.safe_load(config.read_text())["rule_files"]
    inside = os.path.normpath(Path(_option("prometheus", "config.file")).parent / rules)
    assert seen("prometheus", inside) == ROOT / "alerts/storagenode.rules.yml"
    routes = seen("alertmanager", _option("alertmanager", "config.file"))
    assert routes == ROOT / "alerts/alertmanager.example.yml"
    assert seen("prometheus", _option("prometheus", "storage.tsdb.path")) == Path("prometheus")
    assert seen("alertmanager", _option("alertmanager", "storage.path")) == Path("alertmanager")
    for service, file in (("prometheus", config), ("alertmanager", routes)):
        assert f"credentials_file: {TOKEN}" in file.read_text()
        assert seen(service, TOKEN) == TOKEN
    grafana = mounts("grafana")
    assert grafana[Path("/etc/grafana/provisioning")] == GRAFANA / "provisioning"
    folder = Path(_provider()["options"]["path"])
    assert {*grafana[folder].rglob("*.json")} == {*BOARDS}
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert grafana[folder] / home.relative_to(folder) in BOARDS


def test_the_stack_is_that_of_the_readme() -> None:
    (ours,) = (block.text for block in blocks(file=ROOT / "README.md") if "scrape_configs:" in block.text)
    told, given = yaml.safe_load(ours), yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    assert given["scrape_configs"] == told["scrape_configs"]
    assert given["alerting"] == told["alerting"]


@pytest.mark.prometheus
def test_the_programs_take_their_configurations_and_options(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    for source in (GRAFANA / "prometheus.yml", *(ROOT / "alerts").glob("*.yml")):
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(source.read_text().replace(str(TOKEN), str(tmp_path / "token")))
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", tmp_path / "grafana/prometheus.yml").stdout
    amtool("check-config", tmp_path / "alerts/alertmanager.example.yml")
    for name, service in (("prometheus", "prometheus"), ("prometheus-alertmanager", "alertmanager")):
        helped = subprocess.run([program(name), "--help"], capture_output=True, text=True)
        for option in SERVICES[service]["command"]:
            assert f"{option.partition('=')[0]}=" in helped.stdout + helped.stderr, option


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to the group of the containers, which root alone may")
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/storagenode-keeper.token").write_text("secret")
    asked = [command for block in blocks("boards", README) for command in block.commands]
    assert asked
    for command in asked:
        here = re.sub(r" /(etc|var)/", rf" {tmp_path}/\1/", command)
        assert here != command, "it touches nothing but what the test has made"
        subprocess.run(here, shell=True, check=True, cwd=ROOT)
    found = sorted((tmp_path / _provider(tmp_path / "etc/grafana")["options"]["path"].removeprefix("/")).iterdir())
    assert [(file.name, file.read_text()) for file in found] == [(board.name, board.read_text()) for board in BOARDS]
    assert (tmp_path / "etc/grafana/provisioning/datasources/prometheus.yml").exists()
    token = tmp_path / TOKEN.relative_to("/")
    status = token.stat()
    assert (token.read_text(), status.st_uid, status.st_mode & 0o777) == ("secret", 0, 0o440)
    for service in ("prometheus", "alertmanager"):
        assert SERVICES[service]["group_add"] == [str(status.st_gid)]
    assert "group_add" not in SERVICES["grafana"]


def _option(service: str, name: str) -> str:
    (value,) = (
        each.removeprefix(f"--{name}=") for each in SERVICES[service]["command"] if each.startswith(f"--{name}=")
    )
    return str(value)


def _provider(folder: Path = GRAFANA) -> dict[str, Any]:
    path = folder / "provisioning/dashboards/storagenode-keeper.yml"
    (provider,) = yaml.safe_load(path.read_text())["providers"]
    found: dict[str, Any] = provider
    return found
