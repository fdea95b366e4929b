"""The dashboards: what Grafana would refuse or draw badly, and what a real Prometheus answers to each query."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter import metrics as node_metrics
from exporter.allowed import UpdateState, Verdict, parse_document
from exporter.status import (
    Basis,
    Clock,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    RunningNode,
    ServiceState,
    ServiceStatus,
)
from exporter.version import NodeVersion
from remediate import metrics as remediation_metrics
from remediate.journal import Outcome
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from tests.alerts.shipped import DASHBOARDS, ROOT, RULES, panel_queries, panels
from tests.exporter.test_updater import UPDATER
from tests.labs.prometheus import Prometheus

__all__ = ["panel_queries"]

NOW = 1_790_000_000.0
STATES = {
    "n1": (ServiceState.RUNNING, UpdateState.CURRENT),
    "n2": (ServiceState.CRASH_LOOPING, UpdateState.BELOW_MINIMUM),
    "n3": (ServiceState.RUNNING, UpdateState.BELOW_MINIMUM),
    "n4": (ServiceState.STARTING, UpdateState.WAITING),
    "n5": (ServiceState.UNKNOWN, UpdateState.UNKNOWN),
    "n6": (ServiceState.STOPPED, UpdateState.DUE),
    "n7": (ServiceState.STOPPING, UpdateState.CURRENT),
    "n8": (ServiceState.CRASHED, UpdateState.CURRENT),
    "n9": (ServiceState.MASKED, UpdateState.CURRENT),
    "n10": (ServiceState.ABSENT, UpdateState.UNKNOWN),
}
STATS = {
    "Deadlocked": 1.0,
    "Below minimum": 2.0,
    "Unknown": 2.0,
    "Waiting for an update": 2.0,
    "Running": 2.0,
    "Nodes": 10.0,
}
MEANINGS = {
    "green": {"running", "current", "no"},
    "dark-yellow": {"starting", "waiting", "requested"},
    "orange": {"stopping", "due"},
    "red": {"below minimum", "yes"},
    "blue": {"stopped", "in progress", "in progress, updater held", "held"},
    "dark-blue": {"masked"},
    "purple": {"crashed", "updater held, no run"},
    "dark-purple": {"crash looping"},
    "#808080": {"unknown"},
    "#5f6368": {"absent", "idle"},
    "text": {"none", "free"},
}
"""Well, waiting (two shades), too old, so wanted (two), went wrong by itself (two), nothing known or to do (two)."""


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture
def board(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_there_is_a_dashboard() -> None:
    assert ROOT / "grafana/storagenode-overview.json" in DASHBOARDS


def test_every_grafana_from_10_on_takes_it(board: dict[str, Any], path: Path) -> None:
    assert board["uid"] == path.stem
    assert board["id"] is None
    assert board["editable"] is False
    # Every Grafana migrates what is older than itself; since 12 it refuses what is newer. 39 is that of Grafana 10.
    assert board["schemaVersion"] == 39
    assert "elements" not in board, "file provisioning takes the classic form"


def test_variables(board: dict[str, Any]) -> None:
    datasource, node = board["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    assert (node["name"], node["multi"], node["includeAll"], node["allValue"]) == ("node", True, True, ".+")
    assert node["datasource"]["uid"] == "${datasource}"


def test_every_panel_is_explained_and_has_a_unit(board: dict[str, Any]) -> None:
    found = list(panels(board))
    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)
    for panel in found:
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["targets"], panel["title"]


def test_no_panel_covers_another(board: dict[str, Any]) -> None:
    cells = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells[panel["title"]] = {
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        }
    for (one, its), (other, others) in combinations(cells.items(), 2):
        assert not its & others, f"{one} and {other} overlap"
    rows = {y for taken in cells.values() for _, y in taken}
    assert all((x, y) in set().union(*cells.values()) for y in rows for x in range(24)), "a hole in the grid"


def test_every_query_asks_the_chosen_source_for_the_chosen_nodes(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert 'node=~"$node"' in target["expr"], panel["title"]
    for note in board["annotations"]["list"][1:]:
        assert note["datasource"]["uid"] == "${datasource}"
        assert 'node=~"$node"' in note["expr"]
        assert note["expr"] == note["target"]["expr"]


def test_a_colour_means_one_thing(board: dict[str, Any]) -> None:
    for title, _, text, colour in _mappings(board):
        assert text in MEANINGS[colour], f"{title}: {text} is {colour}"


def test_every_state_has_its_words_and_its_colour(board: dict[str, Any]) -> None:
    texts: dict[str, list[str]] = {}
    for title, _, text, _ in _mappings(board):
        texts.setdefault(title, []).append(text)
    assert sorted(texts["Service state"]) == sorted(state.replace("_", " ") for state in ServiceState)
    assert sorted(texts["Update state"]) == sorted(state.replace("_", " ") for state in UpdateState)
    assert {state.replace("_", " ") for state in (*ServiceState, *UpdateState)} <= set(texts["Each node"])


def test_every_outcome_has_its_colour(board: dict[str, Any]) -> None:
    (runs,) = (panel for panel in panels(board) if panel["title"] == "Runs by outcome")
    for outcome in Outcome:
        matching = [
            override["properties"][0]["value"]["fixedColor"]
            for override in runs["fieldConfig"]["overrides"]
            if re.search(override["matcher"]["options"].strip("/"), outcome)
        ]
        well = outcome.exit_code == 0
        assert (matching == ["green"]) == well, outcome
    named = {
        word for each in runs["fieldConfig"]["overrides"] for word in re.findall(r"[a-z_]+", each["matcher"]["options"])
    }
    assert named <= set(Outcome)


def test_tables_show_no_raw_labels(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] != "table":
            continue
        chosen, organized = panel["transformations"][0], panel["transformations"][-1]
        assert set(chosen["options"]["include"]["names"]) == set(organized["options"]["renameByName"])
        headers = set(organized["options"]["renameByName"].values())
        assert all(re.fullmatch(r"[A-Z][a-z ]+", header) for header in headers)
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in headers, f"{panel['title']}: nothing to override"


def test_provisioning() -> None:
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", "prometheus")
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/storagenode-keeper.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False


def test_every_metric_named_is_one_we_export(path: Path) -> None:
    exported = {sample.name for metric in [*_nodes(), *_remediation()] for sample in metric.samples}
    for file in (path, RULES):
        named = set(re.findall(r"\bstoragenode_[a-z_]+", file.read_text()))
        assert named
        assert named <= exported, f"{file.name}: {sorted(named - exported)}"


@pytest.mark.prometheus
def test_every_query_of_every_panel_has_an_answer() -> None:
    overview = ROOT / "grafana/storagenode-overview.json"
    with _serve(_nodes()) as nodes, _serve(_remediation()) as remediation:
        targets = {"storagenode": nodes, "storagenode-remediate": remediation}
        with Prometheus(targets) as running:
            for job in targets:
                running.wait_query(f'up{{job="{job}"}} == 1')
            for dashboard in DASHBOARDS:
                for title, expr in panel_queries(dashboard):
                    assert running.query(expr), f"{title}: {expr}"

            for table in (panel for panel in panels(json.loads(overview.read_text())) if panel["type"] == "table"):
                answers = [expr for title, expr in panel_queries(overview) if title == table["title"]]
                labels = {label for expr in answers for one in running.query(expr) for label in one["metric"]}
                columns = table["transformations"][0]["options"]["include"]["names"]
                assert {name for name in columns if not name.startswith("Value")} == labels, table["title"]

            asked = dict(panel_queries(overview))
            stats = {title: float(running.query(asked[title])[0]["value"][1]) for title in STATS}
            timelines = {title: running.query(asked[title]) for title in ("Service state", "Update state")}
            bars = {one["metric"]["outcome"]: one["value"][1] for one in running.query(asked["Runs by outcome"])}
    assert stats == STATS
    assert bars == {"updated": "2", "failed": "1"}, "a series that begins within the time shown counts in full"
    mapped = {(title, code): text for title, code, text, _ in _mappings(json.loads(overview.read_text()))}
    for index, (title, lanes) in enumerate(timelines.items()):
        shown = {lane["metric"]["node"]: mapped[title, lane["value"][1]] for lane in lanes}
        assert shown == {node: states[index].replace("_", " ") for node, states in STATES.items()}


def _mappings(board: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield panel, value, text and colour of every value mapping."""
    for panel in panels(board):
        config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
        properties = [each for override in config["overrides"] for each in override["properties"]]
        groups = [each["value"] for each in properties if each["id"] == "mappings"]
        for mapping in (one for group in [config["defaults"].get("mappings", []), *groups] for one in group):
            for value, result in mapping["options"].items():
                yield panel["title"], value, result["text"], result["color"]


