import errno
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from exporter.sources.binary import BinarySource, Completed, parse_version_output, run_directly
from exporter.status import Failure, FailureReason, InstalledVersion
from exporter.version import NodeVersion
from tests.simulators import build

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream"


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    """Write a program in shell as a new file."""
    staged = path.with_name("staged")
    staged.write_text(f"#!/bin/sh\n{text}\n")
    staged.chmod(mode)
    return staged.replace(path)


class Counting:
    """Runs programs directly, and remembers how it was asked to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, binary: int, arguments: Sequence[str], timeout: float) -> Completed:
        self.calls.append(list(arguments))
        return run_directly(binary, arguments, timeout)


def failure(path: Path, timeout: float = 5) -> Failure:
    found = BinarySource(path).read(timeout)
    assert isinstance(found, Failure), found
    assert str(path) in found.detail
    return found


@pytest.mark.parametrize("release", [True, False])
def test_the_version_of_a_program(tmp_path: Path, release: bool) -> None:
    binary = build.node("1.104.5", tmp_path / "storagenode", release=release)
    file = binary.stat()
    assert BinarySource(binary).read(5) == InstalledVersion(
        version=NodeVersion(1, 104, 5), release=release, device=file.st_dev, inode=file.st_ino
    )


@pytest.mark.parametrize("release", ["1.104.5", "1.162.3"])
def test_the_output_of_real_programs(release: str) -> None:
    output = (UPSTREAM / release / "storagenode.version.stdout").read_bytes()
    assert parse_version_output(output) == (NodeVersion.parse(release), True)
    assert parse_version_output(output.replace(b"Release", b"Development")) == (NodeVersion.parse(release), False)


@pytest.mark.parametrize("output", [b"", b"1.104.5\n", b"Version: latest\n", b" Version: 1.2.3\n", b"\xff\x00" * 50])
def test_output_without_a_version_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError, match=r"version|Version"):
        parse_version_output(output)


def test_it_is_asked_quietly_and_with_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORJ_VERSION_SERVER_ADDRESS", "http://example.org")
    binary = script(
        tmp_path / "storagenode",
        f'( echo "$@"; pwd; readlink /proc/$$/fd/0; ls -A "$5"; tr "\\0" "\\n" </proc/$$/environ ) >{tmp_path}/seen;'
        " echo Release build; echo Version: v1.2.3",
    )
    assert isinstance(BinarySource(binary).read(5), InstalledVersion)
    arguments, directory, stdin, *rest = (tmp_path / "seen").read_text().splitlines()
    quiet, _, empty = arguments.rpartition(" ")
    assert quiet == "version --tracing.enabled=false --metrics.addr= --config-dir"
    assert (directory, stdin, rest) == ("/", "/dev/null", [])
    assert not Path(empty).exists()


def test_a_program_without_the_flags_is_asked_plainly(tmp_path: Path) -> None:
    binary = script(
        tmp_path / "storagenode",
        'if [ $# != 1 ]; then echo "Error: unknown flag: --tracing.enabled" >&2; exit 1; fi; echo Version: v1.3.3',
    )
    counting = Counting()
    found = BinarySource(binary, counting).read(5)
    assert isinstance(found, InstalledVersion)
    assert found.version == NodeVersion(1, 3, 3)
    assert not found.release
    assert counting.calls[1:] == [["version"]]


def test_it_is_asked_again_only_when_the_file_has_changed(tmp_path: Path) -> None:
    path = build.node("1.104.5", tmp_path / "storagenode")
    counting = Counting()
    source = BinarySource(path, counting)
    first = source.read(5)
    assert source.read(5) == first
    assert len(counting.calls) == 1
    os.utime(path, ns=(0, 0))
    assert source.read(5) == first
    assert len(counting.calls) == 2
    build.node("1.105.0", path)
    changed = source.read(5)
    assert isinstance(changed, InstalledVersion)
    assert changed.version == NodeVersion(1, 105)


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    path = script(tmp_path / "storagenode", f"test -e {tmp_path}/ready || exit 3; echo Version: v1.2.3")
    source = BinarySource(path)
    assert isinstance(source.read(5), Failure)
    (tmp_path / "ready").touch()
    assert isinstance(source.read(5), InstalledVersion)


@pytest.mark.slow
def test_a_hanging_program_is_killed_with_all_it_started(tmp_path: Path) -> None:
    binary = script(tmp_path / "storagenode", f"sleep 300 & echo $! $$ >{tmp_path}/pids; wait")
    began = time.monotonic()
    assert failure(binary, 2).reason is FailureReason.TIMEOUT
    assert time.monotonic() - began < 20
    for pid in (tmp_path / "pids").read_text().split():
        assert wait_gone(int(pid))


def test_what_a_program_leaves_behind_is_killed(tmp_path: Path) -> None:
    binary = script(tmp_path / "storagenode", f"sleep 300 & echo $! >{tmp_path}/pid; echo Version: v1.2.3")
    began = time.monotonic()
    assert isinstance(BinarySource(binary).read(60), InstalledVersion)
    assert time.monotonic() - began < 30  # it has our pipe still open
    assert wait_gone(int((tmp_path / "pid").read_text()))


def wait_gone(pid: int) -> bool:
    """Whether a process ends in time; one that nobody has waited for yet has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("text", ["yes", "yes >&2", "head -c 200000 /dev/zero; sleep 60"])
