"""What can happen to a unit, done to a real systemd: the live test runs these, and the recordings come from them.

`python -m tests.exporter.systemd_cases` (root) records them anew, into data/systemd_units.json.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from exporter.dbus import SYSTEM_BUS
from exporter.services.systemd import read_properties
from exporter.status import ServiceState
from tests.labs.systemd import Container

RECORDINGS = Path(__file__).parent / "data" / "systemd_units.json"
FOREVER = "exec sleep infinity"
Action = Callable[[Container, str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A unit, what is done to it, and how it then is."""

    name: str
    state: ServiceState
    script: str = FOREVER
    settings: str = ""
    unit_settings: str = ""
    actions: tuple[Action, ...] = ()
    expect: tuple[str, str] = ("inactive", "dead")
    exit_code: int | None = None
    exit_signal: int | None = None
    exists: bool = True
    detail: str = ""
    """Must be in the detail."""

    @property
    def unit(self) -> str:
        """Return the name of the unit."""
        return f"case-{self.name}.service"

    def arrange(self, container: Container) -> None:
        """Make the unit, do to it what is to be done, and wait until it is as expected."""
        if self.exists:
            container.write(f"/opt/{self.name}", f"#!/bin/sh\n{self.script}\n", 0o755)
            container.unit(
                self.unit,
                f"[Unit]\n{self.unit_settings}\n[Service]\nExecStart=/opt/{self.name}\n{self.settings}\n"
                "[Install]\nWantedBy=multi-user.target\n",
            )
        for action in self.actions:
            action(container, self.unit)
        container.wait_state(self.unit, *self.expect)

    def remove(self, container: Container) -> None:
        """Leave nothing running."""
        container.systemctl("stop", self.unit, check=False)


def start(container: Container, unit: str) -> object:
    return container.systemctl("start", unit, check=False)


def running(container: Container, unit: str) -> object:
    # A process that has just been forked may not have set its trap yet.
    found = container.wait_state(unit, "active", "running")
    time.sleep(0.3)
    return found


def stop(container: Container, unit: str) -> object:
    return container.systemctl("stop", unit, check=False)


def mask(container: Container, unit: str) -> object:
    # `systemctl mask` would need the place that the unit file has.
    return container.systemctl("mask", "--runtime", unit, check=False), remove_file(container, unit)


def remove_file(container: Container, unit: str) -> object:
    container.path(f"/etc/systemd/system/{unit}").unlink()
    return container.systemctl("daemon-reload")


def wait(active: str, sub: str) -> Action:
    return lambda container, unit: container.wait_state(unit, active, sub)


def signal(number: int) -> Action:
    return lambda container, unit: container.systemctl("kill", f"--signal={number}", "--kill-whom=main", unit)


LOOPING = "Restart=always\nRestartSec=30"
CASES = (
    Case(name="never-started", state=ServiceState.STOPPED, detail="stopped"),
    Case(name="running", state=ServiceState.RUNNING, actions=(start, running), expect=("active", "running")),
    Case(name="stopped", state=ServiceState.STOPPED, actions=(start, running, stop), exit_signal=15),
    Case(
        name="exits-1-when-stopped",
        state=ServiceState.STOPPED,
        script="trap 'exit 1' TERM; sleep infinity & wait",
        actions=(start, running, stop),
        expect=("failed", "failed"),
        exit_code=1,
        detail="on being stopped",
    ),
    Case(
        name="ignores-term",
        state=ServiceState.STOPPED,
        script="trap '' TERM; while true; do sleep 1; done",
        settings="TimeoutStopSec=1",
        actions=(start, running, stop),
        expect=("failed", "failed"),
        exit_signal=9,
    ),
    Case(
        name="exits-0",
        state=ServiceState.STOPPED,
        script="sleep 0.3",
        actions=(start, wait("inactive", "dead")),
        exit_code=0,
    ),
    Case(
        name="exits-1",
        state=ServiceState.CRASHED,
        script="exit 1",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=1,
        detail="exited with status 1",
    ),
    Case(
        name="killed",
        state=ServiceState.CRASHED,
        actions=(start, running, signal(9)),
        expect=("failed", "failed"),
        exit_signal=9,
        detail="signal 9",
    ),
    Case(
        name="runtime-max",
        state=ServiceState.CRASHED,
        settings="RuntimeMaxSec=1",
        actions=(start,),
        expect=("failed", "failed"),
        exit_signal=15,
    ),
    Case(
        name="watchdog",
        state=ServiceState.CRASHED,
        settings="WatchdogSec=1",
        actions=(start,),
        expect=("failed", "failed"),
        exit_signal=6,
    ),
    Case(
        name="start-fails-after-a-stop",
        state=ServiceState.CRASHED,
        script="trap 'exit 1' TERM; sleep infinity & wait",
        settings="ExecStartPre=/bin/sh -c 'test ! -e /run/broken'",
        actions=(start, running, stop, lambda container, unit: container.write("/run/broken", ""), start),
        expect=("failed", "failed"),
    ),
    Case(
        name="waits-for-restart",
        state=ServiceState.CRASH_LOOPING,
        script="exit 1",
        settings=LOOPING,
        actions=(start,),
        expect=("activating", "auto-restart"),
        exit_code=1,
    ),
    Case(
        name="stopped-while-waiting",
        state=ServiceState.STOPPED,
        script="exit 1",
        settings=LOOPING,
        actions=(start, wait("activating", "auto-restart"), stop),
        exit_code=1,
    ),
    Case(
        name="start-limit",
        state=ServiceState.CRASHED,
        script="exit 1",
        settings="Restart=always\nRestartSec=100ms",
        unit_settings="StartLimitBurst=3\nStartLimitIntervalSec=60",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(
        name="stopping",
        state=ServiceState.STOPPING,
        script="trap '' TERM; while true; do sleep 1; done",
        settings="TimeoutStopSec=5",
        actions=(start, running, lambda container, unit: container.systemctl("stop", "--no-block", unit)),
        expect=("deactivating", "stop-sigterm"),
    ),
    Case(
        name="starting",
        state=ServiceState.STARTING,
        settings="ExecStartPre=/bin/sleep 60",
        actions=(lambda container, unit: container.systemctl("start", "--no-block", unit),),
        expect=("activating", "start-pre"),
    ),
    Case(
        name="condition",
        state=ServiceState.STOPPED,
        unit_settings="ConditionPathExists=/not/there",
        actions=(start,),
        detail="condition",
    ),
    Case(name="masked", state=ServiceState.MASKED, actions=(mask,)),
    Case(
        name="masked-after-a-crash",
        state=ServiceState.MASKED,
        script="exit 1",
        actions=(start, wait("failed", "failed"), mask),
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(name="absent", state=ServiceState.ABSENT, exists=False),
    Case(
        name="running-without-its-file",
        state=ServiceState.RUNNING,
        actions=(start, running, remove_file),
        expect=("active", "running"),
    ),
)


def main() -> None:
    """Record all cases."""
    recordings = {}
    with Container() as container:
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = container.bus_address
        for case in CASES:
            case.arrange(container)
            properties = read_properties(case.unit, 5)
            recordings[case.name] = {"now": time.monotonic(), "properties": asdict(properties)}
            case.remove(container)
        SYSTEM_BUS.close()
    RECORDINGS.write_text(json.dumps(recordings, indent=1) + "\n")


if __name__ == "__main__":
    main()
