"""What came of a request, as text, JSON and exit code."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from exporter.commandline import Program
from remediate.decision import Decision, Proceed, Refuse
from remediate.history import Pause
from remediate.journal import Decided, Run, Subject
from remediate.planned import Step
from remediate.reported import Reported, reported

_REFUSED = 3
_UNFINISHED = "not finished: something is still held"
_WORST_FIRST = (4, 2, 1, 3, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """A decision and, where it was to proceed, the run."""

    node: str
    decision: Decision
    run: Run | None = None
    program: Program = Program.STORAGENODE

    @classmethod
    def of(cls, run: Run) -> "Report":
        """Report a run that somebody else decided on."""
        decision = Proceed(target=run.target, reason=run.reason, starts=run.starts)
        return cls(run.node, decision, run, run.subject.program)

    @property
    def exit_code(self) -> int:
        """0 done or nothing to do, 1 failed, 3 refused, 4 a person is needed."""
        if self.run is not None:
            return self.run.exit_code
        return _REFUSED if isinstance(self.decision, Refuse) else 0

    def __str__(self) -> str:
        if self.run is not None:
            return run_text(self.run)
        verb = "refused" if isinstance(self.decision, Refuse) else "nothing to do"
        return f"{whose(self.node, self.program)}: {verb} ({self.decision.reason}): {self.decision.detail}"

    def as_json(self) -> dict[str, Any]:
        """Give the report as plain data."""
        told = Reported(
            node=self.node,
            program=self.program,
            text=str(self),
            decision=self.decision.name,
            reason=self.decision.reason,
            target=str(self.decision.target) if isinstance(self.decision, Proceed) else None,
            detail=self.decision.detail,
            exit_code=self.exit_code,
            run=reported(self.run) if self.run is not None else None,
        )
        return asdict(told)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    node: str
    decision: Decision
    subject: Subject | None
    steps: Sequence[Step]
    program: Program = Program.STORAGENODE

    @property
    def exit_code(self) -> int:
        """That of a run which decides so and does not fail."""
        return Report(self.node, self.decision, program=self.program).exit_code

    def __str__(self) -> str:
        if self.subject is None or not isinstance(self.decision, Proceed):
            return str(Report(self.node, self.decision, program=self.program))
        installed, target = self.subject.installed, self.decision.target
        does = f"update {self.subject.binary}, {installed} -> {target}" if target != installed else "unblock it"
        lines = [f"{whose(self.node, self.program)}: {does} ({self.decision.reason})"]
        if others := [name for name in self.subject.nodes if name != self.node]:
            lines.append(f"     the same binary is that of {', '.join(whose(name, self.program) for name in others)}")
        return "\n".join(lines + [f"{number:3}. {step}" for number, step in enumerate(self.steps, 1)])

    def as_json(self) -> dict[str, Any]:
        """Give the plan as plain data."""
        steps = [{"step": step.name, "does": str(step)} for step in self.steps]
        nodes = list(self.subject.nodes) if self.subject is not None else []
        report = Report(self.node, self.decision, program=self.program)
        return {**report.as_json(), "nodes": nodes, "steps": steps}


def history_text(runs: Sequence[Run], decisions: Sequence[Decided]) -> str:
    """Tell runs, newest first, and below them what was decided else."""
    rows = [
        (
            str(run.id),
            _utc(run.started),
            _who(run),
            run.trigger,
            _change(run),
            run.outcome or "not finished",
            run.detail,
        )
        for run in runs
    ]
    header = ("RUN", "STARTED", "NODE", "TRIGGER", "VERSIONS", "OUTCOME", "DETAIL")
    lines = _table(header, rows) if rows else ["no runs yet"]
    others = [each for each in decisions if each.decision != Proceed.name]
    if others:
        cells = [
            (whose(each.node, each.program), each.decision, each.reason, str(each.count), _utc(each.last), each.detail)
            for each in sorted(others, key=lambda each: -each.last)
        ]
        lines += ["", *_table(("NODE", "DECISION", "REASON", "TIMES", "LAST", "DETAIL"), cells)]
    return "\n".join(lines)


def history_json(runs: Iterable[Run], decisions: Iterable[Decided]) -> str:
    """Give runs and decisions as JSON; times in Unix seconds."""
    content = {"runs": [run_json(run) for run in runs], "decisions": [asdict(each) for each in decisions]}
    return json.dumps(content, indent=2)


def run_in_full(run: Run) -> str:
    """Tell a run with what its journal says, one line for each step begun and ended."""
    lines = [run_text(run), f"  binary    {run.subject.binary}", f"  nodes     {', '.join(run.subject.nodes)}"]
    if run.subject.updaters:
        lines.append(f"  updaters  {', '.join(run.subject.updaters)}")
    lines += [f"  {node} was {state}" for node, state in run.seen.items()]
    for node, each in run.starts.items():
        lines.append(f"  {node} is {'to be started' if each.start else 'left as it is'} ({each.reason})")
    for entry in run.journal:
        data = " ".join(f"{key}={json.dumps(value)}" for key, value in entry.data.items())
        lines.append(f"  {_utc(entry.at)}  {entry.step:8} {entry.event:7} {data}".rstrip())
    ended = f"  {_utc(run.finished)}  {run.outcome}" if run.finished is not None else f"  {_UNFINISHED}"
    return "\n".join([*lines, ended])


def pauses_text(pauses: Sequence[Pause]) -> str:
    """Tell what is paused."""
    lines = [
        f"{pause.node or 'everything'} is paused {f'until {_utc(pause.until)}' if pause.until else 'until `resume`'}:"
        f" {pause.reason}"
        for pause in pauses
    ]
    return "\n".join(lines) or "nothing is paused"


def pauses_json(pauses: Iterable[Pause]) -> str:
    """Give pauses as JSON; times in Unix seconds, a node of null for all of them."""
    return json.dumps([asdict(pause) for pause in pauses], indent=2)


def worst(codes: Iterable[int]) -> int:
    """Choose the exit code that must not be overlooked."""
    return min(codes, key=_WORST_FIRST.index, default=0)


def run_text(run: Run) -> str:
    """Tell a run in one line."""
    detail = f": {run.detail}" if run.detail else ""
    return f"{_who(run)}: {run.outcome or _UNFINISHED}, {_change(run)} ({run.trigger}, {run.reason}){detail}"


def whose(node: str, program: Program) -> str:
    """Name what a run is about: a node, or its updater."""
    return node if program is Program.STORAGENODE else f"{node}'s updater"


def _who(run: Run) -> str:
    return whose(run.node, run.subject.program)


def _change(run: Run) -> str:
    return f"{run.subject.installed} -> {run.target}"


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Align columns; the last one may be as long as it likes."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    return ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in cells]


def run_json(run: Run) -> dict[str, Any]:
    """Give a run as plain data; times in Unix seconds."""
    return asdict(reported(run))
