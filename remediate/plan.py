"""The steps of a run, and the steps that bring an interrupted one to an end. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from exporter.commandline import Program
from exporter.status import NodeStatus, ServiceState
from remediate.decision import Proceed, Request
from remediate.journal import Facts, Inode, Outcome, Run, Subject, facts
from remediate.planned import (
    Check,
    Confirm,
    Discard,
    Dress,
    Extract,
    Fetch,
    Hold,
    Probe,
    Prune,
    Release,
    Restore,
    Seal,
    Start,
    Step,
    Swap,
    Unblock,
    Verify,
)
from remediate.rules import Rules
from remediate.starting import StartDecision


@dataclass(frozen=True, slots=True)
class Found:
    """Which files are there now, by inode."""

    binary: Inode | None
    staged: Inode | None
    backup: Inode | None


def plan(
    decision: Proceed, request: Request, subject: Subject, statuses: Mapping[str, NodeStatus], asset: str, rules: Rules
) -> tuple[Step, ...]:
    """List the steps of an update, after the lock and the decision."""
    stop = tuple(
        node
        for node in decision.starts
        if statuses[node].service.state is ServiceState.CRASH_LOOPING
        or (node == request.node and statuses[node].service.state is ServiceState.RUNNING)
    )
    hold: tuple[Step, ...] = (Hold(subject.updaters), *([Unblock(decision.blocks)] if decision.blocks else []))
    if decision.target == subject.installed:
        return (*hold, Release())
    return (
        *hold,
        Check(str(subject.binary.parent)),
        Fetch(request.artifact or f"{rules.releases}/v{decision.target}/{asset}", local=request.artifact is not None),
        Verify(
            rules.verify,
            request.sha256,
            rules.sha256sums and rules.sha256sums.replace("{version}", str(decision.target)),
            f"{rules.digests}/v{decision.target}",
            asset,
        ),
        Extract(subject.program, subject.staged),
        Probe(decision.target),
        Dress(subject.staged),
        Confirm(request.node if subject.program is Program.STORAGENODE else None, stop, request.stop_running),
        Swap(subject.backup),
        *_start(decision.starts),
        Release(),
        Prune(subject.backup_prefix, subject.backup),
    )


def recovery(run: Run, found: Found) -> tuple[tuple[Step, ...], Outcome]:
    """List the steps that end an unfinished run, from its journal and the files found, and from nothing else.

    A new binary in place is never taken back: it may have been started, by whomever, and a node that has run a
    version may not be able to run an older one.
    """
    known = facts(run.journal)
    subject = run.subject
    if known.staged is not None and found.binary == known.staged:
        return (
            Seal(),
            *_start(run.starts, known.started),
            Release(),
            Prune(subject.backup_prefix, subject.backup),
        ), Outcome.UPDATED
    undo = _undo(known, subject, found)
    if found.binary is None:
        return undo, Outcome.FAILED
    if run.target == subject.installed and known.unblocked:
        return undo, Outcome.HEALED
    return undo, Outcome.UNDONE if found.binary == subject.old else Outcome.SUPERSEDED


def _undo(known: Facts, subject: Subject, found: Found) -> tuple[Step, ...]:
    # Where there is no binary any more, the backup may be the last one there is.
    backup = found.backup if found.binary is not None else None
    leftovers = ((subject.staged, found.staged), (subject.backup, backup))
    names = tuple(name for name, inode in leftovers if inode is not None)
    steps: list[Step] = []
    if names:
        steps.append(Discard(names))
    if known.stopped:
        steps.append(Restore(known.stopped))
    return (*steps, Release())


def _start(starts: Mapping[str, StartDecision], settled: Collection[str] = ()) -> tuple[Step, ...]:
    """Start nodes, but those that is settled for; where it is an updater that is updated, there are none."""
    left = {node: decision for node, decision in starts.items() if node not in settled}
    step = Start(
        tuple(node for node, decision in left.items() if decision.start),
        {node: decision.reason for node, decision in left.items() if not decision.start},
    )
    return (step,) if starts else ()
