"""Nodes that have to be down for a swap: which are stopped for it, and that they are; and starting them again."""

import logging
import time
from collections.abc import Callable, Collection, Iterable

from exporter.config import NodeConfig
from exporter.status import ServiceState, ServiceStatus
from remediate.journal import Outcome, Run
from remediate.services import control
from remediate.services.errors import NoServiceError, ServiceError
from remediate.steps import StepError
from remediate.steps.storage import storage_missing

logger = logging.getLogger(__name__)

Look = Callable[[NodeConfig], ServiceStatus]

_UNDECIDED_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_RECOVERED_SECONDS = 5.0
"""For a node that kept ending to show that it does no more: one that is too old ends within a second."""


def must_stop(node: NodeConfig, run: Run, look: Look, *, stop_running: bool) -> bool:
    """Look whether a node that was to be stopped still has to be; one that has recovered must not.

    `stop_running` is what a person said of the node that was asked about, and of no other.

    Raises:
        StepError: the node that was asked about runs now, and nobody asked for it to be stopped, or it could not be
            started again.
    """
    status = _settled(node, look)
    deadline = time.monotonic() + _RECOVERED_SECONDS
    while run.seen[node.name] == ServiceState.CRASH_LOOPING and status.state is ServiceState.RUNNING:
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_SECONDS)
        status = _settled(node, look)
    if status.state is not ServiceState.RUNNING:
        return status.state is ServiceState.CRASH_LOOPING
    if node.name != run.node:
        return False
    if not stop_running:
        raise StepError(Outcome.ABANDONED, f"{node.name} was {ServiceState.CRASH_LOOPING}, and runs now")
    if run.starts[node.name].start and (missing := storage_missing(node)) is not None:
        raise StepError(Outcome.FAILED, f"{node.name} is not stopped, since it would not be started again: {missing}")
    return True


def confirm_down(
    run: Run, nodes: Iterable[NodeConfig], look: Look, stopped: Collection[str]
) -> dict[str, float | None]:
    """Demand that the node asked about is down, and stays so unless somebody starts it.

    Args:
        run: what was decided.
        nodes: those that were down then.
        look: at their services.
        stopped: the names of those that we have stopped since.

    Returns:
        Since when each node is down that nobody else has stopped or started since the decision.

    Raises:
        StepError: it is not down, or somebody has tried to start it: the next decision may be another.
    """
    down: dict[str, float | None] = {}
    for node in nodes:
        status, decided_on = _settled(node, look), run.seen[node.name]
        tried = status.state is ServiceState.CRASHED and decided_on == ServiceState.STOPPED
        rests = status.state in (ServiceState.STOPPED, ServiceState.CRASHED)
        if node.name == run.node and (tried or not rests):
            since = f", and was {decided_on}" if tried else ""
            raise StepError(Outcome.ABANDONED, f"{node.name} is {status.state}{since}: {status.detail}")
        if rests and (status.state in (ServiceState.CRASHED, decided_on) or node.name in stopped):
            down[node.name] = status.since
    return down


def start_again(node: NodeConfig, look: Look, asked: float) -> None:
    """Start a node that was stopped for an update that did not happen, unless somebody has already.

    One that is still stopping is told too: its manager starts it as soon as it has stopped. One that has no manager to
    say that it is stopping is waited for, as who asked it to end would have done. One that is started and fails by
    itself, as it did before, is as it was.

    Args:
        node: was asked to end, or may have been.
        look: at its service.
        asked: when that was, in Unix seconds.

    Raises:
        StepError: it could not be started; it stays on record.
    """
    while (status := look(node)).state in (ServiceState.RUNNING, ServiceState.STARTING):
        if (status.since or 0.0) > asked or time.time() > asked + control(node).ends_unseen_seconds:
            return
        time.sleep(_PAUSE_SECONDS)
    try:
        control(node).start()
    except NoServiceError as error:
        logger.warning("node cannot be started again", extra={"node": node.name, "problem": str(error)})
    except ServiceError as error:
        if look(node).state not in (ServiceState.CRASHED, ServiceState.CRASH_LOOPING):
            raise StepError(Outcome.STILL_HELD, f"{node.name}: {error}") from None
        logger.warning("node was started again, and failed again", extra={"node": node.name, "problem": str(error)})


def _settled(node: NodeConfig, look: Look) -> ServiceStatus:
    deadline = time.monotonic() + _UNDECIDED_SECONDS
    while (status := look(node)).undecided and time.monotonic() < deadline:
        time.sleep(1)
    return status
