"""Six hours of a fleet: a version is rolled out from the first hour on, and after two hours the minimum rises.

Each kind of node takes that in its own way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from exporter.allowed import STORAGENODE, AllowedVersions, Process, Release, rollout_position
from exporter.status import (
    ServiceState,
)
from exporter.updaterlog import Blocked
from exporter.version import NodeVersion
from remediate.published import DecisionCount, NodePublished, RunCount

MINUTE, HOUR, DAY = 60, 3600, 86400
BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
LENGTH = 6 * HOUR
OLD, MINIMUM, BEFORE, NEW = (
    NodeVersion(1, 158, 2),
    NodeVersion(1, 160, 3),
    NodeVersion(1, 161, 5),
    NodeVersion(1, 162, 3),
)
NAMES = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima")
SEED = bytes(range(32))
ROLLOUT, RISE = 60, 120
"""The minutes from which the new version is suggested, and at which the minimum rises."""
_ALWAYS = -3 * 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is so of a node from a minute of the story on; `contact` is when it was last reached, None: just now."""

    service: ServiceState = ServiceState.RUNNING
    since: float = _ALWAYS
    installed: NodeVersion = BEFORE
    running: NodeVersion | None = BEFORE
    seen: bool = True
    contact: float | None = None
    exit_code: int | None = None
    restarts: int = 0
    updater: ServiceState = ServiceState.RUNNING
    updater_version: NodeVersion = BEFORE
    blocked: Blocked | None = None
    failures: int = 0
    failed: float | None = None
    updated: float = _ALWAYS
    pending: bool = False
    stands: NodePublished = field(default_factory=lambda: NodePublished(node=""))
    runs: tuple[RunCount, ...] = ()
    decisions: tuple[DecisionCount, ...] = ()


Script = Sequence[tuple[float, Mapping[str, Any]]]


def cursor(minute: float) -> float:
    """Say how far the rollout has come: that before stood at a half, this one goes on by a twentieth each half hour."""
    return 0.5 if minute < ROLLOUT else 0.05 + (minute - ROLLOUT) // 30 * 0.05


def document(minute: float) -> AllowedVersions:
    """Return what the version server says."""
    suggested = NEW if minute >= ROLLOUT else BEFORE
    minimum = MINIMUM if minute >= RISE else OLD
    share = round(cursor(minute) * (2**256 - 1)).to_bytes(32)
    node = Process(
        minimum=Release(version=minimum, url=""), suggested=Release(version=suggested, url=""), seed=SEED, cursor=share
    )
    return AllowedVersions(
        processes={STORAGENODE: node, "storagenode-updater": node}, fetched=BEGIN + minute // 5 * 5 * MINUTE
    )


