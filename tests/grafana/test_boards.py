"""The boards as files: what Grafana would refuse or draw badly, and the rules of Grafana's dashboard-linter."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.grafana.boards import BOARDS, FLEET, NODE, ROOT, TIMES, configs, panels, read

TYPES = {"row", "stat", "table", "timeseries", "state-timeline", "status-history"}
TRANSFORMATIONS = {"filterFieldsByName", "joinByField", "sortBy", "organize"}
UNITS = {"none", "s", "percentunit", "dateTimeFromNow", "reqpm", "prefix:1."}
OF_HOSTS = {"Hosts", "Requests to the webhooks", "Alerts in those requests"}
"""These are about hosts, or about requests, which have no node."""
WINDOW, MENU, MARGIN = 1400, 300, 32
"""Pixels: a window, and in it Grafana's docked menu and the room beside the panels."""
GAP = 8
LETTER, ICON = 7.6, 24
"""Pixels of a title's letter, and of the mark that its description hides behind."""
RECORDED = re.compile(r"\w+:\w+:\w+")
COLUMN = 150
"""Pixels that a column without a width takes at least."""


def test_there_are_two() -> None:
    assert BOARDS == (FLEET, NODE)


def test_every_grafana_from_10_on_takes_it(board: dict[str, Any], path: Path) -> None:
    assert board["uid"] == path.stem
    assert board["id"] is None
    assert board["editable"] is False
    # Every Grafana migrates what is older than itself; since 12 it refuses what is newer. 39 is that of Grafana 10.
    assert board["schemaVersion"] == 39
    assert "elements" not in board, "file provisioning takes the classic form"
    assert {panel["type"] for panel in board["panels"]} <= TYPES
    for panel in panels(board):
        assert {each["id"] for each in panel.get("transformations", [])} <= TRANSFORMATIONS, panel["title"]


def test_variables(board: dict[str, Any], path: Path) -> None:
    # No job and no instance: a node's name is unique, and nothing else is common to what the two programs tell of it.
    datasource, node, *worst = board["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    # With none given, Grafana opens with the first by name, whichever is its default.
    assert (datasource["current"]["text"], datasource["current"]["value"]) == ("default", "default")
    assert datasource["label"] == "Data source"
    assert (node["name"], node["datasource"]["uid"], node["refresh"]) == ("node", "${datasource}", 2)
    # Also those of which nothing is heard: Grafana would change over to another one, the alert's link notwithstanding.
    unheard = "node:storagenode_disqualification_timestamp_seconds:max|node:storagenode_up:gone_since"
    known = f'label_values({{__name__=~"storagenode_service_state|{unheard}"}}, node)'
    assert node["query"]["query"] == node["definition"] == known
    several = (node["multi"], node["includeAll"], node.get("allValue"))
    assert several == ((True, True, ".+") if path == FLEET else (False, False, None))
    assert [each["name"] for each in worst] == (["worst"] if path == FLEET else [])
    for each in worst:
        # Hidden, always all that is found, anew with the time shown, and not in the address.
        assert (each["hide"], each["multi"], each["includeAll"], each.get("allValue")) == (2, True, True, None)
        assert (each["refresh"], each["skipUrlSync"], each["datasource"]["uid"]) == (2, True, "${datasource}")
        assert each["current"]["value"] == ["$__all"]
        assert each["query"]["query"] == each["definition"]
        assert each["query"]["qryType"] == 3, "that of query_result"
        assert 'node=~"$node"' in each["definition"]
        (ranked,) = (
            target["expr"] for panel in panels(board) for target in panel["targets"] if "3200" in target["expr"]
        )
        assert each["definition"].replace(" ", "") == f"query_result(topk(15,{''.join(ranked.split())}))"


def test_every_panel_is_explained_and_has_a_unit(board: dict[str, Any]) -> None:
    everything = board["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        for config in configs(panel):
            assert config.get("unit", "none") in UNITS, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] == "stat" and panel["options"]["colorMode"] == "background":
            base, *_ = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert base == {"color": "#808080", "value": None}, f"{panel['title']}: nothing at all is not well"
        if panel["type"] in ("stat", "table", "timeseries"):
            assert panel["fieldConfig"]["defaults"]["noValue"], f"{panel['title']}: says nothing when there is nothing"


def test_no_panel_covers_another_and_none_leaves_a_hole(board: dict[str, Any]) -> None:
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
    taken = set().union(*cells.values())
    assert taken == {(x, y) for x in range(24) for y in range(1 + max(y for _, y in taken))}, "a hole in the grid"


def test_titles_and_columns_fit_a_window_of_1400_pixels(board: dict[str, Any]) -> None:
    for panel in panels(board):
        room = _pixels(panel)
        assert len(panel["title"]) * LETTER + ICON <= room, f"{panel['title']} is cut off"
        if panel["type"] != "table":
            continue
        given = {
            override["matcher"]["options"]: each["value"]
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] in ("custom.width", "custom.minWidth")
        }
        columns = panel["transformations"][-1]["options"]["renameByName"].values()
        wide = sum(given.get(column, COLUMN) for column in columns)
        assert wide <= room, f"{panel['title']} scrolls sideways: {wide} of {room:.0f} pixels"


