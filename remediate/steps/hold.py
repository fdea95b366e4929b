"""Holding the official updater while its binary is replaced, and leaving it as it was found.

An updater that is stopped while it tries a new version takes the signal for that version's fault, writes it down, and
never installs it again; one that is killed while it unpacks leaves a file that stops every later attempt (both seen
with upstream's 1.162.3); and one that is killed between its two renamings leaves no binary at all. So it is looked at
before and after, and what our stopping caused is undone.
"""

import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter.leftbehind import BACKUP, VERDICT, downloads, own_verdict, verdict
from exporter.services import systemd as reading
from exporter.status import ServiceState, ServiceStatus
from exporter.units import Unit, UnitError, read_unit
from remediate.files import Directory, real_path
from remediate.journal import Inode, Outcome
from remediate.services.errors import NoServiceError, ServiceError
from remediate.services.systemd import SystemdControl
from remediate.steps import StepError
from remediate.steps.swap import inode

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_STOPPING_SECONDS = 90.0
"""systemd's own limit, unless a unit sets another."""
_ACTIVE = frozenset({ServiceState.RUNNING, ServiceState.STARTING, ServiceState.CRASH_LOOPING})
_SIGNALLED = re.compile(r'"Failure":\s*"signal: (terminated|killed|interrupt)')
_SAYS_BYTES = 500
_IN_FLIGHT_SECONDS = 600
"""A download of an updater that is younger may be one it is at."""


