"""A node's sources, read side by side under one deadline, and put together to its status."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

from exporter import services
from exporter.allowed import STORAGENODE, AllowedVersions, UpdateState, Verdict, judge
from exporter.cache import Cache
from exporter.clocks import Clocks
from exporter.config import Config, NodeConfig
from exporter.dbus import SYSTEM_BUS
from exporter.identity import NodeIDError, read_node_id
from exporter.reading import Pending, Reading, run_all
from exporter.sources import node_api
from exporter.sources.binary import BinarySource, Execute, run_directly
from exporter.sources.updater import UpdaterSource
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
    UpdaterStatus,
)

_PAUSE_SECONDS = 0.1


class Observer:
    """Observes the configured nodes; keeps what is known of them from one time to the next.

    With `fresh`, the allowed versions are fetched at every observation, and nothing older is taken for them; updaters
    are not looked at then. With `keep` false, what is in `cache_dir` is read, and nothing written there.
    """

    def __init__(
        self,
        config: Config,
        *,
        execute: Execute = run_directly,
        cache_dir: Path | None,
        fresh: bool = False,
        keep: bool = True,
    ) -> None:
        server = VersionServer(
            config.version_server,
            refresh=config.refresh,
            max_age=config.allowed_versions_max_age,
            cache_dir=cache_dir,
            fresh=fresh,
            keep=keep,
        )
        self._nodes = {
            node.name: _Node(node, server, execute, None if fresh else config.version_server) for node in config.nodes
        }
        self._clocks = Clocks(Cache(cache_dir, keep=keep))
        self._lock = Lock()
        self._under_way: dict[str, _Begun] = {}

    def observe(self, node: NodeConfig, timeout: float) -> NodeStatus:
        """Say how a node is, within `timeout` seconds; what cannot be seen is a Failure or `unknown` in the status."""
        return self.observe_all(timeout, [node.name])[0]

    def observe_all(self, timeout: float, names: Collection[str] | None = None) -> list[NodeStatus]:
        """Observe all nodes at once, or those of these names, in the order of the configuration.

        Who asks for a node while it is observed shares that observation, within a timeout of his own.
        """
        with self._lock:
            chosen = [node for name, node in self._nodes.items() if names is None or name in names]
            mine = _begin([node for node in chosen if node.config.name not in self._under_way], timeout)
            self._under_way |= mine
            begun = [self._under_way[node.config.name] for node in chosen]
        deadline = time.monotonic() + timeout
        try:
            # What is most likely to hang comes last.
            kinds = ("server", "identity", "service", "binary", "api", "updater")
            readings = (getattr(node, kind) for kind in kinds for node in mine.values())
            run_all(list(dict.fromkeys(each for each in readings if each)))
            statuses = [self._status(each, deadline) for each in begun]
        finally:
            with self._lock:
                self._under_way = {name: each for name, each in self._under_way.items() if name not in mine}
        self._clocks.save()
        return statuses

    def settled(
        self,
        status: NodeStatus,
        timeout: float,
        patience: float = 30.0,
        *,
        also: Callable[[NodeStatus], bool] = lambda status: False,
    ) -> NodeStatus:
        """Look at a node's service again while it is undecided or `also` says so, for `patience` seconds at most."""
        deadline = time.monotonic() + patience
        while (status.service.undecided or also(status)) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
            status = replace(status, service=self._nodes[status.node].service(timeout))
        return status

    def service(self, node: NodeConfig, timeout: float) -> ServiceStatus:
        """Look at a node's service alone."""
        return self._nodes[node.name].service(timeout)

    def close(self) -> None:
        """Keep what is to be kept, and let go of the connection to the system bus."""
        self._clocks.save(at_once=True)
        SYSTEM_BUS.close()

    def _status(self, begun: "_Begun", deadline: float) -> NodeStatus:
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
        clock, last_contact = self._clocks.follow(node.config.name, service, running, begun.at)
        return NodeStatus(
            node=node.config.name,
            manager=node.config.service.manager,
            service=service,
            installed=installed,
            running=running,
            allowed=allowed,
            verdict=verdict(installed, allowed, node_id),
            node_id=node_id,
            last_contact=last_contact,
            clock=clock,
            updater=begun.updater.result(deadline)[0] if begun.updater else None,
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

    def __init__(self, config: NodeConfig, server: VersionServer, execute: Execute, version_server: str | None) -> None:
        self.config = config
        self.identified: str | None = None
        self.server = Reading(server.read)
        self._api = Reading(partial(node_api.read, config.api))
        self._binary = Reading(BinarySource(config.binary, execute).read)
        self._reader = services.reader(config)
        self._asked = 0.0
        self._service = Reading(self._read_service)
        path = config.identity if config.node_id is None else None
        self._identity = Reading(partial(_read_identity, path)) if path else None
        self._updater: Reading[UpdaterStatus] | None = None
        if config.updater_service is not None and version_server is not None:
            unit = config.updater_service.unit
            self._updater = Reading(UpdaterSource(unit, config.binary, version_server, execute).read)

    def service(self, timeout: float) -> ServiceStatus:
        """Look at the service alone."""
        self._asked = time.monotonic()
        return _service(self._service.start(timeout).result())[0]

    def begin(self, timeout: float, asked: float, allowed: Pending[AllowedVersions]) -> "_Begun":
        """Prepare to read everything else than the allowed versions."""
        self._asked = asked
        return _Begun(
            node=self,
            at=time.time(),
            server=allowed,
            api=self._api.prepare(timeout),
            binary=self._binary.prepare(timeout),
            service=self._service.prepare(timeout),
            identity=self._identity.prepare(timeout) if self._identity and not self.identified else None,
            updater=self._updater.prepare(timeout) if self._updater else None,
        )

    def _read_service(self, timeout: float) -> ServiceStatus:
        return self._reader.read(timeout, self._asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """The readings of one node, prepared."""

    node: _Node
    at: float
    server: Pending[AllowedVersions]
    api: Pending[RunningNode]
    binary: Pending[InstalledVersion]
    service: Pending[ServiceStatus]
    identity: Pending[str] | None
    updater: Pending[UpdaterStatus] | None


def _begin(nodes: Sequence[_Node], timeout: float) -> dict[str, _Begun]:
    """Prepare to read nodes that are asked for at one time: they have the same allowed versions."""
    if not nodes:
        return {}
    asked, allowed = time.monotonic(), nodes[0].server.prepare(timeout)
    return {node.config.name: node.begin(timeout, asked, allowed) for node in nodes}


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
