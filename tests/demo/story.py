"""What the demo tells, whatever manages the node."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Protocol

from tests.alerts import shipped
from tests.labs import Unavailable
from tests.labs.network import Network
from tests.labs.prometheus import Alertmanager, Prometheus
from tests.simulators import build
from tests.simulators.version_server import VersionServer

NODE = "alpha"
OLD, NEW = "1.102.3", "1.104.5"
_PAD_BYTES = 30 << 20
"""As much as makes the archive about the size of a real one."""
PATIENCE_SECONDS = 60.0


class DemoError(Exception):
    """The story did not go as it should; the text says where it stopped."""


class Stage(Protocol):
    """Where the story plays: how the node is run there, and where the programs are."""

    network: Network
    exporter: str
    webhook: str
    token: Path
    events: "Queue[str]"
    """Lines of JSON that the worker and the webhook log."""

    def start_node(self) -> str:
        """Have somebody start the node; returns how it went, in words."""
        ...

    def stop_node(self) -> None:
        """Have somebody stop it."""
        ...

    def run(self, *command: str) -> str:
        """Run one of our programs, show how it is called, and return what it prints."""
        ...

    def start_programs(self) -> None:
        """Start exporter, webhook and worker."""
        ...

    def api_version(self) -> str:
        """Ask the node's API for its version, waiting until it answers."""
        ...


def releases(folder: Path) -> Path:
    """Lay out the release that the download host offers."""
    new = build.node(NEW, folder / "new", pad=_PAD_BYTES)
    build.archive(new, folder / "releases" / NEW / build.ASSET)
    return folder / "releases"


class Teller:
    """Prints what happens, and when."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._color = sys.stdout.isatty()

    def __call__(self, text: str, *, mark: str = "") -> None:
        shown = f"\033[1m{text}\033[0m" if self._color and mark else text
        print(f"{time.monotonic() - self._began:6.1f} s  {shown}", flush=True)

    def quote(self, text: str) -> None:
        """Print what a program says."""
        for line in text.splitlines():
            print(f"{'':10}| {line}", flush=True)


def tell(say: Teller, stage: Stage, versions: VersionServer) -> None:
    """Play the story, from a healthy node to a healthy node.

    Raises:
        DemoError: something did not happen in time.
    """
    say(f"the node runs {stage.api_version()}; the network's minimum is {OLD}")
    stage.stop_node()
    versions.set(minimum=NEW, suggested=NEW)
    say(f"the node was stopped, and meanwhile the minimum has risen to {NEW}")
    say(f"somebody starts it: {stage.start_node()}")
    say.quote(stage.run("storagenode-exporter", "check"))
    stage.start_programs()
    say("exporter, webhook and worker are started")
    try:
        with ExitStack() as stack:
            _by_alert(say, stage, stack)
    except Unavailable as reason:
        say(f"no Prometheus and Alertmanager to be had ({reason}): a person does it by hand")
        say.quote(stage.run("storagenode-remediate", "run", "--yes", NODE))
    say(f"the node's API says {stage.api_version()}", mark="ok")
    if stage.api_version() != NEW:
        raise DemoError(f"the node does not run {NEW}")
    say.quote(stage.run("storagenode-exporter", "check"))
    say.quote(stage.run("storagenode-remediate", "history"))


def _by_alert(say: Teller, stage: Stage, stack: ExitStack) -> None:
    folder = stage.token.parent
    (folder / "alertmanager.yml").write_text(shipped.alertmanager(f"http://{stage.webhook}/alertmanager", stage.token))
    (folder / "rules.yml").write_text(shipped.rules(StorageNodeDeadlocked="0s"))
    alertmanager = stack.enter_context(Alertmanager(folder / "alertmanager.yml", network=stage.network))
    prometheus = stack.enter_context(
        Prometheus(
            {"exporter": stage.exporter},
            rule_files=[folder / "rules.yml"],
            alertmanager=alertmanager.url,
            network=stage.network,
        )
    )
    say("Prometheus and Alertmanager are started, with the shipped rules and route (their waiting times cut short)")
    prometheus.wait_alert("StorageNodeDeadlocked", NODE, timeout=PATIENCE_SECONDS)
    say("alert fired: StorageNodeDeadlocked", mark="alert")
    for event in _events(stage.events):
        if text := worth_telling(event):
            say(text)
        if event.get("message") == "run ended":
            if event["outcome"] != "updated":
                raise DemoError(f"the run ended {event['outcome']}: {event['detail']}")
            break
    prometheus.wait_alert("StorageNodeDeadlocked", NODE, state="inactive", timeout=PATIENCE_SECONDS)
    say("alert resolved", mark="ok")


def _events(lines: "Queue[str]") -> Iterator[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0))
        except Empty:
            raise DemoError("the update did not end in time") from None
        if line.startswith("{"):
            yield json.loads(line)


_STEPS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "fetch": lambda event: f"downloading {event['target']}; the service is {event['service_state']}",
    "verify": lambda event: "downloaded; verifying it against the release's digest",
    "extract": lambda event: "verified; unpacking it beside the old one",
    "probe": lambda event: "asking the new binary for its version, with as few rights as can be had",
    "confirm": lambda event: f"looking again: the service is {event['service_state']}",
    "swap": lambda event: f"swapping {event['installed']} for {event['target']} by one rename",
    "start": lambda event: f"swapped; {event['does']}",
    "release": lambda event: f"the service is {event['service_state']}",
}


def worth_telling(event: dict[str, Any]) -> str | None:
    """Put a line that webhook or worker has logged into words; None for what only matters to them."""
    match event.get("message"):
        case "request stored":
            return f"webhook received: a request for {event['node']} is in the spool"
        case "decision":
            return f"worker: {event['decision']}, because {event['reason']}"
        case "step" if event["step"] in _STEPS:
            return _STEPS[event["step"]](event)
        case "run ended":
            return f"run ended: {event['outcome']}, {event['detail']}"
    return None
