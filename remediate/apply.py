"""Running a plan: every step journalled before and after, and whatever remains unfinished brought to an end."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, assert_never

from exporter.config import Config, NodeConfig
from exporter.sources.binary import Execute
from exporter.status import ServiceState
from remediate import plan as plans
from remediate.decision import StartReason
from remediate.executable import kind
from remediate.files import Directory
from remediate.journal import Event, Outcome, Run, facts
from remediate.plan import Found, Step
from remediate.rules import Rules
from remediate.services import control
from remediate.services.errors import ServiceError
from remediate.steps import StepError, hold, swap
from remediate.steps.confirm import Look, confirm_down, must_stop, start_again
from remediate.steps.extract import extract
from remediate.steps.fetch import Progress, fetch, take
from remediate.steps.probe import probe
from remediate.steps.start import Result, start
from remediate.steps.verify import verify
from remediate.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a run is carried out with."""

    config: Config
    rules: Rules
    store: Store
    look: Look
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
        own_archive = any(isinstance(step, plans.Fetch) and step.local for step in steps)
        with ExitStack() as self._files:
            try:
                self._directory = self._files.enter_context(Directory(self._run.subject.binary.parent))
            except OSError as error:
                return self._finish(Outcome.ABANDONED, f"{error.filename}: {error.strerror}")
            self._old = self._stamp()
            try:
                for step in steps:
                    self._step(step)
            except StepError as error:
                if error.outcome is Outcome.BAD_VERSION and not own_archive:
                    self._means.store.mark_bad(self._run.subject.binary, self._run.target, error.detail)
                return self._end(error)
            except KeyboardInterrupt:
                return self._end(StepError(Outcome.UNDONE, "interrupted"))
            return self._finish(*_sum_up(self._results))

    def recover(self) -> Run:
        """End a run that was interrupted."""
        with ExitStack() as self._files:
            try:
                self._directory = self._files.enter_context(Directory(self._run.subject.binary.parent))
            except OSError as error:
                return self._without_folder(error)
            return self._end(None)

    def _without_folder(self, error: OSError) -> Run:
        """Put back what can be; the run stays open until the folder, a disk not mounted perhaps, is there again."""
        self._log(logging.ERROR, "cannot be recovered yet", detail=f"{error.filename}: {error.strerror}")
        with suppress(StepError):
            self._step(plans.Release())
        return self._means.store.run(self._run.id)

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
        if outcome is Outcome.UPDATED and not problems:
            return self._finish(*_sum_up(self._results))
        failures = [cause, *problems] if cause is not None and outcome is not Outcome.UPDATED else problems
        if failures:
            return self._finish(failures[0].outcome, "; ".join(dict.fromkeys(each.detail for each in failures)))
        gone = f", and {subject.binary} is no longer there" if found.binary is None else ""
        return self._finish(outcome, f"the run was interrupted{gone}")

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
            failure = error if isinstance(error, StepError) else StepError(Outcome.FAILED, _explain(step, error))
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
            case plans.Confirm(stop=stop, stop_running=also):
                nodes, look = self._configured(stop), self._means.look
                return {"stop": [node.name for node in nodes if must_stop(node, self._run, look, stop_running=also)]}
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
                swap.check(self._directory, self._name, subject.staged, subject.backup)
            case plans.Fetch(source, local):
                self._archive = self._files.enter_context(tempfile.TemporaryFile(dir=means.store.directory))  # noqa: SIM115
                seconds = means.rules.download_timeout.total_seconds()
                try:
                    fetched = (
                        take(Path(source), self._archive, progress=means.progress)
                        if local
                        else fetch(source, self._archive, seconds=seconds, progress=means.progress)
                    )
                except OSError:
                    # The disk is full perhaps, and the journal is on the same.
                    os.ftruncate(self._archive.fileno(), 0)
                    raise
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
                self._confirm(intent["stop"])
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
                for node in self._configured(nodes):
                    start_again(node, self._means.look)
            case plans.Release():
                held = facts(means.store.run(self._run.id).journal).held
                return {"released": list(held), "undone": hold.release(held, subject.binary)}
            case plans.Prune(prefix, keep):
                return {"removed": swap.prune(self._directory, prefix, keep)}
            case _:
                assert_never(step)
        return {}

    def _confirm(self, stop: list[str]) -> None:
        for node in self._configured(stop):
            control(node).stop()
        for node in self._configured([self._run.node]):
            confirm_down(node, self._means.look)
        in_place = self._directory.in_place() and swap.inode(self._directory, self._name) == self._run.subject.old
        if not in_place or self._stamp() != self._old:
            raise StepError(Outcome.ABANDONED, f"{self._run.subject.binary}: somebody has changed it meanwhile")

    def _start(self, nodes: tuple[str, ...], left: Mapping[str, str]) -> dict[str, Any]:
        patience = self._means.rules.confirm_timeout.total_seconds()
        gone = "was not started: it is no longer configured"
        results: dict[str, Result] = {name: (Outcome.START_FAILED, f"{name} {gone}") for name in nodes}
        for node in self._configured(nodes):
            try:
                results[node.name] = start(node, control(node), self._means.look, self._run.target, patience=patience)
            except KeyboardInterrupt:
                results[node.name] = Outcome.UNCONFIRMED, f"{node.name} was started, and nobody has waited for it"
        for name, reason in left.items():
            results[name] = (
                (Outcome.LEFT_DOWN, f"{name} was not down for its version alone: see why, then start it")
                if reason == StartReason.OTHER_CAUSE
                else (Outcome.UPDATED, f"{name} is left stopped ({reason})")
            )
        self._results += results.values()
        return {"results": results}

    def _configured(self, names: Iterable[str]) -> Iterator[NodeConfig]:
        """Find nodes; one that a journal names may since have been taken out of the configuration."""
        for name in names:
            node = self._means.config.node(name)
            if node is None:
                logger.warning("node is no longer configured", extra={"node": name})
            else:
                yield node

    def _stamp(self) -> tuple[int, int, int] | None:
        status = self._directory.stat(self._name)
        return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


def _explain(step: Step, error: OSError | ServiceError) -> str:
    if isinstance(error, OSError) and error.strerror:
        what = f" of {error.filename}" if error.filename else ""
        return f"cannot {step.name}{what}: {error.strerror}"
    return f"cannot {step.name}: {error}"


def _sum_up(results: list[Result]) -> Result:
    """Choose the outcome a person must look at first, and keep every detail."""
    ranked = sorted(results, key=lambda result: (result[0].exit_code == 0, result[0] is Outcome.UNCONFIRMED))
    return (ranked[0][0] if ranked else Outcome.UPDATED), "; ".join(detail for _, detail in ranked)
