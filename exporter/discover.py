"""The nodes on this host, found by what systemd starts and by what runs, as our configuration describes them."""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from exporter.commandline import Program
from exporter.config import DEFAULT_PATH, Config, ConfigError, NodeConfig, read, validate
from exporter.identity import NodeIDError, node_id_bytes
from exporter.nodefiles import DEFAULT_API, Launch, Settings, node_id, settings, updater_settings
from exporter.running import Running, hides_others, storagenodes
from exporter.sources import node_api
from exporter.status import RunningNode
from exporter.units import Unit, UnitError, read_unit, runs, storj_units
from exporter.updaters import updaters_of

logger = logging.getLogger(__name__)

_SYSTEMD_SECONDS = 10.0
_API_SECONDS = 2.0
_NAME_LENGTH = 64


class NoNodeError(ConfigError):
    """There is no configuration, and no node was found; the text says what was looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A node: what to configure for it, and remarks on keys of the configuration."""

    config: dict[str, Any]
    remarks: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The nodes found on this host, and what could not be seen."""

    nodes: tuple[Found, ...]
    remarks: tuple[str, ...]


def discover() -> Discovery:
    """Look for storage nodes: units of systemd in whatever state, and running processes that no unit owns."""
    remarks = []
    found_units: list[Unit] = []
    try:
        found_units = storj_units(_SYSTEMD_SECONDS)
    except UnitError as error:
        remarks.append(f"units were not looked at: {error}")
    found = [_of_unit(unit, found_units) for unit in found_units if runs(unit, Program.STORAGENODE)]
    known = {unit.name for unit in found_units}
    for running in storagenodes():
        if running.unit not in known:
            node = _of_process(running, [each.config for each in found], found_units)
            if isinstance(node, Found):
                found.append(node)
            else:
                remarks.append(node)
    if hides_others():
        remarks.append("processes were not looked at: /proc hides those of others from us")
    return _named(found, remarks)


def load_or_discover(path: Path, *, names_suffice: bool = False) -> Config:
    """Read the configuration file, and let systemd and the nodes' own settings say what it leaves out of a node.

    Where their names suffice, nobody is asked. With no file at the default path, the nodes on this host are discovered.

    Raises:
        ConfigError: the file cannot be used.
        NoNodeError: there is no file at the default path, and no node was found.
    """
    if path != DEFAULT_PATH or os.path.lexists(path):
        content = read(path)
        nodes = content.get("nodes")
        if isinstance(nodes, list):
            content = content | {"nodes": _with_no_binary(nodes) if names_suffice else _all_completed(nodes, path)}
        return validate(Config, content, source=str(path))
    found = discover()
    if not found.nodes:
        raise NoNodeError(nothing_found(found))
    config = validate(Config, {"nodes": [node.config for node in found.nodes]}, source="discovered")
    names = ", ".join(node.name for node in config.nodes)
    logger.info("no configuration file, the nodes were discovered", extra={"file": str(path), "nodes": names})
    return config


def _with_no_binary(nodes: list[Any]) -> list[Any]:
    return [{"binary": os.devnull} | node if isinstance(node, dict) else node for node in nodes]


def _all_completed(nodes: list[Any], path: Path) -> list[Any]:
    deadline = time.monotonic() + _SYSTEMD_SECONDS
    completed = [_completed(node, f"{path}: nodes.{at}", deadline) for at, node in enumerate(nodes)]

    @cache
    def units() -> Sequence[Unit]:
        try:
            return storj_units(deadline - time.monotonic())
        except UnitError:
            return ()

    return [_with_updater(node, units) for node in completed]


def nothing_found(discovery: Discovery) -> str:
    """Say what was looked for, and how to configure a node."""
    lines = [
        f"{DEFAULT_PATH}: not there, and no storage node was found on this host.",
        "Looked for: systemd services whose ExecStart is a program named like storagenode, or a symbolic link to one,"
        " told to `run`; and running processes of such a program, outside of containers.",
        *discovery.remarks,
        f"To configure one, write {DEFAULT_PATH}:",
        "nodes:",
        "  - name: node1",
        "    service: systemd:storagenode.service",
        "    binary: /usr/local/bin/storagenode",
    ]
    return "\n".join(lines)


def _of_unit(unit: Unit, units: Sequence[Unit]) -> Found:
    assert unit.launch.command is not None
    config: dict[str, Any] = {
        "name": _as_name(unit.name.removesuffix(".service")),
        "service": f"systemd:{unit.name}",
        "binary": unit.launch.command.path,
    }
    found = _described(config, settings(unit.launch), units, unit.name)
    if unit.unread:
        found.remarks["service"] = f"variables were not read from {'; '.join(unit.unread)}"
    return found


def _of_process(running: Running, known: Sequence[dict[str, Any]], units: Sequence[Unit]) -> Found | str:
    """Describe a process that no known unit owns, or say why that cannot be done, or need not."""
    words = " ".join(running.argv)
    if running.command is None:
        return f"process {running.pid} may be a node, but its program may not be seen from here: {words}"
    seen = settings(Launch(command=running.command, user=running.user or ""))
    directory = seen.values.get("config_dir")
    unit = _unit_of(running)
    if unit is None and any(directory and each.get("config_dir") == directory for each in known):
        return f"process {running.pid} runs a node that is listed, but not where it is listed: {words}"
    config: dict[str, Any] = {
        "name": _as_name(unit.removesuffix(".service") if unit else directory or running.command.path),
        "service": f"systemd:{unit}" if unit else {"process": {"user": running.user} if running.user else {}},
        "binary": running.command.path,
    }
    found = _described(config, seen, units, unit)
    if unit is None and running.unit is not None:
        found.remarks["service"] = f"it was started from within {running.unit}"
    elif unit is None and running.user is not None and all(map(str.isprintable, running.argv)):
        config["service"]["process"]["start"] = [running.command.path, *running.argv[1:]]
    return found


def _unit_of(running: Running) -> str | None:
    """Return the unit whose main process this is, though its ExecStart does not show it: a script ends as the node."""
    if running.unit is None:
        return None
    try:
        return running.unit if read_unit(running.unit, _SYSTEMD_SECONDS).main_pid == running.pid else None
    except UnitError:
        return None


def _described(config: dict[str, Any], seen: Settings, units: Sequence[Unit], unit: str | None) -> Found:
    config |= seen.values
    remarks = dict(seen.unseen)
    try:
        config["node_id"] = node_id(config["identity"])
    except KeyError:
        remarks["node_id"] = "the identity is not known"
    except NodeIDError as error:
        remarks["node_id"] = str(error)
    if "node_id" not in config:
        answer = node_api.read(config.get("api", DEFAULT_API), _API_SECONDS)
        if isinstance(answer, RunningNode) and "api" in config:
            with suppress(NodeIDError):
                node_id_bytes(answer.node_id)
                config["node_id"] = answer.node_id
                del remarks["node_id"]
    updaters = updaters_of(units, binary=config["binary"], config_dir=config.get("config_dir"), unit=unit)
    if updaters:
        config["updater_service"] = f"systemd:{updaters[0].name}"
        if interval := updater_settings(updaters[0].launch).get("version.check-interval"):
            remarks["updater_service"] = f"it looks every {interval}"
    return Found(config=config, remarks=remarks)


def _completed(node: object, where: str, deadline: float) -> object:
    """Add what systemd and the node's own settings say to a node of the configuration file; what it says itself counts.

    What is of the wrong kind is left for the validation to name.
    """
    if not isinstance(node, dict) or {"binary", "config_dir", "api", "storage", "identity"} <= node.keys():
        return node
    service, directory = node.get("service"), node.get("config_dir")
    launch = Launch(command=None)
    reason = "expected the path of the storagenode program"
    if isinstance(service, str) and service.startswith("systemd:"):
        name = service.removeprefix("systemd:")
        try:
            unit = read_unit(name, deadline - time.monotonic())
        except UnitError as error:
            reason = str(error)
        else:
            reason = f"the ExecStart of {name} is not seen to run a storagenode"
            if runs(unit, Program.STORAGENODE):
                launch = unit.launch
    if launch.command is None and "binary" not in node:
        raise ConfigError(f"{where}.binary: missing, and {reason}")
    if launch.command is None and not isinstance(directory, str):
        return node
    seen = settings(launch, Path(directory) if isinstance(directory, str) else None).values
    if launch.command is not None:
        seen["binary"] = launch.command.path
    if "node_id" in node or not os.access(seen.get("identity", ""), os.R_OK):
        seen.pop("identity", None)
    return seen | node


def _with_updater(node: object, units: Callable[[], Sequence[Unit]]) -> object:
    """Add the updater of a node that systemd starts, unless the configuration names one."""
    if not isinstance(node, dict) or "updater_service" in node:
        return node
    service, binary, directory = map(node.get, ("service", "binary", "config_dir"))
    if not isinstance(service, str) or not service.startswith("systemd:") or not isinstance(binary, str):
        return node
    found = updaters_of(
        units(),
        binary=binary,
        config_dir=directory if isinstance(directory, str) else None,
        unit=service.removeprefix("systemd:"),
    )
    return node | {"updater_service": f"systemd:{found[0].name}"} if found else node


def _named(found: Sequence[Found], remarks: list[str]) -> Discovery:
    """Give each node a name of its own, and keep those that make a valid configuration."""
    kept: list[Found] = []
    for each in found:
        wanted, count = each.config["name"], 1
        while each.config["name"] in {other.config["name"] for other in kept}:
            count += 1
            each.config["name"] = f"{wanted[: _NAME_LENGTH - 4]}-{count}"
        try:
            validate(NodeConfig, each.config, source=each.config["name"])
        except ConfigError as error:
            remarks.append(f"left out: {error}")
        else:
            kept.append(each)
    return Discovery(nodes=tuple(kept), remarks=tuple(remarks))


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-_NAME_LENGTH:].strip(".-") or "storagenode"
