"""Reading a log on from where it was read last: files on a real disk, and a real journal in a container."""

import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from exporter.sources import logs
from exporter.sources.logs import LogFile
from exporter.status import Failure, FailureReason
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.remediate.test_files import root_only

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
LIMIT = logs._LARGEST_BYTES


def read(log: LogFile) -> list[str]:
    lines = log.read(1)
    assert not isinstance(lines, Failure), lines
    return lines


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "updater.log"
    path.write_text("one\ntwo\n")
    return path


def test_what_was_added_is_read_once(path: Path) -> None:
    log = LogFile(path)
    assert read(log) == ["one", "two"]
    assert read(log) == []
    add(path, "thr")
    assert read(log) == []
    add(path, "ee\nfour\n")
    assert read(log) == ["three", "four"]
    assert read(log) == []


@pytest.mark.parametrize("rest", ["", "three\n"])
def test_one_that_is_renamed_away_loses_nothing(path: Path, rest: str) -> None:
    log = LogFile(path)
    assert read(log) == ["one", "two"]
    add(path, rest)
    path.rename(f"{path}.1")
    path.write_text("four\n")
    assert read(log) == [*rest.split(), "four"]
    add(path, "five\n")
    assert read(log) == ["five"]


def test_one_that_is_replaced_begins_anew(path: Path) -> None:
    log = LogFile(path)
    read(log)
    (path.parent / f"{path.name}.1").write_text("of another\n")
    path.rename(f"{path}.old")
    path.write_text("new\n")
    assert read(log) == ["new"]
    (path.parent / f"{path.name}.1").unlink()
    path.rename(f"{path}.old")
    path.write_text("newer\n")
    assert read(log) == ["newer"]


def test_one_that_is_cut_short_begins_anew(path: Path) -> None:
    log = LogFile(path)
    read(log)
    os.truncate(path, 0)
    assert read(log) == []
    add(path, "new\n")
    assert read(log) == ["new"]


def test_one_that_is_gone_for_a_while(path: Path) -> None:
    log = LogFile(path)
    read(log)
    path.rename(f"{path}.1")
    failure = log.read(1)
    assert isinstance(failure, Failure)
    assert failure.reason is FailureReason.NOT_FOUND
    path.write_text("new\n")
    assert read(log) == ["new"]


