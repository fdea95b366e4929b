"""Run the demo: `python -m tests.demo [--manager process|systemd]`."""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.demo import story, systemd
from tests.demo.process import ProcessStage
from tests.demo.story import OLD, DemoError, Teller
from tests.labs import Unavailable
from tests.simulators.build import BuildError
from tests.simulators.version_server import VersionServer


def main() -> int:
    """Tell the story, clean up, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--manager", choices=("process", "systemd"), default="process")
    manager = parser.parse_args().manager
    say = Teller()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storagenode-keeper-demo-")))
            say(f"one node, its network and its keeper, in {folder}, on this machine's loopback only")
            if manager == "systemd":
                systemd.tell(say, folder, stack)
            else:
                versions = stack.enter_context(VersionServer(minimum=OLD, suggested=OLD))
                story.tell(say, ProcessStage(folder, stack, versions), versions)
    except (DemoError, TimeoutError, Unavailable, BuildError) as error:
        say(f"it did not work: {error}")
        return 1
    say("everything that was started is stopped, and the folder is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
