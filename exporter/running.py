"""The storagenode processes on this host, as `/proc` shows them."""

import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from exporter.commandline import Command, Program, recognize

_PROC = Path("/proc")
_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that runs a storagenode, not counting those in containers."""

    pid: int
    argv: tuple[str, ...]
    command: Command | None
    """None when the program's path is not known: it was started by another, and may not be looked into from here."""
    user: str | None
    """None for a user without a name."""
    unit: str | None
    """The service of systemd in whose control group it is."""


def storagenodes() -> list[Running]:
    """Return the processes that run a storagenode, by process ID."""
    found = []
    for pid in sorted(int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdecimal()):
        try:
            running = _look(pid)
        except OSError:
            continue  # it has ended, or may not be looked at; whether many may not, `hides_others` says
        if running is not None:
            found.append(running)
    return found


def hides_others() -> bool:
    """Whether `/proc` shows us only some of the processes."""
    return not (_PROC / "1").exists()


def _look(pid: int) -> Running | None:
    folder = _PROC / str(pid)
    argv = tuple(word.decode("utf-8", "replace") for word in (folder / "cmdline").read_bytes().split(b"\0")[:-1])
    # Only what the process itself is: a wrapper that waits for the node is another process.
    names = [Path(path).name for path in (argv[0], os.path.realpath(argv[0]))] if "run" in argv else []
    if not any("storagenode" in name for name in names):
        return None
    status = dict(line.split(":", 1) for line in (folder / "status").read_text(errors="replace").splitlines())
    if len(status.get("NSpid", "").split()) > 1:
        return None
    try:
        program: str | None = str((folder / "exe").readlink()).removesuffix(" (deleted)")
    except PermissionError:
        program = argv[0] if argv[0].startswith("/") else None
    command = recognize([program, *argv[1:]]) if program else None
    if program and (command is None or command.program is not Program.STORAGENODE or command.path != program):
        return None
    try:
        user: str | None = pwd.getpwuid(int(status["Uid"].split()[0])).pw_name
    except KeyError:
        user = None
    return Running(pid=pid, argv=argv, command=command, user=user, unit=_unit((folder / "cgroup").read_text()))


def _unit(cgroups: str) -> str | None:
    """Return the service of the system's own systemd that a process belongs to."""
    for line in cgroups.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if (hierarchy == "0" or controllers == "name=systemd") and not path.startswith("/user.slice/"):
            found = _UNIT.search(path)
            if found:
                return found[1]
    return None
