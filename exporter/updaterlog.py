"""What the official updater's log tells, line by line. Pure.

It writes lines of zap's console encoding: time, level, perhaps a logger's name, message and fields, with tabs between
them. The fields are called `Server Address` up to v1.145, and `server_address` since (storj/storj, 7d89b49dad).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from exporter.version import NodeVersion, VersionError

UPDATER = "storagenode-updater"
_LEVELS = frozenset({"DEBUG", "INFO", "WARN", "ERROR", "FATAL"})
_LONGEST_LINE = 64 * 1024
_LONGEST_SERVER = 200


class UpdaterFailure(StrEnum):
    """What an updater was at when it failed."""

    CHECK = "check"
    """It did not learn which versions are allowed, or cannot look for other reasons."""
    DOWNLOAD = "download"
    INSTALL = "install"


class Blocked(StrEnum):
    """By what an updater is blocked for good: it stays so until somebody does something."""

    NOT_INITIALIZED = "not_initialized"
    """It takes each update of a node that does not run back, before 1.106: `os: process not initialized`."""
    LAST_FAILED = "last_failed"
    """It has written down that a version failed, and never tries it again, without a word."""
    LEFT_OVER = "left_over"
    """What it has left of an earlier update is in the way of each later one: `file exists`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdaterLog:
    """What an updater has logged, so far; times in Unix seconds, None where nothing tells."""

    last_check: float | None = None
    """When it last learned which versions are allowed."""
    last_update: float | None = None
    """When it last replaced the node's binary."""
    last_failure: float | None = None
    failures: Mapping[UpdaterFailure, int] = field(default_factory=lambda: dict.fromkeys(UpdaterFailure, 0))
    server: str | None = None
    """The version server that it asks."""
    version: NodeVersion | None = None
    """Its own."""
    found: NodeVersion | None = None
    """The node's, when it last looked."""
    blocked: Blocked | None = None
    """By what its attempts to update the node fail."""
    asked: float | None = None
    """When it last asked which versions are allowed; None where it has not since it was started."""
    interval: float | None = None
    """Seconds between the last two times that it asked."""
    downloading: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    at: float
    level: str
    message: str
    fields: Mapping[str, str]


def heard(before: UpdaterLog, lines: Iterable[str]) -> UpdaterLog:
    """Add what more lines tell; those of others, such as of a node that logs to the same file, tell nothing."""
    log = before
    for text in lines:
        line = _parse(text)
        if line is not None and line.fields.get("process", UPDATER) == UPDATER:
            log = _add(log, line)
    return log


def _add(log: UpdaterLog, line: _Line) -> UpdaterLog:
    fields, of_node = line.fields, line.fields.get("service") != UPDATER
    match line.message:
        case "Running on version":
            return replace(log, version=_version(fields.get("version")), asked=None)
        case "Downloading versions.":
            interval = max(line.at - log.asked, 0.0) if log.asked is not None else 0.0
            server = fields.get("server_address", "")[:_LONGEST_SERVER]
            return replace(
                log, server=server or None, asked=line.at, interval=interval or log.interval, downloading=False
            )
        case "Current binary version":
            found = _version(fields.get("version")) if of_node else log.found
            return replace(log, last_check=line.at, found=found, downloading=False)
        case "Download started.":
            return replace(log, downloading=True)
        case "Download finished.":
            return replace(log, downloading=False)
        case "Service restarted successfully." if of_node:
            return replace(log, last_update=line.at, blocked=None)
        case "Version is up to date" if of_node:
            return replace(log, blocked=None)
        case "Error updating service.":
            error = fields.get("error", "")
            blocked = _blocked(error)
            kind = UpdaterFailure.DOWNLOAD if log.downloading and blocked is None else UpdaterFailure.INSTALL
            log = replace(log, downloading=False, blocked=(blocked or log.blocked) if of_node else log.blocked)
            return _failed(log, kind, line.at)
        case "Error retrieving version info.":
            return _failed(log, UpdaterFailure.CHECK, line.at)
        case _ if line.level == "FATAL":
            return _failed(log, UpdaterFailure.CHECK, line.at)
        case _:
            return log


def _failed(log: UpdaterLog, kind: UpdaterFailure, at: float) -> UpdaterLog:
    return replace(log, last_failure=at, failures={**log.failures, kind: log.failures[kind] + 1})


def _blocked(error: str) -> Blocked | None:
    if "os: process not initialized" in error:
        return Blocked.NOT_INITIALIZED
    return Blocked.LEFT_OVER if "file exists" in error else None


def _parse(text: str) -> _Line | None:
    parts = text.rstrip("\n").split("\t")
    if len(parts) < 3 or len(text) > _LONGEST_LINE or parts[1] not in _LEVELS:
        return None
    has_fields = parts[-1].startswith("{")
    try:
        at = datetime.fromisoformat(parts[0]).timestamp()
        fields: Any = json.loads(parts[-1]) if has_fields else {}
    except (ValueError, OverflowError, RecursionError):
        return None
    if at < 0:  # nor could it be written as a date again
        return None
    # `error` and `errorVerbose` are called so in both.
    said = {str(name).lower().replace(" ", "_"): str(value) for name, value in fields.items()}
    return _Line(at, parts[1], parts[-2 if has_fields else -1], said)


def _version(text: str | None) -> NodeVersion | None:
    try:
        return NodeVersion.parse(text or "")
    except VersionError:
        return None
