import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from exporter import listening
from exporter.access import Access
from remediate import webhook
from remediate.spool import Spool
from remediate.webhook import AlertResult, PayloadError, create_webhook_app, requests_in
from tests.remediate.conftest import wait_until
from tests.serving import connect, receive_until, receiving, serving, slow_clients

RECORDED = json.loads((Path(__file__).parents[1] / "data/alertmanager_payloads.json").read_text())
TOKEN = "correct-horse-battery"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
NODES = ["n1", "n2"]


def alert(node: str | None = "n1", status: str = "firing", **labels: str) -> dict[str, Any]:
    """An alert that asks for a node, or nearly."""
    asked = {"alertname": "StorageNodeDeadlocked", "remediation": "offline-update"} | labels
    return {"status": status, "labels": asked | ({} if node is None else {"node": node}), "annotations": {}}


def payload(*alerts: dict[str, Any], **keys: Any) -> bytes:
    """The newest recorded payload, with these alerts."""
    return json.dumps(RECORDED["prom3.5_am0.33"]["firing"] | {"alerts": list(alerts)} | keys).encode()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool")


@pytest.fixture
def url(spool: Spool) -> Iterator[str]:
    status_file = spool.directory.with_name("status.json")
    with serving(
        create_webhook_app(spool=spool, nodes=NODES, status_file=status_file, access=Access(token=lambda: TOKEN))
    ) as address:
        yield address


def post(url: str, body: bytes, headers: dict[str, str] = AUTHORIZED) -> int:
    return requests.post(f"{url}/alertmanager", data=body, headers=headers, timeout=60).status_code


def counters(url: str) -> dict[str, float]:
    """The webhook's counters that are not 0."""
    text = requests.get(f"{url}/metrics", headers=AUTHORIZED, timeout=60).text
    found = re.findall(r'^storagenode_webhook_\w+_total\{\w+="(\w+)"\} (.+)$', text, re.M)
    return {value: float(count) for value, count in found if float(count)}


@pytest.mark.parametrize("recording", sorted(RECORDED))
@pytest.mark.parametrize(("status", "nodes"), [("firing", ("node1",)), ("resolved", ())])
def test_the_recorded_payloads(recording: str, status: str, nodes: tuple[str, ...]) -> None:
    recorded = RECORDED[recording][status]
    assert requests_in(json.dumps(recorded).encode(), ["node1"]).results == {AlertResult.OTHER_ALERT: 1}
    recorded["alerts"][0]["labels"]["remediation"] = "offline-update"
    judged = requests_in(json.dumps(recorded).encode(), ["node1"])
    assert judged.nodes == nodes
    assert judged.results == {AlertResult.ACCEPTED if nodes else AlertResult.RESOLVED: 1}


@pytest.mark.parametrize(
    ("alerts", "nodes", "results"),
    [
        ([], (), {}),
        ([alert()], ("n1",), {"accepted": 1}),
        ([alert("n2"), alert("n1"), alert("n2")], ("n2", "n1"), {"accepted": 3}),
        ([alert(status="resolved"), alert("n2")], ("n2",), {"resolved": 1, "accepted": 1}),
        ([alert(None)], (), {"unknown_node": 1}),
        ([alert("n3")], (), {"unknown_node": 1}),
        ([alert("N1"), alert("n1 "), alert(" n1"), alert("n1\n"), alert("")], (), {"unknown_node": 5}),
        ([alert("../n1"), alert("./n1"), alert("/etc/passwd"), alert("n1/../n1")], (), {"unknown_node": 4}),
        ([alert("$(reboot)"), alert("n1;reboot"), alert("n1\0"), alert("n*")], (), {"unknown_node": 4}),
        ([alert(remediation="reboot"), alert(remediation="")], (), {"other_alert": 2}),
        ([alert("n9", remediation="other", status="resolved")], (), {"other_alert": 1}),
        ([alert(f"x{number}") for number in range(10_000)], (), {"unknown_node": 10_000}),
        ([alert("n1") for _ in range(10_000)], ("n1",), {"accepted": 10_000}),
    ],
)
def test_what_is_asked_for(alerts: list[dict[str, Any]], nodes: tuple[str, ...], results: dict[str, int]) -> None:
    # The group is resolved, its first alert may not be: each is judged by its own status.
    for group_status in ("firing", "resolved"):
        judged = requests_in(payload(*alerts, status=group_status), NODES)
        assert judged.nodes == nodes
        assert judged.results == results