def test_only_the_last_of_much_is_read(path: Path) -> None:
    path.write_text("".join(f"{number:099}\n" for number in range(30_000)))
    log = LogFile(path)
    lines = read(log)
    assert len(lines) == LIMIT // 100
    assert int(lines[-1]) == 29_999
    add(path, "".join(f"{number:099}\n" for number in range(30_000, 60_000)))
    more = read(log)
    assert (len(more), int(more[-1])) == (LIMIT // 100, 59_999)
    path.write_bytes(b"x" * (LIMIT + 5))
    assert read(LogFile(path)) == []


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"\0\n", b"\r\n", b"a\x0bb\n"])
def test_what_is_no_text_is_read_all_the_same(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert len(read(LogFile(path))) >= 1


def test_any_way_to_write_is_read_as_it_was_written(path: Path) -> None:
    """Added to, renamed and cut at random, and looked at at random in between; once before each cut, which loses."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    path.write_text("")
    log, written, seen = LogFile(path), list[str](), list[str]()
    read(log)
    for number in range(1000):
        match chance.randrange(12):
            case 0:
                seen += read(log)
                path.rename(f"{path}.1")
                assert isinstance(log.read(1), Failure)
                path.touch()
                seen += read(log)
            case 1:
                path.rename(f"{path}.1")
                path.touch()
                seen += read(log)
            case 2:
                seen += read(log)
                os.truncate(path, 0)
                seen += read(log)
            case 3 | 4 | 5:
                seen += read(log)
            case _:
                text = f"line {number} {'x' * chance.randrange(200)}"
                written.append(text)
                add(path, f"{text}\n")
    assert seen + read(log) == written


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "log")
    began = time.monotonic()
    failure = LogFile(tmp_path / "log").read(1)
    assert time.monotonic() - began < 10
    assert isinstance(failure, Failure)
    assert failure.reason is FailureReason.MALFORMED
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        LogFile(tmp_path / "log").read(1)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@root_only
def test_one_that_may_not_be_read(path: Path) -> None:
    path.chmod(0o600)
    os.seteuid(65534)
    try:
        failure = LogFile(path).read(1)
    finally:
        os.seteuid(0)
    assert isinstance(failure, Failure)
    assert failure.reason is FailureReason.DENIED


def bytes_read() -> int:
    """Say how much this process has read of files until now."""
    (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar:"))
    return int(line.split()[1])


def test_a_gigabyte_costs_its_tail(tmp_path: Path) -> None:
    """Sparse, so that it is made at once: what is read of it would be as much; whole, and written, with EXHAUSTIVE."""
    path = tmp_path / "large.log"
    with path.open("wb") as file:
        if EXHAUSTIVE:
            for _ in range(1024):
                file.write((b"x" * 1023 + b"\n") * 1024)
        else:
            file.seek(1 << 30)
        file.write(b"\nlast\n")
    log = LogFile(path)
    before, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, bytes_read()
    assert read(log)[-1] == "last"
    assert bytes_read() - taken < 8 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
    add(path, "more\n")
    assert read(log) == ["more"]


READ = """
import json, sys, time
from exporter.sources.logs import Journal
journal = Journal(sys.argv[1])
for line in open(sys.argv[2]):
    began = time.monotonic()
    lines = journal.read(float(line))
    print(json.dumps([lines if isinstance(lines, list) else str(lines), time.monotonic() - began]), flush=True)
"""
"""Read a unit's journal each time a line comes, with that many seconds to do it in."""


numbers = count()


@pytest.fixture(scope="module")
def host() -> Iterator[Container]:
    with Container() as container:
        container.install_project()
        yield container


class Reader:
    """Our reader of the journal, in the container and as a user of it."""

    def __init__(self, host: Container, number: int, unit: str, *groups: str) -> None:
        joined = f"--groups={','.join(groups)}" if groups else "--clear-groups"
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", joined]
        asks = Path(f"/run/asks-{number}")
        os.mkfifo(host.path(asks))
        host.path(asks).chmod(0o644)
        self._process = host.popen([*nobody, VENV / "bin/python", "-c", READ, unit, asks])
        self._asks = host.path(asks).open("w")

    def read(self, timeout: float = 10) -> tuple[list[str] | str, float]:
        assert self._process.stdout
        print(timeout, file=self._asks, flush=True)
        lines, seconds = json.loads(self._process.stdout.readline())
        return lines, seconds

    def lines(self) -> list[str] | str:
        return self.read()[0]

    def close(self) -> None:
        self._asks.close()
        self._process.communicate()


@pytest.fixture
def reader(host: Container) -> Iterator[Callable[..., Reader]]:
    readers: list[Reader] = []

    def make(unit: str, *groups: str) -> Reader:
        readers.append(Reader(host, next(numbers), unit, *groups))
        return readers[-1]

    yield make
    for each in readers:
        each.close()


def say(host: Container, unit: str, program: str) -> None:
    """Have a unit print what a Python program prints, and end."""
    host.write(f"/opt/{unit}.py", program)
    host.unit(unit, f"[Service]\nType=oneshot\nExecStart=/usr/bin/python3 /opt/{unit}.py\n", enable=False)
    host.systemctl("start", unit)
    host.run(["journalctl", "--sync"])


@pytest.mark.systemd
def test_the_journal_is_read_on(host: Container, reader: Callable[..., Reader]) -> None:
    say(host, "speaks.service", "print('one', 'x' * 9000); print('two')")
    say(host, "other.service", "print('of another')")
    journal = reader("speaks.service", "systemd-journal")
    assert journal.lines() == [f"one {'x' * 9000}", "two"], "and nothing that systemd says of the unit"
    assert journal.lines() == []
    say(host, "speaks.service", "import sys; sys.stdout.buffer.write(b'a\\xff\\tb\\n'); print('last')")
    assert journal.lines() == ["a\ufffd\tb", "last"]
    host.run(["journalctl", "--rotate"])
    say(host, "speaks.service", "print('rotated')")
    assert journal.lines() == ["rotated"]
    host.run(["journalctl", "--rotate", "--vacuum-time=1s"])
    say(host, "speaks.service", "print('vacuumed')")
    assert journal.lines() == ["vacuumed"]
    assert reader("none.service", "systemd-journal").lines() == []


@pytest.mark.systemd
def test_where_the_journal_cannot_be_read_that_is_said(host: Container, reader: Callable[..., Reader]) -> None:
    say(host, "speaks.service", "print('one')")
    journal = reader("speaks.service")
    denied = "denied: the journal is for members of the group systemd-journal"
    assert journal.lines() == denied
    (file,) = host.path("/var/log/journal").glob("*/system.journal")
    file.rename(file.with_name("away"))
    try:
        assert reader("speaks.service", "systemd-journal").lines() == "not_found: there is no journal"
    finally:
        file.with_name("away").rename(file)
    host.path("/usr/bin/journalctl").rename(host.path("/usr/bin/journalctl.away"))
    try:
        assert reader("speaks.service").lines() == "not_found: there is no journalctl"
    finally:
        host.path("/usr/bin/journalctl.away").rename(host.path("/usr/bin/journalctl"))


@pytest.mark.systemd
def test_a_large_journal_costs_its_tail(host: Container, reader: Callable[..., Reader]) -> None:
    """A few dozen times what is read at first, by the unit and by others; a gigabyte with EXHAUSTIVE."""
    host.write("/etc/systemd/journald.conf.d/all.conf", "[Journal]\nRateLimitBurst=0\nSystemMaxUse=4G\n")
    host.systemctl("restart", "systemd-journald")
    many = 500_000 if EXHAUSTIVE else 30_000
    print_all = "for number in range({}): print(number, '{}' * 480)"  # more would be compressed
    say(host, "floods.service", print_all.format(many, "x"))
    say(host, "other.service", print_all.format(many, "y"))
    say(host, "floods.service", "print('the last line')")
    used = sum(path.stat().st_size for path in host.path("/var/log/journal").rglob("*.journal"))
    readers = [reader("floods.service", "systemd-journal") for _ in range(3)]
    # Each for the first time; a machine may be busy during one of them.
    (lines, seconds), journal = min(((each.read(), each) for each in readers), key=lambda read: read[0][1])
    print(f"journal of {used >> 20} MiB: {seconds:.3f} s")
    assert 500 < len(lines) <= 2000
    assert lines[-2].split()[0] == str(many - 1)
    assert lines[-1] == "the last line"
    assert seconds < 5
    # On from there, however much has come: as much as fits at a time, and all of it in the end.
    say(host, "floods.service", print_all.format(5000, "z"))
    assert not isinstance(lines, str)
    numbers: list[int] = []
    while lines := journal.lines():
        assert len(lines) < 2500
        numbers += [int(line.split()[0]) for line in lines]
    assert numbers == list(range(5000))
