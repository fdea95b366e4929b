"""A node's four sources, read side by side under one deadline, and put together to its status."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from threading import Lock

from exporter import services
from exporter.allowed import STORAGENODE, AllowedVersions, UpdateState, Verdict, judge
from exporter.cache import Cache
from exporter.config import Config, NodeConfig
from exporter.dbus import SYSTEM_BUS
from exporter.identity import NodeIDError, read_node_id
from exporter.reading import Pending, Reading, run_all
from exporter.sources import node_api
from exporter.sources.binary import BinarySource, Execute, run_directly
from exporter.sources.version_server import VersionServer
from exporter.status import (
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    RunningNode,
    ServiceState,
    ServiceStatus,
    Source,
)

_CACHE_FILE = "last-contact.json"
_PAUSE_SECONDS = 0.5
_SAVE_SECONDS = 60
"""Between two times that the last contacts are written to disk, which may take longer than a scrape."""


class Observer:
    """Observes the configured nodes; keeps what is known of them from one time to the next.

    With `fresh`, the allowed versions are fetched at every observation, and nothing older is taken for them.
    """

    def __init__(
        self, config: Config, *, execute: Execute = run_directly, cache_dir: Path | None, fresh: bool = False
    ) -> None:
        server = VersionServer(
            config.version_server,
            refresh=config.refresh,
            max_age=config.allowed_versions_max_age,
            cache_dir=cache_dir,
            fresh=fresh,
        )
        self._server = Reading(server.read)
        self._nodes = {node.name: _Node(node, server, execute) for node in config.nodes}
        self._cache = Cache(cache_dir)
        self._contacts = _contacts(self._cache)
        self._saved_contacts = dict(self._contacts)
        self._save_contacts_at = 0.0
        self._lock = Lock()
        self._shared: list[_Begun] | None = None

    def observe(self, node: NodeConfig, timeout: float) -> NodeStatus:
        """Say how a node is, within `timeout` seconds; what cannot be seen is a Failure or `unknown` in the status."""
        return self._finish([self._nodes[node.name].begin(timeout, time.monotonic())])[0]

    def observe_all(self, timeout: float) -> list[NodeStatus]:
        """Observe all nodes at once; who asks while that is under way shares it, within a timeout of his own."""
        deadline = time.monotonic() + timeout
        with self._lock:
            shared = self._shared
            if shared is None:
                asked, allowed = time.monotonic(), self._server.prepare(timeout)
                mine = self._shared = [node.begin(timeout, asked, allowed) for node in self._nodes.values()]
        if shared is not None:
            return [self._status(readings, deadline) for readings in shared]
        try:
            return self._finish(mine)
        finally:
            with self._lock:
                self._shared = None

    def settle(self, node: NodeConfig, timeout: float, patience: float = 30.0) -> NodeStatus:
        """Observe a node, and while its service is undecided look at that again, for `patience` seconds at most."""
        deadline = time.monotonic() + patience
        status = self.observe(node, timeout)
        while status.service.undecided and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
            status = replace(status, service=self.service(node, timeout))
        return status

    def service(self, node: NodeConfig, timeout: float) -> ServiceStatus:
        """Look at a node's service alone."""
        return self._nodes[node.name].service(timeout)

    def close(self) -> None:
        """Keep what is to be kept, and let go of the connection to the system bus."""
        self._save_contacts()
        SYSTEM_BUS.close()

    def _finish(self, begun: "Sequence[_Begun]") -> list[NodeStatus]:
        # What is most likely to hang comes last.
        kinds = ("server", "identity", "service", "binary", "api")
        run_all(list(dict.fromkeys(each for kind in kinds for node in begun if (each := getattr(node, kind)))))
        statuses = [self._status(readings) for readings in begun]
        if time.monotonic() >= self._save_contacts_at:
            self._save_contacts()
        return statuses

    def _save_contacts(self) -> None:
        if self._contacts != self._saved_contacts:
            self._saved_contacts = dict(self._contacts)
            self._cache.write(_CACHE_FILE, self._saved_contacts)
            self._save_contacts_at = time.monotonic() + _SAVE_SECONDS

    def _status(self, begun: "_Begun", deadline: float = inf) -> NodeStatus:
        node = begun.node
        service, service_seconds = _service(begun.service.result(deadline))
        installed, binary_seconds = begun.binary.result(deadline)
        running, api_seconds = begun.api.result(deadline)
        allowed, server_seconds = begun.server.result(deadline)
        identified = begun.identity.result(deadline)[0] if begun.identity else None
        if isinstance(identified, str):
            node.identified = identified
        node_id = node.config.node_id or node.identified
        if isinstance(running, RunningNode):
            node_id = node.config.node_id or running.node_id
            if running.last_contact is not None:
                self._contacts[node.config.name] = running.last_contact
        return NodeStatus(
            node=node.config.name,
            manager=node.config.service.manager,
            service=service,
            installed=installed,
            running=running,
            allowed=allowed,
            verdict=verdict(installed, allowed, node_id),
            node_id=node_id,
            last_contact=self._contacts.get(node.config.name),
            durations={
                Source.SERVICE: service_seconds,
                Source.BINARY: binary_seconds,
                Source.NODE_API: api_seconds,
                Source.VERSION_SERVER: server_seconds,
            },
        )


