"""Whether a node is updated, to what, and whether it is started afterwards. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from exporter.allowed import STORAGENODE, AllowedVersions, Process, UpdateState
from exporter.status import DOWN, Failure, NodeStatus, ServiceState
from exporter.version import NodeVersion
from remediate.rules import Rules, Start

_JUMP_MINORS = 10
_DAYS_PER_MINOR = 14
"""Upstream publishes a minor release about every fourteen days."""
_DAY = 86400.0
_EXIT_TOO_OLD = 1
"""What a node exits with when it finds itself below the minimum (storj/storj, cmd/storagenode)."""


class Trigger(StrEnum):
    """What asked for a run."""

    ALERT = "alert"
    WATCH = "watch"
    PERSON = "person"


class Reason(StrEnum):
    """Why a decision is what it is."""

    BELOW_MINIMUM = "below_minimum"
    DUE = "due"
    REQUESTED = "requested"
    CURRENT = "current"
    WAITING = "waiting"
    ONLY_DUE = "only_due"
    RUNNING = "running"
    IN_TRANSITION = "in_transition"
    MASKED = "masked"
    ABSENT = "absent"
    SERVICE_UNKNOWN = "service_unknown"
    INSTALLED_UNKNOWN = "installed_unknown"
    DEVELOPMENT_BUILD = "development_build"
    ALLOWED_UNKNOWN = "allowed_unknown"
    UPDATE_STATE_UNKNOWN = "update_state_unknown"
    INCONSISTENT_SERVER = "inconsistent_server"
    FOREIGN_URL = "foreign_url"
    DOWNGRADE = "downgrade"
    TARGET_BELOW_MINIMUM = "target_below_minimum"
    KNOWN_BAD = "known_bad"
    STILL_HELD = "still_held"
    """An earlier run has not been able to put back what it stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of one node; everything but node and trigger only a person can say."""

    node: str
    trigger: Trigger
    to: str | None = None
    """`minimum`, `suggested` or a version."""
    start: Start | None = None
    stop_running: bool = False
    artifact: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What earlier runs left to be considered."""

    known_bad: Mapping[NodeVersion, str] = field(default_factory=dict)
    """Versions that failed by themselves on this binary, and how."""
    last_minimum: tuple[NodeVersion, float] | None = None
    """The last minimum that made sense, and when it was fetched, in Unix seconds."""


class StartReason(StrEnum):
    """Why a node is started after its update, or is not."""

    TOO_OLD_TO_START = "too_old_to_start"
    RULE_ALWAYS = "rule_always"
    WAS_RUNNING = "was_running"
    ASKED_TO_STOP = "asked_to_stop"
    RULE_NEVER = "rule_never"
    OTHER_CAUSE = "other_cause"
    """It was not, or not only, its version that brought it down: a person has to look."""


