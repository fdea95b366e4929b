"""The boards and what else the README shows: everything is there, and nothing is cut off; and the renderer itself."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.grafana.boards import FLEET, NODE, ROOT
from tests.labs.chromium import Chromium
from tests.pictures import board, real
from tests.pictures.__main__ import PICTURES, main, shoot
from tests.pictures.board import Look
from tests.pictures.display import settings, show
from tests.pictures.frames import Field, Frame, Unknown, transform
from tests.pictures.told import history, told

ARTEFACTS = ROOT / "tests/artefacts"
WIDTHS = [1400, 1100]
"""The second is what is left of the first beside Grafana's menu, unless it is closed."""
TEXT, BY_STEP = {"mode": "fixed", "fixedColor": "text"}, {"mode": "thresholds"}
SCRAPED = {1: 60, 12: 60, 200: 240}
HEALED = "bravo"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture(scope="module", params=SCRAPED)
def fleet(request: pytest.FixtureRequest) -> Iterator[tuple[int, Look]]:
    with told(request.param, SCRAPED[request.param]) as look:
        yield request.param, look


@pytest.mark.browser
@pytest.mark.prometheus
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("path", "node"), [(FLEET, None), (NODE, HEALED)], ids=["fleet", "node"])
def test_every_panel_has_data_and_nothing_is_cut_off(
    fleet: tuple[int, Look], browser: Chromium, path: Path, node: str | None, width: int
) -> None:
    nodes, look = fleet
    assert look.ask(f'count_over_time(ALERTS{{alertname="StorageNodeDeadlocked", node="{HEALED}"}}[6h])')
    misfits = shoot(browser, board.draw(path, replace(look, node=node, width=width)), width)
    ARTEFACTS.mkdir(exist_ok=True)
    browser.screenshot(ARTEFACTS / f"{path.stem}-{nodes}-{width}.png")
    assert misfits == []


@pytest.mark.browser
@pytest.mark.prometheus
def test_what_is_cut_off_or_empty_is_noticed(browser: Chromium, tmp_path: Path) -> None:
    content = json.loads(FLEET.read_text())
    table, stat, timeline, chart = (
        next(panel for panel in content["panels"] if panel["type"] == kind)
        for kind in ("table", "stat", "state-timeline", "timeseries")
    )
    table["fieldConfig"]["overrides"] += [
        {"matcher": {"id": "byName", "options": title}, "properties": [{"id": "custom.width", "value": width}]}
        for title, width in {"Update": 60, "Service": 900}.items()
    ]
    stat["title"] = "A title that is much too long for so small a panel"
    timeline["targets"][0]["expr"] = 'storagenode_source_success{node=~"$node"}'
    chart["targets"] = [{**chart["targets"][0], "expr": "nothing_has_this_name"}]
    chart["fieldConfig"]["defaults"].pop("noValue", None)
    (tmp_path / "board.json").write_text(json.dumps(content))
    with told(12, 240) as look:
        found = shoot(browser, board.draw(tmp_path / "board.json", look), look.width)
    said = {title: {what for named, what in found if named == title} for title, _ in found}
    assert {"clipped: below minimum"} <= said[table["title"]]
    assert any(what.startswith("table of ") for what in said[table["title"]])
    assert said[stat["title"]] == {f"clipped: {stat['title']}"}
    assert any("lanes of" in what for what in said[timeline["title"]])
    assert said[chart["title"]] == {"no data: No data"}


@pytest.mark.browser
def test_the_page_and_the_command_as_they_are(browser: Chromium) -> None:
    with real.site() as site:
        printed = site.check()
        assert printed.count("\x1b[") == 10 and "DEADLOCKED" in printed
        shoot(browser, real.page(printed), 1200)
        assert browser.evaluate("document.body.innerText.includes('storagenode-remediate run bravo')")
        browser.open(f"{site.url}/", width=1200, dark=False)
        assert browser.evaluate("document.querySelectorAll('tbody').length") == 5


def sizes(folder: Path) -> dict[str, int]:
    """Return how wide each picture is, as its header says."""
    return {path.stem: int.from_bytes(path.read_bytes()[16:20]) for path in folder.iterdir()}


