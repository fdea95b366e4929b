"""The parts that act, on a clock of the test's own."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from exporter.config import load
from remediate.decision import Request, Trigger
from remediate.remediation import Remediation
from remediate.report import Report
from remediate.rules import rules
from remediate.store import Store
from remediate.worker import Publisher
from tests.remediate.conftest import Stage

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0


@dataclass
class Clock:
    """Says what it is set to."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def acting(stage: Stage, clock: Clock) -> Iterator[Remediation]:
    """Put together what a process of the worker has, and publish in the end as it does."""
    config = load(stage.write())
    allowed = rules(config, source="test")
    with closing(Store(allowed.state_dir, now=clock)) as store:
        yield Remediation(config, allowed, store, now=clock)
        Publisher(config, allowed, store, now=clock).publish()


def ask(stage: Stage, clock: Clock, trigger: Trigger = Trigger.ALERT, node: str = "alpha") -> Report:
    """Ask in a process of its own, as good as."""
    with acting(stage, clock) as remediation:
        return remediation.run(Request(node=node, trigger=trigger))
