"""Starting nodes after their update, and waiting until they have shown that they run."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from exporter.config import NodeConfig
from exporter.sources import node_api
from exporter.status import DOWN, Failure, ServiceState, ServiceStatus
from exporter.version import NodeVersion
from remediate.journal import Outcome
from remediate.services import control
from remediate.services.errors import ServiceError
from remediate.starting import StartReason
from remediate.steps.confirm import Look
from remediate.steps.storage import storage_missing

_LOOK_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_STAYS_UP_SECONDS = 3.0
"""A node that cannot run ends within a second, as seen of upstream's; its API answers only after it has started."""
_UP = (ServiceState.RUNNING, ServiceState.STARTING)
_WANTED_DOWN = (ServiceState.STOPPED, ServiceState.STOPPING, ServiceState.MASKED)

Result = tuple[Outcome, str]
Down = Mapping[str, float | None]
"""Since when each node is down that was down before the swap with nobody's doing but ours."""


def start(
    nodes: Sequence[NodeConfig], look: Look, down: Down, target: NodeVersion, *, patience: float
) -> dict[str, Result]:
    """Start nodes whose binary was replaced, and watch them until the API of each says the target and it has stayed up.

    What somebody has stopped since is left so; what somebody has started is watched like the others. A node that runs
    without answering may be migrating its databases: after `patience` seconds it is left as it is, unconfirmed.
    """
    results: dict[str, Result] = {}
    watched = []
    deadline = time.monotonic() + patience
    with suppress(KeyboardInterrupt):
        for node in nodes:
            results[node.name] = Outcome.UNCONFIRMED, f"{node.name} was told to start, and nobody has waited for it"
            if (result := _start(node, look, down, patience)) is not None:
                results[node.name] = result
            else:
                watched.append(_Watched(node))
        # However long the managers took to start them: each has to have the time to show that it runs.
        results |= _watch(watched, look, target, max(deadline, time.monotonic() + 2 * _STAYS_UP_SECONDS))
    return {node.name: (Outcome.START_FAILED, f"{node.name} was not started: interrupted") for node in nodes} | results


def leave(node: NodeConfig, reason: str, look: Look) -> Result:
    """Say of a node that is not started what a person has to know."""
    if look(node).state in _UP:
        return Outcome.UPDATED, f"{node.name} was started meanwhile, by others"
    if reason == StartReason.OTHER_CAUSE:
        return Outcome.LEFT_DOWN, f"{node.name} was not down for its version alone: see why, then start it"
    return Outcome.UPDATED, f"{node.name} is left stopped ({reason})"


def _start(node: NodeConfig, look: Look, down: Down, patience: float) -> Result | None:
    """Start a node that is down as it was when its binary was replaced; None when it is to be watched now."""
    status = look(node)
    if status.state in (*_UP, ServiceState.CRASH_LOOPING):
        return None if node.name in down else (Outcome.UPDATED, f"{node.name} was started before the swap, by others")
    if (changed := _changed(node, status, down)) is not None:
        return changed
    if (missing := storage_missing(node)) is not None:
        return Outcome.START_FAILED, f"{node.name} was not started: {missing}"
    try:
        control(node).start(patience)
    except ServiceError as error:
        status = look(node)
        if status.state not in _UP:
            return Outcome.START_FAILED, f"{error}; {node.name} is {status.state}: {status.detail}"
    return None


def _changed(node: NodeConfig, status: ServiceStatus, down: Down) -> Result | None:
    """Say what has become of a node since the swap, when that forbids to start it."""
    rests = status.state in (ServiceState.STOPPED, ServiceState.CRASHED)
    if rests and node.name in down and status.since in (None, down[node.name]):
        return None
    if status.state in _WANTED_DOWN:
        return Outcome.UPDATED, f"{node.name} is left as somebody has put it meanwhile: {status.detail}"
    return Outcome.START_FAILED, f"{node.name} was not started, it is {status.state} meanwhile: {status.detail}"


def _watch(watched: "Sequence[_Watched]", look: Look, target: NodeVersion, deadline: float) -> dict[str, Result]:
    results: dict[str, Result] = {}
    while len(results) < len(watched) and time.monotonic() < deadline:
        for each in watched:
            if each.node.name not in results and (result := each.look(look, target)) is not None:
                results[each.node.name] = result
        time.sleep(_PAUSE_SECONDS)
    return {each.node.name: each.unconfirmed(target) for each in watched} | results


@dataclass(slots=True)
class _Watched:
    node: NodeConfig
    answered: float | None = None
    problem: str = "no answer yet"

    def look(self, look: Look, target: NodeVersion) -> Result | None:
        """Look once; None while nothing is certain."""
        name, now, service = self.node.name, time.monotonic(), look(self.node)
        if service.state in DOWN:
            return Outcome.START_FAILED, f"{name} did not stay up: {service.detail}"
        running = node_api.read(self.node.api, _LOOK_SECONDS)
        if isinstance(running, Failure):
            self.answered, self.problem = None, str(running)
        elif running.version < target:  # the official updater may have gone on
            self.answered, self.problem = None, f"the API says {running.version}"
        else:
            self.answered = now if self.answered is None else self.answered
            if now - self.answered >= _STAYS_UP_SECONDS and service.state is ServiceState.RUNNING:
                return Outcome.UPDATED, f"{name} runs {target}"
        return None

    def unconfirmed(self, target: NodeVersion) -> Result:
        return Outcome.UNCONFIRMED, f"{self.node.name} was started and has not shown {target}: {self.problem}"
