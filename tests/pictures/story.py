"""Six hours of a fleet: a version is rolled out from the first hour on, and after two hours the minimum rises.

Each kind of node takes that in its own way. Times are minutes of the story.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter.allowed import STORAGENODE
from exporter.status import Rejected, ServiceState
from exporter.updaterlog import Blocked, UpdaterFailure
from exporter.version import NodeVersion
from tests.fleet import BEFORE, MINIMUM, NEW, OLD

MINUTE, DAY = 60, 24 * 60
BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
LENGTH = 6 * 60 * MINUTE
NAMES = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima")
ROLLOUT, RISE = 60, 120
"""When the new version is suggested, and when the minimum rises."""
UPDATER = "storagenode-updater"
Changes = Mapping[str, Any]
Script = Sequence[tuple[float, Changes]]


def moment(script: Script, minute: float) -> dict[str, Any]:
    """Say how a node with this story is: what is observed of it and its updater, and where its remediation stands.

    What a script changes, by the names of fields, stays so until it is changed again; runs and decisions are counted.
    """
    now: dict[str, Any] = {name: {} for name in _WELL} | {"runs": Counter(), "decisions": Counter()}
    for begins, changes in [(-math.inf, _WELL), *script]:
        for name, change in changes.items() if begins <= minute else ():
            now[name].update(change)
    return now


def at(minute: float) -> float:
    """Return a time of the story in Unix seconds."""
    return BEGIN + minute * MINUTE


_WELL: Changes = {
    "service": {"state": ServiceState.RUNNING, "since": at(-3 * DAY), "restarts": 0},
    "node": {"installed": BEFORE, "running": BEFORE, "contact": None},
    "updater": {"state": ServiceState.RUNNING, "version": BEFORE, "rejected": None},
    "log": {"last_update": at(-3 * DAY)},
    "stands": {"pending": False},
}


def cursor(minute: float) -> float:
    """Say how far the rollout has come: that before stood at a half, this one goes on by a twentieth each half hour."""
    return 0.5 if minute < ROLLOUT else 0.05 + (minute - ROLLOUT) // 30 * 0.05


def _updates(place: float) -> Script:
    """Update by its updater when the rollout has reached it."""
    turn = next((minute for minute in range(ROLLOUT, DAY) if cursor(minute) >= place), DAY) + 9
    return [(turn, _has(NEW) | {"service": {"since": at(turn)}, "log": {"last_update": at(turn)}})]


def _has(version: NodeVersion) -> dict[str, Any]:
    return {"node": {"installed": version, "running": version, "contact": None}}


def _updater(version: NodeVersion) -> dict[str, Any]:
    return {"updater": {"version": version}}


def _down(state: ServiceState, minute: float, exit_code: int = 1, restarts: int = 0) -> dict[str, Any]:
    service = {"state": state, "since": at(minute), "exit_code": exit_code, "restarts": restarts}
    return {"service": service, "node": {"running": None, "contact": at(minute - 1)}}


def _stuck(blocked: Blocked, minute: float, failures: int = 1) -> dict[str, Any]:
    counted = dict.fromkeys(UpdaterFailure, 0) | {UpdaterFailure.INSTALL: failures}
    return {"log": {"blocked": blocked, "last_failure": at(minute), "failures": counted}}


def _ran(minute: float, outcome: str, seconds: float, program: str = STORAGENODE) -> dict[str, Any]:
    """End a run, well or not."""
    ended = "last_success" if outcome in ("updated", "healed") else "last_failure"
    idle = {"pending": outcome == "later", "in_progress": False, "updater_held": False}
    return {"stands": idle | {"last_run_duration": seconds, ended: at(minute)}, "runs": [(outcome, program)]}


def _deadlock(begins: float) -> Script:
    """Restart below the minimum, never start again, and be healed within minutes, the second time it is tried."""
    begun = {"pending": False, "in_progress": True, "updater_held": True}
    busy: dict[str, Any] = {"stands": begun, "decisions": [("proceed", "below_minimum", STORAGENODE)]}
    well = {"service": {"state": ServiceState.RUNNING, "since": at(begins + 7), "restarts": 0}}
    return [
        (0, _has(OLD) | _updater(NodeVersion(1, 104, 5))),
        (begins, _down(ServiceState.CRASH_LOOPING, begins, restarts=6)),
        (begins + 2, _stuck(Blocked.NOT_INITIALIZED, begins + 2) | {"stands": {"pending": True}}),
        (begins + 3, busy | {"service": {"restarts": 14}}),
        (begins + 4, _ran(begins + 4, "later", 30.2) | {"service": {"restarts": 26}}),
        (begins + 6, busy),
        (begins + 7, _ran(begins + 7, "updated", 71.4) | well | _has(MINIMUM) | {"log": {"blocked": None}}),
    ]


def script(kind: int, place: float) -> Script:
    """Tell the life of one kind of node; those without a story of their own update when their turn has come."""
    match kind:
        case 1:
            return _deadlock(133)
        case 2:  # fails for another reason than its version
            return [(250, _down(ServiceState.CRASH_LOOPING, 250, restarts=9)), (300, {"service": {"restarts": 309}})]
        case 4:  # its updater has written the version off
            failed = Rejected(path=Path("/last-failed-update.storagenode.json"), version=NEW, failure="signal: killed")
            return [(75, _stuck(Blocked.LAST_FAILED, 75) | {"updater": {"rejected": failed}})]
        case 5:  # deadlocked, tried in vain, and paused
            decided = {"decisions": [("proceed", "below_minimum", STORAGENODE)]}
            refused = {"decisions": [("refuse", "paused", STORAGENODE)] * 3}
            return [
                (0, _has(OLD)),
                (130, _down(ServiceState.CRASHED, 130)),
                (132, _ran(132, "failed", 2.9) | decided),
                (136, _ran(136, "failed", 3.1) | decided),
                (140, {"stands": {"paused": True}} | refused),
            ]
        case 6:  # cannot be looked at any more
            unseen = {"node": {"installed": None, "running": None, "contact": at(279)}}
            return [(280, unseen | {"service": {"state": ServiceState.UNKNOWN, "since": None, "restarts": None}})]
        case 7:  # below the minimum, and runs on
            return [
                (0, _has(OLD) | _updater(NodeVersion(1, 102, 3))),
                (90, {"updater": {"state": ServiceState.STOPPED}}),
            ]
        case 8:  # its updater is healed
            mended = _ran(200, "healed", 12.5, UPDATER) | {"decisions": [("proceed", "updater_blocked", UPDATER)]}
            return [
                (0, _updater(NodeVersion(1, 104, 5))),
                (150, _stuck(Blocked.LEFT_OVER, 150, failures=3)),
                (200, mended | _updater(NEW) | {"log": {"blocked": None}}),
                *_updates(place),
            ]
        case 9:  # replaced, and not yet started again
            return [(279, {"node": {"installed": NEW}, "log": {"last_update": at(279)}})]
        case 11:  # stopped by somebody, days ago
            return [(0, _down(ServiceState.STOPPED, -9 * DAY, exit_code=0))]
        case _:
            return _updates(place)
