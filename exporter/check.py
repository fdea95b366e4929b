"""What `check` says of the nodes to people: a table, what to do, and an exit code. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never

from exporter.allowed import STORAGENODE, AllowedVersions, UpdateState
from exporter.status import (
    DAY,
    DISQUALIFIED_AFTER,
    DOWN,
    SUSPENDED_AFTER,
    Basis,
    Clock,
    Failure,
    InstalledVersion,
    NodeStatus,
    RunningNode,
    ServiceState,
)
from exporter.updater import blocked, troubles

EXIT_WELL = 0
EXIT_OUTDATED = 1
EXIT_UNKNOWN = 4

HEADINGS = ("NODE", "SERVICE", "SINCE", "INSTALLED", "RUNNING", "MINIMUM", "VERDICT")
_PLAIN = "\x1b[0m"


class Level(StrEnum):
    """How much a node needs a person."""

    WELL = "well"
    UNCLEAR = "unclear"
    """Down, not reached, or something about it is not known."""
    OUTDATED = "outdated"
    """Below the minimum."""


_COLORS = {Level.WELL: "\x1b[32m", Level.UNCLEAR: "\x1b[33m", Level.OUTDATED: "\x1b[31m"}


def exit_code(statuses: Sequence[NodeStatus]) -> int:
    """Return 1 if any node is below the minimum, else 4 if something about any is unknown, else 0."""
    if any(status.below_minimum for status in statuses):
        return EXIT_OUTDATED
    return EXIT_UNKNOWN if any(_unknown(status) for status in statuses) else EXIT_WELL


def table(statuses: Sequence[NodeStatus], *, now: datetime, color: bool) -> str:
    """Lay the nodes out in columns, each followed by what to do about it, if anything."""
    rows = [row(status, now) for status in statuses]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = [_line(HEADINGS, widths)]
    for status, cells in zip(statuses, rows, strict=True):
        line = _line(cells, widths)
        lines.append(f"{_COLORS[level(status)]}{line}{_PLAIN}" if color else line)
        lines += [f"  {line}" for line in advice(status)]
    return "\n".join(lines)


def advice(status: NodeStatus) -> list[str]:
    """Say what a person should do about this node, and what could not be seen."""
    said = []
    if status.deadlocked:
        said.append(
            f"It is too old to start, and its updater may leave it so. Do: storagenode-remediate run {status.node}"
        )
    elif status.below_minimum and status.service.state is ServiceState.RUNNING:
        said.append(
            "It runs, but will not start again once it has stopped. See that its updater works, before it stops."
        )
    elif status.below_minimum:
        said.append("Below the minimum it will not start again. Look into the state of its service first.")
    elif status.verdict.state is UpdateState.DUE and not any(blocked(status).values()):
        said.append(f"Its updater should install {status.verdict.target} within the hour.")
    elif status.service.state in (ServiceState.CRASHED, ServiceState.CRASH_LOOPING):
        said.append("It fails for another reason than its version: see its log.")
    if status.clock is not None and status.not_reached:
        said.append(_left(status.clock))
    if status.restart_pending:
        said.append("The installed version is not the running one: it takes effect at the next start.")
    if status.service.state is ServiceState.UNKNOWN:
        said.append(f"Service not known: {status.service.detail}.")
    if status.verdict.state is UpdateState.UNKNOWN:
        said.append(f"Verdict not known: {status.verdict.reason}.")
    if status.service.state is ServiceState.RUNNING and isinstance(status.running, Failure):
        said.append(f"The node API does not answer: {status.running}.")
    serious = (trouble for trouble in troubles(status) if trouble.serious)
    return said + [f"{trouble.what[0].upper()}{trouble.what[1:]}. Do: {trouble.todo}" for trouble in serious]


def _left(clock: Clock) -> str:
    """Say how long a node has not been reached, and what is left until when."""
    gone, since = clock.known - clock.since, f"{datetime.fromtimestamp(clock.since, UTC):%Y-%m-%d %H:%M} UTC"
    basis = f"last contact {since}" if clock.basis is Basis.CONTACT else f"at least: down since {since}"
    suspended, disqualified = (_length(at - clock.known) for at in (clock.suspended, clock.disqualified))
    if gone < SUSPENDED_AFTER:
        left = f"Suspended in about {suspended}, disqualified for good in {disqualified}"
    elif gone < DISQUALIFIED_AFTER:
        left = f"Suspended by now; disqualified for good in {disqualified}"
    else:
        left = "Suspended by now, and any day disqualified for good"
    return f"Not reached for {_length(gone)} ({basis}). {left}."


def _length(seconds: float) -> str:
    return f"{seconds / DAY:.0f} days" if seconds >= 2 * DAY else f"{seconds / 3600:.0f} hours"


def verdict(status: NodeStatus) -> str:
    """Put the verdict in words."""
    match status.verdict.state:
        case UpdateState.CURRENT:
            return "current"
        case UpdateState.WAITING:
            return "waiting for the rollout"
        case UpdateState.DUE:
            return f"update to {status.verdict.target} is due"
        case UpdateState.BELOW_MINIMUM:
            return "DEADLOCKED" if status.deadlocked else "below minimum"
        case UpdateState.UNKNOWN:
            return "unknown"
        case other:
            assert_never(other)


def _unknown(status: NodeStatus) -> bool:
    silent = status.service.state is ServiceState.RUNNING and isinstance(status.running, Failure)
    return silent or status.service.state is ServiceState.UNKNOWN or status.verdict.state is UpdateState.UNKNOWN


def row(status: NodeStatus, now: datetime) -> tuple[str, ...]:
    """Describe a node in one line, a text for each of the headings."""
    installed, running = status.installed, status.running
    return (
        status.node,
        status.service.state,
        "-" if status.service.since is None else _since(datetime.fromtimestamp(status.service.since, UTC), now),
        str(installed.version) if isinstance(installed, InstalledVersion) else "unknown",
        str(running.version) if isinstance(running, RunningNode) else "-",
        minimum(status) or "unknown",
        verdict(status),
    )


def minimum(status: NodeStatus) -> str | None:
    """Return the minimum version; None while it is not known."""
    if not isinstance(status.allowed, AllowedVersions):
        return None
    return str(status.allowed.processes[STORAGENODE].minimum.version)


def _since(then: datetime, now: datetime) -> str:
    """Say how long ago, in the largest unit that fits."""
    seconds = max(int((now - then).total_seconds()), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return f"{seconds}s ago"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def level(status: NodeStatus) -> Level:
    """Say how much a node needs a person."""
    if status.below_minimum:
        return Level.OUTDATED
    return Level.UNCLEAR if _unknown(status) or status.not_reached or status.service.state in DOWN else Level.WELL
