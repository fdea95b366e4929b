"""What can happen to a unit, done to a real systemd: the live test runs these, and the recordings come from them.

`python -m tests.exporter.systemd_cases` (root) records them anew, into data/systemd_units.json.
"""

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
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
    what: str = ""
    """What was done, as docs/reference/states.md says it."""
    instance: str = ""
    """Of a template, of which the unit is then one."""
    undecided: bool = False
    later: ServiceState | None = None
    """What it is called when nothing has happened for an hour."""

    @property
    def unit(self) -> str:
        """Return the name of the unit."""
        return f"case-{self.name}{self.instance and '@'}{self.instance}.service"

    def arrange(self, container: Container) -> None:
        """Make the unit, do to it what is to be done, and wait until it is as expected."""
        if self.exists:
            container.write(f"/opt/{self.name}", f"#!/bin/sh\n{self.script}\n", 0o755)
            container.unit(
                self.unit.replace(f"@{self.instance}.", "@."),
                f"[Unit]\n{self.unit_settings}\n[Service]\nExecStart=/opt/{self.name}\n{self.settings}\n"
                "[Install]\nWantedBy=multi-user.target\n",
                enable=False,
            )
            container.systemctl("enable", "--quiet", self.unit)
        for action in self.actions:
            action(container, self.unit)
        container.wait_state(self.unit, *self.expect)

    def remove(self, container: Container) -> None:
        """Leave nothing running."""
        container.systemctl("stop", self.unit, check=False)


def start(container: Container, unit: str) -> object:
    return container.systemctl("start", unit, check=False)


def running(container: Container, unit: str) -> object:
    container.wait_state(unit, "active", "running")
    return settled(container, unit)


