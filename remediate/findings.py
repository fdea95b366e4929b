"""What there is to see of a node and its host, and what of it would block or endanger an update. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporter.status import Failure, Leftover, NodeStatus, ServiceState, UpdaterStatus
from exporter.updater import beside, targets, troubles
from exporter.version import NodeVersion
from remediate.decision import Decision, Reason
from remediate.diagnosis import Diagnosis, Finding, Severity
from remediate.history import History, Pause
from remediate.steps.swap import Obstacle

WORKER, WORKER_PATH = "storagenode-remediate-worker.service", "storagenode-remediate-worker.path"
_CLOCK_SECONDS = 60
_SYSTEM_FOLDERS = {"yes": ("/usr", "/boot", "/efi"), "full": ("/usr", "/boot", "/efi", "/etc"), "strict": ("/",)}
_HOME_FOLDERS = ("/home", "/root", "/run/user")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUnits:
    """The worker's units: whether anything starts it, and where it may write."""

    installed: bool
    enabled: str
    """UnitFileState of the path unit."""
    active: str
    """ActiveState of the path unit."""
    protect_system: str = "no"
    protect_home: str = "no"
    read_write: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()

    def may_write(self, folder: Path) -> bool:
        """Whether the worker's unit leaves a folder writable: the longest path that is said something of decides."""
        protected = [*_SYSTEM_FOLDERS.get(self.protect_system, ()), *self.read_only]
        if self.protect_home != "no":
            protected += _HOME_FOLDERS
        deepest = max((len(path) for path in protected if folder.is_relative_to(path)), default=0)
        return not deepest or any(len(path) >= deepest for path in self.read_write if folder.is_relative_to(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A run that is on record without its end."""

    id: int
    node: str
    under_way: bool


Problem = tuple[Severity, str, str]
"""What cannot be used, and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What was seen of everything that all nodes share; what is None, or not listed, is as it should be."""

    version_server: str
    """The address that is configured."""
    problems: Mapping[str, Problem] = field(default_factory=dict)
    """By what was looked at."""
    clock_ahead_seconds: float | None = None
    worker: WorkerUnits | None = None
    """None without systemd."""
    worker_last_seen: float | None = None
    unfinished: tuple[Unfinished, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What was seen of a node; what is None, or not listed, is as it should be, or could not apply."""

    status: NodeStatus
    folder: Path
    obstacles: tuple[tuple[Obstacle, str], ...] = ()
    staged: Path | None = None
    leftovers: tuple[Leftover, ...] = ()
    """Where no updater is seen to have left them."""
    config_problem: str | None = None
    own_version_server: str | None = None
    restart: str | None = None
    storage_problem: str | None = None
    history: History = field(default_factory=History)
    pause: Pause | None = None
    """Lasting."""
    that_day: tuple[NodeVersion, Decision] | None = None
    """The next minimum that it is below, and what would be decided then with nobody asking."""


def diagnose(host: HostFacts, nodes: Sequence[NodeFacts]) -> Diagnosis:
    """Say what would block or endanger an update of these nodes."""
    findings = [
        Finding(node=facts.status.node, severity=severity, check=check, what=what, todo=todo)
        for facts in nodes
        for severity, check, what, todo in _of_node(facts, host)
    ]
    findings += [
        Finding(node=None, severity=severity, check=check, what=what, todo=todo)
        for severity, check, what, todo in _of_host(host)
    ]
    return Diagnosis(nodes=tuple(facts.status.node for facts in nodes), findings=tuple(findings))


_CLEAR_AWAY = {
    Obstacle.NO_FILE: "set `binary` to where the node's program is",
    Obstacle.PROTECTED: "chattr -i -a on it",
    Obstacle.IN_THE_WAY: "remove the directory",
    Obstacle.NOEXEC: "mount it with exec, or keep the binary elsewhere",
    Obstacle.NO_ROOM: "make room there",
    Obstacle.NOT_WRITABLE: "make it writable for the user the worker runs as (root): mount it rw, chattr -i, chmod",
}
_Found = tuple[Severity, str, str, str]
_BLOCKS, _ENDANGERS, _NOTE = Severity.BLOCKS, Severity.ENDANGERS, Severity.NOTE


def _of_node(facts: NodeFacts, host: HostFacts) -> Iterator[_Found]:
    status = facts.status
    yield from _of_service(facts)
    if isinstance(status.installed, Failure):
        what = f"the installed binary does not say its version when it is run with few rights: {status.installed}"
        yield _BLOCKS, "probe", what, "put a working binary of the node's own version in its place"
    elif not status.installed.release:
        yield (
            _BLOCKS,
            "probe",
            "the installed binary is a development build",
            "install a release, or update it yourself",
        )
    for obstacle, detail in facts.obstacles:
        yield _BLOCKS, obstacle.value, detail, _CLEAR_AWAY[obstacle]
    if host.worker and host.worker.installed and not host.worker.may_write(facts.folder):
        what = f"{facts.folder}: the worker's unit keeps it from being written"
        yield _BLOCKS, "sandbox", what, f"systemctl edit {WORKER}, and add ReadWritePaths={facts.folder}"
    if facts.staged and not host.unfinished:
        yield _NOTE, "leftover", f"{facts.staged}: left by an earlier run", "nothing: the next update removes it"
    yield from _of_updater(facts)
    if facts.own_version_server not in (None, host.version_server):
        what = (
            f"the node asks {facts.own_version_server!r} which versions are allowed, and we ask {host.version_server}"
        )
        todo = "take version.server-address out of the node's settings, or set our version_server to the same"
        yield _ENDANGERS, "version_server", what, todo
    if facts.config_problem:
        todo = "set `config_dir` to where the node's config.yaml is, and look as the user the worker runs as"
        yield _ENDANGERS, "config_dir", f"the node's settings cannot be read: {facts.config_problem}", todo
    if facts.storage_problem:
        what = f"the node would not be started after an update: {facts.storage_problem}"
        yield _ENDANGERS, "storage", what, "mount the storage, or set `storage` to where it is"
    history, resume = facts.history, f"storagenode-remediate resume {status.node}"
    for version in sorted((targets(status) or set()) & history.known_bad.keys()):
        what = f"{version} failed before, and is not tried again: {history.known_bad[version]}"
        yield _BLOCKS, "known_bad", what, f"see why, then: {resume}"
    if history.circuit_open:
        what = "it failed three times within a day: nothing is done unasked"
        yield _BLOCKS, "circuit", what, f"see why (storagenode-remediate history {status.node}), then: {resume}"
    if (pause := facts.pause) is not None:
        ending = resume if pause.node else "storagenode-remediate resume"
        yield _NOTE, "paused", f"paused, nothing is done unasked: {pause.reason}", f"when that is over: {ending}"
    if facts.that_day is not None:
        yield from _of_that_day(*facts.that_day)


def _of_that_day(minimum: NodeVersion, decision: Decision) -> Iterator[_Found]:
    """Say what keeps a node from being helped once the minimum is this, of what is not found otherwise."""
    what = f"once the minimum is {minimum}, the node cannot be helped: {decision.detail}"
    match decision.reason:
        case Reason.NEVER_INSTALL:
            yield _ENDANGERS, "that_day", what, "update it now to a version that you do allow, or allow this one"
        case Reason.FOREIGN_URL | Reason.INCONSISTENT_SERVER:
            yield _ENDANGERS, "that_day", what, "see that version_server and releases are right, and who answers there"
        case Reason.DRY_RUN:
            what = f"once the minimum is {minimum}, nothing is done: {decision.detail}, were it not for dry_run"
            yield _NOTE, "that_day", what, "take dry_run out of the rules when you trust them"


def _of_service(facts: NodeFacts) -> Iterator[_Found]:
    status, state = facts.status, facts.status.service.state
    if state in (ServiceState.MASKED, ServiceState.ABSENT):
        todo = "see that `service` in the configuration names the node's service, and unmask it"
        yield _BLOCKS, "service", f"the service cannot be started: {status.service.detail}", todo
    elif state is ServiceState.UNKNOWN and not status.service.undecided:
        todo = "see that the service manager can be asked; what is unknown is not updated"
        yield _BLOCKS, "service", f"the state of the service is unknown: {status.service.detail}", todo
    if facts.restart not in (None, "always"):
        severity = _ENDANGERS if status.updater else _NOTE
        what = (
            f"its unit has Restart={facts.restart}: the official updater ends the node and leaves its start to systemd"
        )
        yield severity, "restart", what, "set Restart=always in the node's unit (systemctl edit)"


def _of_updater(facts: NodeFacts) -> Iterator[_Found]:
    updater = facts.status.updater
    for trouble in (*beside(facts.leftovers, facts.status), *troubles(facts.status)):
        yield _ENDANGERS if trouble.serious else _NOTE, trouble.check, trouble.what, trouble.todo
    log = updater.log if isinstance(updater, UpdaterStatus) else updater
    if isinstance(log, Failure):
        todo = "look as root, or as a member of the group systemd-journal"
        yield _NOTE, "updater_log", f"what the official updater does is not known: {log}", todo


def _of_host(host: HostFacts) -> Iterator[_Found]:
    for check, (severity, what, todo) in host.problems.items():
        yield severity, check, what, todo
    if host.clock_ahead_seconds is not None and abs(host.clock_ahead_seconds) > _CLOCK_SECONDS:
        what = f"the clock differs by {host.clock_ahead_seconds:+.0f} s from the version server's"
        yield _ENDANGERS, "clock", what, "set it, and keep it set (timedatectl set-ntp true): nodes refuse to run else"
    for run in host.unfinished:
        if run.under_way:
            yield _NOTE, "unfinished", f"run {run.id} of {run.node} is under way", "look again when it has ended"
        else:
            what = f"run {run.id} of {run.node} was interrupted"
            yield _ENDANGERS, "unfinished", what, "storagenode-remediate recover"
    if host.worker is None:
        return
    if not host.worker.installed:
        what = f"{WORKER_PATH} is not installed: no alert is acted on but by `serve --work`"
        yield _NOTE, "worker", what, "install the units as the README says, or update by hand"
    elif not host.worker.enabled.startswith("enabled") or host.worker.active != "active":
        what = f"{WORKER_PATH} is {host.worker.enabled or 'not enabled'} and {host.worker.active}: no alert is acted on"
        yield _ENDANGERS, "worker", what, f"systemctl enable --now {WORKER_PATH} {WORKER}"
    elif host.worker_last_seen is None:
        what = "the worker has never been seen"
        yield _ENDANGERS, "worker", what, f"systemctl enable --now {WORKER}, and see its log"
