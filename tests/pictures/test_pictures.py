"""The boards and what else the README shows: everything is there, and nothing is cut off; and the renderer itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.shipped import ROOT
from tests.labs.chromium import Chromium
from tests.labs.prometheus import Prometheus
from tests.pictures import board, firing, real
from tests.pictures.__main__ import PICTURES, main
from tests.pictures.display import settings, show
from tests.pictures.frames import Field, Frame, Unknown, transform
from tests.pictures.shots import look, shoot, told

ARTEFACTS = ROOT / "tests/artefacts"
FLEET, NODE = (ROOT / f"grafana/storagenode-{name}.json" for name in ("fleet", "node"))
WIDTH = 1400
TEXT, BY_STEP = {"mode": "fixed", "fixedColor": "text"}, {"mode": "thresholds"}
MENU = 300
"""What Grafana's menu takes in a window of this width, unless it is closed."""
SCRAPED = {1: 60, 12: 60, 200: 240}
HEALED = "bravo"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture(scope="module", params=SCRAPED)
def fleet(request: pytest.FixtureRequest) -> Iterator[tuple[int, Prometheus]]:
    with told(request.param, SCRAPED[request.param]) as prometheus:
        yield request.param, prometheus


@pytest.mark.browser
@pytest.mark.prometheus
@pytest.mark.parametrize("menu", [0, MENU], ids=["wide", "with-menu"])
@pytest.mark.parametrize("path", [FLEET, NODE], ids=lambda path: path.stem)
def test_every_panel_has_data_and_nothing_is_cut_off(
    fleet: tuple[int, Prometheus], browser: Chromium, path: Path, menu: int
) -> None:
    nodes, prometheus = fleet
    chosen = {"node": HEALED} if path == NODE else {}
    page = board.draw(path, look(prometheus, SCRAPED[nodes], chosen=chosen, menu=menu))
    misfits = shoot(browser, page, WIDTH)
    ARTEFACTS.mkdir(exist_ok=True)
    browser.screenshot(ARTEFACTS / f"{path.stem}-{nodes}-{WIDTH - menu}.png")
    assert misfits == []


@pytest.mark.browser
@pytest.mark.prometheus
def test_what_is_cut_off_or_empty_is_noticed(browser: Chromium, tmp_path: Path) -> None:
    content = json.loads(FLEET.read_text())
    first = next(panel for panel in content["panels"] if panel["type"] == "table")
    narrow = {"id": "custom.width", "value": 60}
    first["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": "Update"}, "properties": [narrow]})
    wide = {"id": "custom.width", "value": 900}
    first["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": "Service"}, "properties": [wide]})
    stat = next(panel for panel in content["panels"] if panel["type"] == "stat")
    stat["title"] = "A title that is much too long for so small a panel"
    timeline = next(panel for panel in content["panels"] if panel["type"] == "state-timeline")
    timeline["targets"][0]["expr"] = 'storagenode_source_success{node=~"$node"}'
    chart = next(panel for panel in content["panels"] if panel["type"] == "timeseries")
    chart["targets"] = [{**chart["targets"][0], "expr": "nothing_has_this_name"}]
    chart["fieldConfig"]["defaults"].pop("noValue", None)
    (tmp_path / "board.json").write_text(json.dumps(content))
    with told(12, 240) as prometheus:
        found = shoot(browser, board.draw(tmp_path / "board.json", look(prometheus, 240, chosen={})), WIDTH)
    said = {title: {what for named, what in found if named == title} for title, _ in found}
    assert {"clipped: below minimum"} <= said[first["title"]]
    assert any(what.startswith("table of ") for what in said[first["title"]])
    assert said[stat["title"]] == {f"clipped: {stat['title']}"}
    assert any("lanes of" in what for what in said[timeline["title"]])
    assert said[chart["title"]] == {"no data: No data"}


@pytest.mark.browser
def test_the_page_and_the_command_as_they_are(browser: Chromium) -> None:
    with real.site() as site:
        printed = site.check()
        assert printed.count("\x1b[") == 10 and "DEADLOCKED" in printed
        shoot(browser, real.page(printed), WIDTH)
        assert browser.evaluate("document.body.innerText.includes('storagenode-remediate run bravo')")
        browser.open(f"{site.url}/", width=WIDTH, dark=False)
        assert browser.evaluate("document.querySelectorAll('tbody').length") == 5


def sizes(folder: Path) -> dict[str, int]:
    """Return how wide each picture is, as its header says."""
    return {path.stem: int.from_bytes(path.read_bytes()[16:20]) for path in folder.iterdir()}


def test_the_pictures_are_there() -> None:
    assert sizes(PICTURES) == {"fleet": WIDTH, "node": WIDTH, "page": 1200, "check": 1200}
    assert all(path.stat().st_size < 300_000 for path in PICTURES.iterdir())


@pytest.mark.browser
@pytest.mark.prometheus
def test_the_tool_makes_them_anew(tmp_path: Path) -> None:
    main(tmp_path, grown_seconds=0)
    assert sizes(tmp_path) == sizes(PICTURES)


