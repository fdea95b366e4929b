"""The commands that run by themselves: the webhook, the worker, and the watch."""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.cli import check_option, common_options
from exporter.log import Format, Level, setup
from remediate.asked import duration
from remediate.invocation import EXIT_FAILED, assembled, check, ending, fail, json_option, load, refusing, unless_busy

if TYPE_CHECKING:
    from remediate.report import Report


@click.command()
@common_options
@check_option
@click.option("--web.listen-address", "listen", default="127.0.0.1:19652", show_default=True, metavar="HOST:PORT")
@click.option("--work", "also_work", is_flag=True, help="Work the requests off in this very process, with its rights.")
def serve(
    listen: str, also_work: bool, only_check: bool, config_file: Path, log_level: Level, log_format: Format
) -> None:
    """Take alerts from Alertmanager on /alertmanager, and leave requests for the worker; it acts on nothing itself.

    Beyond this machine only with `token_file` or `client_ca_file` in `remediation.webhook`. Where no systemd starts the
    worker, --work does both: then what listens can act, so keep it on this machine.

    Example: storagenode-remediate serve --web.listen-address 127.0.0.1:19652
    """
    setup(Level(log_level), Format(log_format))
    if only_check:
        check(config_file)
    with refusing():
        from exporter import listening
        from exporter.access import access
        from remediate.spool import Spool
        from remediate.webhook import create_webhook_app

        config, rules = load(config_file, names_suffice=not also_work)
        spool = Spool(rules.spool)
        admitted = access(rules.webhook)
        names = [node.name for node in config.nodes]
        app = create_webhook_app(spool=spool, nodes=names, status_file=rules.status_file, access=admitted)
        if also_work:
            from remediate.background import working

            with working(config, rules, spool):
                listening.run(app, listen, admitted)
        else:
            listening.run(app, listen, admitted)


@click.command()
@common_options
@check_option
@json_option
def work(as_json: bool, only_check: bool, config_file: Path, log_level: Level, log_format: Format) -> None:
    """Work off the requests in the spool, then end; systemd starts this when there are any.

    Exit code 1 if something is still held, or left that is no request: systemd starts it again in a while, not at once.

    Example: storagenode-remediate work
    """
    setup(Level(log_level), Format(log_format))
    if only_check:
        check(config_file)
    from remediate.spool import Spool
    from remediate.worker import work as work_off

    reports: list[Report] = []
    left = False
    with assembled(config_file) as (config, assembly), unless_busy(), ending() as ended:
        spool = Spool(assembly.rules.spool)
        names = [node.name for node in config.nodes]
        try:
            reports = work_off(spool, names, assembly.remediation, assembly.publisher.publish, ended)
            # for a request that has just come, systemd starts us at once
            left = bool(set(spool.pending()) - set(names)) or bool(assembly.store.open_runs())
        except OSError as error:
            fail(f"remediation.spool: {spool.directory} cannot be used: {error}", EXIT_FAILED)
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], indent=2))
    sys.exit(EXIT_FAILED if left and not ended() else 0)


@click.command()
@common_options
@check_option
@json_option
@click.option("--every", "interval", callback=duration, default="5m", show_default=True, help="How often to look.")
@click.option("--once", is_flag=True, help="Look once; for a timer.")
def watch(
    interval: timedelta,
    once: bool,
    as_json: bool,
    only_check: bool,
    config_file: Path,
    log_level: Level,
    log_format: Format,
) -> None:
    """Look after all nodes with no Prometheus at all: what is down and below the minimum is updated, as by an alert.

    Safe beside the webhook: the same rules, the same memory, one run at a time. With `notify` in the configuration a
    program of yours is told what was done, or that a person is needed. With --json, one object a line for each node
    that something was decided for.

    Exit code with --once: that of what was done, the worst of it; 0 when there was nothing to do. A watch that is told
    to end, by SIGTERM or Ctrl-C, undoes what it is at, and ends with 0.

    Example: storagenode-remediate watch --every 10m
    """
    setup(Level(log_level), Format(log_format))
    if only_check:
        check(config_file)
    from remediate.report import worst
    from remediate.watch import rounds

    code = 0
    with assembled(config_file) as (config, assembly), ending() as ended:
        for reports in rounds(config, assembly, ended):
            for report in reports:
                click.echo(json.dumps(report.as_json()) if as_json else report)
            if once:
                code = worst(report.exit_code for report in reports)
            if once or ended():
                break
            time.sleep(interval.total_seconds())
    sys.exit(0 if ended() else code)
