"""The runbooks about nodes and what watches them: every command in them run on a host in the state it is about."""

from collections.abc import Callable

import pytest

from tests.documents import blocks
from tests.runbooks import of_monitoring, of_nodes
from tests.runbooks.book import fill, run
from tests.runbooks.monitored import Monitored, until

pytestmark = [pytest.mark.e2e, pytest.mark.systemd, pytest.mark.prometheus]

STATES: dict[str, Callable[[Monitored], None]] = {
    "StorageNodeDeadlocked": of_nodes.deadlocked,
    "StorageNodeBelowMinimum": of_nodes.below_minimum,
    "StorageNodeCrashLooping": of_nodes.crash_looping,
    "StorageNodeNearMinimum": of_nodes.near_minimum,
    "StorageNodeUpdateDue": of_nodes.update_due,
    "StorageNodeRestartPending": of_nodes.restart_pending,
    "StorageNodeUnknown": of_nodes.unknown,
    "StorageNodeGone": of_nodes.gone,
    "StorageNodeNotReached": of_nodes.not_reached,
    "StorageNodeAllowedVersionsStale": of_nodes.allowed_versions_stale,
    "StorageNodeVersionServerInconsistent": of_nodes.inconsistent,
    "StorageNodeExporterDown": of_monitoring.exporter_down,
    "StorageNodeWebhookDown": of_monitoring.webhook_down,
    "StorageNodeAlertsNotDelivered": of_monitoring.not_delivered,
    "StorageNodeWatchdog": of_monitoring.watchdog,
}


@pytest.mark.parametrize("name", STATES)
def test_its_commands_find_the_state_and_mend_it(host: Monitored, name: str) -> None:
    STATES[name](host)
    assert host.tracebacks() == []


def test_the_whole_way_is_tried_as_the_document_on_alerting_says(host: Monitored) -> None:
    with host.installed("tried") as node:
        node.install().start()
        host.watch(node, webhook=True)
        said = [
            "".join(run(host, fill(line, {"NODE": node.name})) for line in block.commands)
            for block in blocks("alerting")
            if not block.commands[0].startswith("storagenode-remediate")
        ]
        assert len(said) == 5
        rules = host.container.path("/etc/prometheus/storagenode.rules.yml").read_text()
        assert "https://example.invalid" not in rules
        assert "https://grafana.example.invalid" not in rules
        assert "/alerts/runbooks/StorageNodeDeadlocked.md" in rules
        assert "storagenode-remediate,people\n" in said[1]
        assert "StorageNodeTest" in said[2]
        until(lambda: "current" in host.remediate("history", node.name), "the worker has looked")
        ((told,),) = (block.commands for block in blocks("alerting") if block.commands[0].startswith("storagenode"))
        assert "skip" in run(host, fill(told, {"NODE": node.name}))
        assert node.runs() == []