def survey(updaters: tuple[str, ...], binary: Path, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Note which updaters are at work, and the traces there are of failures before ours.

    Args:
        updaters: their units.
        binary: what is to be replaced.
        others: what else they replace, besides themselves.

    Raises:
        StepError: it cannot be told whether an updater is at work, or one is being stopped, and does not end.
    """
    held: dict[str, Any] = {}
    for unit in updaters:
        status = _settled(unit)
        if status.state is ServiceState.STOPPING or (status.state is ServiceState.UNKNOWN and not status.undecided):
            raise StepError(Outcome.FAILED, f"{unit}: {status.detail}")
        if status.state in _ACTIVE or status.undecided:
            try:
                traces = _traces(unit, [binary, *others])
                held[unit] = {path: mark for path, mark in traces.items() if not _in_flight(path, mark)}
            except ServiceError as error:
                raise StepError(Outcome.FAILED, f"{unit}: {error}") from None
            for path in held[unit]:
                logger.warning("blocks the updater, since before this run", extra=_about(Path(path), unit=unit))
    return held


def hold(held: Mapping[str, Any], binary: Path, ours: Collection[Inode]) -> None:
    """Stop the updaters that were at work, and see that the binary is there.

    Raises:
        StepError: one could not be stopped.
    """
    for unit in held:
        try:
            SystemdControl(unit).stop()
        except ServiceError as error:
            raise StepError(Outcome.FAILED, str(error)) from None
    mend(binary, ours)


def unblock(files: Mapping[str, str]) -> list[str]:
    """Remove files by which an updater, which is held, blocks itself; each is given with why it does.

    Raises:
        OSError: one cannot be removed, or a link on the way to it is a stranger's.
    """
    removed = []
    for path, why in files.items():
        with Directory(real_path(Path(path).parent)) as directory:
            if directory.remove(Path(path).name):
                directory.sync()
                logger.warning("removed what blocked the updater", extra={"file": path, "reason": why})
                removed.append(path)
    return removed


def release(held: Mapping[str, Any], binary: Path, ours: Collection[Inode], others: Sequence[Path] = ()) -> list[str]:
    """Start the updaters again, after undoing what stopping them caused; returns what was undone.

    One that somebody has started meanwhile is stopped first: what it is at is not to be taken for a leftover.

    Raises:
        StepError: one could not be started, and stays on record; names those that are put back.
    """
    undone: list[str] = []
    problems: dict[str, str] = {}
    for unit, before in held.items():
        try:
            SystemdControl(unit).stop()
            undone += mend(binary, ours)
            after = _traces(unit, [binary, *others])
            caused = [Path(path) for path, mark in after.items() if before.get(path) != mark]
            undone += [str(path) for path in caused if _remove(path, unit)]
            SystemdControl(unit).start()
        except NoServiceError as error:
            logger.warning("updater cannot be started again", extra={"unit": unit, "problem": str(error)})
        except ServiceError as error:
            problems[unit] = f"{unit}: {error}"
    if problems:
        released = [unit for unit in held if unit not in problems]
        raise StepError(Outcome.STILL_HELD, "; ".join(problems.values()), released)
    return undone


def mend(binary: Path, ours: Collection[Inode]) -> list[str]:
    """Put the binary back that an updater has renamed away, if it was killed before it put another in its place.

    Told by its inode, and never over a file. Returns the name it was found under.
    """
    try:
        with Directory(binary.parent) as directory:
            for name in os.listdir(directory.fd) if directory.stat(binary.name) is None else ():
                if f"{name}.".startswith(f"{binary.name}{BACKUP}") and inode(directory, name) in ours:
                    directory.rename(name, binary.name)
                    directory.sync()
                    path = str(binary.parent / name)
                    logger.warning("put back the binary that an updater had renamed away", extra={"file": path})
                    return [path]
    except OSError as error:
        logger.warning("cannot look for a binary renamed away", extra={"file": str(binary), "problem": error.strerror})
    return []


def _traces(unit: str, programs: Sequence[Path]) -> dict[str, list[int]]:
    """Find the files by which an updater blocks itself, each with what tells whether it has changed.

    Raises:
        ServiceError: systemd does not say what the updater runs.
    """
    try:
        updater = read_unit(unit, _LOOK_SECONDS)
    except UnitError as error:
        raise ServiceError(str(error)) from None
    # where a program is gone for good, a download may be the only new one
    there = [program for program in _replaced(updater, programs) if program.exists()]
    paths = [path for program in there for path in downloads(program)] + [verdict(updater), own_verdict(updater)]
    found = {}
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        found[str(path)] = [status.st_ino, status.st_mtime_ns]
    return found


def _replaced(updater: Unit, programs: Sequence[Path]) -> Iterable[Path]:
    """Name what an updater replaces: these programs, also by the link to one that it is told, and itself."""
    found = dict.fromkeys(programs)
    if (command := updater.launch.command) is not None:
        told = command.flag("binary-location")
        if told and Path(os.path.realpath(told)) in found:
            found[Path(told)] = None
        found[Path(os.path.realpath(command.path))] = None
    return found


def _in_flight(path: str, mark: list[int]) -> bool:
    """Whether an updater that is at work may be unpacking or trying this just now: it is no leftover yet."""
    return not Path(path).name.startswith(VERDICT) and time.time() - mark[1] / 1e9 < _IN_FLIGHT_SECONDS


def _settled(unit: str) -> ServiceStatus:
    """Look at an updater; one that is being stopped, or started again, may be at work until that is done."""
    deadline = time.monotonic() + _STOPPING_SECONDS
    while (status := reading.SystemdReader(unit).read(_LOOK_SECONDS)).state is ServiceState.STOPPING:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return status


def _remove(path: Path, unit: str) -> bool:
    """Remove a left-over download, or a verdict that a signal brought about, not one about the version itself.

    What cannot be removed must not keep an updater from being started again.
    """
    about = _about(path, unit=unit)
    if path.name.startswith(VERDICT) and not _SIGNALLED.search(about["says"]):
        return False
    try:
        with Directory(path.parent) as directory:
            # A verdict's folder may be reached by a link; the binary's must not be another's since it was looked at.
            removed = (path.name.startswith(VERDICT) or directory.in_place()) and directory.remove(path.name)
    except OSError as error:
        logger.warning("updater's leftover not removed", extra={"file": str(path), "problem": error.strerror})
        return False
    logger.warning("removed what would have blocked the updater, since it was stopped", extra=about)
    return removed


def _about(path: Path, **fields: str) -> dict[str, str]:
    """Describe for the log what blocks an updater; a verdict says which version, and why."""
    said = ""
    if path.name.startswith(VERDICT):
        with suppress(OSError), Directory(path.parent) as directory, os.fdopen(directory.open(path.name), "rb") as file:
            said = " ".join(file.read(_SAYS_BYTES).decode(errors="replace").split())
    return {**fields, "file": str(path), "says": said}
