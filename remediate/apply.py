"""Running a plan: every step journalled before and after, and whatever remains unfinished brought to an end."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, assert_never

from exporter.config import Config, NodeConfig
from exporter.sources.binary import Execute
from exporter.status import DOWN, ServiceState, ServiceStatus
from remediate import plan as plans
from remediate.decision import StartReason
from remediate.executable import kind
from remediate.files import Directory
from remediate.journal import Event, Outcome, Run, facts
from remediate.plan import Found, Step
from remediate.rules import Rules
from remediate.services import control
from remediate.services.errors import NoServiceError, ServiceError
from remediate.steps import StepError, hold, swap
from remediate.steps.extract import extract
from remediate.steps.fetch import Progress, fetch, take
from remediate.steps.probe import probe
from remediate.steps.start import Result, start
from remediate.steps.verify import verify
from remediate.store import Store

logger = logging.getLogger(__name__)

_UNDECIDED_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a run is carried out with."""

    config: Config
    rules: Rules
    store: Store
    look: Callable[[NodeConfig], ServiceStatus]
    execute: Execute
    progress: Progress
    changed: Callable[[], None]
    """Called whenever the store has."""


class Application:
    """One run being carried out: the files it has open, and what its steps hand to each other."""

    def __init__(self, run: Run, means: Means) -> None:
        self._run = run
        self._means = means
        self._name = run.subject.binary.name
        self._results: list[Result] = []
        self._archive: BinaryIO
        self._sha256 = ""
        self._staged = -1

    def carry_out(self, steps: tuple[Step, ...]) -> Run:
        """Run the steps of a plan; when one fails, end the run as recovery would."""
        self._means.changed()
        with ExitStack() as self._files:
            try:
                self._directory = self._files.enter_context(Directory(self._run.subject.binary.parent))
                self._old = self._stamp()
                for step in steps:
                    self._step(step)
            except StepError as error:
                if error.outcome is Outcome.BAD_VERSION:
                    self._means.store.mark_bad(self._run.subject.binary, self._run.target, error.detail)
                return self._end(error)
            except KeyboardInterrupt:
                return self._end(StepError(Outcome.UNDONE, "interrupted"))
            return self._finish(*_sum_up(self._results))

    def recover(self) -> Run:
        """End a run that was interrupted."""
        with ExitStack() as self._files:
            self._directory = self._files.enter_context(Directory(self._run.subject.binary.parent))
            return self._end(None)

    def _end(self, cause: StepError | None) -> Run:
        """Carry out what recovery lists; each step is tried, whatever became of the others."""
        subject = self._run.subject
        found = Found(*(swap.inode(self._directory, name) for name in (self._name, subject.staged, subject.backup)))
        run = self._means.store.run(self._run.id)
        self._results = list(facts(run.journal).started.values())
        steps, outcome = plans.recovery(run, found)
        problems: list[StepError] = []
        for step in steps:
            if problems and isinstance(step, plans.Start | plans.Prune):
                continue
            try:
                self._step(step)
            except StepError as error:
                problems.append(error)
        held = [problem for problem in problems if problem.outcome is Outcome.STILL_HELD]
        if held:
            # The run stays open, so that the next recovery tries again.
            self._log(logging.ERROR, "still held", detail=held[0].detail)
            return self._means.store.run(self._run.id)
        if problems:
            return self._finish(problems[0].outcome, problems[0].detail)
        if outcome is Outcome.UPDATED:
            return self._finish(*_sum_up(self._results))
        if cause is not None:
            return self._finish(cause.outcome, cause.detail)
        return self._finish(outcome, "the run was interrupted")

    def _finish(self, outcome: Outcome, detail: str) -> Run:
        self._means.store.finish(self._run.id, outcome, detail)
        self._means.changed()
        self._log(
            logging.INFO if outcome.exit_code == 0 else logging.ERROR, "run ended", outcome=outcome, detail=detail
        )
        return self._means.store.run(self._run.id)

    def _step(self, step: Step) -> None:
        self._log(logging.INFO, "step", step=step.name, does=str(step))
        began = time.monotonic()
        try:
            intent = self._intent(step)
            self._note(step, Event.INTENT, intent)
            done = self._do(step, intent)
        except (StepError, OSError, ServiceError) as error:
            failure = error if isinstance(error, StepError) else StepError(Outcome.FAILED, f"{step.name}: {error}")
            self._note(step, Event.FAILED, {"outcome": failure.outcome, "detail": failure.detail})
            self._log(logging.ERROR, "step failed", step=step.name, detail=failure.detail)
            raise failure from None
        self._note(step, Event.DONE, done)
        logger.debug("step done", extra={"step": step.name, "seconds": round(time.monotonic() - began, 3), **done})

    def _note(self, step: Step, event: Event, data: Mapping[str, Any]) -> None:
        self._means.store.note(self._run.id, step.name, event, data)
        if isinstance(step, plans.Hold | plans.Release) and event is not Event.INTENT:
            self._means.changed()

    def _log(self, level: int, message: str, **fields: Any) -> None:
        run = self._run
        node = self._means.config.node(run.node)
        state = self._means.look(node).state if node is not None else ServiceState.UNKNOWN
        context = {"run": run.id, "node": run.node, "service_state": state, "reason": run.reason}
        versions = {"installed": str(run.subject.installed), "target": str(run.target)}
        logger.log(level, message, extra={**context, **versions, **fields})

    def _intent(self, step: Step) -> dict[str, Any]:
        """Find out what a step is about to stop, since that must be on record first."""
        match step:
            case plans.Hold(updaters):
                return {"held": hold.survey(updaters, self._run.subject.binary)}
            case plans.Confirm(stop=stop):
                return {"stop": [node for node in stop if self._must_stop(node)]}
            case _:
                return {}

    def _do(self, step: Step, intent: Mapping[str, Any]) -> dict[str, Any]:
        """Do a step, and return what is to be remembered of it."""
        subject, target, means = self._run.subject, self._run.target, self._means
        match step:
            case plans.Hold():
                hold.hold(intent["held"])
                return {"held": list(intent["held"])}
            case plans.Check():
                swap.check(self._directory, self._name, subject.staged)
            case plans.Fetch(source, local):
                self._archive = self._files.enter_context(tempfile.TemporaryFile(dir=means.store.directory))  # noqa: SIM115
                seconds = means.rules.download_timeout.total_seconds()
                fetched = (
                    take(Path(source), self._archive, progress=means.progress)
                    if local
                    else fetch(source, self._archive, seconds=seconds, progress=means.progress)
                )
                self._sha256 = fetched.sha256
                return asdict(fetched)
            case plans.Verify(mode, sha256, digest_url, asset):
                return {"vouched_by": verify(self._sha256, mode, expected=sha256, digest_url=digest_url, asset=asset)}
            case plans.Extract(staged):
                with os.fdopen(self._directory.open(self._name), "rb") as old:
                    like = kind(old.fileno())
                self._staged = extract(self._archive, self._directory, staged, like=like)
                self._files.callback(os.close, self._staged)
                status = os.fstat(self._staged)
                return {"staged": {"device": status.st_dev, "inode": status.st_ino}}
            case plans.Probe():
                probe(self._staged, target, means.execute)
            case plans.Dress():
                swap.dress_like(self._directory, self._name, self._staged)
            case plans.Confirm():
                self._confirm_down(intent["stop"])
            case plans.Swap(backup):
                swap.swap(self._directory, self._name, subject.staged, backup, self._staged)
                swap.read_back(self._directory, self._name, target, means.execute)
            case plans.Seal():
                swap.read_back(self._directory, self._name, target, means.execute)
            case plans.Start(nodes, left):
                return self._start(nodes, left)
            case plans.Discard(names):
                for name in names:
                    self._directory.remove(name)
                self._directory.sync()
            case plans.Restore(nodes):
                self._restore(nodes)
            case plans.Release():
                held = facts(means.store.run(self._run.id).journal).held
                return {"released": list(held), "undone": hold.release(held, subject.binary)}
            case plans.Prune(prefix, keep):
                return {"removed": swap.prune(self._directory, prefix, keep)}
            case _:
                assert_never(step)
        return {}

    def _must_stop(self, node: str) -> bool:
        """Look whether a node that was to be stopped still has to be; one that has recovered must not.

        Raises:
            StepError: the node that was asked about runs now, and nobody asked for it to be stopped.
        """
        status = self._settled(node)
        if status.state is ServiceState.CRASH_LOOPING:
            return True
        if status.state is not ServiceState.RUNNING:
            return False
        if self._run.starts[node].reason is StartReason.WAS_RUNNING:
            return True
        if node == self._run.node:
            raise StepError(Outcome.ABANDONED, f"{node} was {ServiceState.CRASH_LOOPING}, and runs now")
        return False

    def _confirm_down(self, stop: list[str]) -> None:
        for name in stop:
            if (node := self._means.config.node(name)) is not None:
                control(node).stop()
        status = self._settled(self._run.node)
        if status.state not in (ServiceState.STOPPED, ServiceState.CRASHED):
            raise StepError(Outcome.ABANDONED, f"{self._run.node} is {status.state}: {status.detail}")
        if self._stamp() != self._old or swap.inode(self._directory, self._name) != self._run.subject.old:
            raise StepError(Outcome.ABANDONED, f"{self._run.subject.binary}: somebody has changed it meanwhile")

    def _settled(self, node: str) -> ServiceStatus:
        config = self._means.config.node(node)
        assert config is not None, "the run was decided on a moment ago, with this configuration"
        deadline = time.monotonic() + _UNDECIDED_SECONDS
        while (status := self._means.look(config)).undecided and time.monotonic() < deadline:
            time.sleep(1)
        return status

    def _start(self, nodes: tuple[str, ...], left: Mapping[str, str]) -> dict[str, Any]:
        patience = self._means.rules.confirm_timeout.total_seconds()
        results: dict[str, Result] = {}
        for name in nodes:
            node = self._means.config.node(name)
            if node is None:
                results[name] = Outcome.START_FAILED, f"{name} was not started: it is no longer configured"
                continue
            try:
                results[name] = start(node, control(node), self._means.look, self._run.target, patience=patience)
            except KeyboardInterrupt:
                results[name] = Outcome.UNCONFIRMED, f"{name} was started, and nobody has waited for its answer"
        for name, reason in left.items():
            results[name] = (
                (Outcome.LEFT_DOWN, f"{name} was not down for its version alone: see why, then start it")
                if reason == StartReason.OTHER_CAUSE
                else (Outcome.UPDATED, f"{name} is left stopped ({reason})")
            )
        self._results += results.values()
        return {"results": results}

    def _restore(self, nodes: tuple[str, ...]) -> None:
        for name in nodes:
            node = self._means.config.node(name)
            if node is None:
                logger.warning("node cannot be started again: it is no longer configured", extra={"node": name})
            elif self._means.look(node).state in DOWN:
                self._start_again(node)

    def _start_again(self, node: NodeConfig) -> None:
        try:
            control(node).start()
        except NoServiceError as error:
            logger.warning("node cannot be started again", extra={"node": node.name, "problem": str(error)})
        except ServiceError as error:
            raise StepError(Outcome.STILL_HELD, f"{node.name}: {error}") from None

    def _stamp(self) -> tuple[int, int, int] | None:
        status = self._directory.stat(self._name)
        return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


def _sum_up(results: list[Result]) -> Result:
    """Choose the outcome a person must look at first, and keep every detail."""
    ranked = sorted(results, key=lambda result: (result[0].exit_code == 0, result[0] is Outcome.UNCONFIRMED))
    return (ranked[0][0] if ranked else Outcome.UPDATED), "; ".join(detail for _, detail in ranked)
