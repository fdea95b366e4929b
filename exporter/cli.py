"""storagenode-exporter: the command line. Each command imports what it needs when it runs."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from exporter import DEFAULT_CONFIG, __version__
from exporter.log import Format, Level, setup

if TYPE_CHECKING:
    from exporter.config import Config

EXIT_USAGE = 2
_CHECK_SECONDS = 10.0

Command = TypeVar("Command", bound=Callable[..., Any])


class DefaultGroup(click.Group):
    """A group that takes its first command when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before options that are not the group's own."""
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


def _there_if_named(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Refuse a missing file that was asked for; without being asked for, the default one may be missing."""
    named = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
    if named and not os.path.lexists(value):
        _refuse(f"{value}: cannot be read: No such file or directory")
    return value


def common_options(command: Command) -> Command:
    """Add the options that all commands of both programs have; log options take effect by themselves."""
    for option in (
        click.option(
            "--log.format",
            "log_format",
            type=click.Choice([each.value for each in Format]),
            default=Format.LOGFMT.value,
        ),
        click.option(
            "--log.level", "log_level", type=click.Choice([each.value for each in Level]), default=Level.INFO.value
        ),
        click.option(
            "--config.file",
            "config_file",
            type=click.Path(path_type=Path, dir_okay=False),
            default=DEFAULT_CONFIG,
            show_default=True,
            callback=_there_if_named,
            help="The configuration, in YAML. Without this option and without a file there, the nodes are discovered.",
        ),
    ):
        command = option(command)
    return command


check_option = click.option(
    "--config.check", "only_check", is_flag=True, help="Say what is wrong with the configuration, and end: with 0 or 2."
)


def usable(config_file: Path, config: "Config") -> str:
    """Say that a configuration can be used, and of which nodes it speaks."""
    names = ", ".join(node.name for node in config.nodes)
    return f"{config_file if config_file.exists() else 'what was discovered'}: can be used; nodes: {names}"


@click.group(cls=DefaultGroup)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Say how the Storj nodes on this host are: running or not, which version, and what the network allows.

    Without a command it serves. To complete commands in bash: put
    `eval "$(_STORAGENODE_EXPORTER_COMPLETE=bash_source storagenode-exporter)"` into ~/.bashrc (zsh_source, fish_source
    for others).
    """


@main.command()
@common_options
@check_option
@click.option("--web.listen-address", "listen", default="127.0.0.1:19651", show_default=True, metavar="HOST:PORT")
def serve(config_file: Path, log_level: Level, log_format: Format, listen: str, only_check: bool) -> None:
    """Serve the metrics to Prometheus, on /metrics.

    Beyond this machine only with `token_file` or `client_ca_file` in `web`.
    `?node=NAME` scrapes one node.

    Example: storagenode-exporter serve --web.listen-address 127.0.0.1:19651
    """
    setup(Level(log_level), Format(log_format))
    from exporter.config import Config, ConfigError
    from exporter.discover import NoNodeError, load_or_discover
    from exporter.serve import serve as run

    try:
        if only_check:
            from exporter.access import access

            config = load_or_discover(config_file)
            access(config.web)
            click.echo(usable(config_file, config))
            return
        try:
            config, without = load_or_discover(config_file), "No node is configured."
        except NoNodeError as error:
            config, without = Config.model_construct(nodes=()), str(error)
        run(config, listen, without=without)
    except ConfigError as error:
        _refuse(error)


@main.command()
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs; docs/check.schema.json describes it.")
@click.option("--watch", "watching", is_flag=True, help="Keep looking, every 2 s; in a pipe, say what changes.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
def check(
    config_file: Path, log_level: Level, log_format: Format, as_json: bool, watching: bool, nodes: tuple[str, ...]
) -> None:
    """Show how the nodes are, now, and what to do; all nodes when none is named.

    Exit code: 0 all well, 1 one is below the minimum, 2 usage or configuration, 4 something is unknown; with --watch,
    that of the last look.

    Example: storagenode-exporter check --config.file /etc/storagenode-keeper.yml node1
    """
    setup(Level(log_level), Format(log_format))
    from datetime import UTC, datetime

    from exporter import check as checking
    from exporter.config import ConfigError
    from exporter.discover import load_or_discover
    from exporter.observe import Observer

    try:
        config = load_or_discover(config_file)
        chosen = config.chosen(nodes, source=config_file)
    except ConfigError as error:
        _refuse(error)
    config = config.model_copy(update={"nodes": chosen})
    # What the exporter keeps is for looking up where we may; it is its own to write.
    cache_dir = config.state_dir if os.access(config.state_dir, os.R_OK | os.W_OK | os.X_OK) else None
    observer = Observer(config, cache_dir=cache_dir)
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if watching:
        from exporter.watch import watch

        sys.exit(watch(partial(observer.observe_all, _CHECK_SECONDS), as_json=as_json, color=color))
    statuses = [observer.settled(status, _CHECK_SECONDS) for status in observer.observe_all(_CHECK_SECONDS)]
    if as_json:
        from exporter.checked import as_json as described

        click.echo(json.dumps(described(statuses), indent=2))
    else:
        click.echo(checking.table(statuses, now=datetime.now(UTC), color=color), color=color)
    sys.exit(checking.exit_code(statuses))


@main.command()
def discover() -> None:
    """Find the nodes on this host, and print a configuration for them.

    Run it as root: what it sees then (node IDs, addresses, storage), others often may not. What could not be seen is
    remarked on in the configuration. Exit code: 0 nodes were found, 2 none.

    Example: storagenode-exporter discover > /etc/storagenode-keeper.yml
    """
    import socket

    from exporter.discover import discover as look
    from exporter.discover import nothing_found
    from exporter.draft import draft

    found = look()
    if not found.nodes:
        _refuse(nothing_found(found))
    is_root = os.geteuid() == 0
    whom = "root" if is_root else f"user {os.geteuid()}"
    click.echo(draft(found, seen_as=f"{whom} on {socket.gethostname()}", is_root=is_root), nl=False)


def _refuse(error: Exception | str) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(EXIT_USAGE)
