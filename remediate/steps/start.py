"""Starting a node after its update, and waiting until it has shown that it runs."""

import os
import time
from pathlib import Path

import yaml

from exporter.config import NodeConfig
from exporter.sources import node_api
from exporter.status import DOWN, Failure, ServiceState
from exporter.version import NodeVersion
from remediate.files import Directory
from remediate.journal import Outcome
from remediate.services import ServiceControl
from remediate.services.errors import ServiceError
from remediate.steps.confirm import Look

_MARKER = "storage-dir-verification"
"""What a node keeps in its storage to know it by (storj/storj, storagenode/blobstore/filestore)."""
_SIZE_LIMIT = 1 << 20
_LOOK_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_STAYS_UP_SECONDS = 3.0
"""A node that cannot run ends within a second, as seen of upstream's; its API answers only after it has started."""

Result = tuple[Outcome, str]


def start(node: NodeConfig, control: ServiceControl, look: Look, target: NodeVersion, *, patience: float) -> Result:
    """Start a node and watch it until its API says the target and it has stayed up.

    A node that runs without answering may be migrating its databases: after `patience` seconds it is left as it is,
    unconfirmed.
    """
    if (missing := storage_missing(node)) is not None:
        return Outcome.START_FAILED, f"{node.name} was not started: {missing}"
    try:
        control.start()
    except ServiceError as error:
        return Outcome.START_FAILED, str(error)
    return _confirm(node, look, target, time.monotonic() + patience)


def _confirm(node: NodeConfig, look: Look, target: NodeVersion, deadline: float) -> Result:
    answered: float | None = None
    problem = "no answer yet"
    while (now := time.monotonic()) < deadline:
        service = look(node)
        if service.state in DOWN:
            return Outcome.START_FAILED, f"{node.name} did not stay up: {service.detail}"
        running = node_api.read(node.api, _LOOK_SECONDS)
        if isinstance(running, Failure):
            answered, problem = None, str(running)
        elif running.version != target:
            answered, problem = None, f"the API says {running.version}"
        else:
            answered = now if answered is None else answered
            if now - answered >= _STAYS_UP_SECONDS and service.state is ServiceState.RUNNING:
                return Outcome.UPDATED, f"{node.name} runs {target}"
        time.sleep(_PAUSE_SECONDS)
    return Outcome.UNCONFIRMED, f"{node.name} was started and has not shown {target}: {problem}"


def storage_missing(node: NodeConfig) -> str | None:
    """Say why the node must not be started without its storage: it would lose its audits within hours."""
    storage = node.storage or _configured_storage(node)
    if storage is None:
        return "its storage is not known, set `storage` or `config_dir`"
    try:
        _read(storage, _MARKER)
    except (OSError, ValueError) as error:
        problem = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return f"its storage may not be there, {storage / _MARKER}: {problem}"
    return None


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
