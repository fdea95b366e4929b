"""A version server that is down, or not to be believed: nothing is touched, and nothing is called outdated."""

from collections.abc import Iterator

import pytest

from tests.e2e.loop import DEADLOCKED, Loop
from tests.e2e.site import EXPORTER, NEW, OLD, WORKER, Node, State, wait
from tests.labs.rootfs import VENV

pytestmark = [pytest.mark.e2e, pytest.mark.systemd, pytest.mark.prometheus]

DOWN = "down"


@pytest.fixture(scope="module")
def blind(session_loop: Loop) -> Iterator[tuple[Loop, Node, Node]]:
    """A node stopped and one running, both known to be below the minimum; but since then the version server is down."""
    loop = session_loop
    with loop.nodes("blind", "bystander") as [stopped, running]:
        stopped.install().start()
        running.install().start()
        # The worker remembers the last minimum that made sense.
        loop.remediate("run", "--yes", "blind")
        try:
            loop.rise()
            loop.wait_value(1, "storagenode_below_minimum", node="blind")
            loop.wait_value(1, "storagenode_below_minimum", node="bystander")
            loop.versions.stop()
            stopped.stop()
            loop.prometheus.wait_alert(DEADLOCKED, "blind")
            yield loop, stopped, running
        finally:
            loop.versions.stop()
            loop.versions.start()


@pytest.fixture
def broken(blind: tuple[Loop, Node, Node]) -> Iterator[tuple[Loop, dict[Node, State]]]:
    """The same, for one test: what the nodes are like before, and that this has not changed at the end."""
    loop, *nodes = blind
    before = {node: node.state() for node in nodes}
    yield loop, before
    loop.versions.stop()
    assert {node: node.state() for node in nodes} == before
    assert nodes[1].version() == OLD
    assert not [run for node in nodes for run in node.runs()]
    assert loop.tracebacks() == []


@pytest.mark.parametrize(
    ("behaviour", "changes", "reason", "detail"),
    [
        (DOWN, {}, "allowed_unknown", "Connection refused"),
        ("html", {}, "allowed_unknown", "html"),
        ("latest", {}, "allowed_unknown", "latest"),
        ("hang", {}, "allowed_unknown", "within"),
        ("ok", {"minimum": "v99.0.0"}, "inconsistent_server", "above the suggested"),
        ("ok", {"minimum": "v99.0.0", "suggested": "v99.0.0"}, "inconsistent_server", "jumped"),
    ],
    ids=["down", "html", "latest", "hang", "99.0.0", "99.0.0-suggested-too"],
)
def test_nothing_is_touched(
    broken: tuple[Loop, dict[Node, State]], behaviour: str, changes: dict[str, str], reason: str, detail: str
) -> None:
    loop, _ = broken
    sent = loop.archives_sent()
    if behaviour != DOWN:
        loop.versions.set(behaviour=behaviour, **changes)
        loop.versions.start()
    seen = len(loop.log(WORKER))

    def refused() -> dict[str, str] | None:
        decisions = [line for line in loop.log(WORKER)[seen:] if line["message"] == "decision"]
        assert {line["decision"] for line in decisions} <= {"refuse"}
        return next((line for line in decisions if detail in line["detail"]), None)

    decision = wait(refused, f"a refusal for {detail}", 60)
    assert (decision["node"], decision["trigger"], decision["reason"]) == ("blind", "alert", reason)
    assert loop.archives_sent() == sent
    assert loop.value("storagenode_remediation_runs_total", node="blind") is None
    counted = {"node": "blind", "decision": "refuse", "reason": reason}
    wait(lambda: loop.value("storagenode_remediation_decisions_total", **counted), "the refusal is counted")
    assert loop.value("storagenode_remediation_decisions_total", node="bystander") is None


def test_with_no_last_known_good_nothing_is_called_outdated(broken: tuple[Loop, dict[Node, State]]) -> None:
    loop, _ = broken
    with loop.nodes("unseen") as [node]:
        loop.container.systemctl("stop", EXPORTER)
        loop.container.run(["rm", "/var/lib/storagenode-exporter/allowed-versions.json"])
        node.install(OLD)
        loop.container.systemctl("start", EXPORTER)
        loop.wait_value(1, "storagenode_update_state", node="unseen", state="unknown")
        loop.wait_value(1, "storagenode_service_state", node="unseen", state="stopped")
        loop.pause()
        for name in ("unseen", "blind", "bystander"):
            assert loop.value("storagenode_update_state", node=name, state="unknown") == 1
            assert loop.value("storagenode_update_state", node=name, state="below_minimum") == 0
            assert loop.value("storagenode_below_minimum", node=name) is None
            # That a node runs is enough to know that it is not.
            assert loop.value("storagenode_deadlocked", node=name) == (0 if name == "bystander" else None)
        assert loop.value("storagenode_version_info", node="unseen", source="installed", version=OLD) == 1
        assert not loop.fired(node)
        check = loop.container.run([VENV / "bin/storagenode-exporter", "check", "unseen"], check=False)
        assert check.returncode == 4
        assert "DEADLOCKED" not in check.stdout


def test_once_it_answers_again_the_alert_that_still_comes_is_followed(blind: tuple[Loop, Node, Node]) -> None:
    loop, stopped, running = blind
    before = running.state()
    loop.rise()
    loop.versions.start()
    run = loop.wait_run(stopped)
    assert (run["outcome"], run["starts"]["blind"]["start"]) == ("updated", False)
    assert stopped.installed() == NEW
    assert stopped.state().active == "inactive"
    assert running.state() == before
    loop.prometheus.wait_alert(DEADLOCKED, "blind", "inactive")
