"""A node's storage: when the node must not be started."""

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.config import NodeConfig
from exporter.identity import node_id_bytes
from remediate.steps import storage
from remediate.steps.storage import storage_missing
from tests.simulators.node import configure

NODE_ID = "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"
MARKER = "storage/storage-dir-verification"


def node(folder: Path, **settings: Any) -> NodeConfig:
    service = {"name": "alpha", "service": "process", "binary": "/bin/sh"}
    return NodeConfig.model_validate({**service, "config_dir": str(folder), **settings})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    configured = configure(tmp_path / "alpha", {})
    (configured / MARKER).write_bytes(node_id_bytes(NODE_ID))
    return configured


def test_storage_that_is_there_is_where_the_node_says_or_we_are_told(folder: Path, tmp_path: Path) -> None:
    assert storage_missing(node(folder)) is None
    assert storage_missing(node(folder, node_id=NODE_ID)) is None
    (folder / "storage").rename(tmp_path / "disk")
    assert "No such file" in str(storage_missing(node(folder)))
    assert storage_missing(node(folder, storage=str(tmp_path / "disk"))) is None
    (folder / "config.yaml").write_text(f"storage.path: {tmp_path}/disk\n")
    assert storage_missing(node(folder)) is None


def test_that_of_another_node_is_not_its_own(folder: Path) -> None:
    (folder / MARKER).write_bytes(bytes(32))
    assert storage_missing(node(folder)) is None, "whose it is cannot be told"
    assert "is that of another node" in str(storage_missing(node(folder, node_id=NODE_ID)))
    assert storage_missing(node(folder, identity=str(folder / "nowhere"))) is None, "nor with an identity that is gone"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("rm", "No such file or directory"),
        ("unmount", "No such file or directory"),
        ("directory", "Invalid argument"),
        ("fifo", "Invalid argument"),
        ("link", "Too many levels of symbolic links"),
        ("empty", "may be damaged"),
        ("long", "may be damaged"),
        ("unknown", "its storage is not known"),
    ],
)
def test_what_is_not_there_or_cannot_be_read(folder: Path, harm: str, said: str) -> None:
    marker = folder / MARKER
    content = marker.read_bytes()
    marker.unlink()
    match harm:
        case "unmount":
            marker.parent.rmdir()
        case "directory":
            marker.mkdir()
        case "fifo":
            os.mkfifo(marker)
        case "link":
            marker.symlink_to("/etc/passwd")
        case "empty":
            marker.touch()
        case "long":
            marker.write_bytes(content * 2)
        case "unknown":
            (folder / "config.yaml").write_text("[")
    assert said in str(storage_missing(node(folder)))


@pytest.fixture
def dead_disk(folder: Path) -> Iterator[Path]:
    """A file system that never answers: FUSE, and nobody reads what it asks."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root and /dev/fuse")
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    where = bytes(folder / "storage")
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"dead", where, b"fuse", 0, options) != 0:
            pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
        yield folder
    finally:
        os.close(fuse)  # who waits for it is told that it is gone
        libc.umount2(where, 2)


def test_a_disk_that_does_not_answer_is_not_waited_for(dead_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_SECONDS", 0.3)
    began = time.monotonic()
    assert "its storage cannot be looked at, no answer within 0.3 s" in str(storage_missing(node(dead_disk)))
    assert time.monotonic() - began < 20
