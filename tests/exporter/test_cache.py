import os
import threading
from pathlib import Path

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
