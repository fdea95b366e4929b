"""Whether the official updater of a node is updated, to what, and which of its own files are in its way. Pure."""

from dataclasses import dataclass
from pathlib import Path

from exporter.allowed import STORAGENODE_UPDATER, AllowedVersions, Process
from exporter.status import Failure, InstalledVersion, ServiceStatus
from exporter.updater import REPLACES_STOPPED
from exporter.version import NodeVersion
from remediate.decision import (
    Decision,
    Proceed,
    Reason,
    Refuse,
    Request,
    Skip,
    Trigger,
    demanded,
    forbids,
    hindrance,
    no_step_up,
    restrained,
)
from remediate.history import History
from remediate.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A file by which an updater keeps itself from a version that it should install."""

    path: Path
    why: str
    version_is_to_blame: bool = False
    """Then only a person has it removed: the updater would bring it about again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Updater:
    """The official updater of a node, and who else uses its binary."""

    unit: str
    service: ServiceStatus
    binary: Path
    """Its real path."""
    installed: InstalledVersion | Failure
    units: tuple[str, ...]
    """All that run this binary, the one above among them."""
    nodes: tuple[str, ...]
    """Those that are looked after by one of them."""
    blocks: tuple[Block, ...]


def updater_versions(allowed: AllowedVersions | Failure) -> Process | None:
    """Take the updater's part of a document, where there is one."""
    return None if isinstance(allowed, Failure) else allowed.processes.get(STORAGENODE_UPDATER)


def decide_healing(
    request: Request,
    updater: Updater,
    allowed: AllowedVersions | Failure,
    history: History,
    rules: Rules,
    now: float,
) -> Decision:
    """Decide on a request that is about a node's updater; `history` is that of the updater's binary."""
    by_person = request.trigger is Trigger.PERSON
    if (hindered := hindrance(request, updater.service, updater.installed)) is not None:
        return hindered
    assert isinstance(updater.installed, InstalledVersion), "else it was a hindrance"
    installed, process = updater.installed.version, updater_versions(allowed)
    blocks = {str(each.path): each.why for each in updater.blocks if by_person or not each.version_is_to_blame}
    chosen = _target(request, installed, process, allowed, history, now)
    if blocks and isinstance(chosen, Skip):
        chosen = installed, Reason.UPDATER_BLOCKED
    if isinstance(chosen, Skip | Refuse):
        return chosen
    target, reason = chosen
    if target != installed and (forbidden := forbids(request, process, target, history, rules)) is not None:
        return forbidden
    proceed = Proceed(target=target, reason=reason, starts={}, blocks=blocks)
    return proceed if by_person else restrained(proceed, history, rules, now)


def needs_healing(updater: Updater, allowed: AllowedVersions | Failure) -> bool:
    """Say whether there is something that an updater could be healed of with nobody asking for it."""
    process = updater_versions(allowed)
    if isinstance(updater.installed, Failure) or process is None:
        return False
    too_old = isinstance(_needed(updater.installed.version, process), tuple)
    return too_old or not all(each.version_is_to_blame for each in updater.blocks)


def _target(
    request: Request,
    installed: NodeVersion,
    process: Process | None,
    allowed: AllowedVersions | Failure,
    history: History,
    now: float,
) -> tuple[NodeVersion, Reason] | Skip | Refuse:
    unknown = str(allowed) if isinstance(allowed, Failure) else "the version server says nothing of the updater"
    if request.to is not None:
        asked = demanded(request, process, request.to, unknown)
        return asked if isinstance(asked, Refuse) else no_step_up(installed, asked[0]) or asked
    if process is None:
        return Refuse(Reason.ALLOWED_UNKNOWN, unknown)
    chosen = _needed(installed, process)
    to_minimum = not isinstance(chosen, Skip) and chosen[0] == process.minimum.version
    if to_minimum and request.trigger is not Trigger.PERSON and (wrong := history.inconsistency(process, now)):
        return Refuse(Reason.INCONSISTENT_SERVER, wrong)
    return chosen


def _needed(installed: NodeVersion, process: Process) -> tuple[NodeVersion, Reason] | Skip:
    """Go to the minimum from below it, as upstream does, and else to the suggested version from before 1.106."""
    if installed < process.minimum.version:
        return process.minimum.version, Reason.UPDATER_TOO_OLD
    if installed >= REPLACES_STOPPED:
        return Skip(Reason.CURRENT, f"{installed} is allowed, and replaces the binary of a node that does not run")
    if installed >= process.suggested.version:
        return Skip(Reason.CURRENT, f"{installed} is too old, and the version server suggests nothing newer")
    return process.suggested.version, Reason.UPDATER_TOO_OLD
