"""storagenode-exporter: the command line. Each command imports what it needs when it runs."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from exporter import __version__
from exporter.log import Format, Level, setup

DEFAULT_CONFIG = "/etc/storagenode-keeper.yml"
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
            help="The configuration, in YAML.",
        ),
    ):
        command = option(command)
    return command


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
@click.option("--web.listen-address", "listen", default="127.0.0.1:19651", show_default=True, metavar="HOST:PORT")
def serve(config_file: Path, log_level: Level, log_format: Format, listen: str) -> None:
    """Serve the metrics to Prometheus, on /metrics.

    Beyond this machine only with `web.token_file` in the configuration.

    Example: storagenode-exporter serve --web.listen-address 127.0.0.1:19651
    """
    setup(Level(log_level), Format(log_format))
    from exporter.config import ConfigError, load
    from exporter.serve import serve as run

    try:
        run(load(config_file), listen)
    except ConfigError as error:
        _refuse(error)


@main.command()
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
def check(config_file: Path, log_level: Level, log_format: Format, as_json: bool, nodes: tuple[str, ...]) -> None:
    """Show how the nodes are, now, and what to do; all nodes when none is named.

    Exit code: 0 all well, 1 one is below the minimum, 2 usage or configuration, 4 something is unknown.

    Example: storagenode-exporter check --config.file /etc/storagenode-keeper.yml node1
    """
    setup(Level(log_level), Format(log_format))
    from datetime import UTC, datetime

    from exporter import check as checking
    from exporter.config import ConfigError, load
    from exporter.observe import Observer

    try:
        config = load(config_file)
        unknown = [name for name in nodes if config.node(name) is None]
        if unknown:
            known = ", ".join(node.name for node in config.nodes)
            raise ConfigError(f"{config_file}: nodes: there is no {unknown[0]!r}, expected one of: {known}")
    except ConfigError as error:
        _refuse(error)
    chosen = [node for node in config.nodes if node.name in nodes or not nodes]
    config = config.model_copy(update={"nodes": tuple(chosen)})
    # What the exporter keeps is for looking up where we may; it is its own to write.
    cache_dir = config.state_dir if os.access(config.state_dir, os.R_OK | os.W_OK | os.X_OK) else None
    observer = Observer(config, cache_dir=cache_dir)
    statuses = [
        observer.settle(node, _CHECK_SECONDS) if status.service.undecided else status
        for node, status in zip(chosen, observer.observe_all(_CHECK_SECONDS), strict=True)
    ]
    if as_json:
        click.echo(json.dumps(checking.as_json(statuses), indent=2))
    else:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        click.echo(checking.table(statuses, now=datetime.now(UTC), color=color), color=color)
    sys.exit(checking.exit_code(statuses))


def _refuse(error: Exception) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(EXIT_USAGE)
