"""What an official updater leaves behind beside a binary and in its own folder, by upstream's names for it."""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.commandline import Command, Program
from exporter.nodefiles import Launch, read_regular, updater_settings
from exporter.status import Failure, FailureReason, Leftover, Rejected
from exporter.units import Unit
from exporter.version import NodeVersion, VersionError

VERDICT = "last-failed-update."
BACKUP = ".old."
_DOWNLOADED = re.compile(r"v?\d+\.\d+\.\d+(-[\w.-]+)?")
"""What follows the binary's name. An updater's backup, `storagenode.old.v1.104.5`, is none of this."""
_LARGEST_VERDICT_BYTES = 64 << 10
_LONGEST_FAILURE = 200


def leftovers(binary: Path) -> tuple[Leftover, ...] | Failure:
    """Find what updaters have left beside a binary: downloads, and backups."""
    try:
        return tuple(sorted(_leftovers(binary), key=lambda leftover: leftover.path))
    except OSError as error:
        return Failure(FailureReason.DENIED, f"{binary.parent}: {error.strerror}")


def _leftovers(binary: Path) -> Iterator[Leftover]:
    for name in os.listdir(binary.parent):
        behind = name.removeprefix(f"{binary.name}.")
        is_download = bool(_DOWNLOADED.fullmatch(behind))
        if behind == name or not (is_download or f".{behind}".startswith(BACKUP)):
            continue
        path = binary.with_name(name)
        try:
            age = time.time() - path.lstat().st_mtime
        except FileNotFoundError:  # the updater was faster
            continue
        yield Leftover(path=path, version=_version(behind) if is_download else None, age_seconds=age)


def downloads(binary: Path) -> list[Path]:
    """Find what an updater has left beside a binary while it unpacked or tried a new one."""
    found = leftovers(binary)
    return [] if isinstance(found, Failure) else [each.path for each in found if each.version is not None]


def launch(updater: Unit) -> Launch:
    """Return how an updater is started, also where that is by a script that the configuration calls the updater."""
    if updater.launch.command is not None or not updater.words:
        return updater.launch
    path, *arguments = updater.words
    command = Command(program=Program.UPDATER, path=path, arguments=tuple(arguments))
    return replace(updater.launch, command=command)


def verdict(updater: Unit) -> Path:
    """Say where an updater writes down which version failed, so as never to try it again.

    Upstream names the file after what it calls the node (storj/storj, cmd/storagenode-updater/update.go). What is told
    to the updater may come from a file of the node's user: the name must not lead out of the directory.
    """
    said = updater_settings(launch(updater))
    service = said.get("service-name", "storagenode").replace("/", "")
    return Path(updater.directory, said.get("binary-store-dir", ""), f"{VERDICT}{service}.json")


def own_verdict(updater: Unit) -> Path:
    """Say where an updater writes down which version of itself failed."""
    return verdict(updater).with_name(f"{VERDICT}{Program.UPDATER}.json")


def rejected(path: Path) -> Rejected | Failure | None:
    """Read what an updater has written down as failed; None if it has not."""
    try:
        content: Any = json.loads(read_regular(path, _LARGEST_VERDICT_BYTES))
        version = NodeVersion.parse(str(content["Version"]))
        said = " ".join(str(content.get("Failure", "")).split())[:_LONGEST_FAILURE]
        failure = "".join(letter if letter.isprintable() else "?" for letter in said)  # it is shown on terminals
    except FileNotFoundError:
        return None
    except OSError as error:
        return Failure(FailureReason.DENIED, f"{path}: {error.strerror}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # upstream's takes no notice of it either
    return Rejected(path=path, version=version, failure=failure)


def _version(text: str) -> NodeVersion | None:
    try:
        return NodeVersion.parse(text)
    except VersionError:
        return None
