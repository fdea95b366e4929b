"""What a report says to programs; docs/notification.schema.json is derived from this."""

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.commandline import Program
from remediate.decision import Reason, Trigger
from remediate.journal import Entry, Outcome, Run
from remediate.starting import StartDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRun:
    """A run; times in Unix seconds, `finished` and `outcome` null while something is still held."""

    id: int
    node: str
    nodes: tuple[str, ...]
    program: Program
    trigger: Trigger
    reason: Reason
    binary: str
    installed: str
    target: str
    starts: Mapping[str, StartDecision]
    seen: Mapping[str, str]
    started: float
    finished: float | None
    outcome: Outcome | None
    exit_code: int
    detail: str
    journal: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What was decided for a node and, where it was to proceed, what came of it."""

    node: str
    program: Program
    """What it was decided for: the node itself, or its updater."""
    text: str
    decision: str
    """`proceed`, `skip` or `refuse`."""
    reason: Reason
    target: str | None
    detail: str
    exit_code: int
    run: ReportedRun | None


def reported(run: Run) -> ReportedRun:
    """Say of a run what programs are to know."""
    return ReportedRun(
        id=run.id,
        node=run.node,
        nodes=run.subject.nodes,
        program=run.subject.program,
        trigger=run.trigger,
        reason=run.reason,
        binary=str(run.subject.binary),
        installed=str(run.subject.installed),
        target=str(run.target),
        starts=dict(run.starts),
        seen=dict(run.seen),
        started=run.started,
        finished=run.finished,
        outcome=run.outcome,
        exit_code=run.exit_code,
        detail=run.detail,
        journal=run.journal,
    )
