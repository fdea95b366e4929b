"""Whether a node is updated, to what, and whether it is started afterwards. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from exporter.allowed import STORAGENODE, AllowedVersions, Process, UpdateState
from exporter.commandline import Program
from exporter.status import DOWN, Failure, InstalledVersion, NodeStatus, ServiceState, ServiceStatus
from exporter.version import NodeVersion
from remediate.history import History
from remediate.rules import Rules, Start
from remediate.starting import EXIT_TOO_OLD, StartDecision, decide_start


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
    UPDATER_TOO_OLD = "updater_too_old"
    """It is below its own minimum, or replaces no binary of a node that does not run."""
    UPDATER_BLOCKED = "updater_blocked"
    """By files of its own, that it never gets past."""
    NO_UPDATER = "no_updater"
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
    NEVER_INSTALL = "never_install"
    KNOWN_BAD = "known_bad"
    PAUSED = "paused"
    CIRCUIT_OPEN = "circuit_open"
    COOLING_DOWN = "cooling_down"
    OUTSIDE_WINDOWS = "outside_windows"
    DRY_RUN = "dry_run"
    STILL_HELD = "still_held"
    """An earlier run has not been able to put back what it stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of one node; everything but node and trigger only a person can say."""

    node: str
    trigger: Trigger
    program: Program = Program.STORAGENODE
    """The node itself, or its updater."""
    to: str | None = None
    """`minimum`, `suggested` or a version."""
    start: Start | None = None
    stop_running: bool = False
    artifact: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed:
    """Update the binary to the target; `starts` speaks of every node of this binary that is down."""

    target: NodeVersion
    reason: Reason
    starts: Mapping[str, StartDecision]
    blocks: Mapping[str, str] = field(default_factory=dict)
    """Files by which the updater blocks itself, and which are removed; each with why it does."""

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
    state, installed = status.service.state, status.installed
    if (hindered := hindrance(request, status.service, installed)) is not None:
        return hindered
    assert isinstance(installed, InstalledVersion), "else it was a hindrance"
    chosen = _target(request, status, history, now)
    if isinstance(chosen, Skip | Refuse):
        return chosen
    target, reason = chosen
    if (senseless := no_step_up(installed.version, target)) is not None:
        return senseless
    if state is ServiceState.RUNNING and not request.stop_running:
        if by_person:
            return Refuse(Reason.RUNNING, "the node is running; --stop-running stops it for the update")
        return Skip(Reason.RUNNING, "a running node is left to the official updater")
    if (backwards := _below_running(request, status, target)) is not None:
        return backwards
    if (forbidden := forbids(request, storagenode_versions(status.allowed), target, history, rules)) is not None:
        return forbidden
    rule = request.start or rules.start
    starts = {
        name: decide_start(each, rule)
        for name, each in statuses.items()
        if name == request.node or each.service.state in DOWN
    }
    proceed = Proceed(target=target, reason=reason, starts=starts)
    return proceed if by_person else restrained(proceed, history, rules, now)


def hindrance(request: Request, service: ServiceStatus, installed: InstalledVersion | Failure) -> Skip | Refuse | None:
    """Say what of a program that was looked at forbids to replace it, whatever the target."""
    match service.state:
        case ServiceState.MASKED:
            return Refuse(Reason.MASKED, "the service is masked: somebody forbade starting it")
        case ServiceState.ABSENT:
            return Refuse(Reason.ABSENT, "the service manager does not know the service")
        case ServiceState.UNKNOWN:
            return Refuse(Reason.SERVICE_UNKNOWN, service.detail)
        case ServiceState.STARTING | ServiceState.STOPPING:
            return Skip(Reason.IN_TRANSITION, f"the service is {service.state}")
    if isinstance(installed, Failure):
        return Refuse(Reason.INSTALLED_UNKNOWN, str(installed))
    if not installed.release and request.trigger is not Trigger.PERSON:
        return Refuse(Reason.DEVELOPMENT_BUILD, "a development build is exempt from the minimum")
    return None


def no_step_up(installed: NodeVersion, target: NodeVersion) -> Skip | Refuse | None:
    """Say why a target is not to be installed where another version is."""
    if target == installed:
        return Skip(Reason.CURRENT, f"{installed} is installed")
    if target < installed:
        return Refuse(Reason.DOWNGRADE, f"{target} is below the installed {installed}")
    return None


def _below_running(request: Request, status: NodeStatus, target: NodeVersion) -> Refuse | None:
    """Keep a node that would be stopped from a version below the one it runs, unless a person names that version.

    Another may have replaced its binary by an older one; a node may not be able to read what a newer one has left.
    """
    if status.service.state is not ServiceState.RUNNING or isinstance(status.running, Failure):
        return None
    running = status.running.version
    if target >= running or request.to not in (None, "minimum", "suggested"):
        return None
    return Refuse(Reason.DOWNGRADE, f"{target} is below the running {running}; --to {running} installs that one")


def forbids(
    request: Request, process: Process | None, target: NodeVersion, history: History, rules: Rules
) -> Refuse | None:
    """Say what forbids a target: the operator's rules, what became of it before, or where it would come from."""
    if never := rules.forbidding(target):
        return Refuse(Reason.NEVER_INSTALL, f"{target} is {never}, which the rules say never to install")
    if target in history.known_bad and request.trigger is not Trigger.PERSON:
        return Refuse(Reason.KNOWN_BAD, f"{target} failed before: {history.known_bad[target]}")
    if request.artifact is None and (foreign := _foreign_url(process, request.program, target, rules)):
        return Refuse(Reason.FOREIGN_URL, foreign)
    return None


