import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from exporter.commandline import Command, Program
from exporter.identity import NodeIDError
from exporter.nodefiles import Launch, node_id, settings, updater_settings


def launch(*arguments: str, **environment: str) -> Launch:
    command = Command(program=Program.STORAGENODE, path="/usr/bin/storagenode", arguments=("run", *arguments))
    return Launch(command=command, environment=environment)


def write(folder: Path, text: str) -> Launch:
    (folder / "config.yaml").write_text(text)
    return launch("--config-dir", str(folder))


def test_the_config_file_is_read(tmp_path: Path) -> None:
    node = write(
        tmp_path,
        '# a comment\nconsole.address: "127.0.0.1:14003"\nidentity.cert-path: /id/identity.cert # here\n\n'
        "storage.path: /mnt/with a space\n# storage.path: /not/this\nother: [\n",
    )
    assert settings(node).values == {
        "config_dir": str(tmp_path),
        "api": "127.0.0.1:14003",
        "storage": "/mnt/with a space",
        "identity": "/id/identity.cert",
    }
    assert settings(node).unseen == {}


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    write(tmp_path, "console.address: 127.0.0.1:1\nstorage.path: /file\n")
    node = launch("--config-dir", str(tmp_path), "--console.address=:3", STORJ_CONSOLE_ADDRESS=":2")
    assert settings(node).values["api"] == "127.0.0.1:3"
    node = launch("--config-dir", str(tmp_path), STORJ_CONSOLE_ADDRESS=":2", STORJ_STORAGE_PATH="/env")
    assert settings(node).values["api"] == "127.0.0.1:2"
    assert settings(node).values["storage"] == "/env"


def test_what_is_not_said_is_upstreams_default(tmp_path: Path) -> None:
    (tmp_path / "storj" / "storagenode").mkdir(parents=True)
    (tmp_path / "storj" / "storagenode" / "config.yaml").touch()
    seen = settings(launch(XDG_DATA_HOME=str(tmp_path)))
    assert seen.values == {
        "config_dir": f"{tmp_path}/storj/storagenode",
        "api": "127.0.0.1:14002",
        "storage": f"{tmp_path}/storj/storagenode/storage",
        "identity": f"{tmp_path}/storj/identity/storagenode/identity.cert",
    }
    assert settings(launch(HOME="/home/a")).values["config_dir"] == "/home/a/.local/share/storj/storagenode"
    unknown = settings(Launch(command=None, user="no-such-user"))
    assert unknown.values == {}
    assert set(unknown.unseen) == {"config_dir", "api", "identity", "storage"}


@pytest.mark.parametrize(
    ("address", "api"),
    [
        (":14002", "127.0.0.1:14002"),
        ("0.0.0.0:14002", "127.0.0.1:14002"),
        ("localhost:14002", "127.0.0.1:14002"),
        ("127.0.0.5:1", "127.0.0.5:1"),
        ("'[::]:14002'", "[::1]:14002"),
        ("192.0.2.1:14002", None),
        ("example.com:80", None),
        ("127.1:80", None),
        ("127.0.0.1:0", None),
        ("127.0.0.1:65536", None),
        ("127.0.0.1", None),
        ("'127.0.0.1:80/path'", None),
        ("'127.0.0.1@192.0.2.1:80'", None),
        ('"127.0.0.1:80\\n"', None),
    ],
)
def test_an_address_is_taken_only_if_it_is_this_hosts(tmp_path: Path, address: str, api: str | None) -> None:
    seen = settings(write(tmp_path, f"console.address: {address}\n"))
    assert seen.values.get("api") == api
    assert ("api" in seen.unseen) == (api is None)


@pytest.mark.parametrize("path", ["storage", "/a/../b", '"/a\\nnode_id: x"', '"/a\\u2028"', "$CONFDIR/storage"])
def test_a_path_that_cannot_be_taken_is_said(tmp_path: Path, path: str) -> None:
    seen = settings(write(tmp_path, f"storage.path: {path}\n"))
    assert "storage" not in seen.values
    assert "expected an absolute path" in seen.unseen["storage"]


def test_where_versions_come_from_is_never_taken_from_it(tmp_path: Path) -> None:
    seen = settings(write(tmp_path, "version.server-address: https://evil.example\nbinary: /evil\n"))
    assert "evil" not in str(seen)


@pytest.mark.parametrize("kind", ["missing", "fifo", "folder", "huge", "binary", "loop", "deep", "tag"])
def test_a_file_that_cannot_be_read_is_said_and_costs_no_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "binary":
            path.write_bytes(b"console.address: \xff\n")
        case "loop":
            path.symlink_to("config.yaml")
        case "deep":
            path.write_text(f"console.address: {'[' * 2000}\n" * 200)
        case "tag":
            path.write_text("console.address: !!python/object/apply:os.system [reboot]\n")
    began = time.monotonic()
    seen = settings(launch("--config-dir", str(tmp_path)))
    assert time.monotonic() - began < 10  # for ever, or for a terabyte, it would be
    assert set(seen.values) == {"config_dir"}
    assert set(seen.unseen) == {"api", "storage", "identity"}
    assert str(path) in seen.unseen["storage"]


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["console.address", "storage.path", "identity.cert-path"]))
def test_nothing_in_it_makes_us_fail(tmp_path: Path, content: bytes, key: str) -> None:
    (tmp_path / "config.yaml").write_bytes(key.encode() + b": " + content)
    seen = settings(launch("--config-dir", str(tmp_path)))
    assert all(value.isprintable() for value in seen.values.values())
    assert set(seen.values) | set(seen.unseen) == {"config_dir", "api", "storage", "identity"}


def test_an_identity_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("nothing")
    for name, problem in {"none": "No such file", "fifo": "not a regular file", "text": "found 0 certificates"}.items():
        with pytest.raises(NodeIDError, match=problem):
            node_id(str(tmp_path / name))


def test_what_an_updater_is_told(tmp_path: Path) -> None:
    directory = str(tmp_path)
    said = updater_settings(write(tmp_path, "version.check-interval: 1m0s\nservice-name: sn1\nstorage.path: /a\n"))
    assert said == {"config-dir": directory, "version.check-interval": "1m0s", "service-name": "sn1"}
    arguments = ("--version.check-interval", "2m", "--config-dir", directory)
    said = updater_settings(launch(*arguments, STORJ_BINARY_STORE_DIR="/store", STORJ_SERVICE_NAME="sn2"))
    assert said["version.check-interval"] == "2m"
    assert (said["service-name"], said["binary-store-dir"]) == ("sn2", "/store")
    assert updater_settings(write(tmp_path, "")) == {"config-dir": directory}
    assert updater_settings(launch(HOME="/h")) == {"config-dir": "/h/.local/share/storj/storagenode"}
    assert updater_settings(Launch(command=None, user="no-such-user")) == {}


def test_no_path_of_an_updater_can_be_more_than_a_path(tmp_path: Path) -> None:
    said = updater_settings(write(tmp_path, 'binary-location: "/a\\0b"\nbinary-store-dir: "/a\\nb"\n'))
    assert said == {"config-dir": str(tmp_path)}
