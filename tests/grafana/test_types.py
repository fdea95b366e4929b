"""The boards by Grafana's own types, of each version that they are for."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.grafana.boards import BOARDS, FLEET, NODE
from tests.labs.grafana_types import VERSIONS, wrong

pytestmark = [pytest.mark.prometheus, pytest.mark.parametrize("version", VERSIONS)]

TYPES = Path(__file__).with_name("types.ts").read_text()
UNKNOWN = re.findall(r"^  (\w+): \{.*\};$", TYPES, re.MULTILINE)
"""What Grafana takes and its types do not know."""
ONLY = {"pages": ["10"]}
"""Where a version knows it and another does not: those that do not."""
FAULTS = [
    (FLEET, '"showHeader": true', '"showHeaders": true'),
    (FLEET, '"cellHeight": "sm"', '"cellHeight": "small"'),
    (FLEET, '"lineWidth": 2', '"lineWidth": "2"'),
    (FLEET, '"id": "custom.minWidth"', '"id": "custom.leastWidth"'),
    (FLEET, '"type": "color-text"', '"type": "colour-text"'),
    (FLEET, '"format": "table"', '"format": "tables"'),
    (FLEET, '"hide": 2', '"hide": 4'),
    (NODE, '"colorMode": "background"', '"colorMode": "backdrop"'),
    (NODE, '"spanNulls": false', '"spanNull": false'),
    (NODE, '"type": "state-timeline"', '"type": "statetimeline"'),
]


def judged(folder: Path, version: str, boards: Mapping[str, tuple[str, str]]) -> dict[tuple[str, int], str]:
    """Return what is wrong with boards by such types, by name and line."""
    for name, (board, types) in boards.items():
        (folder / f"{name}.ts").write_text(f"export const board: Board = {board};\n{types}")
    return wrong(folder, version)


def test_grafana_knows_all_of_it(version: str, path: Path, tmp_path: Path) -> None:
    assert judged(tmp_path, version, {path.stem: (path.read_text(), TYPES)}) == {}


def test_what_its_types_do_not_know_is_needed(version: str, tmp_path: Path) -> None:
    assert len(UNKNOWN) == 6
    cases = dict[str, tuple[str, str]]()
    for name in UNKNOWN:
        types = re.sub(rf"^  {name}: .*$", f"  {name}: never;", TYPES, flags=re.MULTILINE)
        cases |= {f"{name} {path.stem}": (path.read_text(), types) for path in BOARDS}
    found = judged(tmp_path, version, cases)
    assert all(line <= cases[case][0].count("\n") for case, line in found), found
    needed = {case.split()[0] for case, _ in found}
    assert needed == {name for name in UNKNOWN if version in ONLY.get(name, VERSIONS)}


def test_a_fault_is_found(version: str, tmp_path: Path) -> None:
    cases, lines = dict[str, tuple[str, str]](), {}
    for number, (path, right, fault) in enumerate(FAULTS):
        before, found, after = path.read_text().partition(right)
        assert found, right
        cases[f"fault{number}"] = before + fault + after, TYPES
        lines[f"fault{number}"] = before.count("\n") + 1
    told = judged(tmp_path, version, cases)
    for name, line in lines.items():
        # Of what is wrong in an object's first line, the line that begins the object may be told.
        assert told.keys() & {(name, line - 1), (name, line)}, (name, line, told)