def awaits_its_end(status: NodeStatus) -> bool:
    """Whether a node that its manager keeps starting may yet end for its age; how it ends next tells."""
    service = status.service
    looping = service.state is ServiceState.CRASH_LOOPING
    return looping and service.exit_code != EXIT_TOO_OLD and status.below_minimum is True


def storagenode_versions(allowed: AllowedVersions | Failure) -> Process | None:
    """Take the storage node's part of a document, where there is one."""
    return None if isinstance(allowed, Failure) else allowed.processes[STORAGENODE]


def demanded(request: Request, process: Process | None, to: str, unknown: str) -> tuple[NodeVersion, Reason] | Refuse:
    """Give the target that a person names; `unknown` is why it is not known which versions are allowed."""
    if to in ("minimum", "suggested"):
        if process is None:
            return Refuse(Reason.ALLOWED_UNKNOWN, unknown)
        return (process.minimum if to == "minimum" else process.suggested).version, Reason.REQUESTED
    target = NodeVersion.parse(to)
    if process is None and request.artifact is None:
        return Refuse(Reason.ALLOWED_UNKNOWN, unknown)
    if process is not None and target < process.minimum.version:
        return Refuse(Reason.TARGET_BELOW_MINIMUM, f"{target} is below the minimum {process.minimum.version}")
    return target, Reason.REQUESTED


def _target(
    request: Request, status: NodeStatus, history: History, now: float
) -> tuple[NodeVersion, Reason] | Skip | Refuse:
    process = storagenode_versions(status.allowed)
    if request.to is not None:
        return demanded(request, process, request.to, str(status.allowed))
    if process is None:
        return Refuse(Reason.ALLOWED_UNKNOWN, str(status.allowed))
    if request.trigger is not Trigger.PERSON and (wrong := history.inconsistency(process, now)):
        return Refuse(Reason.INCONSISTENT_SERVER, wrong)
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


def restrained(proceed: Proceed, history: History, rules: Rules, now: float) -> Decision:
    """Say what keeps a needed update from being done with nobody asking for it, if anything does."""
    if (pause := history.pause(now)) is not None:
        until = "" if pause.until is None else f" until {_utc(pause.until)}"
        return Skip(Reason.PAUSED, f"{pause.node or 'everything'} is paused{until}: {pause.reason}")
    if history.circuit_open:
        return Refuse(Reason.CIRCUIT_OPEN, "it failed three times within a day; `resume` allows it again")
    if history.cools_down(now, rules.cool_down.total_seconds()):
        return Skip(Reason.COOLING_DOWN, f"its last run ended less than {rules.cool_down} ago")
    if rules.windows and not any(window.contains(now) for window in rules.windows):
        return Skip(Reason.OUTSIDE_WINDOWS, f"it is none of {'; '.join(map(str, rules.windows))}")
    if rules.dry_run:
        return Skip(Reason.DRY_RUN, _would(proceed))
    return proceed


def _would(proceed: Proceed) -> str:
    if proceed.reason is Reason.UPDATER_BLOCKED:
        return f"{', '.join(proceed.blocks)} would be removed ({proceed.reason})"
    starts = ", ".join(node for node, each in proceed.starts.items() if each.start) or "nothing"
    return f"{proceed.target} would be installed ({proceed.reason}), and {starts} started"


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def _foreign_url(process: Process | None, program: Program, target: NodeVersion, rules: Rules) -> str | None:
    """Compare the document's address for the target with ours; an empty one claims nothing."""
    expected = f"{rules.releases}/v{target}/{program}_{{os}}_{{arch}}.zip"
    for release in (process.minimum, process.suggested) if process is not None else ():
        if release.version == target and release.url not in ("", expected):
            return f"the version server names {release.url[:200]!r} for {target}, expected {expected!r}"
    return None
