import logging
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from remediate import spool as spool_module
from remediate.spool import Spool

NODES = {"n1", "n2", "n3"}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_a_request_is_an_empty_file_of_the_nodes_name(spool: Spool) -> None:
    assert spool.put("n1") is True
    assert spool.put("n1") is False
    assert os.listdir(spool.directory) == ["n1"]
    status = (spool.directory / "n1").stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    assert spool.pending() == ["n1"]


@pytest.mark.parametrize("node", ["n1.new", "n1.rpmsave", "n1.dpkg-old", "aquota.user"])
def test_a_name_that_systemd_would_take_for_a_backup_is_written_otherwise(spool: Spool, node: str) -> None:
    assert (spool.put(node), spool.put(node)) == (True, False)
    assert os.listdir(spool.directory) == [f"{node}@"]
    assert spool.pending() == spool.take([node]) == [node]
    spool.done(node)
    assert os.listdir(spool.directory) == []


def test_a_request_stays_until_it_is_done(spool: Spool) -> None:
    spool.put("n1")
    assert spool.take(NODES) == ["n1"]
    assert spool.put("n1") is False
    assert spool.take(NODES) == ["n1"]
    spool.done("n1")
    spool.done("n1")
    assert spool.take(NODES) == spool.pending() == []
    assert spool.put("n1") is True


def test_the_oldest_request_is_first_and_the_limit_holds(spool: Spool) -> None:
    for age, node in ((10, "n1"), (30, "n2"), (20, "n3")):
        spool.put(node)
        os.utime(spool.directory / node, (time.time() - age,) * 2)
    assert spool.take(NODES) == ["n2", "n3", "n1"]
    assert spool.take(NODES, limit=2) == ["n2", "n3"]
    assert sorted(spool.pending()) == ["n1", "n2", "n3"]


def test_of_many_at_once_one_stores(spool: Spool) -> None:
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as processes:
        stored = list(processes.map(spool.put, ["n1"] * 64))
    assert stored.count(True) == 1
    assert os.listdir(spool.directory) == ["n1"]


def test_killed_while_storing_leaves_a_whole_request_or_none(spool: Spool) -> None:
    program = (
        "import os, sys, pathlib, remediate.spool as s\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        "s.Spool(pathlib.Path(sys.argv[1])).put('n1')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, spool.directory], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(spool.directory) == ["n1"]
    assert spool.put("n1") is False
    assert spool.take(NODES) == ["n1"]


def test_a_request_found_there_is_made_durable_before_it_is_reported(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.put("n1")
    synced: list[os.stat_result] = []
    fsync = os.fsync

    def recording(fd: int) -> None:
        synced.append(os.fstat(fd))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recording)
    assert spool.put("n1") is False
    assert [status.st_ino for status in synced] == [spool.directory.stat().st_ino]
    assert spool.put("n2") is True
    assert [status.st_ino for status in synced[1:]] == [
        (spool.directory / "n2").stat().st_ino,
        spool.directory.stat().st_ino,
    ]


def test_what_is_no_request_is_removed_and_what_it_names_is_not(
    spool: Spool, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret").write_text("kept")
    here = spool.directory
    (here / "n1").symlink_to(elsewhere / "secret")
    os.mkfifo(here / "n2")
    (here / "n3").mkdir()
    (here / "linked").symlink_to(elsewhere)
    (here / "stranger").write_text("x")
    (here / "$(reboot)\n; rm -rf").write_text("x")
    (here / ".new").write_text("")
    (here / ".old").write_text("")
    os.utime(here / ".old", (time.time() - 3700,) * 2)
    with caplog.at_level(logging.WARNING):
        assert spool.take(NODES) == []
    assert os.listdir(here) == [".new"]
    assert (elsewhere / "secret").read_text() == "kept"
    (record,) = caplog.records
    assert record.__dict__["count"] == 7
    assert all("\n" not in example for example in record.__dict__["examples"])


def test_the_content_of_a_request_is_never_read(spool: Spool) -> None:
    (spool.directory / "n1").write_text("--to 9.9.9")
    (spool.directory / "n1").chmod(0)
    assert spool.take(NODES) == ["n1"]


def test_a_directory_with_content_starts_nobody_any_more(spool: Spool) -> None:
    (spool.directory / "n1").mkdir()
    (spool.directory / "n1" / "file").touch()
    assert spool.take(NODES) == []
    assert spool.pending() == []
    (moved,) = spool.directory.iterdir()
    assert (moved / "file").exists()
    os.utime(moved, (0, 0))
    assert spool.take(NODES) == []
    assert spool.put("n1") is True


def test_no_number_of_strangers_keeps_a_request_waiting(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool_module, "SWEPT", 1000)
    for number in range(2500):
        (spool.directory / f"stranger{number}").touch()
    spool.put("n1")
    assert len(spool.pending()) == spool_module.LOOKED_AT
    for left in (1501, 501, 1):
        assert spool.take(NODES) == ["n1"]
        assert left <= len(os.listdir(spool.directory)) <= left + 1
    assert len(caplog.records) == 3


PLAYING = """
import os, sys
os.chdir(sys.argv[1])
def leave(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        pass
print(flush=True)
while True:
    for name in ("n1", "stranger", ".temporary"):
        for action in (os.mkfifo, os.unlink, os.mkdir, os.rmdir, os.mkdir):
            leave(action, name)
        leave(os.mkdir, name + "/inside")
        leave(os.rmdir, name + "/inside")
        leave(os.rmdir, name)
"""


@pytest.mark.slow
def test_whoever_plays_with_names_while_they_are_looked_at_breaks_nothing(spool: Spool) -> None:
    with subprocess.Popen([sys.executable, "-c", PLAYING, spool.directory], stdout=subprocess.PIPE) as playing:
        try:
            assert playing.stdout is not None
            assert playing.stdout.readline()
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert spool.take(NODES) == []
                spool.done("n1")
        finally:
            playing.kill()


def test_a_request_that_has_become_a_directory_is_done_too(spool: Spool) -> None:
    (spool.directory / "n1" / "inside").mkdir(parents=True)
    spool.done("n1")
    assert spool.pending() == []


def test_names_with_a_dot_hide_no_other(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that thought the spool empty would be started again at once, for ever."""
    monkeypatch.setattr(spool_module, "LOOKED_AT", 5)
    for number in range(100):
        (spool.directory / f".{number}").touch()
    (spool.directory / "stranger").touch()
    assert spool.pending() == ["stranger"]


def test_a_spool_that_is_not_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "none")
    for call in (lambda: spool.put("n1"), spool.pending, lambda: spool.take(NODES), lambda: spool.done("n1")):
        with pytest.raises(FileNotFoundError):
            call()


def test_a_full_file_system(tmp_path: Path) -> None:
    program = (
        "import pathlib, subprocess, sys, remediate.spool as s\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'nr_inodes=2', 'spool', sys.argv[1]], check=True)\n"
        "spool = s.Spool(pathlib.Path(sys.argv[1]))\n"
        "print(spool.put('n1'))\n"
        "try: spool.put('n2')\n"
        "except OSError as error: print(error.strerror)\n"
        "spool.done('n1')\n"
        "print(spool.put('n2'), spool.pending())\n"
    )
    unshare = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(unshare, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True", "No space left on device", "True ['n2']"]
