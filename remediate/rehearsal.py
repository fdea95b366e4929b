"""What would happen to a node the day the minimum rises. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exporter.allowed import STORAGENODE, Release
from exporter.observe import verdict
from exporter.status import Failure, NodeStatus, ServiceState, ServiceStatus
from exporter.version import NodeVersion
from remediate.decision import Decision, Request, Trigger, decide
from remediate.history import History
from remediate.report import Plan, worst
from remediate.rules import Rules
from remediate.starting import EXIT_TOO_OLD


@dataclass(frozen=True, slots=True)
class Scene:
    """What an alert would bring about, with the node as it may be then."""

    when: str
    plan: Plan
    freely: Plan | None
    """Without what holds it back for now; None where nothing does."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would happen to a node once the minimum is this."""

    node: str
    minimum: NodeVersion
    scenes: Sequence[Scene]

    @property
    def exit_code(self) -> int:
        """That of runs which decide so and do not fail, the worst of them."""
        return worst(scene.plan.exit_code for scene in self.scenes)

    def __str__(self) -> str:
        lines, before = [f"{self.node}, once the minimum is {self.minimum}:"], list[str]()
        for scene in self.scenes:
            said = str(scene.plan).splitlines()
            if scene.freely is not None:
                said += ["but for that:", *str(scene.freely).splitlines()]
            same = len(before) == len(said) and len(said) > 1
            shown = [line for line, other in zip(said, before, strict=True) if line != other] if same else said
            lines += [f"  {scene.when}{', the same but' if same else ''}:", *(f"    {line}" for line in shown)]
            before = said
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Give the rehearsal as plain data."""
        scenes = [
            {
                "when": scene.when,
                "plan": scene.plan.as_json(),
                "freely": None if scene.freely is None else scene.freely.as_json(),
            }
            for scene in self.scenes
        ]
        return {"node": self.node, "minimum": str(self.minimum), "scenes": scenes}


def scenes(
    statuses: Mapping[str, NodeStatus], node: str, minimum: NodeVersion
) -> Iterator[tuple[str, dict[str, NodeStatus]]]:
    """Say how the nodes of a binary may be once the minimum is this: as they are, and if one runs, once it does not."""
    then = {name: raised(status, minimum) for name, status in statuses.items()}
    if then[node].service.state is not ServiceState.RUNNING:
        yield "as it is now", then
        return
    yield "while it runs", then
    yield "once it has gone down, and is too old to start", {**then, node: crashed(then[node])}
    asked = ServiceStatus(state=ServiceState.STOPPED, detail="stopped")
    yield "once somebody has stopped it", {**then, node: replace(then[node], service=asked)}


def raised(status: NodeStatus, minimum: NodeVersion) -> NodeStatus:
    """Take a node to the day on which the minimum is this, which may be today; it raises the suggested version too."""
    if isinstance(status.allowed, Failure):
        return status
    process = status.allowed.processes[STORAGENODE]
    if process.minimum.version == minimum:
        return status
    release = Release(version=minimum, url="")
    suggested = process.suggested if process.suggested.version >= minimum else release
    process = replace(process, minimum=release, suggested=suggested)
    allowed = replace(status.allowed, processes={**status.allowed.processes, STORAGENODE: process})
    return replace(status, allowed=allowed, verdict=verdict(status.installed, allowed, status.node_id))


def crashed(status: NodeStatus) -> NodeStatus:
    """Let a node be down as one is that finds itself too old to start."""
    service = ServiceStatus(state=ServiceState.CRASHED, detail="too old to start", exit_code=EXIT_TOO_OLD)
    return replace(status, service=service)


def unrestrained(history: History, rules: Rules) -> tuple[History, Rules]:
    """Take away what holds an update back for now, and leave what forbids it."""
    free = replace(history, pauses=(), failures=(), last_end=None)
    return free, rules.model_copy(update={"windows": (), "dry_run": False})


def decision_of_that_day(
    status: NodeStatus, history: History, rules: Rules, now: float
) -> tuple[NodeVersion, Decision]:
    """Decide for a node that is down the next time that the minimum rises above what it has installed.

    That may be today; else it is to the suggested version, as far as is known; if that is installed, to a release after
    it. What passes by itself, or is a person's to end, is left out.
    """
    installed = NodeVersion(0) if isinstance(status.installed, Failure) else status.installed.version
    minimum = NodeVersion(installed.major, installed.minor + 1)
    if not isinstance(status.allowed, Failure):
        process = status.allowed.processes[STORAGENODE]
        known = (process.minimum.version, process.suggested.version)
        minimum = next((version for version in known if version > installed), minimum)
    free, _ = unrestrained(history, rules)
    request = Request(node=status.node, trigger=Trigger.ALERT)
    always = rules.model_copy(update={"windows": ()})
    return minimum, decide(request, {status.node: crashed(raised(status, minimum))}, free, always, now)
