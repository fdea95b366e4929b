"""How each service manager is read: one module a manager, and one line in the registry."""

from collections.abc import Callable, Mapping
from typing import Protocol

from exporter.config import NodeConfig
from exporter.services import process, systemd
from exporter.status import ServiceStatus


class ServiceReader(Protocol):
    """Reads the state of one node's service."""

    def read(self, timeout: float, since: float | None = None) -> ServiceStatus:
        """Say how the service is, within `timeout` seconds; what cannot be seen is `unknown`, with the reason.

        What was seen since the time `since` (monotonic seconds) will do; without it, only what is seen from now on.
        """
        ...


_READERS: Mapping[str, Callable[[NodeConfig], ServiceReader]] = {
    "systemd": systemd.reader,
    "process": process.reader,
}


def reader(node: NodeConfig) -> ServiceReader:
    """Return the reader for the service manager of this node."""
    return _READERS[node.service.manager](node)
