"""An archive can be wrong in more ways than anybody lists: whatever it is, one outcome and nothing left behind."""

import os
import resource
import stat
import struct
import zipfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from remediate.executable import Kind
from remediate.files import Directory
from remediate.journal import Outcome
from remediate.steps import StepError
from remediate.steps.extract import extract
from tests.remediate.conftest import peak

NATIVE = Kind(bits=64, little_endian=True, machine=0x3E)
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 0x3E) + b"the program" * 20


def archive(name: str = "storagenode", content: bytes = ELF, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(zipfile.ZipInfo(name, date_time=(2026, 1, 2, 3, 4, 6)), content, compress_type=method)
    return buffer.getvalue()


GOOD = archive()


def outcome(content: bytes, folder: Path) -> Outcome | None:
    """Extract, and say what came of it; None when it went well."""
    before = len(os.listdir("/proc/self/fd"))
    with Directory(folder) as directory, TemporaryFile() as file:
        file.write(content)
        try:
            fd = extract(file, directory, "staged", program="storagenode", like=NATIVE)
        except StepError as error:
            assert "\n" not in error.detail
            assert len(error.detail) < 300
            return error.outcome
        else:
            assert os.read(fd, 1 << 20) == ELF
            os.close(fd)
            return None
        finally:
            directory.remove("staged")
            assert len(os.listdir("/proc/self/fd")) == before + 2, "no descriptor is left open"


def test_a_good_archive(tmp_path: Path) -> None:
    (tmp_path / "staged").symlink_to("/etc/passwd")
    with Directory(tmp_path) as directory:
        before = os.umask(0o077)
        fd = extract(BytesIO(GOOD), directory, "staged", program="storagenode", like=NATIVE)
        os.umask(before)
        status = os.fstat(fd)
        assert stat.S_IMODE(status.st_mode) == 0o755
        assert (tmp_path / "staged").stat().st_ino == status.st_ino
        os.close(fd)


@pytest.mark.parametrize(
    "content",
    [
        archive("storagenode.exe"),
        archive("../storagenode"),
        archive("/usr/bin/storagenode"),
        archive("bin/storagenode"),
        archive(content=b""),
        archive(content=ELF[:10]),
        archive(content=b"\x7fELF\x01" + ELF[5:]),
        archive(content=b"\x7fELF\x02\x02" + ELF[6:]),
        archive(method=zipfile.ZIP_LZMA),
        archive(method=zipfile.ZIP_BZIP2),
        b"",
        b"PK\x05\x06" + bytes(18),
        GOOD[:50],
        b"no archive",
    ],
)
def test_what_upstream_does_not_publish_is_the_versions_fault(tmp_path: Path, content: bytes) -> None:
    assert outcome(content, tmp_path) is Outcome.BAD_VERSION


def test_an_entry_that_is_shorter_than_it_announces(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    for at in (22, GOOD.rindex(b"PK\x01\x02") + 24):
        struct.pack_into("<I", content, at, len(ELF) + 1)
    assert outcome(bytes(content), tmp_path) is Outcome.BAD_VERSION


def test_a_stored_entry_is_as_good(tmp_path: Path) -> None:
    assert outcome(archive(method=zipfile.ZIP_STORED), tmp_path) is None


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@example([(GOOD.rindex(b"PK\x01\x02") + 9, 8)])  # a name that says it is UTF-8
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_does_more_than_fail(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for at, value in changes:
        content[at] = value
    assert outcome(bytes(content), tmp_path) in (None, Outcome.BAD_VERSION)


HEAD = GOOD.rindex(b"PK\x01\x02")


@given(st.integers(HEAD, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_the_directory_does_more_than_fail(tmp_path: Path, at: int, new: bytes) -> None:
    content = bytearray(GOOD)
    content[at : at + len(new)] = new
    assert outcome(bytes(content), tmp_path) in (None, Outcome.BAD_VERSION)


MEMORY = 8 << 20


def crowded(entries: int, *, zip64: bool) -> bytes:
    """An archive that is nothing but a list of entries."""
    listed = (b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x") * entries
    start = GOOD[:100]
    if not zip64:
        return start + listed + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(listed), len(start), 0)
    end = b"PK\x06\x06" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, entries, entries, len(listed), len(start))
    where = b"PK\x06\x07" + struct.pack("<IQI", 0, len(start) + len(listed), 1)
    most = struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return start + listed + end + where + b"PK\x05\x06" + most


@pytest.mark.parametrize("zip64", [False, True])
def test_a_list_of_entries_without_end_is_not_taken_into_memory(tmp_path: Path, zip64: bool) -> None:
    content = crowded(200_000, zip64=zip64)
    peak()
    before = peak()
    assert outcome(content, tmp_path) is Outcome.BAD_VERSION
    assert peak() - before < MEMORY


def test_a_list_of_a_few_entries_is_read(tmp_path: Path) -> None:
    for zip64 in (False, True):
        with Directory(tmp_path) as directory, pytest.raises(StepError, match="has 5 entries"):
            extract(BytesIO(crowded(5, zip64=zip64)), directory, "staged", program="storagenode", like=NATIVE)


def bomb(size: int) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("storagenode", "w") as entry:
        for _ in range(size >> 20):
            entry.write(bytes(1 << 20))
    return buffer.getvalue()


def test_a_bomb_costs_no_memory_and_no_more_room_than_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bomb(64 << 20)
    peak()
    before = peak()
    assert outcome(content, tmp_path) is Outcome.BAD_VERSION
    assert peak() - before < MEMORY
    monkeypatch.setattr("remediate.steps.extract._SIZE_LIMIT", 8 << 20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        assert outcome(content, tmp_path) is Outcome.BAD_VERSION, "nothing is unpacked of what is too large"
        at = content.rindex(b"PK\x01\x02") + 24
        lying = content[:at] + struct.pack("<I", 1000) + content[at + 4 :]
        assert outcome(lying, tmp_path) is Outcome.BAD_VERSION, "no more than it says"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room_is_not_the_versions_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("remediate.steps.extract._inflate", full)
    with Directory(tmp_path) as directory, pytest.raises(OSError, match="No space left"):
        extract(BytesIO(GOOD), directory, "staged", program="storagenode", like=NATIVE)
