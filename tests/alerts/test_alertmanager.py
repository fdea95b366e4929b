"""The example configuration: by amtool, and in a real Alertmanager that delivers to a real receiver."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.shipped import ALERTMANAGER, RULES, alertmanager
from tests.labs.prometheus import Alertmanager, amtool

pytestmark = pytest.mark.prometheus

Received = list[tuple[str, str | None, Any]]
EXAMPLE = yaml.safe_load(ALERTMANAGER.read_text())
LABELS: list[dict[str, str]] = [
    {"alertname": rule["alert"]} | rule["labels"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
OF_HOSTS = {
    "StorageNodeAllowedVersionsStale": "host1:19651",
    "StorageNodeExporterDown": "host1:19651",
    "StorageNodeWorkerNotSeen": "host1:19652",
    "StorageNodeWebhookDown": "host1:19652",
    "StorageNodeAlertsNotDelivered": "127.0.0.1:9093",
    "StorageNodeVersionServerInconsistent": "",
    "StorageNodeWatchdog": "",
}
"""The instance of what has no node."""
OF_WEBHOOK = re.compile("StorageNode(Remediation(Failed|CircuitOpen|Paused)|UpdaterHeld)")
"""What has a node, and the webhook's instance."""
PAST = "2020-01-01T00:00:00Z"


def alert(name: str, node: str | None = None, *, host: str = "host1", **labels: str) -> dict[str, str]:
    """Give the labels with which an alert of the shipped rules comes."""
    own = next(own for own in LABELS if own["alertname"] == name and labels.items() <= (own | labels).items())
    if node is not None:
        own = own | {"node": node, "instance": f"{host}:{19652 if OF_WEBHOOK.match(name) else 19651}"}
    elif OF_HOSTS[name]:
        own = own | {"instance": OF_HOSTS[name].replace("host1", host)}
    return own | ({"host": host} if "host" in own else {}) | labels


def test_example_is_valid() -> None:
    amtool("check-config", ALERTMANAGER)


