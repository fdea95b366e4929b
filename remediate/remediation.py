"""A remediation from request to report: lock, recover, observe, decide, plan, apply."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from exporter.allowed import AllowedVersions
from exporter.commandline import Program
from exporter.config import Config, NodeConfig
from exporter.observe import Observer
from exporter.status import Failure, FailureReason, InstalledVersion, NodeStatus, ServiceState
from exporter.version import NodeVersion
from remediate import plan as plans
from remediate.apply import Application
from remediate.decision import (
    Decision,
    Proceed,
    Reason,
    Refuse,
    Request,
    Trigger,
    awaits_its_end,
    decide,
    storagenode_versions,
)
from remediate.executable import ExecutableError, asset_for
from remediate.healing import decide_healing
from remediate.history import History
from remediate.journal import Inode, Run, Subject
from remediate.means import Means
from remediate.notify import tell
from remediate.planned import Step
from remediate.rehearsal import Rehearsal, Scene, scenes, unrestrained
from remediate.report import Plan, Report
from remediate.rules import Rules
from remediate.steps.fetch import Progress
from remediate.steps.probe import executor, hidden
from remediate.store import Store
from remediate.updaters import look, updaters_on

logger = logging.getLogger(__name__)

_OBSERVE_SECONDS = 10.0
_LOOK_SECONDS = 5.0
_SETTLE_SECONDS = 30.0


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

    @property
    def looks_after(self) -> tuple[Program, ...]:
        """Name what may be done something about for a node with nobody asking for it."""
        return (*Program,) if self._rules.heal_updater else (Program.STORAGENODE,)

    def plan(self, request: Request) -> Plan:
        """Say what `run` would do now; changes nothing, but that it runs the binary for its version."""
        return self._prepare(request).plan(request)

    def rehearse(self, node: str, minimum: NodeVersion) -> Rehearsal:
        """Say what an alert for a node would bring about once the minimum is this; changes nothing, as `plan`."""
        request = Request(node=node, trigger=Trigger.ALERT)
        looked, acted = self._look(node), []
        history, rules = unrestrained(looked.history, self._rules)
        for when, statuses in scenes(looked.statuses, node, minimum):
            then = replace(looked, statuses=statuses)
            held, free = self._decide(request, then), self._decide(request, replace(then, history=history), rules)
            restrained = isinstance(free.decision, Proceed) and not isinstance(held.decision, Proceed)
            acted.append(Scene(when, held.plan(request), free.plan(request) if restrained else None))
        return Rehearsal(node, minimum, acted)

    def run(self, request: Request) -> Report:
        """Remediate one node.

        Raises:
            BusyError: another run is in progress on this host.
        """
        with self._store.lock():
            report = self._run(request)
        self._tell(report if request.trigger is not Trigger.PERSON else None)
        return report

    def recover(self) -> list[Run]:
        """End what was interrupted; a run that cannot be yet comes back unfinished.

        Raises:
            BusyError: a run is in progress on this host.
        """
        with self._store.lock():
            runs = self._recover()
        for report in [*map(Report.of, runs)] or (None,):
            self._tell(report)
        return runs

    def _run(self, request: Request) -> Report:
        for run in self._recover():
            if run.finished is None and self._concerns(run, request.node):
                held = Refuse(Reason.STILL_HELD, f"run {run.id} could not put everything back yet")
                return Report(request.node, held, run, request.program)
        prepared = self._prepare(request)
        decision = prepared.decision
        self._store.count(request.node, request.program, decision)
        self._believe(request, prepared)
        self._log(request, prepared)
        if not isinstance(decision, Proceed) or prepared.subject is None:
            return Report(request.node, decision, program=request.program)
        run = self._store.begin(
            node=request.node,
            trigger=request.trigger,
            reason=decision.reason,
            subject=prepared.subject,
            target=decision.target,
            starts=decision.starts,
            seen=prepared.seen,
        )
        try:
            Application(run, self._means).carry_out(prepared.steps)
        except KeyboardInterrupt:  # while it was being ended already
            self._recover()
        return Report(request.node, decision, self._store.run(run.id), request.program)

    def _recover(self) -> list[Run]:
        return [self._ended(run) for run in self._store.open_runs()]

    def _ended(self, run: Run) -> Run:
        with suppress(KeyboardInterrupt):  # it comes once, and what is put back stays put
            return Application(run, self._means).recover()
        return Application(run, self._means).recover()

    def _concerns(self, run: Run, name: str) -> bool:
        """Whether a run is about this node, by the name that it has now or had, or about its binary."""
        node = self._config.node(name)
        assert node is not None, "who asks has looked the name up"
        return name in run.subject.nodes or Path(os.path.realpath(node.binary)) == run.subject.binary

    def _tell(self, report: Report | None = None) -> None:
        if self._rules.notify is not None:
            tell(self._rules.notify, self._store, report)

    def _prepare(self, request: Request) -> "_Prepared":
        if request.program is Program.UPDATER:
            return self._prepare_healing(request)
        return self._decide(request, self._look(request.node))

    def _prepare_healing(self, request: Request) -> "_Prepared":
        node = self._config.node(request.node)
        assert node is not None, "who asks has looked the name up"
        status = self._observer.observe(node, _OBSERVE_SECONDS)
        updater = look(self._config, node, status, self._execute)
        if isinstance(updater, Refuse):
            unknown = Failure(FailureReason.NOT_FOUND, updater.detail)
            return _Prepared(decision=updater, state=ServiceState.UNKNOWN, installed=unknown, allowed=status.allowed)
        history = self._store.history(updater.binary, updater.nodes)
        prepared = _Prepared(
            decision=decide_healing(request, updater, status.allowed, history, self._rules, self._now()),
            state=updater.service.state,
            installed=updater.installed,
            allowed=status.allowed,
            history=history,
        )
        return self._planned(request, prepared, updater.binary, updater.nodes, lambda: updater.units, {})

    def _look(self, name: str) -> "_Looked":
        node = self._config.node(name)
        assert node is not None, "who asks has looked the name up"
        binary = Path(os.path.realpath(node.binary))
        sharing = self._config.sharing(binary)
        observed = self._observer.observe_all(_OBSERVE_SECONDS, [each.name for each in sharing])
        look_again = partial(
            self._observer.settled, timeout=_LOOK_SECONDS, patience=_SETTLE_SECONDS, also=awaits_its_end
        )
        statuses = {status.node: look_again(status) for status in observed}
        return _Looked(binary, sharing, statuses, self._store.history(binary, statuses))

    def _decide(self, request: Request, looked: "_Looked", rules: Rules | None = None) -> "_Prepared":
        binary, statuses, history = looked.binary, looked.statuses, looked.history
        status = statuses[request.node]
        prepared = _Prepared(
            decision=decide(request, statuses, history, rules or self._rules, self._now()),
            state=status.service.state,
            installed=status.installed,
            allowed=status.allowed,
            history=history,
            seen={name: str(each.service.state) for name, each in statuses.items()},
        )
        updaters = partial(updaters_on, looked.sharing)
        return self._planned(request, prepared, binary, tuple(statuses), updaters, statuses)

    def _planned(
        self,
        request: Request,
        prepared: "_Prepared",
        binary: Path,
        nodes: tuple[str, ...],
        updaters: Callable[[], tuple[str, ...]],
        statuses: Mapping[str, NodeStatus],
    ) -> "_Prepared":
        """Add what is done about it, if anything is."""
        decision, installed = prepared.decision, prepared.installed
        if not isinstance(decision, Proceed) or isinstance(installed, Failure):
            return prepared
        try:
            asset = asset_for(binary, installed, request.program)
        except (OSError, ExecutableError) as error:
            return replace(prepared, decision=Refuse(Reason.INSTALLED_UNKNOWN, f"{binary}: {error}"))
        subject = Subject(
            binary=binary,
            nodes=nodes,
            updaters=updaters(),
            installed=installed.version,
            old=Inode(installed.device, installed.inode),
            program=request.program,
        )
        steps = plans.plan(decision, request, subject, statuses, asset, self._rules)
        return replace(prepared, subject=subject, steps=steps)

    def _log(self, request: Request, prepared: "_Prepared") -> None:
        decision, installed = prepared.decision, prepared.installed
        version = installed if isinstance(installed, Failure) else installed.version
        seen = {"service_state": prepared.state, "installed": version}
        about = {} if request.program is Program.STORAGENODE else {"program": request.program}
        fields = {"node": request.node, **about, "trigger": request.trigger, "decision": decision.name, **seen}
        target = {"target": decision.target} if isinstance(decision, Proceed) else {"detail": decision.detail}
        logger.info("decision", extra={**fields, "reason": decision.reason, **target})

    def _believe(self, request: Request, prepared: "_Prepared") -> None:
        """Take a minimum that makes sense, or that a person acts on, as the measure for the next."""
        process = storagenode_versions(prepared.allowed)
        if process is None or request.program is not Program.STORAGENODE:
            return
        proceeds = isinstance(prepared.decision, Proceed)
        if proceeds or prepared.history.inconsistency(process, self._now()) is None:
            self._store.believe(process.minimum.version, self._now())


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a decision is taken on."""

    binary: Path
    sharing: Sequence[NodeConfig]
    statuses: Mapping[str, NodeStatus]
    history: History


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    decision: Decision
    state: ServiceState
    installed: InstalledVersion | Failure
    allowed: AllowedVersions | Failure
    history: History = field(default_factory=History)
    seen: Mapping[str, str] = field(default_factory=dict)
    subject: Subject | None = None
    steps: tuple[Step, ...] = ()

    def plan(self, request: Request) -> Plan:
        return Plan(request.node, self.decision, self.subject, self.steps, request.program)
