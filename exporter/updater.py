"""What is wrong with the official updater of a node, from what was seen of it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.allowed import STORAGENODE, AllowedVersions
from exporter.status import DOWN, Failure, InstalledVersion, Leftover, NodeStatus, ServiceState, UpdaterStatus
from exporter.updaterlog import Blocked, UpdaterLog
from exporter.version import NodeVersion

REPLACES_STOPPED = NodeVersion(1, 106, 0)
"""The first release that replaces the binary of a node that does not run, where there is a systemctl."""
_WRITES_DOWN = NodeVersion(1, 128, 0)
"""The first release that writes down what failed (storj/storj, cmd/storagenode-updater/update.go)."""
_UNPACKING_SECONDS = 600
"""A download that is younger may be one it is at."""
_SLOW_SECONDS = 3600
_LATE_INTERVALS = 3
_LATE_SECONDS = 86400
"""Where the interval is not known."""
_NOT_THERE = DOWN | {ServiceState.MASKED, ServiceState.ABSENT, ServiceState.STOPPING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong, and what to do about it."""

    check: str
    """What was looked at: one word, for programs."""
    what: str
    todo: str
    serious: bool = True
    """Else it only takes room, or is of a version that nobody will install."""


def targets(status: NodeStatus) -> set[NodeVersion] | None:
    """Name the versions that somebody may install on a node next; None while that is not known."""
    if not isinstance(status.allowed, AllowedVersions) or not isinstance(status.installed, InstalledVersion):
        return None
    process = status.allowed.processes[STORAGENODE]
    versions = {process.minimum.version, process.suggested.version}
    return {version for version in versions if version > status.installed.version}


def replaces_stopped(updater: UpdaterStatus) -> bool | None:
    """Whether the updater replaces the binary of a node that does not run; None while its version is not known."""
    return None if updater.version is None else updater.version >= REPLACES_STOPPED


def blocked(status: NodeStatus) -> dict[Blocked, bool]:
    """Say by what the updater of a node is blocked, and by what not; what is unknown, or cannot be, is left out."""
    updater, wanted = status.updater, targets(status)
    if not isinstance(updater, UpdaterStatus):
        return {}
    found: dict[Blocked, bool] = {}
    if isinstance(updater.log, UpdaterLog) and not replaces_stopped(updater):
        unchanged = _installed(status) in (None, updater.log.found)
        found[Blocked.NOT_INITIALIZED] = updater.log.blocked is Blocked.NOT_INITIALIZED and unchanged
    if wanted is not None and not isinstance(updater.rejected, Failure) and _writes_down(updater):
        found[Blocked.LAST_FAILED] = updater.rejected is not None and updater.rejected.version in wanted
    if wanted is not None and not isinstance(updater.leftovers, Failure):
        found[Blocked.LEFT_OVER] = any(each.version in wanted and _is_left(each, status) for each in updater.leftovers)
    elif _stumbles(status):
        found[Blocked.LEFT_OVER] = True
    return found


def is_late(updater: UpdaterStatus) -> bool:
    """Whether the updater runs, and has not learned for long which versions are allowed."""
    if updater.service.state is not ServiceState.RUNNING or not isinstance(updater.log, UpdaterLog):
        return False
    interval = updater.interval_seconds
    longest = _LATE_INTERVALS * interval if interval is not None and interval > 0 else _LATE_SECONDS
    return updater.log.last_check is not None and updater.looked - updater.log.last_check > longest


def troubles(status: NodeStatus) -> Iterator[Trouble]:
    """Say what is wrong with the updater of a node, and with what it has left."""
    updater = status.updater
    if not isinstance(updater, UpdaterStatus):
        return
    service = updater.service
    if service.state in _NOT_THERE or (service.state is ServiceState.UNKNOWN and not service.undecided):
        what = f"the official updater {updater.unit} is {service.state}: {service.detail}"
        yield Trouble(check="updater", what=what, todo=f"systemctl enable --now {updater.unit}")
    if not isinstance(updater.leftovers, Failure):
        yield from beside(updater.leftovers, status)
    yield from _blocks(status, updater)
    yield from _habits(status.node, updater)


