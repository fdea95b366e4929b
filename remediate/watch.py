"""The loop with no Prometheus: look at every node, and ask for what an alert would ask for."""

import logging
import time
from collections.abc import Callable, Collection, Iterator

from exporter.commandline import Program
from exporter.config import Config
from exporter.observe import Observer
from exporter.sources.binary import Execute
from remediate.assembly import Assembly
from remediate.decision import Refuse, Request, Trigger
from remediate.healing import needs_healing
from remediate.report import Report
from remediate.steps.probe import executor, hidden
from remediate.store import BusyError
from remediate.updaters import look
from remediate.worker import attempt

logger = logging.getLogger(__name__)

_OBSERVE_SECONDS = 10.0


def rounds(config: Config, assembly: Assembly, ended: Callable[[], bool]) -> Iterator[list[Report]]:
    """Recover what was interrupted, look, and remediate, once a round; give the reports of each.

    A node is asked for once in `refresh` at most: until then its decision would be the same.

    Raises:
        DatabaseError: the store cannot be written any more.
    """
    execute = executor(hidden(config), assembly.rules)
    observer = Observer(config, execute=execute, cache_dir=None)
    next_time: dict[Request, float] = {}
    while True:
        reports: list[Report] = []
        try:
            assembly.publisher.publish()
            reports += map(Report.of, assembly.remediation.recover())
            for request in _in_need(config, observer, execute, assembly.remediation.looks_after):
                if ended() or time.monotonic() < next_time.get(request, 0):
                    continue
                next_time[request] = time.monotonic() + config.refresh.total_seconds()
                reports += attempt(assembly.remediation, request)
                assembly.publisher.publish()
        except BusyError as error:
            logger.info("left for the next time", extra={"reason": str(error)})
        yield reports


def _in_need(
    config: Config, observer: Observer, execute: Execute, looked_after: Collection[Program]
) -> Iterator[Request]:
    """Ask for the nodes that are down and too old to start, and for the updaters that are too old or blocked.

    A node that is neither up nor down so far is looked at longer.
    """
    statuses = observer.observe_all(_OBSERVE_SECONDS)
    for node, status in zip(config.nodes, statuses, strict=True):
        if status.below_minimum and observer.settled(status, _OBSERVE_SECONDS).deadlocked:
            yield Request(node=node.name, trigger=Trigger.WATCH)
        if Program.UPDATER in looked_after:
            updater = look(config, node, status, execute)
            if not isinstance(updater, Refuse) and needs_healing(updater, status.allowed):
                yield Request(node=node.name, trigger=Trigger.WATCH, program=Program.UPDATER)
