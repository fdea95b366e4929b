"""Whether a node may be down for some days: its version, the rollout, and the clocks of the satellites. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from exporter.allowed import STORAGENODE, UpdateState
from exporter.cadence import Cadence
from exporter.status import DAY, DISQUALIFIED_AFTER, SUSPENDED_AFTER, Basis, Failure, NodeStatus, ServiceState

_SCHEMA = {"use_attribute_docstrings": True, "extra": "forbid"}


class Answer(StrEnum):
    """Whether the node may be down that long."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Item:
    """One part of the answer: what was counted, and how it comes out."""

    __pydantic_config__ = _SCHEMA

    about: str
    answer: Answer | None
    """Null for what is good to know and decides nothing."""
    sum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What `preflight --json` says of one node."""

    __pydantic_config__ = _SCHEMA

    node: str
    days: int
    answer: Answer
    """`no` if any item says so, else `unknown` if any does."""
    items: tuple[Item, ...]
    first: tuple[str, ...]
    """What to do before, in this order."""

    def as_json(self) -> dict[str, Any]:
        """Describe it in plain types."""
        return asdict(self)

    def __str__(self) -> str:
        may = {
            Answer.YES: "yes, it may be",
            Answer.NO: "no, it should not be",
            Answer.UNKNOWN: "not known whether it may be",
        }
        lines = [f"{self.node}: {may[self.answer]} down for {_days(self.days)}"]
        lines += [f"  {item.about:<7}  {item.answer or '-':<7}  {item.sum}" for item in self.items]
        return "\n".join(lines + [f"  Do first: {each}" for each in self.first])


def exit_code(preflights: Sequence[Preflight]) -> int:
    """0 all may, 1 one should not, else 4: of one it is not known."""
    answers = {each.answer for each in preflights}
    return 1 if Answer.NO in answers else 4 if Answer.UNKNOWN in answers else 0


def preflight(status: NodeStatus, days: int, pace: Cadence, now: float) -> Preflight:
    """Say whether a node may be down for so many days from now, in Unix seconds."""
    items = (_version(status, days, pace), _rollout(status), _clocks(status, days, now))
    answers = [item.answer for item in items]
    worst = next((each for each in (Answer.NO, Answer.UNKNOWN) if each in answers), Answer.YES)
    first = tuple(_first(status, items, _rise(days, pace), days))
    return Preflight(node=status.node, days=days, answer=worst, items=items, first=first)


def _rise(days: int, pace: Cadence) -> int:
    """Count the minor releases that the minimum may rise by: it may do so tomorrow, and by several at once."""
    return max(math.ceil(days / pace.days), pace.largest)


def _version(status: NodeStatus, days: int, pace: Cadence) -> Item:
    if isinstance(status.installed, Failure):
        return Item("version", Answer.UNKNOWN, f"the installed version is not known: {status.installed}")
    if not status.installed.release:
        return Item("version", Answer.YES, "a development build, which no minimum keeps from starting")
    if isinstance(status.allowed, Failure):
        return Item("version", Answer.UNKNOWN, f"the minimum is not known: {status.allowed}")
    process, installed = status.allowed.processes[STORAGENODE], status.installed.version
    minimum, suggested = process.minimum.version, process.suggested.version
    if installed < minimum:
        return Item("version", Answer.NO, f"{installed} is below the minimum {minimum}: once down, it cannot start")
    if installed.major != minimum.major:
        return Item("version", Answer.UNKNOWN, f"{installed} is another major release than the minimum {minimum}")
    margin, rise = installed.minor - minimum.minor, _rise(days, pace)
    said = (
        f"{installed} is {_releases(margin)} above the minimum {minimum},"
        f" which may rise by {rise} in {_days(days)} ({pace}): "
    )
    if margin < rise:
        return Item("version", Answer.NO, f"{said}{rise - margin} too few")
    if margin == rise and installed < suggested and suggested.minor == installed.minor:
        return Item("version", Answer.NO, f"{said}none left, and {suggested} is the one to be allowed then")
    return Item("version", Answer.YES, f"{said}{margin - rise or 'none'} left, and enough")


def _rollout(status: NodeStatus) -> Item:
    verdict = status.verdict
    match verdict.state:
        case UpdateState.BELOW_MINIMUM | UpdateState.DUE:
            said = f"it holds {verdict.target} for this node now"
        case UpdateState.WAITING:
            said = "it has not reached this node yet: what is newer is not for it now"
        case UpdateState.CURRENT:
            said = "it has nothing newer than what is installed"
        case _:
            said = f"not known: {verdict.reason}"
    return Item("rollout", None, said)


def _clocks(status: NodeStatus, days: int, now: float) -> Item:
    if status.clock is None:
        return Item("clocks", Answer.UNKNOWN, "nothing tells when a satellite last reached it")
    # An earlier outage of the last 30 days counts too, and is not known here.
    gone = max(now - status.clock.since, 0.0)
    total = gone + days * DAY
    sofar = f"not reached for {_days(gone / DAY)} already, that makes {_days(total / DAY)}; " if gone >= DAY else ""
    if total >= DISQUALIFIED_AFTER:
        return Item("clocks", Answer.NO, f"{sofar}from 30 days on it is disqualified for good")
    if total >= SUSPENDED_AFTER:
        return Item("clocks", Answer.NO, f"{sofar}after about 12 days it is suspended")
    if status.clock.basis is Basis.STOPPED:
        seen = f"{datetime.fromtimestamp(status.clock.since, UTC):%Y-%m-%d %H:%M} UTC"
        said = f"not reached since {seen} at least, but nothing tells when a satellite last reached it before"
        return Item("clocks", Answer.UNKNOWN, said)
    left = _days((SUSPENDED_AFTER - total) / DAY)
    said = f"{sofar}suspended after about 12 days, {left} to spare; earlier outages of these 30 days count too"
    return Item("clocks", Answer.YES, said)


def _first(status: NodeStatus, items: Sequence[Item], rise: int, days: int) -> Iterator[str]:
    version, _, clocks = items
    if version.answer is Answer.NO:
        margin = None
        if not isinstance(status.allowed, Failure) and not isinstance(status.installed, Failure):
            process = status.allowed.processes[STORAGENODE]
            minimum, newest = process.minimum.version, process.suggested.version
            if newest > status.installed.version:
                margin = newest.minor - minimum.minor
                yield f"{_update(status)}: {newest} is {_releases(margin)} above the minimum"
        if margin is None or margin < rise:
            enough = "" if margin is None else "even so "
            yield f"reckon with it being {enough}too old to start by then: storagenode-remediate run {status.node}"
    if clocks.answer is Answer.NO:
        yield "let it be down for a shorter time"
    yield f'storagenode-remediate pause {status.node} --for {days}d --reason "…", if nothing is to touch it meanwhile'


def _update(status: NodeStatus) -> str:
    stop = "--stop-running " if status.service.state is ServiceState.RUNNING else ""
    ahead = "" if status.verdict.state is UpdateState.DUE else "--to suggested "
    turn = ", ahead of the rollout" if status.verdict.state is UpdateState.WAITING else ""
    return f"storagenode-remediate run {stop}{ahead}{status.node}{turn}"


def _releases(number: int) -> str:
    return f"{number} minor release{'' if number == 1 else 's'}"


def _days(number: float) -> str:
    text = f"{round(number, 1):g}"
    return f"{text} day{'' if text == '1' else 's'}"
