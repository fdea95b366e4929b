"""Whether a node is started after its update, and why. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from exporter.status import NodeStatus, ServiceState
from remediate.rules import Start

EXIT_TOO_OLD = 1
"""What a node exits with when it finds itself below the minimum (storj/storj, cmd/storagenode)."""


class StartReason(StrEnum):
    """Why a node is started after its update, or is not."""

    TOO_OLD_TO_START = "too_old_to_start"
    RULE_ALWAYS = "rule_always"
    WAS_RUNNING = "was_running"
    ASKED_TO_STOP = "asked_to_stop"
    RULE_NEVER = "rule_never"
    OTHER_CAUSE = "other_cause"
    """It was not, or not only, its version that brought it down: a person has to look."""


@dataclass(frozen=True, slots=True)
class StartDecision:
    """Whether a node is started afterwards."""

    start: bool
    reason: StartReason


def decide_start(status: NodeStatus, rule: Start) -> StartDecision:
    """Decide whether a node is started after its update: a clean stop stays a stop, an aged crash is undone."""
    if rule is Start.NEVER:
        return StartDecision(False, StartReason.RULE_NEVER)
    if status.service.state is ServiceState.RUNNING:
        return StartDecision(True, StartReason.WAS_RUNNING)
    if rule is Start.ALWAYS:
        return StartDecision(True, StartReason.RULE_ALWAYS)
    if status.service.state is ServiceState.STOPPED:
        return StartDecision(False, StartReason.ASKED_TO_STOP)
    if status.service.exit_code == EXIT_TOO_OLD and status.below_minimum:
        return StartDecision(True, StartReason.TOO_OLD_TO_START)
    return StartDecision(False, StartReason.OTHER_CAUSE)
