"""What has been seen of a node, as frozen data: the words everything else is written in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from exporter.allowed import AllowedVersions, UpdateState, Verdict
from exporter.updaterlog import UpdaterLog
from exporter.version import NodeVersion


class ServiceState(StrEnum):
    """What the service manager says of a node."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    """Somebody asked it to stop, or never asked it to start."""
    CRASHED = "crashed"
    """It ended unasked and stays down."""
    CRASH_LOOPING = "crash_looping"
    """It ends unasked and the manager keeps starting it again."""
    MASKED = "masked"
    ABSENT = "absent"
    """The manager does not know it."""
    UNKNOWN = "unknown"
    """Could not look."""


DOWN = frozenset({ServiceState.STOPPED, ServiceState.CRASHED, ServiceState.CRASH_LOOPING})
"""The states in which a node below the minimum is deadlocked."""


DAY = 86400.0
OFFLINE_AFTER = 4 * 3600.0
"""Seconds without a contact from which satellites count a node as offline."""
SUSPENDED_AFTER = 12 * DAY
DISQUALIFIED_AFTER = 30 * DAY


class Source(StrEnum):
    """Where a reading comes from."""

    VERSION_SERVER = "version_server"
    NODE_API = "node_api"
    BINARY = "binary"
    SERVICE = "service"


class FailureReason(StrEnum):
    """Why a source could not be read."""

    NOT_FOUND = "not_found"
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    BUSY = "busy"
    """Still occupied with the reading before."""
    HTTP_STATUS = "http_status"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    EXIT_STATUS = "exit_status"
    STALE = "stale"
    UNEXPECTED = "unexpected"
    """A defect of ours; the log says more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a reading is unknown; the detail is a sentence for a person."""

    reason: FailureReason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledVersion:
    """What the binary on disk says of itself, and which file said it."""

    version: NodeVersion
    release: bool
    """A release build; upstream exempts any other from the minimum."""
    device: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNode:
    """What the node API says; timestamps in Unix seconds, None where upstream's zero time stood."""

    version: NodeVersion
    node_id: str
    allowed_version: NodeVersion | None
    """None for 0.0.0, by which upstream says that it does not know."""
    started: float | None
    last_contact: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """What the service manager says; timestamps in Unix seconds."""

    state: ServiceState
    detail: str
    """Why this state, or why it is unknown, in words."""
    since: float | None = None
    exit_code: int | None = None
    """Exit status of the last main process; None when a signal ended it, or none has ended."""
    exit_signal: int | None = None
    restarts: int | None = None
    """Automatic restarts since somebody last started it."""
    pid: int | None = None
    undecided: bool = False
    """Unknown only until the manager has been watched for a while: a look in a few seconds may tell."""


class Basis(StrEnum):
    """What the time since when a node is not reached is taken from."""

    CONTACT = "contact"
    """The last contact that the node told of."""
    STOPPED = "stopped"
    """The moment from which it was seen to be down, or up and not reached: its last contact was before that."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Since when no satellite reaches a node, in Unix seconds, and how that is known.

    A satellite suspends a node whose online score over 30 days falls below 0.6, which after good months takes 12 days
    of being down, and disqualifies one that it has not reached for 30 days within the next week (storj/storj,
    satellite/overlay and satellite/overlay/straynodes, with the settings of satellite-config.yaml.lock).
    """

    since: float
    basis: Basis
    known: float
    """Until when it is known that nobody has reached it; Unix seconds."""

    @property
    def suspended(self) -> float:
        """When it is suspended if nobody reaches it until then, in Unix seconds; a young node is sooner."""
        return self.since + SUSPENDED_AFTER

    @property
    def disqualified(self) -> float:
        """From when it may be disqualified, in Unix seconds."""
        return self.since + DISQUALIFIED_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file beside the binary that an updater has left there."""

    path: Path
    version: NodeVersion | None
    """That it is a download of; None for a backup."""
    age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """What an updater has written down as failed, never to be tried again."""

    path: Path
    version: NodeVersion
    failure: str

    @property
    def by_signal(self) -> bool:
        """Whether a signal ended the try, as when the updater was stopped: the version is not to blame."""
        return self.failure.startswith(("signal: terminated", "signal: killed", "signal: interrupt"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdaterStatus:
    """The official updater of a node."""

    unit: str
    service: ServiceStatus
    installed: InstalledVersion | Failure
    """Of the updater itself."""
    log: UpdaterLog | Failure
    leftovers: tuple[Leftover, ...] | Failure
    rejected: Rejected | Failure | None
    interval_seconds: float | None
    """Between two checks; not above zero where it looks once and ends, None while that is not known."""
    server: str | None
    """The version server that it asks; None while that is not known."""
    server_is_ours: bool | None
    looked: float
    """When it was looked at; Unix seconds."""

    @property
    def version(self) -> NodeVersion | None:
        """Its own version: that of its binary, else the one that it has logged."""
        if isinstance(self.installed, InstalledVersion):
            return self.installed.version
        return self.log.version if isinstance(self.log, UpdaterLog) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node, once observed."""

    node: str
    manager: str
    service: ServiceStatus
    installed: InstalledVersion | Failure
    running: RunningNode | Failure
    allowed: AllowedVersions | Failure
    verdict: Verdict
    node_id: str | None = None
    """From the configuration, the node API or the identity, in this order."""
    last_contact: float | None = None
    """As the node API says, or last said; Unix seconds."""
    clock: Clock | None = None
    """Since when nobody reaches it; None while that is not known."""
    updater: UpdaterStatus | Failure | None = None
    """None without one."""
    durations: Mapping[Source, float] = field(default_factory=dict)
    """Seconds each source took."""

    @property
    def below_minimum(self) -> bool | None:
        """Whether the installed version is below the minimum; None when that is unknown."""
        if self.verdict.state is UpdateState.UNKNOWN:
            return None
        return self.verdict.state is UpdateState.BELOW_MINIMUM

    @property
    def deadlocked(self) -> bool | None:
        """Whether the node is down and too old to start; None when either is unknown."""
        if self.below_minimum is False:
            return False
        if self.service.state is ServiceState.UNKNOWN:
            return None
        return self.below_minimum if self.service.state in DOWN else False

    @property
    def not_reached(self) -> bool:
        """Whether satellites count the node as offline, as far as is known."""
        return self.clock is not None and self.clock.known - self.clock.since >= OFFLINE_AFTER

    @property
    def restart_pending(self) -> bool | None:
        """Whether the process runs another version than the one installed; None when either is unknown."""
        if isinstance(self.installed, Failure) or isinstance(self.running, Failure):
            return None
        return self.installed.version != self.running.version
