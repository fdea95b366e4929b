import os
import threading
import time
from pathlib import Path

import pytest

from exporter.cache import Cache


def test_what_is_written_is_read(tmp_path: Path) -> None:
    Cache(tmp_path).write("name.json", {"a": 1.5})
    assert Cache(tmp_path).read("name.json") == {"a": 1.5}
    assert (tmp_path / "name.json").stat().st_mode & 0o777 == 0o644


def test_nothing_is_none(tmp_path: Path) -> None:
    assert Cache(tmp_path).read("none.json") is None
    nowhere = Cache(None)
    nowhere.write("name.json", 1)
    assert nowhere.read("name.json") is None


def test_a_reader_sees_the_old_or_the_new_and_no_writer_leaves_anything(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write("name.json", ["x" * 100_000])
    ended = threading.Event()
    seen: set[object] = set()

    def read() -> None:
        while not ended.is_set():
            value = cache.read("name.json")
            assert isinstance(value, list)
            seen.add(len(value[0]))

    reading = threading.Thread(target=read)
    reading.start()
    for length in (1, 100_000) * 20:
        cache.write("name.json", ["x" * length])
    ended.set()
    reading.join()
    assert seen <= {1, 100_000}
    assert os.listdir(tmp_path) == ["name.json"]


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"\xff", b"{", b"[" * 100_000, b"[]", b'{"kept": 1}', b'{"format": 2, "kept": 1}', b'{"format": 1}'],
        *[b'{"format": 1, "kept": NaN}', b'{"format": 1, "kept": Infinity}', b'{"format": "1", "kept": 1}'],
    ],
)
def test_a_damaged_file_costs_itself_and_a_line_in_the_log(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    cache.write("other.json", 2)
    (tmp_path / "name.json").write_bytes(content)
    assert cache.read("name.json") is None
    assert [record.message for record in caplog.records] == ["what was kept is damaged and not used"]
    assert vars(caplog.records[0])["file"] == f"{tmp_path}/name.json"
    assert cache.read("other.json") == 2
    cache.write("name.json", 3)
    assert cache.read("name.json") == 3


def test_it_may_be_deleted_at_any_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path)
    cache.write("name.json", 1)
    (tmp_path / "name.json").unlink()
    assert cache.read("name.json") is None
    cache.write("name.json", 2)
    assert cache.read("name.json") == 2
    assert not caplog.records


def test_what_is_kept_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, fsync = [], os.fsync

    def spy(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").read_text(), (tmp_path / "name.json").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    Cache(tmp_path).write("name.json", 1)
    assert seen == [((tmp_path / "name.json").read_text(), False)]


def test_a_writer_killed_in_the_middle_leaves_nothing_for_long(tmp_path: Path) -> None:
    for name, age in {"killed": 3700, "writing": 5}.items():
        leftover = tmp_path / f".name.json.{name}"
        leftover.touch()
        os.utime(leftover, (time.time() - age,) * 2)
    Cache(tmp_path).write("name.json", 1)
    assert sorted(os.listdir(tmp_path)) == [".name.json.writing", "name.json"]
