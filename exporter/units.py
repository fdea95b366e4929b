"""The services systemd has been told of, and how it starts each of them, over D-Bus."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call

from exporter.commandline import Command, Program, recognize
from exporter.dbus import SYSTEM_BUS

_NAME = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")


class UnitError(Exception):
    """systemd cannot be asked, or not about this; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A service whose ExecStart, drop-ins and variables counted in, may run a program of Storj's."""

    name: str
    command: Command | None
    user: str
    """Empty for root."""
    environment: Mapping[str, str]
    main_pid: int


def storj_units(timeout: float) -> list[Unit]:
    """Return the services that run a program of Storj's, by name, in whatever state they are.

    An instance of a template that is neither enabled nor running is not known to systemd, and so not to us.

    Raises:
        UnitError: systemd cannot be asked within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    (files,) = _call("ListUnitFiles", "", (), deadline)
    (loaded,) = _call("ListUnits", "", (), deadline)
    names = {str(path).rpartition("/")[2] for path, _ in files} | {str(unit[0]) for unit in loaded}
    found: dict[str, Unit] = {}
    for name in sorted(name for name in names if name.endswith(".service")):
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
        (path,) = _call("LoadUnit", "s", (name,), deadline)
        started = _property(path, "Service", "ExecStart", deadline)
        environment = dict(_assignments(_property(path, "Service", "Environment", deadline))) if started else {}
        for executable, argv, *_ in started:
            command = recognize([executable, *_expanded(argv[1:], environment)])
            if command is not None:
                break
        else:
            command = None
        if command is None and only_storj:
            return None
        return Unit(
            name=str(_property(path, "Unit", "Id", deadline)),
            command=command,
            user=str(_property(path, "Service", "User", deadline)),
            environment=environment,
            main_pid=int(_property(path, "Service", "MainPID", deadline)),
        )
    except DBusErrorResponse:
        return None  # a template, a broken symbolic link, a name that cannot be loaded


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
        if address is _MANAGER and method != "LoadUnit":
            raise UnitError(f"systemd cannot be asked: {error}") from None
        raise


def _assignments(environment: Sequence[str]) -> Iterator[tuple[str, str]]:
    for assignment in environment:
        name, _, value = assignment.partition("=")
        yield name, value


def _expanded(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Put in variables as systemd does; one that it takes from elsewhere, such as a file, is left as it is."""
    for word in words:
        if re.fullmatch(r"\$\w+", word) and word[1:] in environment:
            yield from environment[word[1:]].split()
        else:
            yield re.sub(
                r"\$(?:(\$)|\{(\w+)\})",
                lambda found: found[1] or environment.get(found[2], found[0]),
                word,
            )


def is_node(unit: Unit) -> bool:
    """Whether the unit runs a storagenode."""
    return unit.command is not None and unit.command.program is Program.STORAGENODE
