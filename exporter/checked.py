"""What `check --json` says of a node, as data: what is serialised here is the schema (docs/check.schema.json). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from exporter.allowed import UpdateState
from exporter.check import advice, minimum
from exporter.status import Basis, Failure, InstalledVersion, NodeStatus, RunningNode, ServiceState, UpdaterStatus
from exporter.updater import blocked, replaces_stopped
from exporter.updaterlog import Blocked, UpdaterLog

_SCHEMA = {"use_attribute_docstrings": True, "extra": "forbid"}


class Unknown(StrEnum):
    """What may be unknown of a node."""

    SERVICE = "service"
    INSTALLED_VERSION = "installed_version"
    RUNNING_VERSION = "running_version"
    MINIMUM_VERSION = "minimum_version"
    UPDATE_STATE = "update_state"
    UPDATER = "updater"
    UPDATER_LOG = "updater_log"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedService:
    """What the service manager says. Null is what does not apply, or what the manager does not tell."""

    __pydantic_config__ = _SCHEMA

    state: ServiceState
    detail: str
    """Why this state, in words."""
    since: float | None
    """When it came into this state; Unix seconds."""
    exit_code: int | None
    """Exit status of the last main process; null when a signal ended it, or none has ended."""
    exit_signal: int | None
    """The signal that ended the last main process."""
    restarts: int | None
    """Automatic restarts since somebody last started it."""
    pid: int | None
    """Process ID of the main process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedClock:
    """Since when no satellite reaches the node, and what follows if that stays so; Unix seconds."""

    __pydantic_config__ = _SCHEMA

    since: float
    basis: Basis
    """What that is: its last contact, or, as a lower bound, when it was seen to be stopped."""
    suspended: float
    """When about; a young node is sooner."""
    disqualified: float
    """From when on, for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedUpdater:
    """The official updater of a node. Null is what is not known."""

    __pydantic_config__ = _SCHEMA

    unit: str
    state: ServiceState
    detail: str
    """Why this state, in words."""
    version: str | None
    replaces_stopped: bool | None
    """It replaces the binary of a node that does not run, as it does since 1.106."""
    blocked: list[Blocked]
    """By what it is blocked until somebody does something."""
    last_check: float | None
    """When it last learned which versions are allowed; Unix seconds, as the next two."""
    last_update: float | None
    last_failure: float | None
    check_interval_seconds: float | None
    """Not above zero where it looks once and ends."""
    version_server_ours: bool | None
    """It asks the version server that we ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNode:
    """One node. Null is what is not known, and then `unknown` says why, or what does not apply."""

    __pydantic_config__ = _SCHEMA

    node: str
    """Its name in the configuration."""
    node_id: str | None
    manager: str
    """Its service manager: systemd or process."""
    service: CheckedService
    installed_version: str | None
    """Of the binary on disk; every verdict judges this one."""
    running_version: str | None
    """Of the process that answers the node API."""
    minimum_version: str | None
    """The oldest version that the network allows."""
    update_state: UpdateState
    target_version: str | None
    """The version that an update would install now."""
    below_minimum: bool | None
    deadlocked: bool | None
    """Below the minimum and down: it can never start again as it is."""
    restart_pending: bool | None
    """The running version is not the installed one."""
    last_contact: float | None
    """When a satellite last reached the node; Unix seconds."""
    clock: CheckedClock | None
    updater: CheckedUpdater | None
    """Null without one."""
    unknown: Mapping[Unknown, str]
    """Why that which is unknown is so."""
    advice: list[str]
    """What a person should do, in sentences."""


def checked(status: NodeStatus) -> CheckedNode:
    """Describe a node for programs."""
    service, installed, running, verdict = status.service, status.installed, status.running, status.verdict
    clock, reasons = status.clock, dict[Unknown, str]()
    if service.state is ServiceState.UNKNOWN:
        reasons[Unknown.SERVICE] = service.detail
    readings = (Unknown.INSTALLED_VERSION, installed), (Unknown.RUNNING_VERSION, running)
    for name, reading in (*readings, (Unknown.MINIMUM_VERSION, status.allowed)):
        if isinstance(reading, Failure):
            reasons[name] = str(reading)
    if verdict.state is UpdateState.UNKNOWN:
        reasons[Unknown.UPDATE_STATE] = verdict.reason
    return CheckedNode(
        node=status.node,
        node_id=status.node_id,
        manager=status.manager,
        service=CheckedService(
            state=service.state,
            detail=service.detail,
            since=service.since,
            exit_code=service.exit_code,
            exit_signal=service.exit_signal,
            restarts=service.restarts,
            pid=service.pid,
        ),
        installed_version=str(installed.version) if isinstance(installed, InstalledVersion) else None,
        running_version=str(running.version) if isinstance(running, RunningNode) else None,
        minimum_version=minimum(status),
        update_state=verdict.state,
        target_version=None if verdict.target is None else str(verdict.target),
        below_minimum=status.below_minimum,
        deadlocked=status.deadlocked,
        restart_pending=status.restart_pending,
        last_contact=status.last_contact,
        clock=None
        if clock is None
        else CheckedClock(
            since=clock.since, basis=clock.basis, suspended=clock.suspended, disqualified=clock.disqualified
        ),
        updater=_updater(status, reasons),
        unknown=reasons,
        advice=advice(status),
    )


def _updater(status: NodeStatus, reasons: dict[Unknown, str]) -> CheckedUpdater | None:
    """Describe the updater; why it, or what it does, is not known is added to the reasons."""
    updater = status.updater
    if isinstance(updater, Failure):
        reasons[Unknown.UPDATER] = str(updater)
    if not isinstance(updater, UpdaterStatus):
        return None
    if isinstance(updater.log, Failure):
        reasons[Unknown.UPDATER_LOG] = str(updater.log)
    log = UpdaterLog() if isinstance(updater.log, Failure) else updater.log
    return CheckedUpdater(
        unit=updater.unit,
        state=updater.service.state,
        detail=updater.service.detail,
        version=None if updater.version is None else str(updater.version),
        replaces_stopped=replaces_stopped(updater),
        blocked=[kind for kind, is_so in blocked(status).items() if is_so],
        last_check=log.last_check,
        last_update=log.last_update,
        last_failure=log.last_failure,
        check_interval_seconds=updater.interval_seconds,
        version_server_ours=updater.server_is_ours,
    )


def as_json(statuses: Sequence[NodeStatus]) -> list[dict[str, Any]]:
    """Describe the nodes for programs, in plain types."""
    return [asdict(checked(status)) for status in statuses]
