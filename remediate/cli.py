"""storagenode-remediate: the command line. Each command imports what it needs when it runs."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter import __version__
from exporter.cli import common_options
from exporter.log import Format, Level, setup
from remediate.ahead import as_if_minimum_option, preflight
from remediate.asked import duration, request_of, request_options
from remediate.invocation import (
    EXIT_FAILED,
    EXIT_REFUSED,
    assembled,
    ending,
    fail,
    json_option,
    load,
    refusing,
    unless_busy,
)
from remediate.unattended import serve, watch, work

if TYPE_CHECKING:
    from exporter.version import NodeVersion
    from remediate.assembly import Assembly
    from remediate.decision import Request
    from remediate.rehearsal import Rehearsal
    from remediate.report import Plan

_NUMBER = click.IntRange(1, 2**31)


@click.group()
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Update the binary of a Storj node that is stopped and outdated, while it stays stopped.

    Exit codes: 0 done or nothing to do, 1 failed and the node is as it was, 2 usage or configuration, 3 refused,
    4 a person is needed.

    To complete commands in bash: put
    `eval "$(_STORAGENODE_REMEDIATE_COMPLETE=bash_source storagenode-remediate)"` into ~/.bashrc.
    """


@main.command()
@common_options
@request_options
@json_option
@as_if_minimum_option
@click.argument("node")
def plan(
    node: str,
    minimum: "NodeVersion | None",
    as_json: bool,
    config_file: Path,
    log_level: Level,
    log_format: Format,
    **asked: Any,
) -> None:
    """Show what `run` would do for a node now, step by step; changes nothing.

    With --as-if-minimum, what would be done unasked the day the minimum rises: with the node as it is, and, if it runs,
    as it would be once it is down. What holds that back (a pause, windows, dry_run) is said, and what would follow
    without it.

    Example: storagenode-remediate plan node1
    """
    setup(Level(log_level), Format(log_format))
    if minimum is not None and any(asked.values()):
        raise click.UsageError("--as-if-minimum shows what happens with nobody asking: no other option goes with it")
    planned: Plan | Rehearsal
    with assembled(config_file) as (config, assembly):
        request = request_of(config, config_file, node, asked)
        if minimum is None:
            planned = assembly.remediation.plan(request)
        else:
            planned = assembly.remediation.rehearse(node, minimum)
    click.echo(json.dumps(planned.as_json(), indent=2) if as_json else planned)
    sys.exit(planned.exit_code)


@main.command()
@common_options
@request_options
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
def run(
    nodes: tuple[str, ...],
    yes: bool,
    as_json: bool,
    config_file: Path,
    log_level: Level,
    log_format: Format,
    **asked: Any,
) -> None:
    """Update nodes now: those that are down and below the minimum, or due, or as the options say.

    Example: storagenode-remediate run --yes node1
    """
    setup(Level(log_level), Format(log_format))
    from remediate.report import worst

    reports = []
    with assembled(config_file) as (config, assembly), ending() as ended:
        for request in [request_of(config, config_file, node, asked) for node in nodes]:
            if ended():
                break
            if not yes:
                _ask(assembly, request)
            with unless_busy():
                reports.append(assembly.remediation.run(request))
            assembly.publisher.publish()
            if not as_json:
                click.echo(reports[-1])
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    codes = [report.exit_code for report in reports]
    if left := nodes[len(reports) :]:
        click.echo(f"error: interrupted before {', '.join(left)}", err=True)
        codes.append(EXIT_FAILED)
    sys.exit(worst(codes))


