"""Write what docs/reference has from elsewhere: `python -m tests.reference`; a test holds it up to date."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import gettempdir

import click
from prometheus_client import Metric

from exporter import metrics as exporter_metrics
from exporter.cli import main as exporter_main
from remediate import metrics as remediate_metrics
from remediate.cli import main as remediate_main
from remediate.published import Published
from remediate.spool import Spool
from remediate.webhook import Webhook
from tests.documents import ROOT
from tests.exporter import process_cases, systemd_cases

COMMON = ("--config.file", "--log.level", "--log.format", "--json", "--config.check", "--help")
"""Options that are told of once, for all commands."""
PROGRAMS: Mapping[str, click.Group] = {"storagenode-exporter": exporter_main, "storagenode-remediate": remediate_main}


def metric_families() -> Iterator[Metric]:
    """Give every family both programs can serve, with or without samples."""
    yield from exporter_metrics.families([])
    yield from remediate_metrics.families(Published(worker_last_seen=0), [], ["node"])
    webhook = Webhook(Spool(Path(gettempdir())), [])
    yield from webhook.requests.collect()
    yield from webhook.alerts.collect()


def metric_name(family: Metric) -> str:
    """Give the name that Prometheus has for a family."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def metrics() -> str:
    """Give the table, one metric a row."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in metric_families():
        labels = ", ".join(_labels(family)) or "-"
        rows.append(f"| `{metric_name(family)}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def states() -> str:
    """Give what each thing that can happen to a node is called, from the cases that the tests do to real nodes."""
    rows = ["| under | what happened | service state |", "|---|---|---|"]
    for case in systemd_cases.CASES:
        state = f"`{case.state}`" + (f", later `{case.later}`" if case.later else "")
        rows.append(f"| systemd | {case.what} | {state} |")
    processes = [*((case.what, case.state) for case in process_cases.CASES), *process_cases.HIDDEN]
    rows += [f"| a bare process | {what} | `{state}` |" for what, state in processes]
    return "\n".join(rows) + "\n"


def commands() -> str:
    """Give each command with what its `--help` says."""
    return "\n".join(
        line
        for program, group in PROGRAMS.items()
        for name, command in group.commands.items()
        for line in _command(f"{program} {name}", command)
    )


def _command(name: str, command: click.Command) -> Iterator[str]:
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    yield f"### {name}\n"
    yield f"`{' '.join([name, *map(_argument, arguments)])}`\n"
    for paragraph in (command.help or "").split("\n\n"):
        text = " ".join(paragraph.split())
        before, example, line = text.partition("Example: ")
        yield f"{before}Example: `{line}`\n" if example else f"{text}\n"
    options = [each for each in command.params if isinstance(each, click.Option) and each.opts[0] not in COMMON]
    if options:
        yield "| option | |\n|---|---|"
        yield from map(_option, options)
        yield ""


def _argument(argument: click.Argument) -> str:
    """Put an argument as `--help` does."""
    named = argument.metavar or (argument.name or "").upper()
    return named if argument.required or named.startswith("[") else f"[{named}]"


def _option(option: click.Option) -> str:
    """Give a row for an option."""
    takes = option.metavar or ("" if option.is_flag else option.type.name.partition(" ")[0].upper())
    if isinstance(option.type, click.Choice):
        takes = "|".join(map(str, option.type.choices))
    default = f"default `{option.default}`" if option.show_default and isinstance(option.default, str | int) else ""
    told = " ".join((option.help or "").split()).rstrip(".")
    cells = f"{option.opts[0]} {takes}".strip(), "; ".join(filter(None, (told, default)))
    return "| `{}` | {} |".format(*(cell.replace("|", r"\|") for cell in cells))


TABLES: Mapping[Path, Callable[[], str]] = {
    ROOT / "docs/reference/metrics.md": metrics,
    ROOT / "docs/reference/states.md": states,
    ROOT / "docs/reference/commands.md": commands,
}


def with_table(path: Path) -> str:
    """Return the document with its table in its place, between comments that have the document's name."""
    before, begin, rest = path.read_text().partition(f"<!-- {path.stem} -->\n")
    _, end, after = rest.partition(f"<!-- /{path.stem} -->")
    return before + begin + TABLES[path]() + end + after


def _labels(family: Metric) -> list[str]:
    declared = getattr(family, "_labelnames", None)
    if declared:
        return list(declared)
    return sorted({label for sample in family.samples for label in sample.labels})


if __name__ == "__main__":
    for each in TABLES:
        each.write_text(with_table(each))
