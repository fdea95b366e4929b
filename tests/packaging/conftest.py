from collections.abc import Iterator

import pytest

from tests.e2e.site import NEW, PATH, WEBHOOK, WORKER, Node
from tests.labs.systemd import Container
from tests.packaging.host import Host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host of the module's own."""
    with Container() as container, Host(container, tmp_path_factory.mktemp("host"), ("alpha", "beta")) as made:
        container.systemctl("enable", "--now", "--quiet", WEBHOOK, PATH, WORKER)
        yield made


@pytest.fixture
def alpha(host: Host) -> Node:
    """A stopped node below the minimum, with an updater at work, and a worker that waits."""
    node = host.node("alpha")
    host.forget(node)
    node.install(service="Restart=no")
    host.rise(NEW)
    host.container.systemctl("start", PATH)
    return node
