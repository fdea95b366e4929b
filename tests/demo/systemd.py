"""The story under a real systemd, in a container: the shipped units, and a node that crash-loops for its age."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.demo.story import NEW, OLD, PATIENCE_SECONDS, DemoError, Teller, worth_telling
from tests.e2e.loop import DEADLOCKED, Loop
from tests.e2e.site import WEBHOOK, WORKER, Node, wait
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container

_NAME = "looping"


def tell(say: Teller, folder: Path, stack: ExitStack) -> None:
    """Play the story.

    Raises:
        DemoError, TimeoutError: something did not happen in time.
        Unavailable: no container can be had here.
    """
    container = stack.enter_context(Container())
    say("a systemd of its own is booted in a container; exporter, webhook, worker, Prometheus and Alertmanager start")
    loop = stack.enter_context(Loop(container, folder))
    (node,) = stack.enter_context(loop.nodes(_NAME))
    node.install(service="Restart=always\nRestartSec=1").start()
    say(f"the node runs {node.version()} under systemd; the network's minimum is {OLD}")
    loop.rise()
    container.systemctl("restart", node.unit)
    container.wait_state(node.unit, "activating", "auto-restart")
    last = [line for line in container.journal(node.unit).splitlines() if "Error:" in line][-1]
    say(f"the minimum has risen to {NEW}; the node was restarted, and cannot start again: {last}")
    say.quote(_run(container, "storagenode-exporter", "check", _NAME))
    loop.prometheus.wait_alert(DEADLOCKED, _NAME, timeout=PATIENCE_SECONDS)
    say(f"alert fired: {DEADLOCKED}", mark="alert")
    _follow(say, loop, node)
    say(f"the node's API says {wait(node.version, 'the API')}", mark="ok")
    loop.prometheus.wait_alert(DEADLOCKED, _NAME, state="inactive", timeout=PATIENCE_SECONDS)
    say("alert resolved", mark="ok")
    say.quote(_run(container, "storagenode-exporter", "check", _NAME))
    say.quote(_run(container, "storagenode-remediate", "history"))


def _follow(say: Teller, loop: Loop, node: Node) -> None:
    """Tell what webhook and worker log, until the run has ended."""
    told = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        events: list[dict[str, Any]] = [*loop.log(WEBHOOK), *loop.log(WORKER)]
        events = [event for event in events if event.get("node") == node.name]
        events.sort(key=lambda event: str(event["time"]))
        for event in events[told:]:
            if text := worth_telling(event):
                say(text)
            if event["message"] == "run ended":
                if event["outcome"] != "updated":
                    raise DemoError(f"the run ended {event['outcome']}: {event['detail']}")
                return
        told = len(events)
        time.sleep(0.1)
    raise DemoError("the update did not end in time")


def _run(container: Container, program: str, *arguments: str) -> str:
    finished = container.run([VENV / "bin" / program, *arguments], check=False)
    return f"$ {' '.join((program, *arguments))}\n{finished.stdout}"