@dataclass(frozen=True, slots=True)
class StartDecision:
    """Whether a node is started afterwards."""

    start: bool
    reason: StartReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed:
    """Update the binary to the target; `starts` speaks of every node of this binary that is down."""

    target: NodeVersion
    reason: Reason
    starts: Mapping[str, StartDecision]

    name = "proceed"
    detail = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """There is nothing to do, or nothing to do now."""

    reason: Reason
    detail: str

    name = "skip"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Something forbids it."""

    reason: Reason
    detail: str

    name = "refuse"


Decision = Proceed | Skip | Refuse


def decide(
    request: Request, statuses: Mapping[str, NodeStatus], history: History, rules: Rules, now: float
) -> Decision:
    """Decide on a request.

    Args:
        request: what is asked.
        statuses: every node that shares the binary, the one asked about among them.
        history: what earlier runs left.
        rules: what the operator allows.
        now: Unix seconds.
    """
    status = statuses[request.node]
    by_person = request.trigger is Trigger.PERSON
    state = status.service.state
    match state:
        case ServiceState.MASKED:
            return Refuse(Reason.MASKED, "the service is masked: somebody forbade starting it")
        case ServiceState.ABSENT:
            return Refuse(Reason.ABSENT, "the service manager does not know the service")
        case ServiceState.UNKNOWN:
            return Refuse(Reason.SERVICE_UNKNOWN, status.service.detail)
        case ServiceState.STARTING | ServiceState.STOPPING:
            return Skip(Reason.IN_TRANSITION, f"the service is {state}")
    if isinstance(status.installed, Failure):
        return Refuse(Reason.INSTALLED_UNKNOWN, str(status.installed))
    if not status.installed.release and not by_person:
        return Refuse(Reason.DEVELOPMENT_BUILD, "a development build is exempt from the minimum")
    chosen = _target(request, status, history, now)
    if isinstance(chosen, Skip | Refuse):
        return chosen
    target, reason = chosen
    installed = status.installed.version
    if target == installed:
        return Skip(Reason.CURRENT, f"{installed} is installed")
    if target < installed:
        return Refuse(Reason.DOWNGRADE, f"{target} is below the installed {installed}")
    if target in history.known_bad and not by_person:
        return Refuse(Reason.KNOWN_BAD, f"{target} failed before: {history.known_bad[target]}")
    if request.artifact is None and (foreign := _foreign_url(status, target, rules)):
        return Refuse(Reason.FOREIGN_URL, foreign)
    if state is ServiceState.RUNNING and not request.stop_running:
        if by_person:
            return Refuse(Reason.RUNNING, "the node is running; --stop-running stops it for the update")
        return Skip(Reason.RUNNING, "a running node is left to the official updater")
    rule = request.start or rules.start
    starts = {
        name: decide_start(each, rule)
        for name, each in statuses.items()
        if name == request.node or each.service.state in DOWN
    }
    return Proceed(target=target, reason=reason, starts=starts)


def decide_start(status: NodeStatus, rule: Start) -> StartDecision:
    """Decide whether a node is started after its update: a clean stop stays a stop, an aged crash is undone."""
    if rule is Start.NEVER:
        return StartDecision(False, StartReason.RULE_NEVER)
    if status.service.state is ServiceState.RUNNING:
        return StartDecision(True, StartReason.WAS_RUNNING)
    if rule is Start.ALWAYS:
        return StartDecision(True, StartReason.RULE_ALWAYS)
    if status.service.state is ServiceState.STOPPED:
        return StartDecision(False, StartReason.ASKED_TO_STOP)
    if status.service.exit_code == _EXIT_TOO_OLD and status.below_minimum:
        return StartDecision(True, StartReason.TOO_OLD_TO_START)
    return StartDecision(False, StartReason.OTHER_CAUSE)


def inconsistency(process: Process, last_minimum: tuple[NodeVersion, float] | None, now: float) -> str | None:
    """Say why a document's minimum is not to be believed by anything automatic; None where it is."""
    minimum = process.minimum.version
    if not process.consistent:
        return f"the minimum {minimum} is above the suggested {process.suggested.version}"
    if last_minimum is None:
        return None
    before, when = last_minimum
    allowed = _JUMP_MINORS + max(now - when, 0.0) / _DAY // _DAYS_PER_MINOR
    if minimum.major != before.major or minimum.minor - before.minor > allowed:
        return f"the minimum jumped from {before} to {minimum}, more than {allowed:.0f} minor releases"
    return None


def storagenode_versions(allowed: AllowedVersions | Failure) -> Process | None:
    """Take the storage node's part of a document, where there is one."""
    return None if isinstance(allowed, Failure) else allowed.processes[STORAGENODE]


def _target(
    request: Request, status: NodeStatus, history: History, now: float
) -> tuple[NodeVersion, Reason] | Skip | Refuse:
    process = storagenode_versions(status.allowed)
    if request.to is not None and request.to not in ("minimum", "suggested"):
        target = NodeVersion.parse(request.to)
        if process is None and request.artifact is None:
            return Refuse(Reason.ALLOWED_UNKNOWN, str(status.allowed))
        if process is not None and target < process.minimum.version:
            return Refuse(Reason.TARGET_BELOW_MINIMUM, f"{target} is below the minimum {process.minimum.version}")
        return target, Reason.REQUESTED
    if process is None:
        return Refuse(Reason.ALLOWED_UNKNOWN, str(status.allowed))
    if request.trigger is not Trigger.PERSON and (wrong := inconsistency(process, history.last_minimum, now)):
        return Refuse(Reason.INCONSISTENT_SERVER, wrong)
    if request.to is not None:
        release = process.minimum if request.to == "minimum" else process.suggested
        return release.version, Reason.REQUESTED
    verdict = status.verdict
    match verdict.state:
        case UpdateState.BELOW_MINIMUM if verdict.target is not None:
            return verdict.target, Reason.BELOW_MINIMUM
        case UpdateState.DUE if verdict.target is not None and request.trigger is Trigger.PERSON:
            return verdict.target, Reason.DUE
        case UpdateState.DUE:
            return Skip(Reason.ONLY_DUE, f"{verdict.target} is due, but the node is not below the minimum")
        case UpdateState.WAITING:
            return Skip(Reason.WAITING, "the rollout has not reached this node")
        case UpdateState.CURRENT:
            return Skip(Reason.CURRENT, "the installed version is current")
        case _:
            return Refuse(Reason.UPDATE_STATE_UNKNOWN, verdict.reason)


def _foreign_url(status: NodeStatus, target: NodeVersion, rules: Rules) -> str | None:
    """Compare the document's address for the target with ours; an empty one claims nothing."""
    process = storagenode_versions(status.allowed)
    expected = f"{rules.releases}/v{target}/storagenode_{{os}}_{{arch}}.zip"
    for release in (process.minimum, process.suggested) if process is not None else ():
        if release.version == target and release.url not in ("", expected):
            return f"the version server names {release.url[:200]!r} for {target}, expected {expected!r}"
    return None
