import json
import os
import stat
import threading
from pathlib import Path

import pytest

from remediate import published
from remediate.published import DecisionCount, NodePublished, Published, RunCount

PUBLISHED = Published(
    worker_last_seen=1_790_000_000.25,
    runs=(RunCount(node="n1", trigger="alert", outcome="done", count=2),),
    decisions=(DecisionCount(node="n1", decision="proceed", reason="below_minimum", count=3),),
    nodes=(NodePublished(node="n1", updater_held=True, last_success=1_790_000_001.5), NodePublished(node="n2")),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    published.write(path, Published(worker_last_seen=0))
    (tmp_path / ".status.json.new").write_text("left by a writer that was killed")
    previous = os.umask(0o077)
    try:
        published.write(path, PUBLISHED)
    finally:
        os.umask(previous)
    assert published.read(path) == PUBLISHED
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "status.json"
    large = Published(worker_last_seen=1, nodes=tuple(NodePublished(node=f"n{number}") for number in range(500)))
    published.write(path, PUBLISHED)
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            published.write(path, large)
            published.write(path, PUBLISHED)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    seen = [published.read(path) for _ in range(100)]
    stop.set()
    writer.join()
    assert all(each in (large, PUBLISHED) for each in seen)
    assert not caplog.records


def test_none_was_ever_published(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert published.read(tmp_path / "status.json") is None
    assert not caplog.records


def test_a_newer_workers_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps({"worker_last_seen": 5, "paused": True, "nodes": [{"node": "n1", "circuit": 1}]}))
    assert published.read(path) == Published(worker_last_seen=5, nodes=(NodePublished(node="n1"),))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ("[1]", "Input should be an object"),
        ("{}", "worker_last_seen Field required"),
        ('{"worker_last_seen": "soon"}', "worker_last_seen Input should be a valid number"),
        ('{"worker_last_seen": 1, "nodes": [{"node": 3}]}', "nodes.0.node Input should be a valid string"),
    ],
)
def test_a_malformed_file_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, problem: str
) -> None:
    path = tmp_path / "status.json"
    path.write_text(content)
    assert published.read(path) is published.read(path) is None
    (record,) = caplog.records
    assert (record.message, record.__dict__["file"]) == ("status file cannot be used", str(path))
    assert record.__dict__["problem"].startswith(problem)


def test_a_file_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert published.read(tmp_path) is None
    assert [record.__dict__["problem"] for record in caplog.records] == ["Is a directory"]
