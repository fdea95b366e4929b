"""The runbooks about updaters and what acts: every command in them run on a host in the state it is about.

Apart from the others, so that both can be run at the same time.
"""

from collections.abc import Callable

import pytest

from tests.runbooks import of_remediation, of_updaters
from tests.runbooks.monitored import Monitored

pytestmark = [pytest.mark.e2e, pytest.mark.systemd, pytest.mark.prometheus]

STATES: dict[str, Callable[[Monitored], None]] = {
    "StorageNodeUpdaterBlocked": of_updaters.blocked,
    "StorageNodeUpdaterDown": of_updaters.down,
    "StorageNodeUpdaterOutdated": of_updaters.outdated,
    "StorageNodeUpdaterSilent": of_updaters.silent,
    "StorageNodeUpdaterAsksElsewhere": of_updaters.asks_elsewhere,
    "StorageNodeUpdaterHeld": of_updaters.held,
    "StorageNodeRemediationFailed": of_remediation.failed,
    "StorageNodeRemediationCircuitOpen": of_remediation.circuit_open,
    "StorageNodeRemediationMissing": of_remediation.missing,
    "StorageNodeRemediationPaused": of_remediation.paused,
    "StorageNodeWorkerNotSeen": of_remediation.worker_not_seen,
}


@pytest.mark.parametrize("name", STATES)
def test_its_commands_find_the_state_and_mend_it(host: Monitored, name: str) -> None:
    STATES[name](host)
    assert host.tracebacks() == []
