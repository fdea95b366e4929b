"""A remediation from request to report: lock, recover, observe, decide, plan, apply."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exporter.config import Config
from exporter.observe import Observer
from exporter.status import Failure, InstalledVersion, NodeStatus
from remediate import plan as plans
from remediate.apply import Application, Means
from remediate.decision import (
    Decision,
    History,
    Proceed,
    Reason,
    Refuse,
    Request,
    decide,
    inconsistency,
    storagenode_versions,
)
from remediate.executable import ExecutableError, kind
from remediate.files import Directory
from remediate.journal import Inode, Run, Subject
from remediate.plan import Step
from remediate.report import Plan, Report
from remediate.rules import Rules
from remediate.steps.fetch import Progress
from remediate.steps.probe import executor, hidden
from remediate.store import Store

logger = logging.getLogger(__name__)

_OBSERVE_SECONDS = 10.0
_LOOK_SECONDS = 5.0


class Remediation:
    """The one way to an update, whoever asks."""

    def __init__(
        self,
        config: Config,
        rules: Rules,
        store: Store,
        *,
        progress: Progress = lambda done, total: None,
        changed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._rules = rules
        self._store = store
        self._now = now
        self._execute = executor(hidden(config), rules)
        self._observer = Observer(config, execute=self._execute, cache_dir=None, fresh=True)
        self._means = Means(
            config=config,
            rules=rules,
            store=store,
            look=partial(self._observer.service, timeout=_LOOK_SECONDS),
            execute=self._execute,
            progress=progress,
            changed=changed,
        )

    def plan(self, request: Request) -> Plan:
        """Say what `run` would do now; changes nothing, but that it runs the binary for its version."""
        prepared = self._prepare(request)
        return Plan(request.node, prepared.decision, prepared.subject, prepared.steps)

    def run(self, request: Request) -> Report:
        """Remediate one node.

        Raises:
            BusyError: another run is in progress on this host.
        """
        with self._store.lock():
            unfinished = self._recover()
            if unfinished is not None and unfinished.finished is None:
                held = Refuse(Reason.STILL_HELD, f"run {unfinished.id} could not put everything back yet")
                return Report(request.node, held, unfinished)
            prepared = self._prepare(request)
            decision = prepared.decision
            self._store.count(request.node, decision)
            self._believe(prepared)
            self._log(request, prepared)
            if not isinstance(decision, Proceed) or prepared.subject is None:
                return Report(request.node, decision)
            run = self._store.begin(
                node=request.node,
                trigger=request.trigger,
                reason=decision.reason,
                subject=prepared.subject,
                target=decision.target,
                starts=decision.starts,
                seen=prepared.seen,
            )
            return Report(request.node, decision, Application(run, self._means).carry_out(prepared.steps))

    def recover(self) -> Run | None:
        """End the run that was interrupted, if there is one.

        Raises:
            BusyError: a run is in progress on this host.
        """
        with self._store.lock():
            return self._recover()

    def _recover(self) -> Run | None:
        run = self._store.open_run()
        return Application(run, self._means).recover() if run is not None else None

    def _prepare(self, request: Request) -> "_Prepared":
        node = self._config.node(request.node)
        assert node is not None, "who asks has looked the name up"
        binary = Path(os.path.realpath(node.binary))
        sharing = [each for each in self._config.nodes if os.path.realpath(each.binary) == str(binary)]
        statuses = {each.name: self._observer.settle(each, _OBSERVE_SECONDS) for each in sharing}
        history = self._store.history(binary)
        decision = decide(request, statuses, history, self._rules, self._now())
        status = statuses[request.node]
        installed = status.installed
        seen = {name: str(each.service.state) for name, each in statuses.items()}
        prepared = _Prepared(decision=decision, status=status, seen=seen, history=history)
        if not isinstance(decision, Proceed) or isinstance(installed, Failure):
            return prepared
        try:
            asset = _asset(binary, installed)
        except (OSError, ExecutableError) as error:
            return replace(prepared, decision=Refuse(Reason.INSTALLED_UNKNOWN, f"{binary}: {error}"))
        subject = Subject(
            binary=binary,
            nodes=tuple(statuses),
            updaters=tuple(dict.fromkeys(each.updater_service.unit for each in sharing if each.updater_service)),
            installed=installed.version,
            old=Inode(installed.device, installed.inode),
        )
        steps = plans.plan(decision, request, subject, statuses, asset, self._rules)
        return replace(prepared, subject=subject, steps=steps)

    def _log(self, request: Request, prepared: "_Prepared") -> None:
        decision, status = prepared.decision, prepared.status
        installed = status.installed if isinstance(status.installed, Failure) else status.installed.version
        seen = {"service_state": status.service.state, "installed": installed}
        fields = {"node": request.node, "trigger": request.trigger, "decision": decision.name, **seen}
        target = {"target": decision.target} if isinstance(decision, Proceed) else {"detail": decision.detail}
        logger.info("decision", extra={**fields, "reason": decision.reason, **target})

    def _believe(self, prepared: "_Prepared") -> None:
        """Take a minimum that makes sense, or that a person acts on, as the measure for the next."""
        process = storagenode_versions(prepared.status.allowed)
        if process is None:
            return
        proceeds = isinstance(prepared.decision, Proceed)
        if proceeds or inconsistency(process, prepared.history.last_minimum, self._now()) is None:
            self._store.believe(process.minimum.version, self._now())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    decision: Decision
    status: NodeStatus
    seen: Mapping[str, str]
    history: History
    subject: Subject | None = None
    steps: tuple[Step, ...] = ()


def _asset(binary: Path, installed: InstalledVersion) -> str:
    """Name the release archive for the machine the installed binary is made for.

    Raises:
        OSError: unreadable, or replaced since it said its version.
        ExecutableError: upstream releases nothing for it.
    """
    with Directory(binary.parent) as directory:
        fd = directory.open(binary.name)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != (installed.device, installed.inode):
                raise OSError("was replaced while it was looked at")
            return kind(fd).asset
        finally:
            os.close(fd)
