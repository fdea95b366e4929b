"""Gathering what `doctor` judges: the folder, units and settings of each node, and what is around. Changes nothing."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from sqlite3 import DatabaseError

from exporter.config import Config, ConfigError, NodeConfig, SystemdService
from exporter.leftbehind import leftovers
from exporter.nodefiles import Launch, version_server
from exporter.observe import Observer
from exporter.sources.binary import Execute, run_directly
from exporter.status import Failure, InstalledVersion, NodeStatus, UpdaterStatus
from exporter.units import UnitError, read_unit
from exporter.version import NodeVersion
from remediate import published
from remediate.diagnosis import Diagnosis, Severity
from remediate.files import Directory
from remediate.findings import HostFacts, NodeFacts, Problem, Unfinished, diagnose
from remediate.history import History
from remediate.journal import Inode, Run, Subject
from remediate.rehearsal import decision_of_that_day
from remediate.rules import Rules
from remediate.schema import SchemaError
from remediate.services.errors import ServiceError
from remediate.services.systemd import connected
from remediate.steps.probe import executor, hidden
from remediate.steps.storage import storage_missing
from remediate.steps.swap import Obstacle, obstacles
from remediate.store import BusyError, Store
from remediate.surroundings import ask, folders, unreachable, worker

_OBSERVE_SECONDS = 30.0
_LOOK_SECONDS = 5.0


def examine(config: Config, rules: Rules, chosen: Sequence[NodeConfig]) -> Diagnosis:
    """Look at everything that an update of the chosen nodes depends on, and say what would block or endanger one."""
    problems: dict[str, Problem] = {}
    if os.geteuid() != 0:
        what = f"looked as user {os.geteuid()}: what the worker, which is root, could do is seen only as root"
        problems["user"] = (Severity.NOTE, what, "run this as root")
    try:
        execute: Execute = executor(hidden(config), rules)
    except ConfigError as error:
        problems["probe"] = (Severity.BLOCKS, str(error), "set probe_user to a user without rights")
        execute = run_directly
    observer = Observer(config.model_copy(update={"nodes": tuple(chosen)}), execute=execute, cache_dir=None)
    asked = ask(config, rules)
    units = worker()
    statuses = observer.observe_all(_OBSERVE_SECONDS)
    answers = {what: pending.result()[0] for what, pending in asked.items()}
    problems |= unreachable(rules, statuses, answers) | folders(rules, automatic=units is not None and units.installed)
    store, unfinished = _store(rules, problems)
    try:
        facts = [_node(node, status, store, rules) for node, status in zip(chosen, statuses, strict=True)]
    finally:
        if store is not None:
            store.close()
    answer = answers["version_server"]
    seen = published.read(rules.status_file) if os.access(rules.status_file, os.R_OK) else None
    host = HostFacts(
        version_server=config.version_server,
        problems=problems,
        clock_ahead_seconds=answer[1] if isinstance(answer, tuple) else None,
        worker=units,
        worker_last_seen=seen.worker_last_seen if seen else None,
        unfinished=unfinished,
    )
    return diagnose(host, facts)


def _store(rules: Rules, problems: dict[str, Problem]) -> tuple[Store | None, tuple[Unfinished, ...]]:
    """Open the store if there is one; it is not made for the sake of looking."""
    if "state_dir" in problems or not (rules.state_dir / "store.sqlite").exists():
        return None, ()
    try:
        store = Store(rules.state_dir)
        runs = store.open_runs()
    except (OSError, DatabaseError, SchemaError) as error:
        what = f"{rules.state_dir}/store.sqlite: {error}"
        problems["state_dir"] = (
            Severity.BLOCKS,
            what,
            "restore it, or move it away: what earlier runs did is lost then",
        )
        return None, ()
    return store, tuple(_unfinished(store, runs)) if runs else ()


def _unfinished(store: Store, runs: Sequence[Run]) -> Iterator[Unfinished]:
    """Tell the run that is under way, the newest if any is, from those that were interrupted."""
    try:
        with store.lock():
            busy = False
    except BusyError:
        busy = True
    for run in runs:
        yield Unfinished(id=run.id, node=run.node, under_way=busy and run is runs[-1])


def _node(node: NodeConfig, status: NodeStatus, store: Store | None, rules: Rules) -> NodeFacts:
    binary = Path(os.path.realpath(node.binary))
    launch, restart = _launch(node)
    asks, config_problem = version_server(launch, node.config_dir) if node.config_dir else (None, None)
    found, staged = _obstacles(binary, status)
    beside = () if isinstance(status.updater, UpdaterStatus) else leftovers(binary)
    history = store.history(binary, (node.name,)) if store else History()
    return NodeFacts(
        status=status,
        folder=binary.parent,
        obstacles=found,
        staged=staged,
        leftovers=() if isinstance(beside, Failure) else beside,
        config_problem=config_problem,
        own_version_server=asks.rstrip("/") if asks else None,
        restart=restart,
        storage_problem=storage_missing(node),
        history=history,
        pause=history.pause(time.time()),
        that_day=decision_of_that_day(status, history, rules, time.time()),
    )


def _launch(node: NodeConfig) -> tuple[Launch, str | None]:
    """Read how systemd starts a node, and when it does so again."""
    if not isinstance(node.service, SystemdService):
        return Launch(command=None), None
    try:
        unit = read_unit(node.service.unit, _LOOK_SECONDS)
        with connected() as systemd:
            restart = systemd.properties(unit.name, "Service")["Restart"]
    except (UnitError, ServiceError):  # the service's state says so too
        return Launch(command=None), None
    return unit.launch, restart


def _obstacles(binary: Path, status: NodeStatus) -> tuple[tuple[tuple[Obstacle, str], ...], Path | None]:
    installed = status.installed
    version = installed.version if isinstance(installed, InstalledVersion) else NodeVersion(0, 0, 0)
    subject = Subject(binary=binary, nodes=(), updaters=(), installed=version, old=Inode(0, 0))
    try:
        with Directory(binary.parent) as directory:
            found = tuple(obstacles(directory, binary.name, subject.staged, subject.backup))
            staged = directory.stat(subject.staged)
    except OSError as error:
        return ((Obstacle.NOT_WRITABLE, f"{binary}: {error.strerror}"),), None
    return found, binary.parent / subject.staged if staged else None
