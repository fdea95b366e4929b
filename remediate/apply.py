"""Running a plan: every step journalled before and after, and whatever remains unfinished brought to an end."""

import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, assert_never

from exporter.commandline import Program
from exporter.config import NodeConfig
from exporter.notified import notify
from exporter.status import ServiceState
from remediate import plan as plans
from remediate import planned
from remediate.executable import kind
from remediate.files import folder_of
from remediate.journal import Event, Facts, Outcome, Run, facts
from remediate.means import Means
from remediate.plan import Found
from remediate.planned import Step
from remediate.services import control
from remediate.services.errors import ServiceError
from remediate.steps import StepError, failed, hold, swap
from remediate.steps.confirm import confirm_down, must_stop, start_again
from remediate.steps.extract import extract
from remediate.steps.fetch import fetch, take
from remediate.steps.probe import probe
from remediate.steps.start import Result, leave, start
from remediate.steps.verify import verify

logger = logging.getLogger(__name__)


class Application:
    """One run being carried out: the files it has open, and what its steps hand to each other."""

    def __init__(self, run: Run, means: Means) -> None:
        self._run = run
        self._means = means
        self._name = run.subject.binary.name
        self._of_node = run.subject.program is Program.STORAGENODE
        nodes = [node for node in map(means.config.node, run.subject.nodes) if node is not None]
        paths = {path for node in nodes for path in (node.binary, Path(os.path.realpath(node.binary)))}
        self._beside = tuple(sorted(paths - {run.subject.binary}))
        """What else the updaters that are held may be at: links to it, and of an updater's run the nodes' binaries."""
        self._results: list[Result] = []
        self._archive: BinaryIO
        self._sha256 = ""
        self._staged = -1

    def carry_out(self, steps: tuple[Step, ...]) -> Run:
        """Run the steps of a plan; when one fails, end the run as recovery would."""
        self._means.changed()
        own_archive = any(isinstance(step, planned.Fetch) and step.local for step in steps)
        with ExitStack() as self._files:
            try:
                names = [node.binary for node in self._configured([self._run.node] if self._of_node else ())]
                self._directory = self._files.enter_context(folder_of(self._run.subject.binary, names))
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
                return self._end(StepError(Outcome.INTERRUPTED, "it was told to end"))
            if self._run.target == self._run.subject.installed:
                return self._finish(Outcome.HEALED, f"removed {', '.join(self._facts().unblocked)}")
            if swap.inode(self._directory, self._name) == self._run.subject.old:
                return self._end(StepError(Outcome.ABANDONED, "somebody has put the old binary back"))
            return self._finish(*_sum_up(self._results))

    def recover(self) -> Run:
        """End a run that was interrupted."""
        with ExitStack() as self._files:
            try:
                self._directory = self._files.enter_context(folder_of(self._run.subject.binary))
            except OSError as error:
                return self._without_folder(error)
            return self._end(None)

    def _without_folder(self, error: OSError) -> Run:
        """Put back what can be; the run stays open until the folder, a disk not mounted perhaps, is there again."""
        self._log(logging.ERROR, "cannot be recovered yet", detail=f"{error.filename}: {error.strerror}")
        with suppress(StepError):
            self._step(planned.Release())
        return self._means.store.run(self._run.id)

    def _end(self, cause: StepError | None) -> Run:
        """Carry out what recovery lists; each step is tried, whatever became of the others."""
        subject, run = self._run.subject, self._means.store.run(self._run.id)
        known = facts(run.journal)
        hold.mend(subject.binary, known.ours(subject))
        found = Found(*(swap.inode(self._directory, name) for name in (self._name, subject.staged, subject.backup)))
        self._results = list(known.started.values())
        steps, outcome = plans.recovery(run, found)
        problems: list[StepError] = []
        for step in steps:
            if problems and isinstance(step, planned.Start | planned.Prune):
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
        done = outcome in (Outcome.UPDATED, Outcome.HEALED)
        failures = [cause, *problems] if cause is not None and not done else problems
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
        notify(f"STATUS={self._run.node}: {step}")
        began = time.monotonic()
        try:
            intent = self._intent(step)
            self._note(step, Event.INTENT, intent)
            done = self._do(step, intent)
        except (StepError, OSError, ServiceError) as error:
            failure = error if isinstance(error, StepError) else failed(step.name, error)
            released = {"released": failure.released} if failure.released else {}
            self._note(step, Event.FAILED, {"outcome": failure.outcome, "detail": failure.detail, **released})
            self._log(logging.ERROR, "step failed", step=step.name, detail=failure.detail)
            raise failure from None
        self._note(step, Event.DONE, done)
        logger.debug("step done", extra={"step": step.name, "seconds": round(time.monotonic() - began, 3), **done})

    def _note(self, step: Step, event: Event, data: Mapping[str, Any]) -> None:
        self._means.store.note(self._run.id, step.name, event, data)
        if isinstance(step, planned.Hold | planned.Release) and event is not Event.INTENT:
            self._means.changed()

    def _log(self, level: int, message: str, **fields: Any) -> None:
        run = self._run
        node = self._means.config.node(run.node)
        state = self._means.look(node).state if node is not None else ServiceState.UNKNOWN
        about = {} if self._of_node else {"program": run.subject.program}
        context = {"run": run.id, "node": run.node, **about, "service_state": state, "reason": run.reason}
        versions = {"installed": str(run.subject.installed), "target": str(run.target)}
        logger.log(level, message, extra={**fields, **context, **versions})

    def _intent(self, step: Step) -> dict[str, Any]:
        """Find out what a step is about to stop, since that must be on record first."""
        match step:
            case planned.Hold(updaters):
                return {"held": hold.survey(updaters, self._run.subject.binary, self._beside)}
            case planned.Unblock(files):
                return {"blocks": dict(files)}
            case planned.Confirm(stop=stop, stop_running=also):
                nodes, look, subject = self._configured(stop), self._means.look, self._run.subject
                due = [node.name for node in nodes if must_stop(node, self._run, look, stop_running=also)]
                # An updater may have been started meanwhile, by somebody or by a timer.
                return {"held": hold.survey(subject.updaters, subject.binary, self._beside), "stop": due}
            case _:
                return {}

    def _do(self, step: Step, intent: Mapping[str, Any]) -> dict[str, Any]:
        """Do a step, and return what is to be remembered of it."""
        subject, target, means = self._run.subject, self._run.target, self._means
        if "held" in intent:
            hold.hold(intent["held"], subject.binary, [subject.old])
        if isinstance(step, planned.Check | planned.Extract | planned.Dress):
            self._confirm_untouched()
        match step:
            case planned.Hold():
                return {"held": list(intent["held"])}
            case planned.Unblock(files):
                return {"removed": hold.unblock(files)}
            case planned.Check():
                swap.check(self._directory, self._name, subject.staged, subject.backup)
            case planned.Fetch(source, local):
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
            case planned.Verify():
                return {"vouched_by": verify(self._sha256, step)}
            case planned.Extract(program, staged):
                with os.fdopen(self._directory.open(self._name), "rb") as old:
                    like = kind(old.fileno())
                self._staged = extract(self._archive, self._directory, staged, program=program, like=like)
                self._files.callback(os.close, self._staged)
                status = os.fstat(self._staged)
                return {"staged": {"device": status.st_dev, "inode": status.st_ino}}
            case planned.Probe():
                probe(self._staged, target, means.execute)
            case planned.Dress():
                swap.dress_like(self._directory, self._name, subject.old, self._staged)
            case planned.Confirm():
                return {"down": self._confirm(intent["stop"])}
            case planned.Swap(backup):
                swap.swap(self._directory, self._name, subject.staged, backup, self._staged)
                swap.read_back(self._directory, self._name, target, means.execute)
            case planned.Seal():
                swap.read_back(self._directory, self._name, target, means.execute)
            case planned.Start(nodes, left):
                return self._start(nodes, left)
            case planned.Discard(names):
                for name in names:
                    self._directory.remove(name)
                self._directory.sync()
            case planned.Restore(nodes):
                asked = self._facts().stopped_at
                for node in self._configured(nodes):
                    start_again(node, means.look, asked)
            case planned.Release():
                was = self._facts()
                undone = hold.release(was.held, subject.binary, was.ours(subject), self._beside)
                return {"released": list(was.held), "undone": undone}
            case planned.Prune(prefix, keep):
                return {"removed": swap.prune(self._directory, prefix, keep)}
            case _:
                assert_never(step)
        return {}

    def _facts(self) -> Facts:
        return facts(self._means.store.run(self._run.id).journal)

    def _confirm(self, stop: list[str]) -> dict[str, float | None]:
        for node in self._configured(stop):
            control(node).stop()
        down = confirm_down(self._run, self._configured(self._run.starts), self._means.look, stop)
        self._confirm_untouched()
        return down

    def _confirm_untouched(self) -> None:
        subject, now = self._run.subject, swap.inode(self._directory, self._name)
        if not self._directory.in_place() or now != subject.old or self._stamp() != self._old:
            raise StepError(Outcome.ABANDONED, f"{subject.binary}: somebody has changed it meanwhile")

    def _start(self, nodes: tuple[str, ...], left: Mapping[str, str]) -> dict[str, Any]:
        means = self._means
        gone = "was not started: it is no longer configured"
        results: dict[str, Result] = {name: (Outcome.START_FAILED, f"{name} {gone}") for name in nodes}
        configured = list(self._configured(nodes))
        down = self._facts().down
        patience = means.rules.confirm_timeout.total_seconds()
        results |= start(configured, means.look, down, self._run.target, patience=patience)
        results |= {node.name: leave(node, left[node.name], means.look) for node in self._configured(left)}
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


def _sum_up(results: list[Result]) -> Result:
    """Choose the outcome a person must look at first, and keep every detail."""
    ranked = sorted(results, key=lambda result: (result[0].exit_code == 0, result[0] is Outcome.UNCONFIRMED))
    return (ranked[0][0] if ranked else Outcome.UPDATED), "; ".join(detail for _, detail in ranked)
