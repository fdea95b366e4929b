"""Holding the official updater while its binary is replaced, and leaving it as it was found.

An updater that is stopped while it tries a new version takes the signal for that version's fault, writes it down, and
never installs it again; one that is killed while it unpacks leaves a file that stops every later attempt (both seen
with upstream's 1.162.3). So it is looked at before and after, and what our stopping caused is undone.
"""

import glob
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.services import systemd as reading
from exporter.status import ServiceState
from remediate.files import Directory
from remediate.journal import Outcome
from remediate.services.errors import NoServiceError, ServiceError
from remediate.services.systemd import SystemdControl
from remediate.steps import StepError

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_ACTIVE = frozenset({ServiceState.RUNNING, ServiceState.STARTING, ServiceState.CRASH_LOOPING})
_VERDICT = "last-failed-update."
_DOWNLOADED = re.compile(r"v?\d+\.\d+\.\d+(-[\w.-]+)?")
"""What follows the binary's name. An updater's backup, `storagenode.old.v1.104.5`, is none of this."""
_SIGNALLED = re.compile(rb'"Failure":\s*"signal: (terminated|killed|interrupt)')


def survey(updaters: tuple[str, ...], binary: Path) -> dict[str, Any]:
    """Note which updaters are at work, and the traces there are of failures before ours.

    Raises:
        StepError: it cannot be told whether an updater is at work.
    """
    held: dict[str, Any] = {}
    for unit in updaters:
        status = reading.SystemdReader(unit).read(_LOOK_SECONDS)
        if status.state is ServiceState.UNKNOWN and not status.undecided:
            raise StepError(Outcome.FAILED, f"{unit}: {status.detail}")
        if status.state in _ACTIVE or status.undecided:
            try:
                held[unit] = _traces(unit, binary)
            except ServiceError as error:
                raise StepError(Outcome.FAILED, f"{unit}: {error}") from None
    return held


def hold(held: Mapping[str, Any]) -> None:
    """Stop the updaters that were at work.

    Raises:
        StepError: one could not be stopped.
    """
    for unit in held:
        try:
            SystemdControl(unit).stop()
        except ServiceError as error:
            raise StepError(Outcome.FAILED, str(error)) from None


def release(held: Mapping[str, Any], binary: Path) -> list[str]:
    """Start the updaters again, after undoing what stopping them caused; returns what was undone.

    Raises:
        StepError: one could not be started; all stay on record.
    """
    undone: list[str] = []
    problems: list[str] = []
    for unit, before in held.items():
        try:
            # an updater that was killed between its two renames has left the download as the only new binary
            after = _traces(unit, binary) if binary.exists() else {}
            undone += [path for path, mark in after.items() if before.get(path) != mark and _remove(Path(path))]
            SystemdControl(unit).start()
        except NoServiceError as error:
            logger.warning("updater cannot be started again", extra={"unit": unit, "problem": str(error)})
        except ServiceError as error:
            problems.append(f"{unit}: {error}")
    if problems:
        raise StepError(Outcome.STILL_HELD, "; ".join(problems))
    return undone


def downloads(binary: Path) -> list[Path]:
    """Find what an updater has left beside a binary while it unpacked or tried a new one."""
    prefix = f"{binary.name}."
    beside = binary.parent.glob(f"{glob.escape(prefix)}*")
    return [path for path in beside if _DOWNLOADED.fullmatch(path.name.removeprefix(prefix))]


def verdict(unit: str) -> Path:
    """Say where an updater writes down which version failed, so as never to try it again.

    Upstream names the file after what it calls the node (storj/storj, cmd/storagenode-updater/update.go).

    Raises:
        ServiceError: systemd does not say what the updater runs.
    """
    command, directory = SystemdControl(unit).command()
    name = f"{_VERDICT}{_option(command, '--service-name') or 'storagenode'}.json"
    return Path(directory, _option(command, "--binary-store-dir"), name)


def _traces(unit: str, binary: Path) -> dict[str, list[int]]:
    """Find the files by which an updater blocks itself, each with what tells whether it has changed.

    Raises:
        ServiceError: systemd does not say what the updater runs.
    """
    paths = [*downloads(binary), verdict(unit)]
    found = {}
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        found[str(path)] = [status.st_ino, status.st_mtime_ns]
    return found


def _remove(path: Path) -> bool:
    """Remove a left-over download, or a verdict that a signal brought about, not one about the version itself.

    What cannot be removed must not keep an updater from being started again.
    """
    try:
        with Directory(path.parent) as directory:
            if path.name.startswith(_VERDICT):
                with os.fdopen(directory.open(path.name), "rb") as file:
                    if not _SIGNALLED.search(file.read(64 << 10)):
                        return False
            return directory.remove(path.name)
    except OSError as error:
        logger.warning("updater's leftover not removed", extra={"file": str(path), "problem": error.strerror})
        return False


def _option(command: Sequence[str], name: str) -> str:
    for position, argument in enumerate(command):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name and position + 1 < len(command):
            return command[position + 1]
    return ""
