"""storagenode-remediate: the command line. Each command imports what it needs when it runs."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from exporter import __version__
from exporter.cli import EXIT_USAGE, common_options
from exporter.log import Format, Level, setup
from remediate.asked import request_of, request_options

if TYPE_CHECKING:
    from exporter.config import Config
    from remediate.assembly import Assembly
    from remediate.decision import Request
    from remediate.rules import Rules

_EXIT_FAILED = 1
_EXIT_REFUSED = 3


_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


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
@_json_option
@click.argument("node")
def plan(node: str, as_json: bool, config_file: Path, log_level: Level, log_format: Format, **asked: Any) -> None:
    """Show what `run` would do for a node now, step by step; changes nothing.

    Example: storagenode-remediate plan node1
    """
    setup(Level(log_level), Format(log_format))
    with _assembled(config_file) as (config, assembly):
        planned = assembly.remediation.plan(request_of(config, config_file, node, asked))
    click.echo(json.dumps(planned.as_json(), indent=2) if as_json else planned)
    sys.exit(planned.exit_code)


@main.command()
@common_options
@request_options
@_json_option
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
    with _assembled(config_file) as (config, assembly):
        for request in [request_of(config, config_file, node, asked) for node in nodes]:
            if not yes:
                _ask(assembly, request)
            with _unless_busy():
                reports.append(assembly.remediation.run(request))
            assembly.publisher.publish()
            if not as_json:
                click.echo(reports[-1])
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    sys.exit(worst(report.exit_code for report in reports))


@main.command()
@common_options
@_json_option
def recover(as_json: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Bring an interrupted run to its end; may be repeated at any time.

    Example: storagenode-remediate recover
    """
    setup(Level(log_level), Format(log_format))
    from remediate.report import run_json, run_text

    with _assembled(config_file) as (_, assembly), _unless_busy():
        ended = assembly.remediation.recover()
        assembly.publisher.publish()
    if as_json:
        click.echo(json.dumps(run_json(ended) if ended else None, indent=2))
    else:
        click.echo(run_text(ended) if ended else "nothing to recover")
    sys.exit(ended.exit_code if ended else 0)


@main.command()
@common_options
@_json_option
@click.option("--limit", default=20, show_default=True, help="How many runs.")
@click.argument("node", required=False)
def history(
    node: str | None, limit: int, as_json: bool, config_file: Path, log_level: Level, log_format: Format
) -> None:
    """List the newest runs, of one node or of all.

    Example: storagenode-remediate history node1
    """
    setup(Level(log_level), Format(log_format))
    from remediate.report import history_text, run_json

    with _assembled(config_file) as (_, assembly):
        runs = assembly.store.runs(node=node, limit=limit)
    click.echo(json.dumps([run_json(each) for each in runs], indent=2) if as_json else history_text(runs))


@main.command()
@common_options
@click.option("--web.listen-address", "listen", default="127.0.0.1:19652", show_default=True, metavar="HOST:PORT")
@click.option("--work", "also_work", is_flag=True, help="Work the requests off in this very process, with its rights.")
def serve(listen: str, also_work: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Take alerts from Alertmanager on /alertmanager, and leave requests for the worker; it acts on nothing itself.

    Beyond this machine only with `token_file` or `client_ca_file` in `remediation.webhook`. Where no systemd starts the
    worker, --work does both: then what listens can act, so keep it on this machine.

    Example: storagenode-remediate serve --web.listen-address 127.0.0.1:19652
    """
    setup(Level(log_level), Format(log_format))
    with _refusing():
        from exporter import web
        from exporter.access import access
        from remediate.spool import Spool
        from remediate.webhook import create_webhook_app

        config, rules = _load(config_file)
        spool = Spool(rules.spool)
        admitted = access(rules.webhook)
        names = [node.name for node in config.nodes]
        app = create_webhook_app(spool=spool, nodes=names, status_file=rules.status_file, access=admitted)
        if also_work:
            from remediate.background import working

            with working(config, rules, spool):
                web.run(app, listen, admitted)
        else:
            web.run(app, listen, admitted)


@main.command()
@common_options
@_json_option
def work(as_json: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Work off the requests in the spool, then end; systemd starts this when there are any.

    Exit code 1 if something is still held, or left that is no request: systemd starts it again in a while, not at once.

    Example: storagenode-remediate work
    """
    setup(Level(log_level), Format(log_format))
    from remediate.spool import Spool
    from remediate.worker import work as work_off

    with _assembled(config_file) as (config, assembly), _unless_busy():
        spool = Spool(assembly.rules.spool)
        names = [node.name for node in config.nodes]
        try:
            reports = work_off(spool, names, assembly.remediation, assembly.publisher.publish)
            # for a request that has just come, systemd starts us at once
            left = set(spool.pending()) - set(names) or assembly.store.open_run() is not None
        except OSError as error:
            _fail(f"remediation.spool: {spool.directory} cannot be used: {error}", _EXIT_FAILED)
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    sys.exit(_EXIT_FAILED if left else 0)


@main.command()
@common_options
@_json_option
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
def doctor(nodes: tuple[str, ...], as_json: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Say what would block or endanger an update, and what to do about it; of all nodes when none is named.

    Changes nothing; run it as root, as whom the worker runs. docs/doctor.schema.json describes --json.
    Exit code: 0 fine, 1 something would block or endanger an update, 2 usage or configuration.

    Example: storagenode-remediate doctor node1
    """
    setup(Level(log_level), Format(log_format))
    with _refusing():
        from remediate.doctor import examine

        config, rules = _load(config_file)
        diagnosis = examine(config, rules, config.chosen(nodes, source=config_file))
    click.echo(json.dumps(diagnosis.as_json(), indent=2) if as_json else diagnosis)
    sys.exit(diagnosis.exit_code)


def _load(config_file: Path) -> "tuple[Config, Rules]":
    from exporter.discover import load_or_discover
    from remediate.rules import rules

    config = load_or_discover(config_file)
    return config, rules(config, source=str(config_file))


@contextmanager
def _assembled(config_file: Path) -> "Iterator[tuple[Config, Assembly]]":
    from sqlite3 import DatabaseError

    from remediate.assembly import assembled
    from remediate.progress import bar

    with _refusing():
        config, rules = _load(config_file)
        try:
            with assembled(config, rules, progress=bar()) as assembly:
                yield config, assembly
        except DatabaseError as error:
            _fail(f"remediation.state_dir: {rules.state_dir} cannot be used any more: {error}", _EXIT_FAILED)


def _ask(assembly: "Assembly", request: "Request") -> None:
    """Show the plan and ask; without a terminal there is nobody to ask."""
    if not sys.stdin.isatty():
        _fail("there is no terminal to ask at; --yes answers for it", _EXIT_REFUSED)
    planned = assembly.remediation.plan(request)
    click.echo(planned, err=True)
    if planned.steps and not click.confirm("Go ahead?", err=True):
        sys.exit(_EXIT_REFUSED)


@contextmanager
def _refusing() -> Iterator[None]:
    from exporter.config import ConfigError

    try:
        yield
    except ConfigError as error:
        _fail(str(error), EXIT_USAGE)


@contextmanager
def _unless_busy() -> Iterator[None]:
    from remediate.store import BusyError

    try:
        yield
    except BusyError as error:
        _fail(str(error), _EXIT_REFUSED)


def _fail(text: str, code: int) -> NoReturn:
    click.echo(f"error: {text}", err=True)
    sys.exit(code)
