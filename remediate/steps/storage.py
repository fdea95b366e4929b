"""Whether a node's storage is there: a node that is started without it loses its audits within hours."""

import os
from pathlib import Path

import yaml

from exporter.config import NodeConfig
from exporter.identity import NodeIDError, node_id_bytes, read_node_id
from exporter.reading import Reading
from exporter.status import Failure
from remediate.files import Directory

_MARKER = "storage-dir-verification"
"""What a node keeps in its storage to know it by: its own ID (storj/storj, storagenode/blobstore/filestore/dir.go)."""
_ID_BYTES = 32
_SIZE_LIMIT = 1 << 20
_SECONDS = 30.0
"""For a disk that has to spin up."""


def storage_missing(node: NodeConfig) -> str | None:
    """Say why the node must not be started: its storage is not there, cannot be read, or is not its own.

    A disk may be so dead that who reads it waits for ever: that is said after half a minute.
    """
    found, _ = Reading(lambda _: _missing(node)).start(_SECONDS).result()
    return f"its storage cannot be looked at, {found.detail}" if isinstance(found, Failure) else found


def _missing(node: NodeConfig) -> str | None:
    storage = node.storage or _configured_storage(node)
    if storage is None:
        return "its storage is not known, set `storage` or `config_dir`"
    try:
        marker = _read(storage, _MARKER)
    except (OSError, ValueError) as error:
        problem = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return f"its storage may not be there, {storage / _MARKER}: {problem}"
    if len(marker) != _ID_BYTES:
        return f"its storage may be damaged, {storage / _MARKER}: has {len(marker)} bytes, expected the node's ID"
    own = _own_id(node)
    if own is not None and marker != own:
        return f"its storage is that of another node, {storage / _MARKER}: has another ID than {node.name}"
    return None


def _own_id(node: NodeConfig) -> bytes | None:
    """Return the node's ID, where it is configured or its identity can be read."""
    try:
        text = node.node_id or (read_node_id(node.identity) if node.identity else None)
    except NodeIDError:
        return None
    return node_id_bytes(text) if text else None


def _configured_storage(node: NodeConfig) -> Path | None:
    """Read the node's own configuration for its storage; the node's user may write there, so only this is taken."""
    if node.config_dir is None:
        return None
    try:
        content = yaml.safe_load(_read(node.config_dir, "config.yaml"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return None
    path = content.get("storage.path") if isinstance(content, dict) else None
    return Path(path) if isinstance(path, str) and path.startswith("/") else node.config_dir / "storage"


def _read(folder: Path, name: str) -> bytes:
    """Read a file that the node's user may have replaced by anything: a fifo, a link, an endless one."""
    with Directory(Path(os.path.realpath(folder))) as directory, os.fdopen(directory.open(name), "rb") as file:
        return file.read(_SIZE_LIMIT)
