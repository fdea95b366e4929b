"""What came of a request, as text, JSON and exit code."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from remediate.decision import Decision, Proceed, Refuse
from remediate.journal import Run, Subject
from remediate.plan import Step

_REFUSED = 3
_WORST_FIRST = (4, 2, 1, 3, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """A decision and, where it was to proceed, the run."""

    node: str
    decision: Decision
    run: Run | None = None

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
        return f"{self.node}: {verb} ({self.decision.reason}): {self.decision.detail}"

    def as_json(self) -> dict[str, Any]:
        """Give the report as plain data."""
        decision: dict[str, Any] = {"decision": self.decision.name, "reason": self.decision.reason}
        if isinstance(self.decision, Proceed):
            decision["target"] = str(self.decision.target)
        else:
            decision["detail"] = self.decision.detail
        run = run_json(self.run) if self.run is not None else None
        return {"node": self.node, **decision, "exit_code": self.exit_code, "run": run}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    node: str
    decision: Decision
    subject: Subject | None
    steps: Sequence[Step]

    @property
    def exit_code(self) -> int:
        """That of a run which decides so and does not fail."""
        return Report(self.node, self.decision).exit_code

    def __str__(self) -> str:
        if self.subject is None or not isinstance(self.decision, Proceed):
            return str(Report(self.node, self.decision))
        change = f"{self.subject.installed} -> {self.decision.target} ({self.decision.reason})"
        lines = [f"{self.node}: update {self.subject.binary}, {change}"]
        if others := [name for name in self.subject.nodes if name != self.node]:
            lines.append(f"     the same binary is that of {', '.join(others)}")
        return "\n".join(lines + [f"{number:3}. {step}" for number, step in enumerate(self.steps, 1)])

    def as_json(self) -> dict[str, Any]:
        """Give the plan as plain data."""
        steps = [{"step": step.name, "does": str(step)} for step in self.steps]
        nodes = list(self.subject.nodes) if self.subject is not None else []
        return {**Report(self.node, self.decision).as_json(), "nodes": nodes, "steps": steps}


def history_text(runs: Iterable[Run]) -> str:
    """Tell runs, one a line."""
    lines = [f"{datetime.fromtimestamp(run.started, UTC):%Y-%m-%d %H:%M:%S}Z  {run_text(run)}" for run in runs]
    return "\n".join(lines) or "no runs yet"


def worst(codes: Iterable[int]) -> int:
    """Choose the exit code that must not be overlooked."""
    return min(codes, key=_WORST_FIRST.index, default=0)


def run_text(run: Run) -> str:
    """Tell a run in one line."""
    outcome = run.outcome or "not finished: something is still held"
    detail = f": {run.detail}" if run.detail else ""
    return f"{run.node}: {outcome}, {run.subject.installed} -> {run.target} ({run.trigger}, {run.reason}){detail}"


def run_json(run: Run) -> dict[str, Any]:
    """Give a run as plain data; times in Unix seconds."""
    return {
        "id": run.id,
        "node": run.node,
        "nodes": list(run.subject.nodes),
        "trigger": run.trigger,
        "reason": run.reason,
        "binary": str(run.subject.binary),
        "installed": str(run.subject.installed),
        "target": str(run.target),
        "starts": {name: {"start": each.start, "reason": each.reason} for name, each in run.starts.items()},
        "seen": dict(run.seen),
        "started": run.started,
        "finished": run.finished,
        "outcome": run.outcome,
        "exit_code": run.exit_code,
        "detail": run.detail,
        "journal": [
            {"step": entry.step, "event": entry.event, "at": entry.at, "data": dict(entry.data)}
            for entry in run.journal
        ],
    }
