"""Read the boards that operators are given in grafana/, and put values for their variables as Grafana does."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
FLEET, NODE = GRAFANA / "storagenode-fleet.json", GRAFANA / "storagenode-node.json"
BOARDS = tuple(sorted(GRAFANA.glob("*.json")))
TIMES = {"__range": "1h", "__rate_interval": "4s", "__interval": "1s"}
EVERY = ".+"
"""What Grafana puts for the fleet's `node` while all are chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a panel (or, without a reference, an annotation) asks, ready to be asked of a Prometheus."""

    title: str
    ref: str
    expr: str
    instant: bool


def read(path: Path) -> dict[str, Any]:
    """Return a board's content."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel but the rows."""
    for panel in board["panels"]:
        yield from panel.get("panels", [])
        if panel["type"] != "row":
            yield panel


def configs(panel: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a panel's field options: the common ones, and those of each override."""
    yield panel["fieldConfig"]["defaults"]
    for override in panel["fieldConfig"]["overrides"]:
        yield {each["id"]: each["value"] for each in override["properties"]}


def queries(path: Path, node: str = EVERY) -> list[Query]:
    """Return all that a board asks when this node is chosen; raises KeyError for a variable that Grafana has not."""
    board, variables = read(path), TIMES | {"node": node, "worst": node}
    found = [
        Query(title=panel["title"], ref=asked["refId"], expr=fill(asked["expr"], variables), instant=asked["instant"])
        for panel in panels(board)
        for asked in panel["targets"]
    ]
    notes = [note for note in board["annotations"]["list"] if "expr" in note]
    return found + [Query(title=n["name"], ref="", expr=fill(n["expr"], variables), instant=False) for n in notes]


def worst(ask: Callable[[str], list[dict[str, Any]]], node: str = EVERY) -> str:
    """Return what Grafana puts for the fleet's `worst` when these nodes are chosen: it asks for them first."""
    *_, variable = read(FLEET)["templating"]["list"]
    asked = re.fullmatch(r"query_result\((.+)\)", variable["query"]["query"])
    assert asked, "Grafana knows it by its beginning and its end, on one line"
    found = list[str]()
    for one in ask(fill(asked[1], {"node": node})):
        labels = ",".join(f'{name}="{value}"' for name, value in one["metric"].items())
        found += re.findall(variable["regex"].strip("/"), f"{{{labels}}}")
    return f"({'|'.join(found)})"


def fill(expr: str, variables: Mapping[str, str]) -> str:
    """Put values for the variables; the `$1` of label_replace is none."""
    return re.sub(r"\$\{?([A-Za-z_]\w*)\}?", lambda match: variables[match[1]], expr)
