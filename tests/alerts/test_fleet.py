"""What `make bench` measures with 10,000 nodes, once with a few: the measuring works, and so do rules and boards."""

from pathlib import Path

import pytest
import yaml

from tests.alerts.shipped import RULES
from tests.bench.fleet import Size, measure

SMALL = Size(hosts=60, nodes=5, interval=3, history=6, deadlocked_for=0, steps=20, evaluations=1)
NODES = SMALL.hosts * SMALL.nodes


@pytest.mark.prometheus
def test_a_small_fleet(tmp_path: Path) -> None:
    found = measure(tmp_path, SMALL)
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for load in (found.quiet, found.risen):
        assert load.errors == {}
        assert load.groups.keys() == {group["name"] for group in groups}
        assert len(load.rules) == sum(len(group["rules"]) for group in groups)
        assert 50 < load.samples / NODES < 90, "of a node, and its share of what its host tells"
    assert found.boards.refused == {}
    assert found.boards.took
    assert found.quiet.alerts < NODES <= found.risen.alerts
    assert (found.delivered.nodes, found.delivered.dropped) == (NODES, 0)