def test_example_is_valid_once_people_are_told(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^    # ", "    ", ALERTMANAGER.read_text())
    _, people, switch = yaml.safe_load(text)["receivers"]
    assert people["email_configs"][0]["to"] == "you@example.org"
    assert switch["webhook_configs"][0]["url"].startswith("https://")
    (tmp_path / "alertmanager.yml").write_text(text)
    amtool("check-config", tmp_path / "alertmanager.yml")


@pytest.mark.parametrize(
    "labels",
    [
        *(alert(own["alertname"], None if own["alertname"] in OF_HOSTS else "n1") for own in LABELS),
        {"alertname": "SomethingElse"},
        {"alertname": "SomethingElse", "remediation": "reboot"},
    ],
    ids=lambda labels: labels["alertname"],
)
def test_routes(labels: dict[str, str]) -> None:
    receivers = "people"
    if labels.get("remediation") == "offline-update":
        receivers = "storagenode-remediate,people"
    if labels["alertname"] == "StorageNodeWatchdog":
        receivers = "dead-mans-switch"
    pairs = [f"{name}={value}" for name, value in labels.items()]
    done = amtool(
        "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receivers}", *pairs
    )
    assert receivers in done.stdout.splitlines()


@pytest.mark.parametrize("rule", EXAMPLE["inhibit_rules"], ids=lambda rule: rule["target_matchers"][0])
def test_nothing_keeps_an_alert_from_the_webhook(rule: dict[str, Any]) -> None:
    """Inhibition is of the alert, whoever is told of it."""
    assert 'remediation = ""' in rule["target_matchers"]
    assert rule["equal"] in (["node"], ["instance"], ["host"])
    for side in ("source_matchers", "target_matchers"):
        _, operator, value = rule[side][0].split(" ")
        names = {own["alertname"] for own in LABELS if re.fullmatch(value.strip('"'), own["alertname"])}
        assert len(names) == value.count("|") + 1, "a name that no alert has"
        assert operator == ("=~" if len(names) > 1 else "=")


def test_a_substitution_that_does_not_apply_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "alertmanager.yml"
    other.write_text(ALERTMANAGER.read_text().replace("group_interval: 1m", "group_interval: 2m"))
    monkeypatch.setattr("tests.alerts.shipped.ALERTMANAGER", other)
    with pytest.raises(ValueError, match="group_interval: 1m"):
        alertmanager("http://127.0.0.1:1/", tmp_path / "token")


@contextmanager
def receiver() -> Iterator[tuple[str, Received]]:
    """Answer every POST with 202 and remember its path, its Authorization and its payload."""
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(
    tmp_path: Path, changed: Callable[[Any], None] = lambda config: None
) -> Iterator[tuple[Alertmanager, Received]]:
    """Run Alertmanager on the example, its intervals cut short, with a receiver for all three who are told."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with receiver() as (url, received):
        config = yaml.safe_load(alertmanager(f"{url}/alertmanager", token))
        for place in (1, 2):
            name = config["receivers"][place]["name"]
            config["receivers"][place]["webhook_configs"] = [{"url": f"{url}/{name}"}]
        _, switch, people = config["route"]["routes"]
        switch |= {"group_interval": "1s", "repeat_interval": "800ms"}
        people |= {"group_wait": "3s", "group_interval": "1s"}  # in which inhibition has set in
        changed(config)
        with Alertmanager(config) as alerting:
            yield alerting, received


def said(received: Received, path: str) -> list[tuple[str, str, list[str]]]:
    """Return what came to a path, each message one group: its status, its labels and the alerts in it."""
    return [
        (
            payload["status"],
            " ".join(payload["groupLabels"].values()),
            sorted(one["labels"]["alertname"].removeprefix("StorageNode") for one in payload["alerts"]),
        )
        for to, _, payload in list(received)
        if to == path
    ]


def wait(received: Received, path: str, *expected: tuple[str, str, list[str]]) -> None:
    """Wait until exactly this has come to a path, in whatever order."""
    deadline = time.monotonic() + 60
    while sorted(said(received, path)) != sorted(expected):
        assert time.monotonic() < deadline, said(received, path)
        time.sleep(0.05)


def settled(alerting: Alertmanager, received: Received, *others: tuple[str, str, list[str]]) -> None:
    """Wait until people have been told exactly this, and then, as the last, of an alert that is posted now."""
    wait(received, "/people", *others)
    alerting.post_alerts({"labels": {"alertname": "Last", "node": "last"}})
    last = ("last", ["Last"])
    wait(received, "/people", *others, ("firing", *last))
    alerting.post_alerts({"labels": {"alertname": "Last", "node": "last"}, "endsAt": PAST})
    wait(received, "/people", *others, ("firing", *last), ("resolved", *last))


def test_a_broken_node_is_one_message_and_the_webhook_hears_what_it_would_without_inhibition(tmp_path: Path) -> None:
    everything = [alert(own["alertname"], "n1") for own in LABELS if own["alertname"] not in OF_HOSTS]
    everything = [labels for labels in everything if labels.get("severity") != "emergency"]
    once = {frozenset(labels.items()): labels for labels in everything}
    told = [
        ("firing", "StorageNodeDeadlocked n1", ["Deadlocked"]),
        ("firing", "StorageNodeUpdaterBlocked n1", ["UpdaterBlocked"]),
        ("firing", "StorageNodeUpdaterOutdated n1", ["UpdaterOutdated"]),
    ]
    left = ["Deadlocked", "Gone", "RemediationFailed", "RemediationMissing", "RemediationPaused", "UpdaterBlocked"]
    left += ["UpdaterHeld", "UpdaterOutdated"]
    with running(tmp_path) as (alerting, received):
        alerting.post_alerts(*({"labels": labels} for labels in once.values()))
        wait(received, "/alertmanager", *told)
        settled(alerting, received, ("firing", "n1", left))
        wait(received, "/alertmanager", *told)
        assert {authorization for to, authorization, _ in received if to == "/alertmanager"} == {
            "Bearer 0123456789abcdef"
        }
        assert all(payload["truncatedAlerts"] == 0 for _, _, payload in received)

    def uninhibited(config: dict[str, Any]) -> None:
        del config["inhibit_rules"]

    with running(tmp_path, uninhibited) as (alerting, received):
        alerting.post_alerts(*({"labels": labels} for labels in once.values()))
        wait(received, "/alertmanager", *told)
        every = sorted(labels["alertname"].removeprefix("StorageNode") for labels in once.values())
        settled(alerting, received, ("firing", "n1", every))
        wait(received, "/alertmanager", *told)


def test_each_node_is_told_of_by_itself_and_what_gets_worse_is_no_end(tmp_path: Path) -> None:
    with running(tmp_path) as (alerting, received):
        both = [alert("StorageNodeDeadlocked", "n1"), alert("StorageNodeDeadlocked", "n2", host="host2")]
        alerting.post_alerts(*({"labels": labels} for labels in both))
        asked = [("firing", f"StorageNodeDeadlocked {node}", ["Deadlocked"]) for node in ("n1", "n2")]
        wait(received, "/alertmanager", *asked)
        told = [("firing", node, ["Deadlocked"]) for node in ("n1", "n2")]
        wait(received, "/people", *told)

        # What n1 suffers from silences that it is below the minimum; of n3 nothing worse is known.
        others = [alert("StorageNodeBelowMinimum", node) for node in ("n1", "n3")]
        others += [alert("StorageNodeUpdateDue", "n3"), alert("StorageNodeUpdaterDown", "n3")]
        alerting.post_alerts(*({"labels": labels} for labels in others))
        told.append(("firing", "n3", ["BelowMinimum", "UpdaterDown"]))
        wait(received, "/people", *told)

        alerting.post_alerts({"labels": both[1], "endsAt": PAST})
        told.append(("resolved", "n2", ["Deadlocked"]))
        wait(received, "/people", *told)

        gone = [alert("StorageNodeNotReached", "n4", severity=severity) for severity in ("info", "warning")]
        alerting.post_alerts({"labels": gone[0]})
        told.append(("firing", "n4", ["NotReached"]))
        wait(received, "/people", *told)
        alerting.post_alerts({"labels": gone[1]})
        told.append(("firing", "n4", ["NotReached", "NotReached"]))
        wait(received, "/people", *told)
        alerting.post_alerts({"labels": gone[0], "endsAt": PAST})
        told.append(("firing", "n4", ["NotReached", "NotReached"]))
        settled(alerting, received, *told)
        wait(received, "/alertmanager", *asked)  # people hear of the end, the webhook does not


def test_a_host_that_is_down_is_one_message_and_the_watchdog_barks_elsewhere(tmp_path: Path) -> None:
    lost = [
        alert("StorageNodeExporterDown"),
        alert("StorageNodeWebhookDown"),
        alert("StorageNodeNotReached", "n1", severity="info"),
        alert("StorageNodeNotReached", "n2", severity="warning"),
        alert("StorageNodeNotReached", "n3", severity="critical"),
        # Of another host nothing is said by it.
        alert("StorageNodeNotReached", "m1", host="host2", severity="info"),
        alert("StorageNodeWebhookDown", host="host2"),
        # What all hosts have at once. Whether a node runs is not known for another reason.
        *(alert("StorageNodeAllowedVersionsStale", host=host) for host in ("host3", "host4")),
        *(alert("StorageNodeUnknown", f"of-{host}", host=host) for host in ("host3", "host5")),
        alert("StorageNodeWatchdog"),
    ]
    with running(tmp_path) as (alerting, received):
        alerting.post_alerts(*({"labels": labels} for labels in lost))
        settled(
            alerting,
            received,
            ("firing", "host1:19651", ["ExporterDown"]),
            ("firing", "n3", ["NotReached"]),
            ("firing", "m1", ["NotReached"]),
            ("firing", "host2:19652", ["WebhookDown"]),
            ("firing", "StorageNodeAllowedVersionsStale", ["AllowedVersionsStale", "AllowedVersionsStale"]),
            ("firing", "of-host3", ["Unknown"]),
            ("firing", "of-host5", ["Unknown"]),
        )
        deadline = time.monotonic() + 60
        while len(said(received, "/dead-mans-switch")) < 3:
            assert time.monotonic() < deadline, "it does not come again and again"
            time.sleep(0.05)
        assert {alerts[0] for _, _, alerts in said(received, "/dead-mans-switch")} == {"Watchdog"}
        assert said(received, "/alertmanager") == []