def test_every_query_asks_the_chosen_source_for_the_chosen_nodes(board: dict[str, Any], path: Path) -> None:
    chosen = 'node=~"$node' if path == FLEET else 'node="$node"'
    for panel in panels(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            here = 'node=~"$worst"' if panel["type"] == "state-timeline" and path == FLEET else chosen
            assert (here in target["expr"]) != (panel["title"] in OF_HOSTS), panel["title"]
            assert target["instant"] is not target["range"]
            assert target["instant"] == (panel["type"] in ("stat", "table")), panel["title"]
            assert (target.get("format") == "table") == (panel["type"] == "table"), panel["title"]
            assert set(re.findall(r"\$([A-Za-z_]\w*)", target["expr"])) <= {"node", "worst", *TIMES}, panel["title"]
            jobs = set(re.findall(r'job="([^"]*)"', target["expr"]))
            assert jobs <= {"storagenode", "storagenode-remediate"}


def test_counters_are_rated_over_what_was_scraped(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            expr = target["expr"]
            assert not re.search(r"(rate|increase)\([^[]*\[(?!\$__rate_interval\]|\$__range\])", expr), panel["title"]
            for counter in re.finditer(r"(\w+_total)\{", expr):
                before, after = expr[: counter.start()], expr[counter.start() :]
                rated = re.search(r"(rate|increase)\($", before)
                # What has begun within the time shown counts in full, which increase() would not do.
                # A scrape that failed then must not count all that came before: hence the last of that hour.
                subtracted = re.match(
                    r"(\w+\{[^}]*\}) - \(last_over_time\(\1\[1h\] offset \$__(range|interval)\) or 0 \* \1\)", after
                )
                part_of_it = re.search(r"( - \(last_over_time\(| or 0 \* )$", before)
                assert rated or subtracted or part_of_it, f"{panel['title']}: {counter[1]}"


def test_timelines_ask_for_the_worst_alone() -> None:
    # At 10,000 nodes the states of all of them would be more samples than Prometheus loads for one query.
    timelines = [panel for panel in panels(read(FLEET)) if panel["type"] == "state-timeline"]
    assert len(timelines) == 2
    for (target,) in (panel["targets"] for panel in timelines):
        assert target["expr"].count('node=~"$worst"') == target["expr"].count("{")


def test_what_is_recorded_is_so_by_the_rules(board: dict[str, Any]) -> None:
    groups = yaml.safe_load((ROOT / "alerts/storagenode.rules.yml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked = {
        name for panel in panels(board) for target in panel["targets"] for name in RECORDED.findall(target["expr"])
    }
    assert asked
    assert asked <= recorded


def test_annotations(board: dict[str, Any], path: Path) -> None:
    builtin, *notes = board["annotations"]["list"]
    assert builtin["builtIn"] == 1
    assert [(note["name"], note["iconColor"]) for note in notes] == [("Updates", "green"), ("Failed runs", "purple")]
    for note in notes:
        assert note["datasource"]["uid"] == "${datasource}"
        assert ('node=~"$node"' if path == FLEET else 'node="$node"') in note["expr"]
        assert note["expr"] == note["target"]["expr"]
        assert note["expr"].endswith("* 1000"), "a time of Grafana's is in milliseconds"


def test_links_lead_to_boards_and_keep_what_is_chosen(board: dict[str, Any], path: Path) -> None:
    (link,) = board["links"]
    other = NODE if path == FLEET else FLEET
    assert urlsplit(link["url"]).path == f"/d/{read(other)['uid']}"
    assert link["keepTime"] is True
    assert "${datasource:queryparam}" in link["url"]
    links = [each for panel in panels(board) for config in configs(panel) for each in config.get("links", [])]
    assert bool(links) == (path == FLEET)
    for each in links:
        split = urlsplit(each["url"])
        assert split.path == f"/d/{read(NODE)['uid']}"
        node, *rest = split.query.split("&")
        assert node in ("var-node=${__value.raw}", "var-node=${__field.labels.node}")
        assert rest == ["${datasource:queryparam}", "${__url_time_range}"]


def test_alerts_link_to_boards_that_are() -> None:
    groups = yaml.safe_load((ROOT / "alerts/storagenode.rules.yml").read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    uids = {read(path)["uid"] for path in BOARDS}
    for alert in alerts:
        url = urlsplit(alert["annotations"]["dashboard_url"])
        _, uid = url.path.removeprefix("/").split("/")
        assert uid in uids, alert["alert"]
        assert url.query == ("var-node={{ $labels.node }}" if uid == NODE.stem else ""), alert["alert"]


def test_tables_show_no_raw_labels(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] != "table":
            continue
        steps = {each["id"]: each["options"] for each in panel["transformations"]}
        assert [*steps][0 :: len(steps) - 1] == ["filterFieldsByName", "organize"]
        renamed, hidden = steps["organize"]["renameByName"], steps["organize"]["excludeByName"]
        chosen = steps["filterFieldsByName"]["include"]["names"]
        assert set(chosen) == {*renamed, *hidden}, panel["title"]
        assert list(steps["organize"]["indexByName"]) == list(renamed)
        assert ("joinByField" in steps) == (len(panel["targets"]) > 1), panel["title"]
        assert {each["field"] for each in steps.get("sortBy", {"sort": []})["sort"]} <= set(chosen)
        headers = set(renamed.values())
        assert all(re.fullmatch(r"[A-Z][a-z ]+", header) for header in headers)
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in headers, f"{panel['title']}: nothing to override"


def test_series_have_names_and_overrides_name_series(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] != "timeseries":
            continue
        names = {target["legendFormat"] for target in panel["targets"]}
        assert len(names) == len(panel["targets"])
        assert not any("{{" in name or name.startswith("__") for name in names), panel["title"]
        assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} <= names


def _pixels(panel: dict[str, Any]) -> float:
    """Return how wide the inside of a panel is."""
    column = (WINDOW - MENU - MARGIN - 23 * GAP) / 24
    wide: float = panel["gridPos"]["w"] * (column + GAP) - GAP - 2
    return wide