def beside(leftovers: Iterable[Leftover], status: NodeStatus) -> Iterator[Trouble]:
    """Say what is wrong with what updaters have left beside a node's binary."""
    wanted = targets(status)
    for leftover in leftovers:
        serious = False
        if leftover.version is None:
            what, todo = f"{leftover.path}: a backup of the official updater's", "remove it, it takes room"
        elif not _is_left(leftover, status):
            what, todo = f"{leftover.path}: the official updater may be unpacking it now", "look again in ten minutes"
        else:
            serious = wanted is None or leftover.version in wanted
            what = f"{leftover.path}: left by the official updater, and in its way to {leftover.version}"
            todo = _heal(status.node) if serious and isinstance(status.updater, UpdaterStatus) else "remove it"
        yield Trouble(check="leftover", what=what, todo=todo, serious=serious)


def _blocks(status: NodeStatus, updater: UpdaterStatus) -> Iterator[Trouble]:
    if blocked(status).get(Blocked.NOT_INITIALIZED):
        what = "the official updater fetches each update and takes it back, since the node does not run"
        yield Trouble(check="not_initialized", what=what, todo=f"storagenode-remediate run {status.node}")
    rejected, wanted = updater.rejected, targets(status)
    if rejected is not None and not isinstance(rejected, Failure):
        what = f"{rejected.path}: the official updater never tries {rejected.version} again, since: {rejected.failure}"
        todo = _heal(status.node) if rejected.by_signal else "see why it does not run here, before you remove that file"
        serious = _writes_down(updater) and (wanted is None or rejected.version in wanted)
        yield Trouble(check="rejected", what=what, todo=todo, serious=serious)


def _heal(node: str) -> str:
    return f"storagenode-remediate run --updater {node}"


def _habits(node: str, updater: UpdaterStatus) -> Iterator[Trouble]:
    """Say what an updater does that it should not, or not so seldom."""
    interval = updater.interval_seconds
    if interval is not None and (interval <= 0 or interval > _SLOW_SECONDS):
        how = "looks once and ends" if interval <= 0 else f"looks only every {interval / 3600:.1f} h"
        what = f"the official updater {how} (version.check-interval)"
        yield Trouble(check="interval", what=what, todo="set version.check-interval to 15m0s")
    if is_late(updater) and isinstance(updater.log, UpdaterLog) and updater.log.last_check is not None:
        since = datetime.fromtimestamp(updater.log.last_check, UTC)
        what = f"the official updater runs, and last learned {since:%Y-%m-%d %H:%M} UTC which versions are allowed"
        yield Trouble(check="updater_silent", what=what, todo=f"see its log, then: systemctl restart {updater.unit}")
    if replaces_stopped(updater) is False:
        what = f"the official updater is {updater.version}, and before 1.106 leaves alone a node that does not run"
        yield Trouble(check="updater_version", what=what, todo=_heal(node))
    if updater.server_is_ours is False:
        what = f"the official updater asks {updater.server!r} which versions are allowed, and we do not"
        todo = "take version.server-address out of its settings, or set our version_server to the same"
        yield Trouble(check="updater_version_server", what=what, todo=todo)


def _installed(status: NodeStatus) -> NodeVersion | None:
    return status.installed.version if isinstance(status.installed, InstalledVersion) else None


def _writes_down(updater: UpdaterStatus) -> bool:
    return updater.version is None or updater.version >= _WRITES_DOWN


def _is_left(leftover: Leftover, status: NodeStatus) -> bool:
    """Whether a download is in the way, and not one that the updater may be at."""
    return leftover.age_seconds >= _UNPACKING_SECONDS or _stumbles(status)


def _stumbles(status: NodeStatus) -> bool:
    """Whether the updater has logged that what it would write is there."""
    updater = status.updater
    log = updater.log if isinstance(updater, UpdaterStatus) else None
    return isinstance(log, UpdaterLog) and log.blocked is Blocked.LEFT_OVER
