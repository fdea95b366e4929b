"""Working requests off beside the webhook, in one process, where no systemd starts the worker."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from sqlite3 import DatabaseError
from threading import Event, Thread

from exporter.config import Config
from remediate.assembly import assembled
from remediate.rules import Rules
from remediate.spool import Spool
from remediate.store import BusyError
from remediate.worker import work

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 30.0
"""As the worker's unit does after a failure."""


@contextmanager
def working(config: Config, rules: Rules, spool: Spool) -> Iterator[None]:
    """Work in a thread until the block ends; a run that is under way then is left to recovery.

    Raises:
        ConfigError: the store cannot be used.
    """
    logger.warning("what listens here also acts: only for hosts without systemd, and only on this machine")
    ended = Event()
    names = [node.name for node in config.nodes]
    with assembled(config, rules) as assembly:

        def loop() -> None:
            pause = 0.0
            unfinished = True
            while not ended.wait(pause):
                pause = _POLL_SECONDS
                try:
                    if unfinished or spool.pending():
                        work(spool, names, assembly.remediation, assembly.publisher.publish)
                        unfinished = bool(assembly.store.open_runs())
                        pause = _RETRY_SECONDS if unfinished else _POLL_SECONDS
                except (BusyError, OSError, DatabaseError) as error:
                    logger.error("worker cannot work", extra={"problem": str(error)})
                    pause = _RETRY_SECONDS

        thread = Thread(target=loop, name="worker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=1)
