"""What a person may ask for on the command line: options, and the request they make."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from exporter.config import Config
    from remediate.decision import Request

Command = TypeVar("Command", bound=Callable[..., Any])


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


_OPTIONS = (
    click.option("--to", callback=_target, metavar="minimum|suggested|X.Y.Z", help="Not what upstream's rule says."),
    click.option("--start", type=click.Choice(["never", "if-crashed", "always"]), help="Not what the rules say."),
    click.option("--stop-running", is_flag=True, help="Stop a running node for the update, and start it again."),
    click.option(
        "--artifact",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        help="Take this archive instead of downloading one; needs --sha256.",
    ),
    click.option("--sha256", callback=_sha256, metavar="HEX", help="What the archive's digest must be."),
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
    from remediate.decision import Request, Trigger
    from remediate.rules import Start

    config.chosen([node], source=config_file)
    if (asked["artifact"] is None) != (asked["sha256"] is None):
        raise click.UsageError("--artifact and --sha256 go together")
    return Request(node=node, trigger=Trigger.PERSON, **asked | {"start": asked["start"] and Start(asked["start"])})
