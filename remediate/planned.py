"""The steps that a plan may have, as data, each with its sentence for a person."""

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.commandline import Program
from exporter.version import NodeVersion
from remediate.rules import VerifyMode


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop the official updaters of this binary until the end of the run."""

    updaters: tuple[str, ...]
    name = "hold"

    def __str__(self) -> str:
        return f"hold {', '.join(self.updaters)}" if self.updaters else "hold no updater: none is known"


@dataclass(frozen=True, slots=True)
class Unblock:
    """Remove the files by which an updater blocks itself; each with why it does."""

    files: Mapping[str, str]
    name = "unblock"

    def __str__(self) -> str:
        return "; ".join(f"remove {path}: {why}" for path, why in self.files.items())


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
    sums_url: str | None
    digest_url: str
    asset: str
    name = "verify"

    def __str__(self) -> str:
        if self.sha256:
            return f"verify its sha256 against the given {self.sha256}"
        if self.mode is VerifyMode.TLS:
            return "verify nothing more: only TLS vouches for the archive"
        against = [f"the list {self.sums_url}"] if self.sums_url else []
        if not against or self.mode is VerifyMode.PREFER:
            against.append(f"the digest in {self.digest_url}")
        return f"verify its sha256 against {', else '.join(against)} ({self.mode})"


@dataclass(frozen=True, slots=True)
class Extract:
    """Unpack the one entry beside the binary."""

    program: Program
    staged: str
    name = "extract"

    def __str__(self) -> str:
        return f"extract {self.program} to {self.staged}, same format and machine as the installed one"


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

    node: str | None
    """None where it is its updater that is updated: that is held, and the node is let alone."""
    stop: tuple[str, ...] = ()
    stop_running: bool = False
    """Whether the node is stopped even when it runs; else only while it is crash-looping."""
    name = "confirm"

    def __str__(self) -> str:
        if self.node is None:
            return "confirm that no updater is at work and its binary untouched"
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
    | Unblock
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
