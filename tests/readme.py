"""Write the tables into the README that come from elsewhere: `python -m tests.readme`; a test holds them up to date."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

from prometheus_client import Metric

from exporter import metrics as exporter_metrics
from remediate import metrics as remediate_metrics
from remediate.published import Published
from remediate.spool import Spool
from remediate.webhook import Webhook
from tests.exporter import process_cases, systemd_cases

README = Path(__file__).parents[1] / "README.md"


def metric_families() -> Iterator[Metric]:
    """Give every family both programs can serve, with or without samples."""
    yield from exporter_metrics.families([])
    yield from remediate_metrics.families(Published(worker_last_seen=0), [], ["node"])
    webhook = Webhook(Spool(Path(gettempdir())), [])
    yield from webhook.requests.collect()
    yield from webhook.alerts.collect()


def metrics() -> str:
    """Give the table, one metric a row."""
    rows = ["| metric | labels | meaning |", "|---|---|---|"]
    for family in metric_families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(_labels(family)) or "-"
        rows.append(f"| `{name}` | {labels} | {family.documentation} |")
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


def with_tables(text: str) -> str:
    """Put each table in its place in the README's text."""
    for name, table in {"metrics": metrics(), "states": states()}.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = before + begin + table + end + after
    return text


def _labels(family: Metric) -> list[str]:
    declared = getattr(family, "_labelnames", None)
    if declared:
        return list(declared)
    return sorted({label for sample in family.samples for label in sample.labels})


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
