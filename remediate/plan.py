"""The steps of a run, and the steps that bring an interrupted one to an end. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.status import NodeStatus, ServiceState
from exporter.version import NodeVersion
from remediate.decision import Proceed, Request, StartDecision
from remediate.journal import Facts, Inode, Outcome, Run, Subject, facts
from remediate.rules import Rules, VerifyMode


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop the official updaters of this binary until the end of the run."""

    updaters: tuple[str, ...]
    name = "hold"

    def __str__(self) -> str:
        return f"hold {', '.join(self.updaters)}" if self.updaters else "hold no updater: none is configured"


@dataclass(frozen=True, slots=True)
class Check:
    """Look whether the binary's folder can take a new one."""

    directory: str
    name = "check"

    def __str__(self) -> str:
        return f"check room, permissions, file system and leftovers in {self.directory}"


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the archive, from its address or from a file."""

    source: str
    local: bool
    name = "fetch"

    def __str__(self) -> str:
        return f"fetch {self.source}"


@dataclass(frozen=True, slots=True)
class Verify:
    """Compare the archive's digest with what vouches for it."""

    mode: VerifyMode
    sha256: str | None
    digest_url: str
    asset: str
    name = "verify"

    def __str__(self) -> str:
        if self.sha256:
            return f"verify its sha256 against the given {self.sha256}"
        if self.mode is VerifyMode.TLS:
            return "verify nothing more: only TLS vouches for the archive"
        return f"verify its sha256 against the digest in {self.digest_url} ({self.mode})"


@dataclass(frozen=True, slots=True)
class Extract:
    """Unpack the one entry beside the binary."""

    staged: str
    name = "extract"

    def __str__(self) -> str:
        return f"extract storagenode to {self.staged}, same format and machine as the installed one"


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the new binary for its version, confined."""

    target: NodeVersion
    name = "probe"

    def __str__(self) -> str:
        return f"probe it: it must be a release build of {self.target}"


@dataclass(frozen=True, slots=True)
class Dress:
    """Give the new binary what the old one has."""

    staged: str
    name = "dress"

    def __str__(self) -> str:
        return "dress it: owner, mode and attributes of the installed one, then to disk"


@dataclass(frozen=True, slots=True)
class Confirm:
    """Look again that the node is down and the binary the same; stop first what has to be."""

    node: str
    stop: tuple[str, ...]
    stop_running: bool
    """Whether the node is stopped even when it runs; else only while it is crash-looping."""
    name = "confirm"

    def __str__(self) -> str:
        first = f"stop {', '.join(self.stop)}; " if self.stop else ""
        return f"{first}confirm that {self.node} is down and its binary untouched"


@dataclass(frozen=True, slots=True)
class Swap:
    """Keep the old binary by a second name, put the new one in its place, read it back."""

    backup: str
    name = "swap"

    def __str__(self) -> str:
        return f"swap: keep the old one as {self.backup}, rename the new one over it, read its version back"


@dataclass(frozen=True, slots=True)
class Seal:
    """Finish a swap that was interrupted after its rename: make it durable, read it back."""

    name = "seal"

    def __str__(self) -> str:
        return "seal the interrupted swap: make it durable, read its version back"


@dataclass(frozen=True, slots=True)
class Start:
    """Start nodes and confirm that they stay up with the target."""

    nodes: tuple[str, ...]
    left: Mapping[str, str]
    name = "start"

    def __str__(self) -> str:
        parts = [f"start {', '.join(self.nodes)}"] if self.nodes else []
        parts += [f"leave {node} stopped ({reason})" for node, reason in self.left.items()]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove what an unfinished run left beside the binary."""

    names: tuple[str, ...]
    name = "discard"

    def __str__(self) -> str:
        return f"discard {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Restore:
    """Start again what was stopped for an update that did not happen."""

    nodes: tuple[str, ...]
    name = "restore"

    def __str__(self) -> str:
        return f"start {', '.join(self.nodes)} again"


@dataclass(frozen=True, slots=True)
class Release:
    """Put the official updaters back as they were."""

    name = "release"

    def __str__(self) -> str:
        return "release the updaters that were held"


@dataclass(frozen=True, slots=True)
class Prune:
    """Remove backups but the newest."""

    prefix: str
    keep: str
    name = "prune"

    def __str__(self) -> str:
        return f"prune backups {self.prefix}*, keep {self.keep}"


Step = (
    Hold
    | Check
    | Fetch
    | Verify
    | Extract
    | Probe
    | Dress
    | Confirm
    | Swap
    | Seal
    | Start
    | Discard
    | Restore
    | Release
    | Prune
)


@dataclass(frozen=True, slots=True)
class Found:
    """Which files are there now, by inode."""

    binary: Inode | None
    staged: Inode | None
    backup: Inode | None


def plan(
    decision: Proceed, request: Request, subject: Subject, statuses: Mapping[str, NodeStatus], asset: str, rules: Rules
) -> tuple[Step, ...]:
    """List the steps of an update, after the lock and the decision."""
    stop = tuple(
        node
        for node in decision.starts
        if statuses[node].service.state is ServiceState.CRASH_LOOPING
        or (node == request.node and statuses[node].service.state is ServiceState.RUNNING)
    )
    return (
        Hold(subject.updaters),
        Check(str(subject.binary.parent)),
        Fetch(request.artifact or f"{rules.releases}/v{decision.target}/{asset}", local=request.artifact is not None),
        Verify(
            rules.verify if request.artifact is None else VerifyMode.TLS,
            request.sha256,
            f"{rules.digests}/v{decision.target}",
            asset,
        ),
        Extract(subject.staged),
        Probe(decision.target),
        Dress(subject.staged),
        Confirm(request.node, stop, request.stop_running),
        Swap(subject.backup),
        _start(decision.starts),
        Release(),
        Prune(subject.backup_prefix, subject.backup),
    )


def recovery(run: Run, found: Found) -> tuple[tuple[Step, ...], Outcome]:
    """List the steps that end an unfinished run, from its journal and the files found, and from nothing else.

    A new binary in place is never taken back: it may have been started, by whomever, and a node that has run a
    version may not be able to run an older one.
    """
    known = facts(run.journal)
    subject = run.subject
    if known.staged is not None and found.binary == known.staged:
        return (
            Seal(),
            _start({node: each for node, each in run.starts.items() if node not in known.started}),
            Release(),
            Prune(subject.backup_prefix, subject.backup),
        ), Outcome.UPDATED
    undo = _undo(known, subject, found)
    if found.binary is None:
        return undo, Outcome.FAILED
    return undo, Outcome.UNDONE if found.binary == subject.old else Outcome.SUPERSEDED


def _undo(known: Facts, subject: Subject, found: Found) -> tuple[Step, ...]:
    # Where there is no binary any more, the backup may be the last one there is.
    backup = found.backup if found.binary is not None else None
    leftovers = ((subject.staged, found.staged), (subject.backup, backup))
    names = tuple(name for name, inode in leftovers if inode is not None)
    steps: list[Step] = []
    if names:
        steps.append(Discard(names))
    if known.stopped:
        steps.append(Restore(known.stopped))
    return (*steps, Release())


def _start(starts: Mapping[str, StartDecision]) -> Start:
    return Start(
        tuple(node for node, decision in starts.items() if decision.start),
        {node: decision.reason for node, decision in starts.items() if not decision.start},
    )
