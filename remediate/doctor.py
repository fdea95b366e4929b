"""Gathering what `doctor` judges: the folder, units and settings of each node, and what is around. Changes nothing."""

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import DatabaseError
from typing import Any

from exporter.config import Config, ConfigError, NodeConfig, SystemdService
from exporter.nodefiles import Launch, updater_interval, version_server
from exporter.observe import Observer
from exporter.services.systemd import SystemdReader
from exporter.sources.binary import BinarySource, Execute, run_directly
from exporter.status import InstalledVersion, NodeStatus
from exporter.units import UnitError, read_unit
from exporter.version import NodeVersion, VersionError
from remediate import published
from remediate.diagnosis import Diagnosis, Severity
from remediate.files import Directory
from remediate.findings import (
    HostFacts,
    Leftover,
    NodeFacts,
    Problem,
    Rejected,
    Unfinished,
    UpdaterFacts,
    diagnose,
)
from remediate.journal import Inode, Run, Subject
from remediate.rules import Rules
from remediate.services.errors import ServiceError
from remediate.services.systemd import connected
from remediate.steps import hold
from remediate.steps.probe import executor, hidden
from remediate.steps.start import storage_missing
from remediate.steps.swap import Obstacle, obstacles
from remediate.store import BusyError, Store
from remediate.surroundings import ask, folders, unreachable, worker

_OBSERVE_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_SIZE_LIMIT = 64 << 10
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


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
    store, runs = _store(rules, problems)
    try:
        facts = [_node(node, status, execute, store) for node, status in zip(chosen, statuses, strict=True)]
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
        unfinished=runs,
    )
    return diagnose(host, facts)


def _store(rules: Rules, problems: dict[str, Problem]) -> tuple[Store | None, Unfinished | None]:
    """Open the store if there is one; it is not made for the sake of looking."""
    if "state_dir" in problems or not (rules.state_dir / "store.sqlite").exists():
        return None, None
    try:
        store = Store(rules.state_dir)
        run = store.open_run()
    except (OSError, DatabaseError) as error:
        what = f"{rules.state_dir}/store.sqlite: {error}"
        problems["state_dir"] = (
            Severity.BLOCKS,
            what,
            "restore it, or move it away: what earlier runs did is lost then",
        )
        return None, None
    return store, _unfinished(store, run) if run else None


def _unfinished(store: Store, run: Run) -> Unfinished:
    try:
        with store.lock():
            return Unfinished(id=run.id, node=run.node, under_way=False)
    except BusyError:
        return Unfinished(id=run.id, node=run.node, under_way=True)


def _node(node: NodeConfig, status: NodeStatus, execute: Execute, store: Store | None) -> NodeFacts:
    binary = Path(os.path.realpath(node.binary))
    launch, restart = _launch(node)
    asks, config_problem = version_server(launch, node.config_dir) if node.config_dir else (None, None)
    found, staged = _obstacles(binary, status)
    return NodeFacts(
        status=status,
        folder=binary.parent,
        obstacles=found,
        staged=staged,
        leftovers=_leftovers(binary),
        config_problem=config_problem,
        own_version_server=asks.rstrip("/") if asks else None,
        restart=restart,
        updater=_updater(node.updater_service, execute) if node.updater_service else None,
        storage_problem=storage_missing(node),
        known_bad=store.history(binary).known_bad if store else {},
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
    return Launch(command=unit.command, user=unit.user, environment=unit.environment), restart


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


def _leftovers(binary: Path) -> tuple[Leftover, ...]:
    found = [(path, _version(path.name.removeprefix(f"{binary.name}."))) for path in hold.downloads(binary)]
    backups = f"{binary.name}.old."
    found += [(path, None) for path in binary.parent.glob("*.old.*") if path.name.startswith(backups)]
    now = time.time()
    return tuple(
        Leftover(path=path, version=version, age_seconds=now - path.lstat().st_mtime) for path, version in sorted(found)
    )


def _version(text: str) -> NodeVersion | None:
    try:
        return NodeVersion.parse(text)
    except VersionError:
        return None


def _updater(service: SystemdService, execute: Execute) -> UpdaterFacts:
    state = SystemdReader(service.unit).read(_LOOK_SECONDS)
    interval, version, rejected = None, None, None
    try:
        unit = read_unit(service.unit, _LOOK_SECONDS)
        rejected = _rejected(hold.verdict(service.unit))
    except (UnitError, ServiceError):
        unit = None
    if unit and unit.command:
        launch = Launch(command=unit.command, user=unit.user, environment=unit.environment)
        interval = _seconds(updater_interval(launch))
        said = BinarySource(Path(unit.command.path), execute).read(_LOOK_SECONDS)
        version = said.version if isinstance(said, InstalledVersion) else None
    return UpdaterFacts(
        unit=service.unit,
        state=state.state,
        detail=state.detail,
        interval_seconds=interval,
        version=version,
        rejected=rejected,
    )


def _rejected(path: Path) -> Rejected | None:
    try:
        with Directory(path.parent) as directory, os.fdopen(directory.open(path.name), "rb") as file:
            content: Any = json.loads(file.read(_SIZE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("Version"), str):
        return None
    failure = " ".join(str(content.get("Failure", "")).split())[:200]
    return Rejected(path=path, version=content["Version"].removeprefix("v"), failure=failure)


def _seconds(duration: str | None) -> float | None:
    """Read a duration as Go writes them, `1h30m0s`; None for none, and for what is none."""
    found = re.fullmatch(r"([-+]?)((?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|0)", duration or "")
    if found is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", found[2])
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts) * (-1 if found[1] == "-" else 1)
