"""Write the metric table into the README: `python -m tests.readme`; a test holds that it is up to date."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

from prometheus_client import Metric

from exporter import metrics as exporter_metrics
from remediate import metrics as remediate_metrics
from remediate.published import Published
from remediate.spool import Spool
from remediate.webhook import Webhook

README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- metrics -->\n", "<!-- /metrics -->"


def metric_families() -> Iterator[Metric]:
    """Give every family both programs can serve, with or without samples."""
    yield from exporter_metrics.families([])
    yield from remediate_metrics.families(Published(worker_last_seen=0), [], ["node"])
    webhook = Webhook(Spool(Path(gettempdir())), [])
    yield from webhook.requests.collect()
    yield from webhook.alerts.collect()


def table() -> str:
    """Give the table, one metric a row."""
    rows = ["| metric | labels | meaning |", "|---|---|---|"]
    for family in metric_families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(_labels(family)) or "-"
        rows.append(f"| `{name}` | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """Put the table in its place in the README's text."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + table() + _END + after


def _labels(family: Metric) -> list[str]:
    declared = getattr(family, "_labelnames", None)
    if declared:
        return list(declared)
    return sorted({label for sample in family.samples for label in sample.labels})


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
