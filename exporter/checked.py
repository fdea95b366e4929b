"""What `check --json` says of a node, as data: what is serialised here is the schema (docs/check.schema.json). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from exporter.allowed import UpdateState
from exporter.check import advice, minimum
from exporter.status import Failure, InstalledVersion, NodeStatus, RunningNode, ServiceState

_SCHEMA = {"use_attribute_docstrings": True, "extra": "forbid"}


class Unknown(StrEnum):
    """What may be unknown of a node."""

    SERVICE = "service"
    INSTALLED_VERSION = "installed_version"
    RUNNING_VERSION = "running_version"
    MINIMUM_VERSION = "minimum_version"
    UPDATE_STATE = "update_state"


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
    unknown: Mapping[Unknown, str]
    """Why that which is unknown is so."""
    advice: list[str]
    """What a person should do, in sentences."""


def checked(status: NodeStatus) -> CheckedNode:
    """Describe a node for programs."""
    service, installed, running, verdict = status.service, status.installed, status.running, status.verdict
    reasons: dict[Unknown, str] = {}
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
        unknown=reasons,
        advice=advice(status),
    )


def as_json(statuses: Sequence[NodeStatus]) -> list[dict[str, Any]]:
    """Describe the nodes for programs, in plain types."""
    return [asdict(checked(status)) for status in statuses]
