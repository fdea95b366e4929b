"""From requests to runs, one after the other, and the status that is published of them."""

import logging
import time
from collections.abc import Callable, Collection
from sqlite3 import DatabaseError

from exporter.config import Config
from remediate import published
from remediate.decision import Request, Trigger
from remediate.journal import Run, facts
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from remediate.remediation import Remediation
from remediate.report import Report
from remediate.rules import Rules
from remediate.spool import Spool
from remediate.store import BusyError, Store

logger = logging.getLogger(__name__)


class Publisher:
    """Keeps the status file in step with the store."""

    def __init__(self, config: Config, rules: Rules, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._nodes = [node.name for node in config.nodes]
        self._path = rules.status_file
        self._store = store
        self._now = now

    def publish(self) -> None:
        """Write the status file; that it cannot be written must not keep a node from being updated."""
        try:
            published.write(self._path, self._status())
        except OSError as error:
            logger.warning("status file not written", extra={"file": str(self._path), "problem": error.strerror})

    def _status(self) -> Published:
        unfinished = self._store.open_run()
        return Published(
            worker_last_seen=self._now(),
            runs=tuple(
                RunCount(node=node, trigger=trigger, outcome=outcome, count=count)
                for node, trigger, outcome, count in self._store.run_counts()
            ),
            decisions=tuple(
                DecisionCount(node=node, decision=decision, reason=reason, count=count)
                for node, decision, reason, count in self._store.decision_counts()
            ),
            nodes=tuple(self._node(name, unfinished) for name in self._nodes),
        )

    def _node(self, name: str, unfinished: Run | None) -> NodePublished:
        concerned = unfinished is not None and name in unfinished.subject.nodes
        success, failure, duration = self._store.last_ends(name)
        return NodePublished(
            node=name,
            updater_held=bool(concerned and unfinished and facts(unfinished.journal).held),
            in_progress=concerned,
            last_success=success,
            last_failure=failure,
            last_run_duration=duration,
        )


def work(spool: Spool, nodes: Collection[str], remediation: Remediation, publish: Callable[[], None]) -> list[Report]:
    """Recover what was interrupted, then work off the requests until none is left.

    A request is removed when its run has ended, whatever came of it: while it lasts, the alert that comes again falls
    on it, and afterwards it is a new one. A node that nothing can be done for does not keep the others waiting.

    Raises:
        BusyError: another run is in progress on this host; the requests stay.
        OSError: the spool cannot be read or written.
        DatabaseError: the store cannot be written any more, the disk is full perhaps; the requests stay.
    """
    publish()
    remediation.recover()
    reports: list[Report] = []
    while requested := spool.take(nodes):
        for node in requested:
            try:
                reports.append(remediation.run(Request(node=node, trigger=Trigger.ALERT)))
            except (BusyError, DatabaseError):
                raise
            except Exception:
                logger.exception("run broke off", extra={"node": node})
            spool.done(node)
            publish()
    publish()
    return reports
