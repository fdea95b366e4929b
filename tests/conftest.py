import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.labs import Unavailable
from tests.labs.systemd import Container

# What runs in the background of a shell ignores interrupts, and so would all it starts: tests interrupt some of that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def container() -> Iterator[Container]:
    """A booted systemd that the tests share: use unit names and ports of your own, and leave nothing running."""
    with Container() as shared:
        yield shared


@pytest.fixture
def new_container() -> Iterator[Callable[[], Container]]:
    """A function that boots a container for this test alone."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Container())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    yield from _skipping()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    yield from _skipping()


def _skipping() -> Generator[None, None, None]:
    """Skip what needs a lab that cannot start here, with its reason; with REQUIRE_LABS=1 that is a failure."""
    try:
        yield
    except Unavailable as reason:
        if os.environ.get("REQUIRE_LABS") == "1":
            raise
        pytest.skip(str(reason))