def test_the_pictures_are_there() -> None:
    assert sizes(PICTURES) == {"fleet": 1400, "node": 1400, "page": 1200, "check": 1200}
    assert all(path.stat().st_size < 300_000 for path in PICTURES.iterdir())


@pytest.mark.browser
@pytest.mark.prometheus
def test_the_tool_makes_them_anew(tmp_path: Path) -> None:
    main(tmp_path, grown_seconds=0)
    assert sizes(tmp_path) == sizes(PICTURES)


def test_an_alert_waits_fires_stays_and_begins_anew() -> None:
    lines = list(history({"alertname": "A"}, {0, 60, 120, 240, 360}, waits=120, stays=60, end=420, every=60))
    states = [line.split('"')[3] for line in lines if line.startswith("ALERTS{")]
    assert states == ["pending", "pending", *["firing"] * 6]
    assert list(history({"alertname": "A"}, {0, 180}, waits=60, stays=0, end=240, every=60)) == [
        'ALERTS{alertname="A",alertstate="pending"} 1 0\n',
        'ALERTS_FOR_STATE{alertname="A"} 0 0\n',
        'ALERTS{alertname="A",alertstate="pending"} 1 180\n',
        'ALERTS_FOR_STATE{alertname="A"} 180 180\n',
    ]


def frame(**columns: list[Any]) -> Frame:
    return [Field(name.replace("_", " "), values) for name, values in columns.items()]


A = frame(Time=[1.0, 1.0], node=["a", "b"], Value_A=[1.0, 2.0])
B = frame(Time=[1.0, 1.0], node=["b", "c"], Value_B=[3.0, 4.0])
JOINED = {
    "node": ["a", "b", "c"],
    "Time 1": [1.0, 1.0, None],
    "Value A": [1.0, 2.0, None],
    "Time 2": [None, 1.0, 1.0],
    "Value B": [None, 3.0, 4.0],
}
ORGANIZED = {
    "excludeByName": {"Time": True},
    "indexByName": {"node": 1, "Value A": 0},
    "renameByName": {"node": "Node"},
}


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("joinByField", {"byField": "node", "mode": "outer"}, JOINED),
        ("filterFieldsByName", {"include": {"names": ["Value A", "Value B"]}}, {"Value A": [1.0, 2.0]}),
        ("organize", ORGANIZED, {"Value A": [1.0, 2.0], "Node": ["a", "b"]}),
        (
            "sortBy",
            {"sort": [{"field": "node", "desc": True}]},
            {"Time": [1.0, 1.0], "node": ["b", "a"], "Value A": [2.0, 1.0]},
        ),
    ],
)
def test_transformations(kind: str, options: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    first, *_ = transform([A, B], [{"id": kind, "options": options}])
    assert {each.title: each.values for each in first} == expected


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
    defaults = {"color": BY_STEP, "thresholds": {"steps": steps}, "mappings": [mapping]}
    configured = settings(A[2], {"defaults": defaults, "overrides": [of_value]})
    shown = [show(value, configured, 0) for value in (0.0, 1.0, 2.0)]
    assert [one.text for one in shown] == ["0 req/m", "1 req/m", "two"]
    assert [one.color for one in shown] == ["#73BF69", "#F2495C", "#5794F2"]


def test_what_is_not_known_is_named() -> None:
    for configured, named in (
        ({"unit": "furlong"}, "unit 'furlong'"),
        ({"color": {"mode": "fixed", "fixedColor": "taupe"}}, "colour 'taupe'"),
        ({"mappings": [{"type": "guess", "options": {}}]}, "mapping 'guess'"),
    ):
        with pytest.raises(Unknown, match=named):
            show(1.0, {"color": TEXT, **configured}, 0)
    for kind, options, named in (("pivot", {}, "'pivot'"), ("organize", {"deep": True}, r"option .*'deep'")):
        with pytest.raises(Unknown, match=named):
            transform([A], [{"id": kind, "options": options}])
    for matcher, changed, named in (("byMood", "unit", "matcher 'byMood'"), ("byName", "custom.blink", "custom.blink")):
        override = {"matcher": {"id": matcher, "options": "node"}, "properties": [{"id": changed}]}
        with pytest.raises(Unknown, match=named):
            settings(A[1], {"defaults": {}, "overrides": [override]})
