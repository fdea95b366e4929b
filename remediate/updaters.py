"""The official updaters of this host: which may replace a binary, and one of them looked at as what a run is about."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from exporter.commandline import Program
from exporter.config import Config, NodeConfig, SystemdService
from exporter.leftbehind import leftovers, own_verdict, rejected, verdict
from exporter.services.systemd import SystemdReader
from exporter.sources.binary import BinarySource, Execute
from exporter.status import Failure, InstalledVersion, Leftover, NodeStatus, ServiceState
from exporter.units import Unit, UnitError, read_unit, runs, storj_units
from exporter.updater import targets
from exporter.updaters import updaters_of
from exporter.version import NodeVersion
from remediate.decision import Reason, Refuse
from remediate.files import real_path
from remediate.healing import Block, Updater, updater_versions

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_IN_FLIGHT_SECONDS = 600
"""A download that is younger may be one that an updater which runs is at."""
_AT_REST = frozenset({ServiceState.STOPPED, ServiceState.CRASHED})


def updaters_on(sharing: Sequence[NodeConfig]) -> tuple[str, ...]:
    """Name the updaters of nodes that share a binary: those configured, and all others that may replace it as well."""
    units, names = _units(), [each.updater_service.unit for each in sharing if each.updater_service]
    return tuple(dict.fromkeys(names + [unit.name for node in sharing for unit in _found(node, units)]))


def look(config: Config, node: NodeConfig, status: NodeStatus, execute: Execute) -> Updater | Refuse:
    """Look at the updater of a node, which was observed just now; what cannot be looked at is refused."""
    units = _units()
    found = [each.name for each in _found(node, units)]
    name = node.updater_service.unit if node.updater_service else next(iter(found), None)
    if name is None:
        return Refuse(Reason.NO_UPDATER, "no official updater of this node is known: set `updater_service`")
    service = SystemdReader(name).read(_LOOK_SECONDS)
    if service.state in (ServiceState.ABSENT, ServiceState.MASKED):
        return Refuse(Reason(service.state), f"{name}: {service.detail}")
    try:
        unit = read_unit(name, _LOOK_SECONDS)
        if unit.launch.command is None or not runs(unit, Program.UPDATER):
            return Refuse(Reason.INSTALLED_UNKNOWN, f"{name} is not seen to run a {Program.UPDATER}")
        binary = real_path(Path(unit.launch.command.path))
        if config.sharing(binary):
            return Refuse(Reason.INSTALLED_UNKNOWN, f"{name} runs {binary}, which is a node's")
    except UnitError as error:
        return Refuse(Reason.SERVICE_UNKNOWN, f"{name}: {error}")
    except OSError as error:
        return Refuse(Reason.INSTALLED_UNKNOWN, f"{error.filename}: {error.strerror}")
    if service.undecided:  # it has just been started again: it is held as one that runs, whether it stays up or not
        service = replace(service, state=ServiceState.RUNNING)
    installed = BinarySource(binary, execute).read(_LOOK_SECONDS)
    same = {name, *(each.name for each in units if runs(each, Program.UPDATER) and _binary(each) == binary)}
    nodes = (each.name for each in config.nodes if each.updater_service and each.updater_service.unit in same)
    return Updater(
        unit=name,
        service=service,
        binary=binary,
        installed=installed,
        units=tuple(sorted(same)),
        nodes=tuple(dict.fromkeys((node.name, *nodes))),
        blocks=tuple(_blocks(unit, binary, node, status, installed, at_rest=_at_rest({*found, *same}))),
    )


def _blocks(
    unit: Unit,
    binary: Path,
    node: NodeConfig,
    status: NodeStatus,
    installed: InstalledVersion | Failure,
    *,
    at_rest: bool,
) -> Iterator[Block]:
    """Find the files that keep an updater from what it should install next: of the node, and of itself."""
    process = updater_versions(status.allowed)
    own: set[NodeVersion] = set()
    if process is not None and isinstance(installed, InstalledVersion):
        both = {process.minimum.version, process.suggested.version}
        own = {version for version in both if version > installed.version}
    real = Path(os.path.realpath(node.binary))
    told = unit.launch.command.flag("binary-location") if unit.launch.command else None
    links = {node.binary, *([Path(told)] if told and os.path.realpath(told) == str(real) else [])}
    of_node = ({real, *links}, verdict(unit), targets(status) or set())
    for programs, failed, wanted in (of_node, ({binary}, own_verdict(unit), own)):
        for left in (each for program in sorted(programs) for each in _left(program)):
            if left.version in wanted and (at_rest or left.age_seconds >= _IN_FLIGHT_SECONDS):
                yield Block(path=left.path, why=f"it is left of an update, and in the way to {left.version}")
        no = rejected(failed)
        if no is not None and not isinstance(no, Failure) and no.version in wanted:
            why = f"the updater never tries {no.version} again, since: {no.failure}"
            yield Block(path=failed, why=why, version_is_to_blame=not no.by_signal)


def _at_rest(units: Iterable[str]) -> bool:
    return all(SystemdReader(unit).read(_LOOK_SECONDS).state in _AT_REST for unit in units)


def _left(program: Path) -> tuple[Leftover, ...]:
    found = leftovers(program)
    return () if isinstance(found, Failure) else found


def _units() -> list[Unit]:
    try:
        return storj_units(_LOOK_SECONDS)
    except UnitError as error:  # without systemd there is no unit to hold
        logger.debug("no updaters looked for but those configured", extra={"problem": str(error)})
        return []


def _found(node: NodeConfig, units: Sequence[Unit]) -> list[Unit]:
    service = node.service.unit if isinstance(node.service, SystemdService) else None
    directory = str(node.config_dir) if node.config_dir else None
    return updaters_of(units, binary=str(node.binary), config_dir=directory, unit=service)


def _binary(unit: Unit) -> Path | None:
    try:
        return Path(unit.launch.command.path).resolve() if unit.launch.command else None
    except OSError:
        return None