@main.command()
@common_options
@json_option
def recover(as_json: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Bring interrupted runs to their end; may be repeated at any time.

    Example: storagenode-remediate recover
    """
    setup(Level(log_level), Format(log_format))
    from remediate.report import run_json, run_text, worst

    with assembled(config_file) as (_, assembly), unless_busy():
        ended = assembly.remediation.recover()
        assembly.publisher.publish()
    if as_json:
        click.echo(json.dumps([run_json(run) for run in ended], indent=2))
    else:
        click.echo("\n".join(map(run_text, ended)) or "nothing to recover")
    sys.exit(worst(run.exit_code for run in ended))


@main.command()
@common_options
@json_option
@click.option("--limit", type=_NUMBER, default=20, show_default=True, help="How many runs.")
@click.option("--run", "number", type=_NUMBER, metavar="NUMBER", help="Tell this run in full.")
@click.argument("node", required=False)
def history(
    node: str | None,
    number: int | None,
    limit: int,
    as_json: bool,
    config_file: Path,
    log_level: Level,
    log_format: Format,
) -> None:
    """List the newest runs, and what was decided else, of one node or of all; or one run in full.

    Example: storagenode-remediate history node1
    """
    setup(Level(log_level), Format(log_format))
    from remediate import report

    with assembled(config_file) as (_, assembly):
        store = assembly.store
        if number is not None:
            try:
                run = store.run(number)
            except LookupError as error:
                fail(str(error), EXIT_REFUSED)
            click.echo(json.dumps(report.run_json(run), indent=2) if as_json else report.run_in_full(run))
            return
        runs, decisions = store.runs(node=node, limit=limit), store.decisions(node)
    told = report.history_json if as_json else report.history_text
    click.echo(told(runs, decisions))


@main.command()
@common_options
@json_option
@click.option("--for", "lasting", callback=duration, metavar="DURATION", help="Such as 3d; until `resume` without it.")
@click.option("--reason", default="no reason given", help="For who finds it paused.")
@click.argument("node", required=False)
def pause(
    node: str | None,
    lasting: timedelta | None,
    reason: str,
    as_json: bool,
    config_file: Path,
    log_level: Level,
    log_format: Format,
) -> None:
    """Do nothing unasked for a node, or for all: alerts and the watch change nothing while it lasts.

    A run under way is not stopped, and what a person says is done.

    Example: storagenode-remediate pause node1 --for 3d --reason "new disk"
    """
    setup(Level(log_level), Format(log_format))
    from remediate.report import pauses_json, pauses_text

    with assembled(config_file) as (config, assembly):
        config.chosen([node] if node else [], source=config_file)
        assembly.store.pause(node, lasting=lasting.total_seconds() if lasting else None, reason=reason)
        assembly.publisher.publish()
        pauses = assembly.store.pauses()
    click.echo(pauses_json(pauses) if as_json else pauses_text(pauses))


@main.command()
@common_options
@json_option
@click.argument("node", required=False)
def resume(node: str | None, as_json: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """End a pause, and forgive what went wrong: the circuit is closed, and versions that failed may be tried again.

    Of one node and the others of its binary; of all when none is named. Which pauses are left is said.

    Example: storagenode-remediate resume node1
    """
    setup(Level(log_level), Format(log_format))
    from remediate.report import pauses_json, pauses_text

    with assembled(config_file) as (config, assembly):
        chosen = config.chosen([node] if node else [], source=config_file)
        assembly.store.resume(node, Path(os.path.realpath(chosen[0].binary)) if node else None)
        assembly.publisher.publish()
        pauses = assembly.store.pauses()
    click.echo(pauses_json(pauses) if as_json else pauses_text(pauses))


@main.command()
@common_options
@json_option
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
def doctor(nodes: tuple[str, ...], as_json: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Say what would block or endanger an update, and what to do about it; of all nodes when none is named.

    Changes nothing; run it as root, as whom the worker runs. docs/doctor.schema.json describes --json.
    Exit code: 0 fine, 1 something would block or endanger an update, 2 usage or configuration.

    Example: storagenode-remediate doctor node1
    """
    setup(Level(log_level), Format(log_format))
    with refusing():
        from remediate.doctor import examine

        config, rules = load(config_file)
        diagnosis = examine(config, rules, config.chosen(nodes, source=config_file))
    click.echo(json.dumps(diagnosis.as_json(), indent=2) if as_json else diagnosis)
    sys.exit(diagnosis.exit_code)


def _ask(assembly: "Assembly", request: "Request") -> None:
    """Show the plan and ask; without a terminal there is nobody to ask."""
    if not sys.stdin.isatty():
        fail("there is no terminal to ask at; --yes answers for it", EXIT_REFUSED)
    planned = assembly.remediation.plan(request)
    click.echo(planned, err=True)
    if planned.steps and not click.confirm("Go ahead?", err=True):
        sys.exit(EXIT_REFUSED)


for command in (serve, work, watch, preflight):
    main.add_command(command)