def settled(container: Container, unit: str) -> object:
    """Wait until its process waits for something: one that has just been forked may not have set its trap yet."""
    time.sleep(0.3)
    found = container.show(unit)
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        stat, deadline = container.path(f"/proc/{found['MainPID']}/stat"), time.monotonic() + 60
        while not re.search(r"\d+ \([^(].*\) S ", stat.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
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


def start_in_background(container: Container, unit: str) -> object:
    return container.systemctl("start", "--no-block", unit)


def restart(container: Container, unit: str) -> object:
    return container.systemctl("restart", unit, check=False), running(container, unit)


def restart_until_refused(container: Container, unit: str) -> object:
    for _ in range(4):
        container.systemctl("restart", unit, check=False)
        time.sleep(0.2)
    return None


def break_it(container: Container, unit: str) -> None:
    container.write(f"/run/broken-{unit}", "")


def killed_once(container: Container, unit: str) -> object:
    signal(9)(container, unit)
    container.wait_state(unit, "activating", "auto-restart")
    return container.wait_state(unit, "active", "running")


def killed_for_memory(container: Container, unit: str) -> object:
    """Kill a unit as systemd-oomd does, which counts its kills in attributes of the unit's cgroup before.

    PID 1 compares them when a process of the unit ends (systemd/systemd, src/core/cgroup.c and src/oom/oomd-util.c). A
    kill by the kernel is told to it by `memory.events` instead, and that needs a memory controller in cgroup2, which
    the containers of a host with cgroup1 have not; PID 1 does the same upon both.
    """
    cgroup = container.path("/sys/fs/cgroup" + container.show(unit, "ControlGroup")["ControlGroup"])
    for count in ("user.oomd_ooms", "user.oomd_kill"):
        os.setxattr(cgroup, count, b"1")
    return signal(9)(container, unit)


def killed_for_memory_once(container: Container, unit: str) -> object:
    killed_for_memory(container, unit)
    container.wait_state(unit, "activating", "auto-restart")
    return container.wait_state(unit, "active", "running")


LOOPING = "Restart=always\nRestartSec=30"
CASES = (
    Case(name="never-started", what="never started", state=ServiceState.STOPPED, detail="stopped"),
    Case(
        name="running",
        what="running",
        state=ServiceState.RUNNING,
        actions=(start, running),
        expect=("active", "running"),
    ),
    Case(
        name="stopped",
        what="`systemctl stop`",
        state=ServiceState.STOPPED,
        actions=(start, running, stop),
        exit_signal=15,
    ),
    Case(
        name="exits-1-when-stopped",
        what="`systemctl stop`, and it exits with 1 on SIGTERM",
        state=ServiceState.STOPPED,
        script="trap 'exit 1' TERM; sleep infinity & wait",
        actions=(start, running, stop),
        expect=("failed", "failed"),
        exit_code=1,
        detail="on being stopped",
    ),
    Case(
        name="ignores-term",
        what="`systemctl stop`, and it is killed after TimeoutStopSec",
        state=ServiceState.STOPPED,
        script="trap '' TERM; while true; do sleep 1; done",
        settings="TimeoutStopSec=1",
        actions=(start, running, stop),
        expect=("failed", "failed"),
        exit_signal=9,
    ),
    Case(
        name="exits-0",
        what="ends by itself with exit status 0, and is not started again",
        state=ServiceState.STOPPED,
        script="sleep 0.3",
        actions=(start, wait("inactive", "dead")),
        exit_code=0,
    ),
    Case(
        name="exits-1",
        what="exits with 1, and is not started again",
        state=ServiceState.CRASHED,
        script="exit 1",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=1,
        detail="exited with status 1",
    ),
    Case(
        name="killed",
        what="killed (SIGKILL), and not started again",
        state=ServiceState.CRASHED,
        actions=(start, running, signal(9)),
        expect=("failed", "failed"),
        exit_signal=9,
        detail="signal 9",
    ),
    Case(
        name="runtime-max",
        what="ended by RuntimeMaxSec",
        state=ServiceState.CRASHED,
        settings="RuntimeMaxSec=1",
        actions=(start,),
        expect=("failed", "failed"),
        exit_signal=15,
    ),
    Case(
        name="watchdog",
        what="ended by systemd's watchdog",
        state=ServiceState.CRASHED,
        settings="WatchdogSec=1",
        actions=(start,),
        expect=("failed", "failed"),
        exit_signal=6,
    ),
    Case(
        name="start-fails-after-a-stop",
        what="stopped; then its next start fails in ExecStartPre",
        state=ServiceState.CRASHED,
        script="trap 'exit 1' TERM; sleep infinity & wait",
        settings="ExecStartPre=/bin/sh -c 'test ! -e /run/broken'",
        actions=(start, running, stop, lambda container, unit: container.write("/run/broken", ""), start),
        expect=("failed", "failed"),
    ),
    Case(
        name="waits-for-restart",
        what="exits with 1, and waits for RestartSec",
        state=ServiceState.CRASH_LOOPING,
        script="exit 1",
        settings=LOOPING,
        actions=(start,),
        expect=("activating", "auto-restart"),
        exit_code=1,
    ),
    Case(
        name="stopped-while-waiting",
        what="`systemctl stop` while it waits for RestartSec",
        state=ServiceState.STOPPED,
        script="exit 1",
        settings=LOOPING,
        actions=(start, wait("activating", "auto-restart"), stop),
        exit_code=1,
    ),
    Case(
        name="start-limit",
        what="exits with 1 until systemd gives up (StartLimitBurst)",
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
        what="`systemctl stop`, and it takes its time",
        state=ServiceState.STOPPING,
        script="trap '' TERM; while true; do sleep 1; done",
        settings="TimeoutStopSec=5",
        actions=(start, running, lambda container, unit: container.systemctl("stop", "--no-block", unit)),
        expect=("deactivating", "stop-sigterm"),
    ),
    Case(
        name="starting",
        what="starting for minutes, in ExecStartPre",
        state=ServiceState.STARTING,
        settings="ExecStartPre=/bin/sleep 60",
        actions=(lambda container, unit: container.systemctl("start", "--no-block", unit),),
        expect=("activating", "start-pre"),
    ),
    Case(
        name="condition",
        what="not started, for an unmet Condition=",
        state=ServiceState.STOPPED,
        unit_settings="ConditionPathExists=/not/there",
        actions=(start,),
        detail="condition",
    ),
    Case(name="masked", what="masked", state=ServiceState.MASKED, actions=(mask,)),
    Case(
        name="masked-after-a-crash",
        what="crashed, then masked",
        state=ServiceState.MASKED,
        script="exit 1",
        actions=(start, wait("failed", "failed"), mask),
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(name="absent", what="no such unit", state=ServiceState.ABSENT, exists=False),
    Case(
        name="running-without-its-file",
        what="running, and its unit file is removed",
        state=ServiceState.RUNNING,
        actions=(start, running, remove_file),
        expect=("active", "running"),
    ),
    Case(
        name="stopped-without-its-file",
        what="stopped, and its unit file is removed",
        state=ServiceState.ABSENT,
        actions=(start, running, stop, remove_file),
        exit_signal=15,
    ),
    Case(
        name="ended-by-term",
        what="ended by a SIGTERM from elsewhere, which systemd takes for a stop",
        state=ServiceState.STOPPED,
        actions=(start, running, signal(15)),
        exit_signal=15,
    ),
    Case(
        name="no-program",
        what="its program is missing",
        state=ServiceState.CRASHED,
        settings="ExecStart=\nExecStart=/not/there",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=203,
    ),
    Case(
        name="start-limit-exits-0",
        what="exits with 0 until systemd gives up (StartLimitBurst)",
        state=ServiceState.CRASHED,
        script="exit 0",
        settings="Restart=always\nRestartSec=100ms",
        unit_settings="StartLimitBurst=3\nStartLimitIntervalSec=60",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=0,
    ),
    Case(
        name="restarted-too-often",
        what="restarted by hand until systemd refuses (StartLimitBurst)",
        state=ServiceState.CRASHED,
        unit_settings="StartLimitBurst=3\nStartLimitIntervalSec=60",
        actions=(start, restart_until_refused),
        expect=("failed", "failed"),
        exit_signal=15,
    ),
    Case(
        name="loop-first-alive",
        what="will end soon and be started again, but has not yet",
        state=ServiceState.RUNNING,
        script="sleep 4; exit 1",
        settings=LOOPING,
        actions=(start, running),
        expect=("active", "running"),
    ),
    Case(
        name="killed-once",
        what="killed once (SIGKILL) and started again: within the first minute, to whom has not watched",
        state=ServiceState.UNKNOWN,
        settings="Restart=on-failure\nRestartSec=300ms",
        actions=(start, running, killed_once),
        expect=("active", "running"),
        undecided=True,
        later=ServiceState.RUNNING,
    ),
    Case(
        name="killed-for-memory",
        what="killed for want of memory, and not started again",
        state=ServiceState.CRASHED,
        actions=(start, running, killed_for_memory),
        expect=("failed", "failed"),
        exit_signal=9,
        detail="oom-kill",
    ),
    Case(
        name="killed-for-memory-once",
        what="killed once for want of memory and started again: within the first minute, to whom has not watched",
        state=ServiceState.UNKNOWN,
        settings="Restart=always\nRestartSec=300ms",
        actions=(start, running, killed_for_memory_once),
        expect=("active", "running"),
        undecided=True,
        later=ServiceState.RUNNING,
    ),
    Case(
        name="restarts-then-loop",
        what="restarted by hand three times, then exits with 1 and waits for RestartSec",
        state=ServiceState.CRASH_LOOPING,
        script='test ! -e "/run/broken-case-restarts-then-loop.service" && exec sleep infinity; exit 1',
        settings=LOOPING,
        actions=(
            start,
            running,
            restart,
            restart,
            break_it,
            lambda *at: at[0].systemctl("restart", at[1], check=False),
        ),
        unit_settings="StartLimitIntervalSec=0",
        expect=("activating", "auto-restart"),
        exit_code=1,
    ),
    Case(
        name="restarts-then-limit",
        what="restarted by hand three times, then exits with 1 until systemd gives up",
        state=ServiceState.CRASHED,
        script='test ! -e "/run/broken-case-restarts-then-limit.service" && exec sleep infinity; exit 1',
        settings="Restart=on-failure\nRestartSec=100ms",
        actions=(
            start,
            running,
            restart,
            restart,
            break_it,
            lambda *at: at[0].systemctl("restart", at[1], check=False),
        ),
        unit_settings="StartLimitBurst=5\nStartLimitIntervalSec=60",
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(
        name="template",
        what="running, as an instance of a template (`storagenode@2.service`)",
        instance="2",
        state=ServiceState.RUNNING,
        actions=(start, running),
        expect=("active", "running"),
    ),
    Case(
        name="notify-ready",
        what="Type=notify, and it has said that it is ready",
        state=ServiceState.RUNNING,
        script="systemd-notify --ready; exec sleep infinity",
        settings="Type=notify\nNotifyAccess=all",
        actions=(start, running),
        expect=("active", "running"),
    ),
    Case(
        name="notify-not-ready",
        what="Type=notify, and it has not said yet that it is ready",
        state=ServiceState.STARTING,
        settings="Type=notify",
        actions=(start_in_background,),
        expect=("activating", "start"),
    ),
    Case(
        name="notify-stopped",
        what="`systemctl stop` while it is starting (Type=notify)",
        state=ServiceState.STOPPED,
        settings="Type=notify",
        actions=(start_in_background, wait("activating", "start"), stop),
        exit_signal=15,
    ),
    Case(
        name="notify-stopped-exits-1",
        what="`systemctl stop` while it is starting, and it exits with 1 on SIGTERM; Restart=always or on-failure",
        state=ServiceState.STOPPED,
        script="trap 'exit 1' TERM; sleep infinity & wait",
        settings="Type=notify\nRestart=always",
        actions=(
            start_in_background,
            wait("activating", "start"),
            settled,
            stop,
        ),
        expect=("failed", "failed"),
        exit_code=1,
        detail="on being stopped",
    ),
    Case(
        name="notify-start-limit",
        what="Type=notify, and exits with 1 while it is starting, until systemd gives up (StartLimitBurst)",
        state=ServiceState.CRASHED,
        script="exit 1",
        settings="Type=notify\nRestart=on-failure\nRestartSec=100ms",
        unit_settings="StartLimitBurst=3\nStartLimitIntervalSec=60",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(
        name="notify-exits-1",
        what="Type=notify, and exits with 1 while it is starting, and is not started again",
        state=ServiceState.CRASHED,
        script="exit 1",
        settings="Type=notify",
        actions=(start,),
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(
        name="notify-stopped-exits-1-restart-no",
        what="`systemctl stop` while it is starting, and it exits with 1 on SIGTERM; Restart=no: nothing tells this"
        " from a crash",
        state=ServiceState.CRASHED,
        script="trap 'exit 1' TERM; sleep infinity & wait",
        settings="Type=notify",
        actions=(
            start_in_background,
            wait("activating", "start"),
            settled,
            stop,
        ),
        expect=("failed", "failed"),
        exit_code=1,
    ),
    Case(
        name="notify-timeout",
        what="Type=notify, and it never says that it is ready (TimeoutStartSec)",
        state=ServiceState.CRASHED,
        settings="Type=notify\nTimeoutStartSec=1",
        actions=(start_in_background,),
        expect=("failed", "failed"),
        exit_signal=15,
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