MALFORMED = {
    b"": "Invalid JSON: EOF while parsing a value",
    b"alert!": "Invalid JSON: expected value",
    b"\xff\xfe": "Invalid JSON: expected value",
    b"[]": "Input should be an object",
    b"null": "Input should be an object",
    b'{"version":"3","alerts":[]}': "version: Input should be '4', found '3'",
    b'{"version":4,"alerts":[]}': "version: Input should be '4', found 4",
    b'{"alerts":[]}': "version: Field required",
    b'{"version":"4"}': "alerts: Field required",
    b'{"version":"4","alerts":null}': "alerts: Input should be a valid array",
    b'{"version":"4","alerts":{}}': "alerts: Input should be a valid array",
    b'{"version":"4","alerts":["n1"]}': "alerts.0: Input should be an object",
    b'{"version":"4","alerts":[{"status":"firing"}]}': "alerts.0.labels: Field required",
    b'{"version":"4","alerts":[{"status":"firing","labels":{"node":1}}]}': "alerts.0.labels.node: Input should be a",
    b'{"version":"4","alerts":[{"status":"on\\nfire","labels":{}}]}': r"alerts.0.status: Input should be 'firing' or "
    r"'resolved', found 'on\nfire'",
    b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}": "Invalid JSON: recursion limit exceeded",
    b'{"version":"4","alerts":[]' + b"," * 400_000: "Invalid JSON: ",
    b'{"version":"4","alerts":[]' + b"," * 500_000: "found 500003 values, expected at most 500000",
}


