"""Words and colours of the boards: each state has its own, and a colour means one thing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.allowed import UpdateState
from exporter.status import ServiceState
from remediate.journal import Outcome
from tests.grafana.boards import BOARDS, FLEET, NODE, configs, panels, read

MEANINGS = {
    "green": {
        *("running", "current", "no", "answers", "can update", "ours", "read", "up", "consistent"),
        *("accepted", "resolved"),
    },
    "dark-yellow": {
        *("starting", "waiting", "requested", "restart pending"),
        *("suggested", "cursor", "it looks every", "check"),
    },
    "orange": {"stopping", "due", "download"},
    "red": {"below minimum", "yes", "minimum"},
    "blue": {"stopped", "in progress", "paused", "taken"},
    "dark-blue": {"masked"},
    "purple": {
        *("crashed", "updater held", "circuit open", "blocked", "cannot update", "another", "failed", "down"),
        *("minimum above suggested", "refused", "unknown node", "install"),
    },
    "semi-dark-purple": {"crash looping", "not stored"},
    "#808080": {"unknown", "not observed"},
    "#5f6368": {"absent", "idle", "silent", "none known", "not set up", "another alert"},
    "text": {"-"},
    "transparent": {" "},
}
"""Well, waiting (two shades), too old, so wanted (two), went wrong by itself (two), nothing known or to do (two)."""
OUTCOMES = {
    "green": {Outcome.UPDATED, Outcome.HEALED, Outcome.SUPERSEDED},
    "dark-yellow": {Outcome.LATER, Outcome.ABANDONED, Outcome.UNDONE, Outcome.INTERRUPTED},
}
"""Well; nothing has come of it. All others: failed, a person should look."""


def test_a_colour_means_one_thing(board: dict[str, Any]) -> None:
    outcomes = {_words(outcome) for outcome in Outcome}
    for title, _, text, colour in _mappings(board):
        if title == "Runs" and text in outcomes:
            continue  # see below
        assert text in MEANINGS[colour], f"{title}: {text} is {colour}"
    for panel in panels(board):
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["color"] == {"mode": "fixed", "fixedColor": "text"}
        for override in panel["fieldConfig"]["overrides"]:
            given = {each["id"]: each["value"] for each in override["properties"]}
            if given.get("color", {}).get("mode") == "fixed":
                name, colour = override["matcher"]["options"], given["color"]["fixedColor"]
                assert name in MEANINGS[colour], f"{panel['title']}: {name} is {colour}"


def test_every_state_has_its_words_and_its_colour() -> None:
    services, updates = ({_words(state) for state in states} for states in (ServiceState, UpdateState))
    shown = {
        (path, title): {text for panel, _, text, _ in _mappings(read(path)) if panel == title}
        for path in BOARDS
        for title in {panel for panel, *_ in _mappings(read(path))}
    }
    assert shown[FLEET, "Service state of the worst"] == shown[NODE, "Service"] == services
    assert shown[FLEET, "Update state of the worst"] == shown[NODE, "Update"] == updates
    assert services | updates <= shown[FLEET, "Each node"]
    assert shown[NODE, "Updater"] == services | {"none known", "blocked"}
    assert (
        shown[NODE, "Remediation"] | shown[NODE, "Updater"] | services | updates | {"answers", "silent"}
        == shown[NODE, "Life line"]
    )
    drawn = {target["legendFormat"] for panel in panels(read(FLEET)) for target in panel["targets"]}
    assert updates <= drawn, "Nodes by update state"


def test_each_state_is_drawn_as_what_it_is(board: dict[str, Any]) -> None:
    found = set()
    for panel in panels(board):
        if panel["type"] == "table":
            continue
        mapped = {value: text for title, value, text, _ in _mappings(board) if title == panel["title"]}
        for target in panel["targets"]:
            pattern = r'(\d+) \* \(storagenode_\w+_state\{[^}]*state="(\w+)"\}'
            for code, state in re.findall(pattern, target["expr"]):
                assert mapped[code] == _words(state), panel["title"]
                found.add(state)
    assert found == {*ServiceState, *UpdateState}


def test_every_outcome_has_its_colour(board: dict[str, Any], path: Path) -> None:
    (runs,) = (panel for panel in panels(board) if panel["title"] == "Runs")
    colours = {text: colour for title, _, text, colour in _mappings(board) if title == runs["title"]}
    assert colours == {_words(outcome): _outcome_colour(outcome) for outcome in Outcome}
    if path == NODE:
        (history,) = (panel for panel in panels(board) if panel["type"] == "status-history")
        for outcome in Outcome:
            steps = [history["fieldConfig"]["defaults"]["thresholds"]["steps"]]
            steps += [
                override["properties"][0]["value"]["steps"]
                for override in history["fieldConfig"]["overrides"]
                if re.search(override["matcher"]["options"].strip("/"), _words(outcome))
            ]
            assert [step["color"] for step in steps[-1]] == ["transparent", _outcome_colour(outcome)], outcome


def _words(state: str) -> str:
    return state.replace("_", " ")


def _outcome_colour(outcome: Outcome) -> str:
    return next((colour for colour, outcomes in OUTCOMES.items() if outcome in outcomes), "purple")


def _mappings(board: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield panel, value, text and colour of every value mapping."""
    for panel in panels(board):
        for mapping in (each for config in configs(panel) for each in config.get("mappings", [])):
            for value, result in mapping["options"].items():
                yield panel["title"], value, result["text"], result["color"]
