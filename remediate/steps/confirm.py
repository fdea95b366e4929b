"""Nodes that have to be down for a swap: which are stopped for it, and that they are; and starting them again."""

import logging
import time
from collections.abc import Callable

from exporter.config import NodeConfig
from exporter.status import ServiceState, ServiceStatus
from remediate.journal import Outcome, Run
from remediate.services import control
from remediate.services.errors import NoServiceError, ServiceError
from remediate.steps import StepError

logger = logging.getLogger(__name__)

Look = Callable[[NodeConfig], ServiceStatus]

_UNDECIDED_SECONDS = 30.0


def must_stop(node: NodeConfig, run: Run, look: Look, *, stop_running: bool) -> bool:
    """Look whether a node that was to be stopped still has to be; one that has recovered must not.

    `stop_running` is what a person said of the node that was asked about, and of no other.

    Raises:
        StepError: the node that was asked about runs now, and nobody asked for it to be stopped.
    """
    status = _settled(node, look)
    if status.state is not ServiceState.RUNNING:
        return status.state is ServiceState.CRASH_LOOPING
    if node.name == run.node and not stop_running:
        raise StepError(Outcome.ABANDONED, f"{node.name} was {ServiceState.CRASH_LOOPING}, and runs now")
    return node.name == run.node


def confirm_down(node: NodeConfig, look: Look) -> None:
    """Demand that a node is down, and stays so unless somebody starts it.

    Raises:
        StepError: it is not.
    """
    status = _settled(node, look)
    if status.state not in (ServiceState.STOPPED, ServiceState.CRASHED):
        raise StepError(Outcome.ABANDONED, f"{node.name} is {status.state}: {status.detail}")


def start_again(node: NodeConfig, look: Look) -> None:
    """Start a node that was stopped for an update that did not happen, unless somebody has already.

    One that is still stopping is told too: its manager starts it as soon as it has stopped. One that is started and
    fails by itself, as it did before, is as it was.

    Raises:
        StepError: it could not be started; it stays on record.
    """
    if look(node).state in (ServiceState.RUNNING, ServiceState.STARTING):
        return
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