@pytest.mark.parametrize(("body", "problem"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_payloads_that_are_malformed(
    url: str, spool: Spool, caplog: pytest.LogCaptureFixture, body: bytes, problem: str
) -> None:
    with pytest.raises(PayloadError, match=re.escape(f"payload: {problem}")) as raised:
        requests_in(body, NODES)
    assert len(str(raised.value)) < 250
    assert str(raised.value).isprintable()
    answer = requests.post(f"{url}/alertmanager", data=body, headers=AUTHORIZED, timeout=60)
    assert (answer.status_code, answer.text) == (400, f"{raised.value}\n")
    assert [record.message for record in caplog.records] == ["payload refused"]
    assert counters(url) == {"400": 1}
    assert spool.pending() == []


def test_the_answers(url: str, spool: Spool) -> None:
    asked = payload(alert())
    assert post(url, asked) == 202
    assert spool.pending() == ["n1"]
    assert post(url, asked) == 202
    assert post(url, payload(alert(), alert("n2"))) == 202
    assert post(url, payload(alert(status="resolved"))) == 200
    assert post(url, payload(alert("n9"), alert(remediation="other"))) == 200
    assert post(url, payload()) == 200
    assert post(url, b"{}") == 400
    assert post(url, asked, {}) == 401
    assert post(url, asked, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}) == 401
    assert post(f"{url}/else", asked) == 404
    answer = requests.get(f"{url}/alertmanager", headers=AUTHORIZED, timeout=60)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert sorted(spool.pending()) == ["n1", "n2"]
    assert counters(url) == {
        **{"200": 3, "202": 3, "400": 1, "401": 2, "404": 1, "405": 1},
        **{"accepted": 4, "resolved": 1, "other_alert": 1, "unknown_node": 1},
    }


def test_a_zero_is_there_before_anything_has_happened(url: str) -> None:
    text = requests.get(f"{url}/metrics", headers=AUTHORIZED, timeout=60).text
    assert re.findall(r'^storagenode_webhook_requests_total\{code="(\d+)"\} 0.0$', text, re.M) == [
        *("200", "202", "400", "401", "404", "405", "413", "503")
    ]
    assert set(re.findall(r'^storagenode_webhook_alerts_total\{result="(\w+)"\} 0.0$', text, re.M)) == set(AlertResult)
    assert 'storagenode_remediation_pending{node="n2"} 0.0' in text


def test_nothing_of_a_payload_reaches_the_log_raw(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        post(url, payload(alert("evil\nlevel=error msg=forged"), alert("n1", summary="\x1b[2Jforged")))
    assert all("forged" not in str(value) for record in caplog.records for value in record.__dict__.values())
    assert "alerts for nodes that are not configured here" in caplog.text


def padded(size: int) -> bytes:
    body = payload(alert(), padding="")
    return body.replace(b'"padding": ""', b'"padding": "' + b"x" * (size - len(body)) + b'"')


def test_a_body_of_eight_mebibytes_and_one_byte_more(url: str, spool: Spool) -> None:
    limit = 8 * 1024 * 1024
    assert len(padded(limit)) == limit
    for _ in range(3):
        assert post(url, padded(limit + 1)) == 413
    assert post(url, bytes(64 << 20)) == 413
    assert spool.pending() == []
    assert post(url, padded(limit)) == 202
    assert counters(url) == {"413": 4, "202": 1, "accepted": 1}


def test_a_large_body_without_a_length(url: str) -> None:
    with connect(url) as client:
        client.sendall(
            f"POST /alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(9):
            client.sendall(chunk)
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_length_beyond_all_numbers(url: str) -> None:
    with connect(url) as client:
        head = (
            f"POST /alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {'9' * 6000}"
        )
        client.sendall(head.encode() + b"\r\n\r\n")
        assert client.recv(4096)[:13] in (b"HTTP/1.1 413 ", b"HTTP/1.1 400 ")


def test_a_body_that_does_not_arrive(url: str, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_BODY_SECONDS", 0.3)
    body = payload(alert())
    head = f"POST /alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with connect(url) as client:
        client.sendall(head.encode() + body[:-1])
        assert receive_until(client, b"within 0.3 s\n").startswith(b"HTTP/1.1 400 ")
    with connect(url) as client:
        client.sendall(head.encode() + body[:-1])
    assert spool.pending() == []


def test_two_hundred_slow_clients_cost_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 600)
    monkeypatch.setattr(webhook, "_BODY_SECONDS", 600)
    begin = f"POST /alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 999\r\n\r\n{{"
    with slow_clients(url, 100, begin.encode()), slow_clients(url, 100, begin[:30].encode()):
        assert post(url, payload(alert())) == 202


def test_duplicates_at_once_are_one_request(url: str, spool: Spool) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(url, payload(alert(), alert())), range(100)))
    assert answers == [202] * 100
    assert os.listdir(spool.directory) == ["n1"]


def test_ten_thousand_alerts_are_answered_with_a_second_of_work(url: str, spool: Spool) -> None:
    body = payload(*(alert(f"stranger{number}") for number in range(9_999)), alert("n2"))
    before = time.process_time()
    assert post(url, body) == 202
    assert time.process_time() - before < 1
    assert spool.pending() == ["n2"]


def test_what_cannot_be_stored_is_503_until_it_can(url: str, spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.directory.rmdir()
    assert post(url, payload(alert())) == 503
    assert post(url, payload(alert(status="resolved"))) == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["request not stored"]
    spool.directory.mkdir()
    assert post(url, payload(alert())) == 202


def test_one_stored_and_another_not_is_503(tmp_path: Path) -> None:
    # A file system with room for one request; its own mount namespace, so that nothing is left mounted.
    program = (
        "import pathlib, subprocess, sys, requests\n"
        "from exporter.web import OPEN\n"
        "from remediate.spool import Spool\n"
        "from remediate.webhook import create_webhook_app\n"
        "from tests.serving import serving\n"
        "from tests.remediate.test_webhook import alert, payload\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'nr_inodes=2', 'spool', here], check=True)\n"
        "app = create_webhook_app(spool=Spool(here), nodes=['n1', 'n2'], status_file=here / 'none', access=OPEN)\n"
        "with serving(app) as url:\n"
        "    answer = requests.post(url + '/alertmanager', data=payload(alert('n1'), alert('n2')), timeout=60)\n"
        "    print(answer.status_code, answer.text, end='')\n"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "503 stored 1, already pending 0, not stored 1\n"


def test_it_answers_while_another_payload_is_stored(url: str, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        release.wait(30)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    waiting = threading.Thread(target=post, args=[url, payload(alert())])
    waiting.start()
    assert requests.get(f"{url}/-/healthy", timeout=15).ok
    assert waiting.is_alive()
    release.set()
    waiting.join()


def test_a_disk_that_does_not_get_on_costs_neither_threads_nor_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook, "_WAITING", 4)
    release = threading.Event()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (release.wait(60), fsync(fd)))
    app = create_webhook_app(spool=spool, nodes=NODES, status_file=spool.directory / "none", access=Access())
    with serving(app) as url, ThreadPoolExecutor(30) as pool:
        threads = threading.active_count()
        sent = [pool.submit(post, url, payload(alert())) for _ in range(30)]
        wait_until(lambda: sum(each.done() for each in sent) == 30 - 8 - 4)
        assert {each.result() for each in sent if each.done()} == {503}
        assert threading.active_count() <= threads + 30, "ours, that send, and no more"
        assert "requests not stored, as many wait already" in caplog.text
        release.set()
        assert sorted(each.result() for each in sent) == [202] * 12 + [503] * 18


def test_a_nodes_name_is_enough_to_listen_for_it(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is known of a node, systemd says, which the packaged webhook may not ask."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/not/there")
    nodes = [{"name": name, "service": f"systemd:{name}.service"} for name in NODES]
    folders = {"spool": str(spool.directory), "status_file": str(tmp_path / "status.json")}
    with receiving(tmp_path, {"nodes": nodes, "remediation": folders}) as (_, url):
        assert post(url, payload(alert("n2"), alert("n3"))) == 202
    assert spool.pending() == ["n2"]


@pytest.mark.slow
def test_what_is_said_of_a_node_is_checked_all_the_same(tmp_path: Path) -> None:
    config = tmp_path / "keeper.yml"
    for nodes, found in (
        ([{"name": "n 1", "service": "process"}], "nodes.0.name: "),
        ([{"name": "n1", "service": "process", "color": "red"}], "nodes.0.color: unknown key"),
        (["n1"], "nodes.0: "),
        ({"n1": "process"}, "nodes: "),
        ([], "nodes: empty"),
    ):
        config.write_text(json.dumps({"nodes": nodes}))
        argv = [str(Path(sys.executable).with_name("storagenode-remediate")), "serve", "--config.file", str(config)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2 and f"error: {config}: {found}" in done.stderr
