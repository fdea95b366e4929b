"""The example configuration: by amtool, and in a real Alertmanager that delivers to a real receiver."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.shipped import ALERTMANAGER, alertmanager
from tests.labs.prometheus import Alertmanager, amtool

pytestmark = pytest.mark.prometheus

DEADLOCKED = {"alertname": "StorageNodeDeadlocked", "severity": "critical", "remediation": "offline-update"}
BELOW_MINIMUM = {"alertname": "StorageNodeBelowMinimum", "severity": "warning"}
MISSING = {"alertname": "StorageNodeRemediationMissing", "severity": "critical"}


def test_example_is_valid() -> None:
    amtool("check-config", ALERTMANAGER)


def test_example_is_valid_once_people_are_told_by_mail(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^    # ", "    ", ALERTMANAGER.read_text())
    assert yaml.safe_load(text)["receivers"][1]["email_configs"][0]["to"] == "you@example.org"
    (tmp_path / "alertmanager.yml").write_text(text)
    amtool("check-config", tmp_path / "alertmanager.yml")


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (DEADLOCKED | {"node": "n1"}, "storagenode-remediate,people"),
        (BELOW_MINIMUM | {"node": "n1"}, "people"),
        (MISSING | {"node": "n1"}, "people"),
        ({"alertname": "StorageNodeNotReached", "severity": "emergency", "node": "n1"}, "people"),
        ({"alertname": "SomethingElse"}, "people"),
        ({"alertname": "SomethingElse", "remediation": "reboot"}, "people"),
    ],
)
def test_routes(labels: dict[str, str], receivers: str) -> None:
    pairs = [f"{name}={value}" for name, value in labels.items()]
    done = amtool(
        "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receivers}", *pairs
    )
    assert receivers in done.stdout.splitlines()


def test_a_substitution_that_does_not_apply_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "alertmanager.yml"
    other.write_text(ALERTMANAGER.read_text().replace("group_interval: 1m", "group_interval: 2m"))
    monkeypatch.setattr("tests.alerts.shipped.ALERTMANAGER", other)
    with pytest.raises(ValueError, match="group_interval: 1m"):
        alertmanager("http://127.0.0.1:1/", tmp_path / "token")


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[str, str | None, Any]]]]:
    """Answer every POST with 202 and remember its path, its Authorization and its payload."""
    received: list[tuple[str, str | None, Any]] = []

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


def test_a_real_alertmanager_delivers_as_the_example_says(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with receiver() as (url, received):
        config = yaml.safe_load(alertmanager(f"{url}/alertmanager", token))
        config["receivers"][1]["webhook_configs"] = [{"url": f"{url}/people"}]
        config["route"]["routes"][1] |= {"group_wait": "1s", "group_interval": "1s"}

        def seen(path: str) -> list[tuple[str, str, str]]:
            """Return what came to a path: status, alert and node, each message one group."""
            return [
                (payload["status"], payload["groupLabels"]["alertname"], payload["groupLabels"]["node"])
                for to, _, payload in received
                if to == path
            ]

        def wait(path: str, *expected: tuple[str, str, str]) -> None:
            deadline = time.monotonic() + 10
            while sorted(seen(path)) != sorted(expected):
                assert time.monotonic() < deadline, seen(path)
                time.sleep(0.05)

        with Alertmanager(config) as running:
            alerts = [DEADLOCKED | {"node": "n1"}, DEADLOCKED | {"node": "n2"}]
            running.post_alerts(*({"labels": labels} for labels in alerts))
            asked = [("firing", "StorageNodeDeadlocked", node) for node in ("n1", "n2")]
            wait("/alertmanager", *asked)

            others = [BELOW_MINIMUM | {"node": "n1"}, BELOW_MINIMUM | {"node": "n3"}, MISSING | {"node": "n1"}]
            running.post_alerts(*({"labels": labels} for labels in others))
            # What n1 suffers from silences that it is below the minimum; of n3 nothing worse is known.
            told = [
                *asked,
                ("firing", "StorageNodeBelowMinimum", "n3"),
                ("firing", "StorageNodeRemediationMissing", "n1"),
            ]
            wait("/people", *told)

            running.post_alerts({"labels": DEADLOCKED | {"node": "n2"}, "endsAt": "2020-01-01T00:00:00Z"})
            told.append(("resolved", "StorageNodeDeadlocked", "n2"))
            wait("/people", *told)
            time.sleep(1.5)  # an interval of the webhook's route more

            # What gets worse is one message more about the node, and no end of anything.
            gone = {"alertname": "StorageNodeNotReached", "node": "n4"}
            running.post_alerts({"labels": gone | {"severity": "info"}})
            told.append(("firing", "StorageNodeNotReached", "n4"))
            wait("/people", *told)
            running.post_alerts(
                {"labels": gone | {"severity": "info"}, "endsAt": "2020-01-01T00:00:00Z"},
                {"labels": gone | {"severity": "warning"}},
            )
            told.append(("firing", "StorageNodeNotReached", "n4"))
            wait("/people", *told)
        assert sorted(seen("/alertmanager")) == asked, "people hear of the end, the webhook does not"
        assert {authorization for to, authorization, _ in received if to == "/alertmanager"} == {
            "Bearer 0123456789abcdef"
        }
        assert all(payload["truncatedAlerts"] == 0 for _, _, payload in received)