def verdict(installed: InstalledVersion | Failure, allowed: AllowedVersions | Failure, node_id: str | None) -> Verdict:
    """Judge the installed version; what is missing for that makes it unknown, never outdated."""
    if isinstance(installed, Failure):
        return Verdict(UpdateState.UNKNOWN, reason=f"the installed version is not known: {installed}")
    if isinstance(allowed, Failure):
        return Verdict(UpdateState.UNKNOWN, reason=f"the allowed versions are not known: {allowed}")
    if not installed.release:
        return Verdict(UpdateState.UNKNOWN, reason="a development build, which no minimum keeps from starting")
    return judge(installed.version, allowed.processes[STORAGENODE], node_id)


class _Node:
    """One node's sources, and its ID once its identity has told it."""

    def __init__(self, config: NodeConfig, server: VersionServer, execute: Execute) -> None:
        self.config = config
        self.identified: str | None = None
        self._server = Reading(server.read)
        self._api = Reading(partial(node_api.read, config.api))
        self._binary = Reading(BinarySource(config.binary, execute).read)
        self._reader = services.reader(config)
        self._asked = 0.0
        self._service = Reading(self._read_service)
        path = config.identity if config.node_id is None else None
        self._identity = Reading(partial(_read_identity, path)) if path else None

    def service(self, timeout: float) -> ServiceStatus:
        """Look at the service alone."""
        self._asked = time.monotonic()
        return _service(self._service.start(timeout).result())[0]

    def begin(self, timeout: float, asked: float, allowed: Pending[AllowedVersions] | None = None) -> "_Begun":
        """Prepare to read everything; the nodes that are asked for at one time have the same allowed versions."""
        self._asked = asked
        return _Begun(
            node=self,
            server=allowed or self._server.prepare(timeout),
            api=self._api.prepare(timeout),
            binary=self._binary.prepare(timeout),
            service=self._service.prepare(timeout),
            identity=self._identity.prepare(timeout) if self._identity and not self.identified else None,
        )

    def _read_service(self, timeout: float) -> ServiceStatus:
        return self._reader.read(timeout, self._asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """The readings of one node, prepared."""

    node: _Node
    server: Pending[AllowedVersions]
    api: Pending[RunningNode]
    binary: Pending[InstalledVersion]
    service: Pending[ServiceStatus]
    identity: Pending[str] | None


def _service(result: tuple[ServiceStatus | Failure, float]) -> tuple[ServiceStatus, float]:
    read, seconds = result
    if isinstance(read, Failure):
        return ServiceStatus(state=ServiceState.UNKNOWN, detail=str(read)), seconds
    return read, seconds


def _read_identity(path: Path, timeout: float) -> str | Failure:
    try:
        return read_node_id(path)
    except NodeIDError as error:
        return Failure(FailureReason.MALFORMED, str(error))


def _contacts(cache: Cache) -> dict[str, float]:
    """Take from the cache what is of the right kind."""
    kept = cache.read(_CACHE_FILE)
    contacts = kept if isinstance(kept, dict) else {}
    usable = {str(node): seconds for node, seconds in contacts.items() if isinstance(seconds, float)}
    if kept is not None and usable != kept:
        cache.spoiled(_CACHE_FILE, "it is not a time for each node")
    return usable
