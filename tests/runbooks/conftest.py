from collections.abc import Iterator

import pytest

from tests.documents import blocks
from tests.labs.systemd import Container
from tests.runbooks.book import RUNBOOKS, run
from tests.runbooks.monitored import Monitored

NODES = (
    *("deadlocked", "below", "loops", "near", "due", "pending", "unknown", "gone", "away", "stale", "between"),
    *("stuck", "blocked", "unguarded", "outdated", "silent", "elsewhere", "held"),
    *("failed", "thrice", "missed", "paused", "waits", "healthy", "asked", "tried"),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    with Container() as container, Monitored(container, tmp_path_factory.mktemp("monitored"), NODES) as host:
        for block in blocks("runbooks", RUNBOOKS / "README.md"):
            for line in block.commands:
                run(host, line)
        yield host
