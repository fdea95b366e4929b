from collections.abc import Iterator

import pytest

from tests.e2e.loop import Loop
from tests.labs.systemd import Container


@pytest.fixture(scope="session")
def session_loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with Container() as container, Loop(container, tmp_path_factory.mktemp("loop")) as loop:
        yield loop


@pytest.fixture
def loop(session_loop: Loop) -> Iterator[Loop]:
    """The whole loop, shared by all tests; each has nodes of its own, and none may make a program of ours stumble."""
    yield session_loop
    assert session_loop.tracebacks() == []
