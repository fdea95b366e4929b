"""From requests to runs, one after the other, and the status that is published of them."""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from sqlite3 import DatabaseError

from exporter.commandline import Program
from exporter.config import Config
from remediate import published
from remediate.decision import Request, Trigger
from remediate.history import History
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
        self._config = config
        self._path = rules.status_file
        self._store = store
        self._now = now

    def publish(self) -> None:
        """Write the status file; that it cannot be written must not keep a node from being updated."""
        try:
            with self._store.alone("publishing"):
                published.write(self._path, self._status())
        except OSError as error:
            logger.warning("status file not written", extra={"file": str(self._path), "problem": error.strerror})

    def _status(self) -> Published:
        unfinished = self._store.open_runs()
        return Published(
            worker_last_seen=self._now(),
            runs=tuple(
                RunCount(node=node, program=program, trigger=trigger, outcome=outcome, count=count)
                for node, program, trigger, outcome, count in self._store.run_counts()
            ),
            decisions=tuple(
                DecisionCount(
                    node=each.node,
                    program=each.program,
                    decision=each.decision,
                    reason=each.reason,
                    count=each.count,
                )
                for each in self._store.decisions()
            ),
            nodes=tuple(self._nodes(unfinished)),
        )

    def _nodes(self, unfinished: Sequence[Run]) -> Iterator[NodePublished]:
        binaries = {node.name: Path(os.path.realpath(node.binary)) for node in self._config.nodes}
        sharing: dict[Path, list[str]] = {}
        for name, binary in binaries.items():
            sharing.setdefault(binary, []).append(name)
        for name, binary in binaries.items():
            yield self._node(name, self._store.history(binary, sharing[binary]), unfinished)

    def _node(self, name: str, history: History, unfinished: Sequence[Run]) -> NodePublished:
        concerning = [run for run in unfinished if name in run.subject.nodes]
        success, failure, duration = self._store.last_ends(name)
        pause = history.pause(self._now())
        return NodePublished(
            node=name,
            updater_held=any(facts(run.journal).held for run in concerning),
            in_progress=any(run.subject.program is Program.STORAGENODE for run in concerning),
            circuit_open=history.circuit_open,
            paused=pause is not None,
            paused_until=pause.until if pause is not None else None,
            last_success=success,
            last_failure=failure,
            last_run_duration=duration,
        )


def work(
    spool: Spool,
    nodes: Collection[str],
    remediation: Remediation,
    publish: Callable[[], None],
    ended: Callable[[], bool] = lambda: False,
) -> list[Report]:
    """Recover what was interrupted, then work off the requests until none is left, or until it is to end.

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
            if ended():
                return reports
            reports += _look_after(remediation, node, ended)
            if ended():
                return reports  # what was interrupted is still asked for
            spool.done(node)
            publish()
    publish()
    return reports


def _look_after(remediation: Remediation, node: str, ended: Callable[[], bool]) -> list[Report]:
    """Remediate a node, and then its updater where that is allowed; while something is held, nothing else is begun."""
    reports: list[Report] = []
    for program in remediation.looks_after:
        if ended() or any(report.run is not None and report.run.finished is None for report in reports):
            break
        reports += attempt(remediation, Request(node=node, trigger=Trigger.ALERT, program=program))
    return reports


def attempt(remediation: Remediation, request: Request) -> list[Report]:
    """Remediate one node; a fault of ours, logged, gives no report and keeps no other node waiting.

    Raises:
        BusyError: another run is in progress on this host.
        DatabaseError: the store cannot be written any more.
    """
    try:
        return [remediation.run(request)]
    except (BusyError, DatabaseError):
        raise
    except Exception:
        logger.exception("run broke off", extra={"node": request.node})
        return []
