"""How each service manager is told to start and stop a node: one module a manager, one line in the registry."""

from collections.abc import Callable, Mapping
from typing import Protocol

from exporter.config import NodeConfig
from remediate.services import process, systemd


class ServiceControl(Protocol):
    """Starts and stops one node's service."""

    ends_unseen_seconds: float
    """How long it may be called running after it was asked to end: 0 where the manager says that it is stopping."""

    def start(self, seconds: float = ...) -> None:
        """Start the service, forgetting earlier failures; returns once the manager has done so.

        Raises:
            ServiceError: the manager could not, or would not, or has not within `seconds`; then it may still.
        """
        ...

    def stop(self) -> None:
        """Stop the service, and keep its manager from starting it again; returns once it is down.

        Raises:
            ServiceError: the manager could not, or would not.
        """
        ...


_CONTROLS: Mapping[str, Callable[[NodeConfig], ServiceControl]] = {
    "systemd": systemd.control,
    "process": process.control,
}


def control(node: NodeConfig) -> ServiceControl:
    """Return the control for the service manager of this node."""
    return _CONTROLS[node.service.manager](node)
