"""What earlier runs, and the people who look after them, left to be considered by a decision. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.allowed import Process
from exporter.cadence import most_minors
from exporter.status import DAY
from exporter.version import NodeVersion

_FAILURES_A_DAY = 3
"""As many open the circuit."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is done unasked while it lasts; times in Unix seconds."""

    node: str | None
    """None: all of them."""
    since: float
    until: float | None
    """None: until somebody ends it."""
    reason: str

    def lasts(self, now: float) -> bool:
        """Say whether it is not over yet."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is on record of one binary; times in Unix seconds."""

    known_bad: Mapping[NodeVersion, str] = field(default_factory=dict)
    """Versions that failed by themselves on it, and how."""
    failures: tuple[float, ...] = ()
    """When runs that nobody had asked for failed on it, and not for the network's sake, since it was last forgiven."""
    last_end: float | None = None
    """When the last run that nobody had asked for ended."""
    pauses: tuple[Pause, ...] = ()
    """Those of its nodes, and of all nodes."""
    last_minimum: tuple[NodeVersion, float] | None = None
    """The last minimum that made sense, and when it was fetched."""

    @property
    def circuit_open(self) -> bool:
        """Whether it failed too often within a day, once; only a person closes it again."""
        spans = zip(self.failures, self.failures[_FAILURES_A_DAY - 1 :], strict=False)
        return any(last - first < DAY for first, last in spans)

    def cools_down(self, now: float, seconds: float) -> bool:
        """Say whether a run ended less than so many seconds ago, or ahead: a clock may have been set back a little."""
        return self.last_end is not None and abs(now - self.last_end) < seconds

    def pause(self, now: float) -> Pause | None:
        """Find a pause that lasts."""
        return next((pause for pause in self.pauses if pause.lasts(now)), None)

    def inconsistency(self, process: Process, now: float) -> str | None:
        """Say why a document's minimum is not to be believed by anything automatic; None where it is."""
        minimum = process.minimum.version
        if not process.consistent:
            return f"the minimum {minimum} is above the suggested {process.suggested.version}"
        if self.last_minimum is None:
            return None
        before, when = self.last_minimum
        allowed = most_minors(now - when)
        if minimum.major != before.major or minimum.minor - before.minor > allowed:
            return f"the minimum jumped from {before} to {minimum}, more than {allowed:.0f} minor releases"
        return None