def node_id(number: int) -> str:
    """Make up a node ID, with its checksum."""
    payload = b"\0\1" + sha256(number.to_bytes(8)).digest()[:-2] + b"\0"
    whole = int.from_bytes(payload + sha256(sha256(payload).digest()).digest()[:4])
    text = ""
    while whole:
        whole, digit = divmod(whole, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return "1" + text


def position(identity: str) -> float:
    """Say where the rollout reaches a node."""
    return int.from_bytes(rollout_position(SEED, identity)) / (2**256 - 1)


def _updates(at: float) -> Script:
    """Update by its updater when the rollout has reached it."""
    turn = next((minute for minute in range(ROLLOUT, 24 * 60) if cursor(minute) >= at), 24 * 60) + 9
    return [(turn, {"installed": NEW, "running": NEW, "since": turn, "updated": turn})]


def _ran(node: str, minute: float, outcome: str, seconds: float, program: str = STORAGENODE) -> dict[str, Any]:
    """End a run, well or not."""
    well, at = outcome in ("updated", "healed"), BEGIN + minute * MINUTE
    stands = NodePublished(
        node=node, last_run_duration=seconds, last_success=at if well else None, last_failure=None if well else at
    )
    runs = (RunCount(node=node, trigger="alert", outcome=outcome, count=1, program=program),)
    return {"stands": stands, "runs": runs, "pending": False}


def _decided(node: str, decision: str, reason: str, count: int = 1, program: str = STORAGENODE) -> dict[str, Any]:
    one = DecisionCount(node=node, decision=decision, reason=reason, count=count, program=program)
    return {"decisions": (one,)}


def added(before: tuple[Any, ...], more: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add up counts of the same."""
    totals = Counter[Any]()
    for one in (*before, *more):
        totals[replace(one, count=0)] += one.count
    return tuple(replace(one, count=total) for one, total in totals.items())


def _deadlock(node: str, at: float) -> Script:
    """Restart below the minimum, never start again, and be healed within minutes, the second time it is tried."""
    busy = NodePublished(node=node, in_progress=True, updater_held=True)
    looping = {"service": ServiceState.CRASH_LOOPING, "since": at, "running": None, "contact": at - 1, "exit_code": 1}
    stuck = {"blocked": Blocked.NOT_INITIALIZED, "failures": 1, "failed": at + 2}
    later = _ran(node, at + 4, "later", 30.2) | {"pending": True, "restarts": 26}
    well = {"service": ServiceState.RUNNING, "since": at + 7, "running": MINIMUM, "contact": None, "restarts": 0}
    updated = _ran(node, at + 7, "updated", 71.4) | well | {"installed": MINIMUM, "blocked": None}
    updated["stands"] = replace(updated["stands"], last_failure=later["stands"].last_failure)
    return [
        (0, {"installed": OLD, "running": OLD, "updater_version": NodeVersion(1, 104, 5)}),
        (at, looping | {"restarts": 6}),
        (at + 2, stuck | {"pending": True, "restarts": 14}),
        (at + 3, {"stands": busy, "pending": False} | _decided(node, "proceed", "below_minimum")),
        (at + 4, later),
        (at + 6, {"stands": busy, "pending": False} | _decided(node, "proceed", "below_minimum")),
        (at + 7, updated),
    ]


def script(node: str, kind: int, at: float) -> Script:
    """Tell the life of one kind of node; those without a story of their own update when their turn has come."""
    down, loops = ServiceState.STOPPED, ServiceState.CRASH_LOOPING
    match kind:
        case 1:
            return _deadlock(node, 133)
        case 2:  # fails for another reason than its version
            ends = {"service": loops, "since": 250, "running": None, "contact": 249, "exit_code": 1}
            return [(250, ends | {"restarts": 9}), (300, {"restarts": 309})]
        case 4:  # its updater has written the version off
            return [(75, {"blocked": Blocked.LAST_FAILED, "failures": 1, "failed": 75})]
        case 5:  # deadlocked, tried in vain, and paused
            paused = NodePublished(node=node, paused=True, last_failure=BEGIN + 136 * MINUTE, last_run_duration=3.1)
            crash = {"service": ServiceState.CRASHED, "since": 130, "running": None, "contact": 129, "exit_code": 1}
            return [
                (0, {"installed": OLD, "running": OLD}),
                (130, crash),
                (132, _ran(node, 132, "failed", 2.9) | _decided(node, "proceed", "below_minimum")),
                (136, _ran(node, 136, "failed", 3.1) | _decided(node, "proceed", "below_minimum")),
                (140, {"stands": paused} | _decided(node, "refuse", "paused", 3)),
            ]
        case 6:  # cannot be looked at any more
            return [
                (280, {"service": ServiceState.UNKNOWN, "since": None, "running": None, "contact": 279, "seen": False})
            ]
        case 7:  # below the minimum, and runs on
            outdated = {"installed": OLD, "running": OLD, "updater_version": NodeVersion(1, 102, 3)}
            return [(0, outdated), (90, {"updater": down})]
        case 8:  # its updater is healed
            old = NodeVersion(1, 104, 5)
            stuck = {"blocked": Blocked.LEFT_OVER, "failures": 3, "failed": 150}
            decided = _decided(node, "proceed", "updater_blocked", program="storagenode-updater")
            healed = _ran(node, 200, "healed", 12.5, "storagenode-updater") | decided
            mended = healed | {"blocked": None, "updater_version": NEW}
            return [(0, {"updater_version": old}), (150, stuck), (200, mended), *_updates(at)]
        case 9:  # replaced, and not yet started again
            return [(279, {"installed": NEW, "updated": 279})]
        case 11:  # stopped by somebody, days ago
            away = {
                "service": down,
                "since": -9 * 24 * 60,
                "running": None,
                "contact": -9 * 24 * 60 - 2,
                "exit_code": 0,
            }
            return [(0, away)]
        case _:
            return _updates(at)
