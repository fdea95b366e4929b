"""What is on record of a run: the facts that recovery is derived from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from exporter.commandline import Program
from exporter.version import NodeVersion
from remediate.decision import Reason, Trigger
from remediate.starting import StartDecision

_PERSON_NEEDED = 4


@dataclass(frozen=True, slots=True)
class Inode:
    """Which file it is, whatever its name."""

    device: int
    inode: int


class Event(StrEnum):
    """What is noted of a step."""

    INTENT = "intent"
    DONE = "done"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a run ended."""

    UPDATED = "updated"
    HEALED = "healed"
    """What blocked the updater is removed."""
    LATER = "later"
    """The network or a server stood in the way; the version is not to blame."""
    BAD_VERSION = "bad_version"
    """The version failed by itself, and is remembered."""
    FAILED = "failed"
    """Something on this host stood in the way."""
    ABANDONED = "abandoned"
    """What was decided on is no longer so."""
    UNDONE = "undone"
    """Interrupted, and put back as it was."""
    INTERRUPTED = "interrupted"
    """Told to end, as by a reboot, and put back as it was: nothing is to blame, and it may be tried again at once."""
    SUPERSEDED = "superseded"
    """Interrupted, and somebody else has replaced the binary since."""
    UNREADABLE = "unreadable"
    """The new binary is in place, and does not say its version there."""
    UNCONFIRMED = "unconfirmed"
    """Updated and started; the API did not answer with the target in time."""
    START_FAILED = "start_failed"
    LEFT_DOWN = "left_down"
    """Updated; it was not its version alone that brought the node down."""
    STILL_HELD = "still_held"
    """Something that was stopped or held could not be put back yet."""

    @property
    def exit_code(self) -> int:
        """0 done, 1 the node is as it was, 3 refused, 4 a person is needed."""
        match self:
            case Outcome.UPDATED | Outcome.HEALED | Outcome.SUPERSEDED:
                return 0
            case Outcome.ABANDONED:
                return 3
            case Outcome.LATER | Outcome.BAD_VERSION | Outcome.FAILED | Outcome.UNDONE | Outcome.INTERRUPTED:
                return 1
            case _:
                return _PERSON_NEEDED

    @property
    def counts_against(self) -> bool:
        """Whether it is a failure that the version or this host is to blame for, and would likely come again."""
        return self in (
            Outcome.BAD_VERSION,
            Outcome.FAILED,
            Outcome.UNDONE,
            Outcome.UNREADABLE,
            Outcome.START_FAILED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The one binary a run is about, and who uses it."""

    binary: Path
    """Its real path."""
    nodes: tuple[str, ...]
    updaters: tuple[str, ...]
    """Units of the official updaters that may replace it."""
    installed: NodeVersion
    old: Inode
    program: Program = Program.STORAGENODE
    """What it is; an updater's is used by the nodes that it looks after, and is replaced by itself alone."""

    @property
    def staged(self) -> str:
        """Name beside the binary under which a new one waits."""
        return f".{self.binary.name}.keeper-new"

    @property
    def backup(self) -> str:
        """Name beside the binary under which the old one is kept."""
        return f"{self.backup_prefix}{self.installed}"

    @property
    def backup_prefix(self) -> str:
        """What the names of all backups of this binary begin with."""
        return f".{self.binary.name}.keeper-old-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal; `at` in Unix seconds."""

    step: str
    event: Event
    at: float
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One remediation of one node, from trigger to report."""

    id: int
    node: str
    trigger: Trigger
    reason: Reason
    subject: Subject
    target: NodeVersion
    starts: Mapping[str, StartDecision]
    """Decided once, before anything was touched, and never derived again."""
    started: float
    seen: Mapping[str, str] = field(default_factory=dict)
    """The service state each node of the binary was seen in when that was decided."""
    journal: tuple[Entry, ...] = ()
    finished: float | None = None
    outcome: Outcome | None = None
    detail: str = ""

    @property
    def exit_code(self) -> int:
        """That of the outcome; 4 while something is not put back."""
        return _PERSON_NEEDED if self.outcome is None else self.outcome.exit_code


@dataclass(frozen=True, slots=True)
class Decided:
    """How often it was decided so for a node, for one reason; when last, in Unix seconds, and with which detail."""

    node: str
    decision: str
    reason: str
    count: int
    last: float
    detail: str
    program: Program = Program.STORAGENODE
    """The node's own, or its updater."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a journal says has happened, or may have."""

    staged: Inode | None
    held: Mapping[str, Any]
    """Updaters that were, or may have been, stopped and are not put back; with what was seen before."""
    stopped: tuple[str, ...]
    """Nodes that were, or may have been, stopped and are not started again."""
    stopped_at: float
    """When that began, in Unix seconds; 0 for never."""
    down: Mapping[str, float | None]
    """Nodes that were down before the swap with nobody's doing but ours, and since when, in Unix seconds."""
    started: Mapping[str, tuple[Outcome, str]]
    """How the start of each node was settled, or that it was left down."""
    unblocked: tuple[str, ...]
    """Files that blocked the updater, and were removed."""

    def ours(self, subject: Subject) -> tuple[Inode, ...]:
        """Name the files that the run has to do with: the old binary, and the new one if there is one."""
        return (subject.old,) if self.staged is None else (subject.old, self.staged)


def facts(journal: tuple[Entry, ...]) -> Facts:
    """Read a journal; an intent without its end counts as done where it stops something, else as not done."""
    staged: Inode | None = None
    held: dict[str, Any] = {}
    stopped: tuple[str, ...] = ()
    stopped_at = 0.0
    down: dict[str, float | None] = {}
    started: dict[str, tuple[Outcome, str]] = {}
    unblocked: tuple[str, ...] = ()
    for entry in journal:
        match entry.step, entry.event:
            case "hold", Event.INTENT:
                held = dict(entry.data["held"])
            case "release", Event.DONE:
                held = {}
            case "release", Event.FAILED:
                held = {unit: was for unit, was in held.items() if unit not in entry.data.get("released", ())}
            case "unblock", Event.DONE:
                unblocked = tuple(entry.data["removed"])
            case "extract", Event.DONE:
                staged = Inode(**entry.data["staged"])
            case "confirm", Event.INTENT:
                held = dict(entry.data.get("held", {})) | held  # what was seen first is what was there before us
                stopped, stopped_at = tuple(entry.data["stop"]), entry.at
            case "confirm", Event.DONE:
                down = entry.data["down"]
            case "start", Event.DONE:
                started |= {name: (Outcome(how), detail) for name, (how, detail) in entry.data["results"].items()}
                stopped = ()
            case "restore", Event.DONE:
                stopped = ()
    return Facts(
        staged=staged,
        held=held,
        stopped=stopped,
        stopped_at=stopped_at,
        down=down,
        started=started,
        unblocked=unblocked,
    )
