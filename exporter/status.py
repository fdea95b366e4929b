"""What has been seen of a node, as frozen data: the words everything else is written in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from exporter.allowed import AllowedVersions, UpdateState, Verdict
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
    def restart_pending(self) -> bool | None:
        """Whether the process runs another version than the one installed; None when either is unknown."""
        if isinstance(self.installed, Failure) or isinstance(self.running, Failure):
            return None
        return self.installed.version != self.running.version
