"""What kind of executable a file is."""

from pathlib import Path

import pytest

from exporter.commandline import Program
from remediate.executable import ExecutableError, Kind, kind


@pytest.mark.parametrize(
    ("bits", "machine", "asset"),
    [
        (64, 0x3E, "storagenode_linux_amd64.zip"),
        (64, 0xB7, "storagenode_linux_arm64.zip"),
        (32, 0x28, "storagenode_linux_arm.zip"),
    ],
)
def test_the_asset_of_a_machine(bits: int, machine: int, asset: str) -> None:
    assert Kind(bits=bits, little_endian=True, machine=machine).asset(Program.STORAGENODE) == asset


def test_a_machine_that_nothing_is_released_for() -> None:
    with pytest.raises(ExecutableError, match="no release exists for a 64-bit ELF for machine 0xf3"):
        _ = Kind(bits=64, little_endian=True, machine=0xF3).asset(Program.STORAGENODE)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n" * 9, b"\x7fELF\x03\x01" + bytes(30), b"MZ" * 20])
def test_what_is_no_elf_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "x").open("rb") as file, pytest.raises(ExecutableError, match="not an ELF executable"):
        kind(file.fileno())


def test_a_big_endian_header_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF\x02\x02" + bytes(12) + b"\x00\xb7")
    with (tmp_path / "x").open("rb") as file:
        assert kind(file.fileno()) == Kind(bits=64, little_endian=False, machine=0xB7)


def test_our_own_kind_is_read() -> None:
    with Path("/proc/self/exe").open("rb") as file:
        assert kind(file.fileno()).asset(Program.STORAGENODE).startswith("storagenode_linux_")
