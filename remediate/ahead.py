"""The commands that look ahead."""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.cli import common_options
from exporter.log import Format, Level, setup
from remediate.invocation import json_option, load, refusing

if TYPE_CHECKING:
    from exporter.version import NodeVersion

_OBSERVE_SECONDS = 10.0


def _version(context: click.Context, parameter: click.Parameter, value: str | None) -> "NodeVersion | None":
    from exporter.version import NodeVersion, VersionError

    try:
        return None if value is None else NodeVersion.parse(value)
    except VersionError as error:
        raise click.BadParameter(str(error)) from None


as_if_minimum_option = click.option(
    "--as-if-minimum",
    "minimum",
    callback=_version,
    metavar="X.Y.Z",
    help="Show what an alert would bring about, the day the minimum is that.",
)


@click.command()
@common_options
@json_option
@click.option("--days", type=click.IntRange(1, 3650), required=True, metavar="N", help="How long it is to be down.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
def preflight(
    nodes: tuple[str, ...], days: int, as_json: bool, config_file: Path, log_level: Level, log_format: Format
) -> None:
    """Say whether nodes may be down for N days, as for a move or a new disk, and come back; changes nothing.

    Counted are the releases by which the minimum may rise meanwhile, and the days that satellites forgive. What the
    exporter has seen of both is looked up; run it as root for that. docs/preflight.schema.json describes --json.
    Exit code: 0 yes, 1 no, 2 usage or configuration, 4 it is not known.

    Example: storagenode-remediate preflight --days 7 node1
    """
    setup(Level(log_level), Format(log_format))
    with refusing():
        from exporter.cache import Cache
        from exporter.cadence import Minimums, cadence
        from exporter.observe import Observer
        from remediate.preflight import exit_code
        from remediate.preflight import preflight as judge
        from remediate.steps.probe import executor, hidden

        config, rules = load(config_file)
        chosen = config.chosen(nodes, source=config_file)
        execute = executor(hidden(config), rules)
    seen = config.state_dir if os.access(config.state_dir, os.R_OK | os.X_OK) else None
    config = config.model_copy(update={"nodes": chosen})
    observer = Observer(config, execute=execute, cache_dir=seen, keep=False)
    statuses = observer.observe_all(_OBSERVE_SECONDS)
    pace = cadence(Minimums(Cache(seen, keep=False), config.version_server).seen)
    judged = [judge(status, days, pace, time.time()) for status in statuses]
    click.echo(json.dumps([each.as_json() for each in judged], indent=2) if as_json else "\n".join(map(str, judged)))
    sys.exit(exit_code(judged))
