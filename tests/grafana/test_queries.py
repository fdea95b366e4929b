"""What a real Prometheus answers to each query of the boards, for one node and for many."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.grafana.boards import BOARDS, EVERY, FLEET, NODE, panels, queries, read, worst
from tests.grafana.generated import STATES, WORST_FIRST, fleet, shown
from tests.labs.prometheus import Prometheus

pytestmark = pytest.mark.prometheus

STATS = {
    "Deadlocked": 1.0,
    "Too old": 2.0,
    "Crashed": 2.0,
    "Not reached": 1.0,
    "Unknown": 2.0,
    "Waiting": 2.0,
    "Updating": 1.0,
    "Nodes": 10.0,
}
NEVER_RUN = {"Runs", "Decisions", "Last success", "Last failure", "Last run took", "Updates", "Failed runs"}
"""What has nothing to show of a node that storagenode-remediate has never had to do with."""
LANES = 15


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with shown(STATES, tmp_path_factory.mktemp("rules")) as running:
        yield running


def answer(running: Prometheus, title: str, path: Any = FLEET, node: str = EVERY) -> list[dict[str, Any]]:
    """Return what the first query of a panel is answered."""
    return running.wait_query(next(asked.expr for asked in queries(path, node) if asked.title == title), 60)


def test_every_query_has_an_answer(ten: Prometheus) -> None:
    for path, node in ((FLEET, EVERY), (NODE, "n01")):
        for asked in queries(path, node):
            assert ten.wait_query(asked.expr, 60), asked
            if not asked.instant:
                now = time.time()
                window = {"query": asked.expr, "start": now - 60, "end": now, "step": 1}
                path_ = f"/api/v1/query_range?{urlencode(window)}"
                assert ten.get(path_)["data"]["result"], asked


def test_a_node_that_nothing_was_done_about(ten: Prometheus) -> None:
    for asked in queries(NODE, "n03"):
        if asked.title not in NEVER_RUN:
            ten.wait_query(asked.expr, 60)
    assert answer(ten, "Service", NODE, "n02")[0]["value"][1] == "7"
    (nothing,) = answer(ten, "Alerts that fire", NODE, "n03")
    assert nothing["metric"] == {"alertname": "none"}


def test_the_numbers(ten: Prometheus) -> None:
    assert {title: float(answer(ten, title)[0]["value"][1]) for title in STATS} == STATS
    runs = {one["metric"]["outcome"]: one["value"][1] for one in answer(ten, "Runs")}
    assert runs["updated"] == runs["bad version"] == "1", "a series that begins within the time shown counts in full"


def test_the_worst_node_comes_first(ten: Prometheus) -> None:
    ranked = sorted(answer(ten, "Each node"), key=lambda one: -float(one["value"][1]))
    assert [one["metric"]["node"] for one in ranked] == WORST_FIRST


def test_the_lanes_say_what_the_nodes_are(ten: Prometheus) -> None:
    boards = {panel["title"]: panel for panel in panels(read(FLEET))}
    for index, title in enumerate(("Service state of the worst", "Update state of the worst")):
        (mapping,) = boards[title]["fieldConfig"]["defaults"]["mappings"]
        lanes = {one["metric"]["node"]: mapping["options"][one["value"][1]]["text"] for one in answer(ten, title)}
        assert lanes == {node: states[index].replace("_", " ") for node, states in STATES.items()}


def test_tables_ask_for_the_columns_they_show(ten: Prometheus) -> None:
    for path, node in ((FLEET, EVERY), (NODE, "n01")):
        for table in (panel for panel in panels(read(path)) if panel["type"] == "table"):
            asked = [each for each in queries(path, node) if each.title == table["title"]]
            labels = {label for each in asked for one in ten.wait_query(each.expr, 60) for label in one["metric"]}
            columns = {*table["transformations"][0]["options"]["include"]["names"]}
            values = {f"Value #{each.ref}" for each in asked} if len(asked) > 1 else {"Value"}
            assert labels <= columns, table["title"]
            without = {"severity", "node", "host", "order"} if table["title"] == "Alerts that fire" else set()
            assert columns - labels <= values | without, table["title"]


def test_with_nothing_there_no_query_fails() -> None:
    with Prometheus({}) as running:
        for path in BOARDS:
            for asked in queries(path, "n01"):
                assert running.query(asked.expr) == [], asked
        assert worst(running.query) == "()", "no node has no name"


@pytest.mark.parametrize("count", [1, 200])
def test_for_one_node_and_for_200(count: int, tmp_path: Path) -> None:
    with shown(fleet(count), tmp_path) as running:
        for path, node in ((FLEET, EVERY), (NODE, "n01")):
            for asked in queries(path, node):
                assert running.wait_query(asked.expr, 60), asked
        assert len(answer(running, "Each node")) == count
        chosen = worst(running.query)
        for title in ("Service state of the worst", "Update state of the worst"):
            lanes = {one["metric"]["node"] for one in answer(running, title, node=chosen)}
            assert len(lanes) == min(count, LANES), "more would be too thin to read"
            assert count == 1 or lanes >= {*STATES} - {"n01"}