def test_output_is_limited(tmp_path: Path, text: str) -> None:
    began = time.monotonic()
    found = failure(script(tmp_path / "storagenode", text), 50)
    assert found.reason is FailureReason.EXIT_STATUS
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "detail"),
    [("exit 1", "exit status 1"), ("kill -SEGV $$", "signal 11"), ("exit 0", "no line `Version: …`")],
)
def test_a_program_that_fails(tmp_path: Path, text: str, detail: str) -> None:
    assert detail in failure(script(tmp_path / "storagenode", text)).detail


def test_what_is_no_program(tmp_path: Path) -> None:
    assert failure(tmp_path / "none").reason is FailureReason.NOT_FOUND
    assert failure(tmp_path).reason is FailureReason.MALFORMED
    assert failure(script(tmp_path / "plain", "exit 0", 0o644)).reason is FailureReason.DENIED
    (tmp_path / "garbage").write_bytes(b"\x7fELF" + b"\0" * 100)
    (tmp_path / "garbage").chmod(0o755)
    assert failure(tmp_path / "garbage").reason is FailureReason.MALFORMED
    os.mkfifo(tmp_path / "pipe")
    assert failure(tmp_path / "pipe").reason is FailureReason.MALFORMED
    (tmp_path / "loop").symlink_to("loop")
    assert failure(tmp_path / "loop").reason is FailureReason.UNREACHABLE


def test_somebody_still_writing_is_waited_for(tmp_path: Path) -> None:
    binary = build.node("1.104.5", tmp_path / "storagenode")
    with binary.open("r+b"):
        assert os.strerror(errno.ETXTBSY) in failure(binary).detail
    writing = binary.open("r+b")
    threading.Timer(0.2, writing.close).start()
    assert isinstance(BinarySource(binary).read(5), InstalledVersion)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    binary = script(tmp_path / "storagenode", "exit 1")
    failure(binary)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        failure(binary)
        failure(script(tmp_path / "hanging", "sleep 60"), 0.05)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_interpreter_can_read_what_is_run(tmp_path: Path) -> None:
    # The program is run by its descriptor, whatever has its name by then.
    binary = script(tmp_path / "storagenode", "echo Version: v1.2.3")
    descriptor = os.open(binary, os.O_RDONLY)
    binary.unlink()
    try:
        assert run_directly(descriptor, ["version"], 5).stdout == b"Version: v1.2.3\n"
    finally:
        os.close(descriptor)


def test_nothing_is_run_without_time(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        descriptor = os.open("/bin/sleep", os.O_RDONLY)
        try:
            run_directly(descriptor, ["60"], 0)
        finally:
            os.close(descriptor)
    assert subprocess.run(["pgrep", "-P", str(os.getpid()), "storagenode"], capture_output=True).stdout == b""
