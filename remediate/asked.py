"""What a person may ask for on the command line: options, and the request they make."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from exporter.config import Config
    from remediate.decision import Request

Command = TypeVar("Command", bound=Callable[..., Any])

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=3650)


def _target(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from exporter.version import NodeVersion, VersionError

    if value is not None and value not in ("minimum", "suggested"):
        try:
            NodeVersion.parse(value)
        except VersionError as error:
            raise click.BadParameter(f"{error}; `minimum` and `suggested` are taken too") from None
    return value


def _sha256(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and (len(value) != 64 or set(value.lower()) - set("0123456789abcdef")):
        raise click.BadParameter(f"{value[:80]!r} is no sha256, expected 64 hex digits")
    return value


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """Read a duration as the configuration does, of a second to ten years, as a callback of an option."""
    from exporter.config import ConfigError, Duration, validate

    if value is None:
        return None
    try:
        read: timedelta = validate(Duration, value, source="")
    except ConfigError as error:
        raise click.BadParameter(str(error).removeprefix(": ")) from None
    if not _SHORTEST <= read <= _LONGEST:
        raise click.BadParameter(f"{value[:80]!r}: expected {_SHORTEST.seconds}s at least and {_LONGEST.days}d at most")
    return read


_OPTIONS = (
    click.option("--to", callback=_target, metavar="minimum|suggested|X.Y.Z", help="Not what upstream's rule says."),
    click.option("--updater", is_flag=True, help="Not the node, but its updater: if it is too old, or blocked."),
    click.option("--start", type=click.Choice(["never", "if-crashed", "always"]), help="Not what the rules say."),
    click.option("--stop-running", is_flag=True, help="Stop a running node for the update, and start it again."),
    click.option(
        "--artifact",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        help="Take this archive instead of downloading one; needs --sha256.",
    ),
    click.option("--sha256", callback=_sha256, metavar="HEX", help="The archive's digest, instead of asking for one."),
)


def request_options(command: Command) -> Command:
    """Add the options by which a person says what is to be done."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def request_of(config: "Config", config_file: Path, node: str, asked: dict[str, Any]) -> "Request":
    """Make a request of the options.

    Raises:
        ConfigError: there is no such node.
        click.UsageError: options that do not go together.
    """
    from exporter.commandline import Program
    from remediate.decision import Request, Trigger
    from remediate.rules import Start

    config.chosen([node], source=config_file)
    if asked["artifact"] is not None and asked["sha256"] is None:
        raise click.UsageError("--artifact needs --sha256: nothing else vouches for it")
    said = {key: value for key, value in asked.items() if key != "updater"}
    program = Program.UPDATER if asked["updater"] else Program.STORAGENODE
    if program is Program.UPDATER and (asked["start"] or asked["stop_running"]):
        raise click.UsageError("--updater lets the node alone: neither --start nor --stop-running goes with it")
    start = asked["start"] and Start(asked["start"])
    return Request(node=node, trigger=Trigger.PERSON, program=program, **said | {"start": start})
