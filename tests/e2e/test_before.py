"""Before it happens: what root is told of a node, from what the exporter has seen of it in its sandbox."""

import json
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.site import EXPORTER, NEW, OLD, TOKEN, Site, wait
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container

pytestmark = [pytest.mark.e2e, pytest.mark.systemd]

STATE = Path("/var/lib/storagenode-exporter")
REMEDIATE = VENV / "bin/storagenode-remediate"


def _scrape() -> str:
    asked = urllib.request.Request("http://127.0.0.1:19651/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def test_what_the_exporter_has_seen_is_what_root_is_told(tmp_path: Path) -> None:
    with Container() as container, Site(container, tmp_path, ["ahead"]) as site:
        node = site.node("ahead").install()
        site.versions.set(minimum=f"v{OLD}", suggested=f"v{NEW}")
        node.start()
        container.systemctl("start", EXPORTER)

        def scraped() -> str:
            text: str = container.network.call(_scrape)
            return text

        wait(lambda: "storagenode_disqualification_timestamp_seconds{" in scraped(), "a clock")
        assert 'storagenode_suspension_timestamp_seconds{basis="contact",node="ahead"}' in scraped()
        node.stop()
        wait(lambda: 'storagenode_up{node="ahead"} 0.0' in scraped(), "that it is down")
        assert 'storagenode_suspension_timestamp_seconds{basis="contact",node="ahead"}' in scraped()
        container.systemctl("stop", EXPORTER)
        kept = {path.name: path.read_bytes() for path in container.path(STATE).iterdir()}
        assert {"last-contact.json", "minimums.json"} <= kept.keys()

        told = {
            days: container.run([REMEDIATE, "preflight", "--json", "--days", days, "ahead"], check=False)
            for days in ("11", "12")
        }
        assert {days: done.returncode for days, done in told.items()} == {"11": 1, "12": 1}
        answers = {
            days: {item["about"]: item["answer"] for item in json.loads(done.stdout)[0]["items"]}
            for days, done in told.items()
        }
        assert answers["11"] == {"version": "no", "rollout": None, "clocks": "yes"}
        assert answers["12"] == {"version": "no", "rollout": None, "clocks": "no"}

        before = node.state()
        rehearsed = site.remediate("plan", "--as-if-minimum", NEW, "ahead")
        assert f"{OLD} -> {NEW} (below_minimum)" in rehearsed
        assert "leave ahead stopped (asked_to_stop)" in rehearsed
        assert node.state() == before
        assert {path.name: path.read_bytes() for path in container.path(STATE).iterdir()} == kept
        site.rise()
        assert site.remediate("plan", "ahead").splitlines()[1:] == [line[4:] for line in rehearsed.splitlines()[3:]]
        assert site.tracebacks() == []
