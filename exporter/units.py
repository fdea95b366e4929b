"""The services systemd has been told of, and how it starts each of them, over D-Bus."""

import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call

from exporter.commandline import Command, Program, recognize
from exporter.dbus import SYSTEM_BUS
from exporter.environment import variables
from exporter.nodefiles import Launch

_NAME = "org.freedesktop.systemd1"
_UNITS = "/org/freedesktop/systemd1/unit/"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")


class UnitError(Exception):
    """systemd cannot be asked, or not about this; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A service whose ExecStart, drop-ins and variables counted in, may run a program of Storj's."""

    name: str
    launch: Launch
    words: tuple[str, ...]
    """Its command line; empty if there is none."""
    directory: str
    """Where it runs."""
    main_pid: int
    unread: tuple[str, ...]
    """Files with variables that could not be read, and why."""


def storj_units(timeout: float) -> list[Unit]:
    """Return the services that run a program of Storj's, by name, in whatever state they are.

    An instance of a template that is neither enabled nor running is not known to systemd, and so not to us.

    Raises:
        UnitError: systemd cannot be asked within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    (files,) = _call("ListUnitFilesByPatterns", "asas", ([], ["*.service"]), deadline)
    (loaded,) = _call("ListUnitsByPatterns", "asas", ([], ["*.service"]), deadline)
    names = {str(path).rpartition("/")[2] for path, _ in files} | {str(unit[0]) for unit in loaded}
    found: dict[str, Unit] = {}
    for name in sorted(names):
        unit = _unit(name, deadline, only_storj=True)
        if unit is not None:
            found[unit.name] = unit  # an alias is the same unit under another name
    return [found[name] for name in sorted(found)]


def read_unit(name: str, timeout: float) -> Unit:
    """Return how systemd starts one service.

    Raises:
        UnitError: systemd cannot be asked within `timeout` seconds, or knows no such service.
    """
    unit = _unit(name, time.monotonic() + timeout)
    if unit is None:
        raise UnitError(f"systemd cannot load {name}")
    return unit


def _unit(name: str, deadline: float, *, only_storj: bool = False) -> Unit | None:
    try:
        path = unit_path(name)
        started = _property(path, "Service", "ExecStart", deadline)
        with_variables = any("$" in word for _, argv, *_ in started for word in argv)
        if only_storj and not with_variables and not any(_programs(started, {})):
            return None  # most are none of Storj's, and that took one question
        own = dict(_assignments(_property(path, "Service", "Environment", deadline)))
        programs = _programs(started, own)
        if only_storj and not any(programs):
            return None
        in_files, unread = variables(_property(path, "Service", "EnvironmentFiles", deadline))
        environment = own | in_files
        lines = [(executable, *_expanded(argv[1:], environment)) for executable, argv, *_ in started]
        words, command = lines[0] if lines else (), None
        for line, program in zip(lines, programs, strict=True):
            found = recognize(line)
            # A file with variables may be the node's user's: it says what a program is given, but not which it is.
            if found is not None and program is not None and found.path == program.path:
                words, command = line, found
                break
        if only_storj and command is None:
            return None
        user = str(_property(path, "Service", "User", deadline))
        return Unit(
            name=str(_property(path, "Unit", "Id", deadline)),
            launch=Launch(command=command, user=user, environment=environment),
            words=words,
            directory=str(_property(path, "Service", "WorkingDirectory", deadline)).lstrip("!-") or "/",
            main_pid=int(_property(path, "Service", "MainPID", deadline)),
            unread=unread,
        )
    except DBusErrorResponse:
        return None  # a template, a broken symbolic link, a name that cannot be loaded


def unit_path(name: str) -> str:
    """Return the path that a unit has on the bus, loaded or not (systemd/systemd, bus-label.c)."""
    return _UNITS + (re.sub(r"^[0-9]|[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", name) or "_")


def _programs(started: Sequence[Any], environment: Mapping[str, str]) -> list[Command | None]:
    """Find the programs of Storj's that command lines start, be what they are told `run` or not known yet."""
    return [recognize([executable, *_expanded(argv[1:], environment), "run"]) for executable, argv, *_ in started]


def _call(method: str, signature: str, body: tuple[object, ...], deadline: float) -> tuple[Any, ...]:
    return _exchange(_MANAGER, method, signature, body, deadline)


def _property(path: str, interface: str, name: str, deadline: float) -> Any:
    address = DBusAddress(path, _NAME, "org.freedesktop.DBus.Properties")
    ((_, value),) = _exchange(address, "Get", "ss", (f"{_NAME}.{interface}", name), deadline)
    return value


def _exchange(
    address: DBusAddress, method: str, signature: str, body: tuple[object, ...], deadline: float
) -> tuple[Any, ...]:
    message = new_method_call(address, method, signature or None, body)
    try:
        return SYSTEM_BUS.call(message, max(deadline - time.monotonic(), 0))
    except TimeoutError:
        raise UnitError("systemd did not answer in time") from None
    except OSError as error:
        raise UnitError(f"the system bus cannot be reached: {error}") from None
    except DBusErrorResponse as error:
        if address is _MANAGER:
            raise UnitError(f"systemd cannot be asked: {error}") from None
        raise


def _assignments(environment: Sequence[str]) -> Iterator[tuple[str, str]]:
    for assignment in environment:
        name, _, value = assignment.partition("=")
        yield name, value


def _expanded(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Put in variables as systemd does; one that is not known here, such as one from a file not read, is left."""
    for word in words:
        if re.fullmatch(r"\$\w+", word) and word[1:] in environment:
            yield from _split(environment[word[1:]])
        else:
            yield re.sub(
                r"\$(?:(\$)|\{(\w+)\})",
                lambda found: found[1] or environment.get(found[2], found[0]),
                word,
            )


def _split(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:  # a quote that does not end
        return value.split()


def runs(unit: Unit, program: Program) -> bool:
    """Whether the unit runs this program of Storj's."""
    return unit.launch.command is not None and unit.launch.command.program is program
