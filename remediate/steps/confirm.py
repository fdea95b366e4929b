"""Nodes that have to be down for a swap: which are stopped for it, and that they are; and starting them again."""

import logging
import time
from collections.abc import Callable

from exporter.config import NodeConfig
from exporter.status import DOWN, ServiceState, ServiceStatus
from remediate.decision import StartReason
from remediate.journal import Outcome, Run
from remediate.services import control
from remediate.services.errors import NoServiceError, ServiceError
from remediate.steps import StepError

logger = logging.getLogger(__name__)

Look = Callable[[NodeConfig], ServiceStatus]

_UNDECIDED_SECONDS = 30.0


def must_stop(node: NodeConfig, run: Run, look: Look) -> bool:
    """Look whether a node that was to be stopped still has to be; one that has recovered must not.

    Raises:
        StepError: the node that was asked about runs now, and nobody asked for it to be stopped.
    """
    status = _settled(node, look)
    if status.state is not ServiceState.RUNNING:
        return status.state is ServiceState.CRASH_LOOPING
    if run.starts[node.name].reason is StartReason.WAS_RUNNING:
        return True
    if node.name == run.node:
        raise StepError(Outcome.ABANDONED, f"{node.name} was {ServiceState.CRASH_LOOPING}, and runs now")
    return False


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

    Raises:
        StepError: it could not be started; it stays on record.
    """
    if look(node).state not in DOWN:
        return
    try:
        control(node).start()
    except NoServiceError as error:
        logger.warning("node cannot be started again", extra={"node": node.name, "problem": str(error)})
    except ServiceError as error:
        raise StepError(Outcome.STILL_HELD, f"{node.name}: {error}") from None


def _settled(node: NodeConfig, look: Look) -> ServiceStatus:
    deadline = time.monotonic() + _UNDECIDED_SECONDS
    while (status := look(node)).undecided and time.monotonic() < deadline:
        time.sleep(1)
    return status