def _nodes() -> Iterator[Metric]:
    """Yield what an exporter of STATES' nodes exports."""
    document = parse_document(
        (ROOT / "tests/data/upstream/1.162.3/version_document.json").read_bytes(),
        fetched=NOW,
    )
    statuses = []
    for node, (service, update) in STATES.items():
        version = NodeVersion.parse("1.104.5")
        running = RunningNode(version=version, node_id="", allowed_version=None, started=NOW, last_contact=NOW)
        statuses.append(
            NodeStatus(
                node=node,
                manager="systemd",
                service=ServiceStatus(state=service, detail="", since=NOW, exit_code=1, restarts=2),
                installed=InstalledVersion(version=version, release=True, device=1, inode=1),
                running=Failure(FailureReason.UNREACHABLE, "") if service is ServiceState.STOPPED else running,
                allowed=document,
                verdict=Verdict(update),
                last_contact=NOW,
                clock=Clock(NOW, Basis.CONTACT, NOW),
                updater=UPDATER,
            )
        )
    return node_metrics.families(statuses)


def _remediation() -> Iterator[Metric]:
    """Yield what `serve` exports after some runs."""
    published = Published(
        worker_last_seen=NOW,
        runs=(
            RunCount(node="n1", trigger="alert", outcome="updated", count=2),
            RunCount(node="n2", trigger="alert", outcome="failed", count=1),
        ),
        decisions=(DecisionCount(node="n1", decision="proceed", reason="below_minimum", count=3),),
        nodes=(NodePublished(node="n1", last_success=NOW, last_failure=NOW, last_run_duration=2.5),),
    )
    return remediation_metrics.families(published, ["n2"], list(STATES))


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self.families


@contextmanager
def _serve(families: Iterable[Metric]) -> Iterator[str]:
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