def test_an_alert_waits_fires_stays_and_begins_anew() -> None:
    times = [0.0, 60.0, 120.0, 240.0, 360.0]
    lines = list(firing.history({"alertname": "A"}, times, waits=120, stays=60, end=420, every=60))
    states = {line.split()[-1]: line.split('"')[3] for line in lines if line.startswith("ALERTS{")}
    assert states == {
        "0": "pending", "60": "pending", "120": "firing", "180": "firing", "240": "firing", "300": "firing",
        "360": "firing", "420": "firing",
    }  # fmt: skip
    lines = list(firing.history({"alertname": "A"}, [0.0, 180.0], waits=60, stays=0, end=240, every=60))
    assert lines == [
        'ALERTS{alertname="A",alertstate="pending"} 1 0\n',
        'ALERTS_FOR_STATE{alertname="A"} 0 0\n',
        'ALERTS{alertname="A",alertstate="pending"} 1 180\n',
        'ALERTS_FOR_STATE{alertname="A"} 180 180\n',
    ]


def frame(ref: str, **columns: list[Any]) -> Frame:
    return [Field(name.replace("_", " "), values, ref=ref) for name, values in columns.items()]


def shown(frames: list[Frame]) -> list[dict[str, list[Any]]]:
    return [{each.title: each.values for each in one} for one in frames]


A = frame("A", Time=[1.0, 1.0], node=["a", "b"], Value_A=[1.0, 2.0])
B = frame("B", Time=[1.0, 1.0], node=["b", "c"], Value_B=[3.0, 4.0])


@pytest.mark.parametrize(
    ("transformation", "expected"),
    [
        (
            {"id": "joinByField", "options": {"byField": "node", "mode": "outer"}},
            [
                {
                    "node": ["a", "b", "c"],
                    "Time 1": [1.0, 1.0, None],
                    "Value A": [1.0, 2.0, None],
                    "Time 2": [None, 1.0, 1.0],
                    "Value B": [None, 3.0, 4.0],
                }
            ],
        ),
        (
            {"id": "filterFieldsByName", "options": {"include": {"names": ["Value A", "Value B"]}}},
            [{"Value A": [1.0, 2.0]}, {"Value B": [3.0, 4.0]}],
        ),
        (
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {"node": 1, "Value A": 0, "Value B": 0},
                    "renameByName": {"node": "Node"},
                },
            },
            [{"Value A": [1.0, 2.0], "Node": ["a", "b"]}, {"Value B": [3.0, 4.0], "Node": ["b", "c"]}],
        ),
        (
            {"id": "sortBy", "options": {"sort": [{"field": "node", "desc": True}]}},
            [
                {"Time": [1.0, 1.0], "node": ["b", "a"], "Value A": [2.0, 1.0]},
                {"Time": [1.0, 1.0], "node": ["c", "b"], "Value B": [4.0, 3.0]},
            ],
        ),
    ],
    ids=lambda value: value.get("id") if isinstance(value, dict) else "",
)
def test_transformations(transformation: dict[str, Any], expected: list[dict[str, list[Any]]]) -> None:
    assert shown(transform([A, B], [transformation])) == expected


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("none", 3.0, "3"),
        ("none", 3.14159, "3.14"),
        ("none", None, "never"),
        ("percentunit", 0.4567, "45.7%"),
        ("s", 71.4, "1.19 mins"),
        ("s", 0.0042, "4.20 ms"),
        ("s", 7200.0, "2 hours"),
        ("dateTimeFromNow", 0.0, "10 days ago"),
        ("dateTimeFromNow", 864_000_000.0 + 3_600_000, "in an hour"),
        ("prefix:1.", 162.25, "1.162"),
    ],
)
def test_units(unit: str, value: float | None, text: str) -> None:
    assert show(value, {"unit": unit, "noValue": "never", "color": TEXT}, 864_000.0).text == text


def test_mappings_thresholds_and_overrides() -> None:
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
    mapping = {"type": "value", "options": {"2": {"text": "two", "color": "blue"}}}
    of_value = {"matcher": {"id": "byName", "options": "Value A"}, "properties": [{"id": "unit", "value": "reqpm"}]}
    config = {
        "defaults": {"color": BY_STEP, "thresholds": {"steps": steps}, "mappings": [mapping]},
        "overrides": [of_value],
    }
    configured = settings(A[2], config)
    assert [(one.text, one.color) for one in (show(value, configured, 0) for value in (0.0, 1.0, 2.0))] == [
        ("0 req/m", "#73BF69"),
        ("1 req/m", "#F2495C"),
        ("two", "#5794F2"),
    ]


@pytest.mark.parametrize(
    ("configured", "named"),
    [
        ({"unit": "furlong"}, "unit 'furlong'"),
        ({"color": {"mode": "fixed", "fixedColor": "taupe"}}, "colour 'taupe'"),
        ({"mappings": [{"type": "guess", "options": {}}]}, "mapping 'guess'"),
    ],
)
def test_what_is_not_known_is_named(configured: dict[str, Any], named: str) -> None:
    with pytest.raises(Unknown, match=named):
        show(1.0, {"color": TEXT, **configured}, 0)


def test_an_unknown_transformation_override_or_matcher_is_named() -> None:
    with pytest.raises(Unknown, match="'pivot'"):
        transform([A], [{"id": "pivot", "options": {}}])
    with pytest.raises(Unknown, match=r"option .*'deep'"):
        transform([A], [{"id": "organize", "options": {"deep": True}}])
    by_name = {"id": "byName", "options": "node"}
    for matcher, properties, named in (
        ({"id": "byMood"}, [], "matcher 'byMood'"),
        (by_name, [{"id": "custom.blink"}], "custom.blink"),
    ):
        config = {"defaults": {}, "overrides": [{"matcher": matcher, "properties": properties}]}
        with pytest.raises(Unknown, match=named):
            settings(A[1], config)
