"""What the boards say of nodes whose exporter is gone, perhaps with its host."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exporter.allowed import UpdateState
from exporter.status import DAY, ServiceState
from tests.alerts.shipped import changed, unslowed
from tests.fleet import serving
from tests.grafana.boards import EVERY, FLEET, NODE, queries, worst
from tests.grafana.generated import nodes
from tests.labs.prometheus import Prometheus

pytestmark = pytest.mark.prometheus

WELL = ServiceState.RUNNING, UpdateState.CURRENT
HERE = {"well": WELL}
AWAY = {"deadlocked": (ServiceState.CRASHED, UpdateState.BELOW_MINIMUM), "fine": WELL}
"""What has crashed was last reached two days ago."""
STATS = ("Deadlocked", "Too old", "Not reached", "Unknown", "Nodes")
CLOCKS = ("Suspension if down", "Loss if down")
AN_HOUR_AGO = "storagenode_up offset 1h"
ANY_TIME_SINCE = "last_over_time(storagenode_up[1h])"


def test_they_are_unknown_and_not_well_and_their_clocks_go_on(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(changed(unslowed(), {AN_HOUR_AGO: ANY_TIME_SINCE}))
    with ExitStack() as stack, ExitStack() as away:
        targets = {
            "storagenode": [
                stack.enter_context(serving({"/metrics": nodes(HERE)}.__getitem__)),
                away.enter_context(serving({"/metrics": nodes(AWAY)}.__getitem__)),
            ]
        }
        # A scrape that takes longer than this counts as one that failed.
        every = "5s"
        running = stack.enter_context(Prometheus(targets, rule_files=[rules], scrape_interval=every))
        without_rules = stack.enter_context(Prometheus(targets, scrape_interval=every))
        running.wait_query("count(node:storagenode_disqualification_timestamp_seconds:max) == 3", 90)
        without_rules.wait_query("count(storagenode_up) == 3", 90)
        before = [1.0, 1.0, 1.0, 0.0, 3.0]
        assert [[_value(each, FLEET, title) for title in STATS] for each in (running, without_rules)] == [before] * 2
        told = [_value(running, NODE, title, "deadlocked") for title in CLOCKS]

        away.close()
        running.wait_query("count(node:storagenode_up:gone_since) == 2", 90)
        assert [_value(running, FLEET, title) for title in STATS] == [0.0, 0.0, 1.0, 2.0, 3.0]
        rank, services, since, updates, unreached = (
            {one["metric"]["node"]: one for one in _answer(running, FLEET, "Each node", ref=ref)} for ref in "ABCDG"
        )
        assert {*rank} == {*since} == {*unreached} == {*HERE, *AWAY}
        assert min(_number(rank[node]) for node in AWAY) > _number(rank["well"])
        assert {node: one["metric"]["service"] for node, one in services.items()} == {
            "well": "running",
            **dict.fromkeys(AWAY, "not observed"),
        }
        assert {node: one["metric"]["update"] for node, one in updates.items()} == {
            "well": "current",
            **dict.fromkeys(AWAY, "unknown"),
        }
        assert {*AWAY} <= {*worst(running.query).strip("()").split("|")}
        for title, unknown in (("Service state of the worst", 9.0), ("Update state of the worst", 5.0)):
            lanes = {one["metric"]["node"]: _number(one) for one in _answer(running, FLEET, title)}
            assert lanes == {"well": 1.0, **dict.fromkeys(AWAY, unknown)}
        assert [_value(running, NODE, title, "deadlocked") for title in ("Service", "Update")] == [9.0, 5.0]
        assert [_value(running, NODE, title, "deadlocked") for title in CLOCKS] == pytest.approx(told, rel=0, abs=1)
        assert _value(running, NODE, "Last contact", "deadlocked") == pytest.approx(
            told[-1] - 30 * DAY * 1000, rel=0, abs=1
        )


def _answer(running: Prometheus, path: Path, title: str, node: str = EVERY, ref: str = "A") -> list[dict[str, Any]]:
    (asked,) = (each.expr for each in queries(path, node) if (each.title, each.ref) == (title, ref))
    return running.query(asked)


def _value(running: Prometheus, path: Path, title: str, node: str = EVERY) -> float:
    (one,) = _answer(running, path, title, node)
    return _number(one)


def _number(one: dict[str, Any]) -> float:
    return float(one["value"][1])
