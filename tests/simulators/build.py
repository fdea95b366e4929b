"""Build simulated storagenode executables of any version, and the release archives they come in."""

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import assert_never

SOURCE = Path(__file__).with_name("node.c")
STAMP = b"@simulated-storagenode-stamp@"
STAMP_BYTES = 512  # of `stamp` in node.c
ZIG = "ziglang>=0.13"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
ARCH = MACHINES.get(platform.machine(), "arm")
ASSET = f"storagenode_linux_{ARCH}.zip"
ELF_MACHINE_OFFSET = 18
ELF_AMD64, ELF_ARM64 = 0x3E, 0xB7


class BuildError(Exception):
    """No compiler on this machine could build the simulated node."""


class BadArchive(StrEnum):
    """A way in which a release archive can be wrong."""

    TWO_ENTRIES = "two-entries"
    EMPTY = "empty"
    SYMLINK = "symlink"
    DIRECTORY = "directory"
    ENCRYPTED = "encrypted"
    WRONG_MACHINE = "wrong-machine"
    NOT_ELF = "not-elf"
    DECLARES_LESS = "declares-less"
    DECLARES_MORE = "declares-more"
    BAD_CRC = "bad-crc"
    TRUNCATED = "truncated"


def cache_dir() -> Path:
    """Return the folder in which compiled programs are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "storagenode-keeper" / "simulators"


def compilers(scratch: str) -> Iterator[list[str]]:
    """Return the compilers to try, in order; taking the last one, a Python package, installs it in a scratch folder.

    Raises BuildError.
    """
    found = [path for name in ("cc", "gcc") if (path := shutil.which(name))]
    yield from ([path, "-static"] for path in found)
    yield from ([path] for path in found)
    print(f"simulators: no C compiler works here; installing {ZIG} for a moment", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", scratch, ZIG]
    if subprocess.run(pip, stdout=subprocess.DEVNULL).returncode:
        raise BuildError(f"no C compiler (cc, gcc) works, and this failed: {' '.join(pip)}")
    architecture, abi = ("arm", "musleabihf") if ARCH == "arm" else (platform.machine(), "musl")
    yield [f"{scratch}/ziglang/zig", "cc", "-static", "-target", f"{architecture}-linux-{abi}"]


@cache
def compiled() -> Path:
    """Compile node.c unless that was done before, and return the unstamped executable.

    Raises BuildError.
    """
    root = cache_dir()
    folder = root / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = folder / "node"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    with (root / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=root) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program.exists():
            return program
        staged = folder / "node.new"
        for compiler in compilers(scratch):
            command = [*compiler, "-std=c99", "-Os", "-s", "-o", str(staged), str(SOURCE)]
            environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": f"{scratch}/cache"}
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            if result.returncode == 0:
                return staged.rename(program)
            problems.append(f"{' '.join(command)}: {result.stderr.strip()}")
    raise BuildError("cannot compile the simulated node:\n" + "\n".join(problems))


def node(version: str, path: Path, *, release: bool = True, misbehave: str = "", pad: int = 0) -> Path:
    """Write a simulated storagenode of a version to a path, as a new file, and return the path.

    `misbehave` is what the `version` command does instead: `hang`, `exit1`, `endless`, `says:X.Y.Z`, `in-place`
    (`exit1` where the program is called storagenode, and lies in a folder); or first:
    `read:FILE`, `connect:ADDRESS:PORT` (prints the result, and exits with 7 if the file or address could be reached);
    with `crash`, `run` exits with 1 at once, and with `exec:FILE` it is that program, which is told the version as
    `--release`. `pad` is a number of random bytes to append.
    Raises BuildError.
    """
    stamp = STAMP + f"{version}\n{'release' if release else 'dev'}\n{misbehave}\n".encode()
    if len(stamp) >= STAMP_BYTES or len(misbehave.split()) > 1:
        raise ValueError(f"does not fit the stamp: {version!r}, {misbehave!r}")
    program = bytearray(compiled().read_bytes())
    at = program.index(STAMP)
    program[at : at + STAMP_BYTES] = stamp.ljust(STAMP_BYTES, b"\0")
    # A new inode each time: a running program cannot be written to.
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("wb") as file:
        file.write(program)
        file.write(os.urandom(pad))
    staged.chmod(0o755)
    return staged.replace(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archive(binary: Path, zip_path: Path, entry: str = "storagenode") -> str:
    """Write a release archive with one deflated entry, and return its SHA-256; folders are made as needed."""
    write_entries(zip_path, [(regular(entry), binary.read_bytes())])
    return sha256(zip_path)


def bad_archive(kind: BadArchive, binary: Path, zip_path: Path, entry: str = "storagenode") -> str:
    """Write a release archive of a binary that is wrong in one way, and return its SHA-256."""
    program = binary.read_bytes()
    entries = [(regular(entry), program)]
    match kind:
        case BadArchive.TWO_ENTRIES:
            entries.append((regular("README"), b"read me"))
        case BadArchive.EMPTY:
            entries = []
        case BadArchive.SYMLINK:
            entries = [(special(entry, stat.S_IFLNK), b"/etc/passwd")]
        case BadArchive.DIRECTORY:
            entries = [(special(f"{entry}/", stat.S_IFDIR), b"")]
        case BadArchive.WRONG_MACHINE:
            (machine,) = struct.unpack_from("<H", program, ELF_MACHINE_OFFSET)
            other = struct.pack("<H", ELF_AMD64 if machine == ELF_ARM64 else ELF_ARM64)
            entries = [(regular(entry), program[:ELF_MACHINE_OFFSET] + other + program[ELF_MACHINE_OFFSET + 2 :])]
        case BadArchive.NOT_ELF:
            entries = [(regular(entry), b"#!/bin/sh\nexec echo 'Release build'\n")]
        case _:
            pass  # those are damaged below, once written
    write_entries(zip_path, entries)
    damage(kind, zip_path, len(program))
    return sha256(zip_path)


def regular(name: str) -> zipfile.ZipInfo:
    return special(name, stat.S_IFREG)


def special(name: str, file_type: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(2026, 1, 2, 3, 4, 6))
    info.external_attr = (file_type | 0o755) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def write_entries(zip_path: Path, entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(zip_path, "w") as file:
        for info, content in entries:
            file.writestr(info, content)


def damage(kind: BadArchive, zip_path: Path, size: int) -> None:
    """Patch a one-entry archive in place: the offsets are those of the ZIP local and central headers."""
    content = bytearray(zip_path.read_bytes())
    central = content.rfind(b"PK\x01\x02")
    match kind:
        case BadArchive.ENCRYPTED:
            content[6] |= 1
            content[central + 8] |= 1
        case BadArchive.DECLARES_LESS | BadArchive.DECLARES_MORE:
            declared = size // 2 if kind is BadArchive.DECLARES_LESS else 0xFFFFFFF0
            struct.pack_into("<I", content, 22, declared)
            struct.pack_into("<I", content, central + 24, declared)
        case BadArchive.BAD_CRC:
            content[14] ^= 0xFF
            content[central + 16] ^= 0xFF
        case BadArchive.TRUNCATED:
            del content[len(content) // 2 :]
        case (
            BadArchive.TWO_ENTRIES
            | BadArchive.EMPTY
            | BadArchive.SYMLINK
            | BadArchive.DIRECTORY
            | BadArchive.WRONG_MACHINE
            | BadArchive.NOT_ELF
        ):
            return
        case _:
            assert_never(kind)
    zip_path.write_bytes(content)


def main() -> None:
    """Build what a person asks for; `--release` lays it out as the download host publishes it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulators.build", description=__doc__)
    parser.add_argument("version", help="X.Y.Z")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--program", type=Path, metavar="FILE", help="write the executable there")
    place.add_argument("--release", type=Path, metavar="FOLDER", help=f"write FOLDER/X.Y.Z/{ASSET}")
    options = parser.parse_args()
    if options.program:
        options.program.parent.mkdir(parents=True, exist_ok=True)
        node(options.version, options.program.resolve())
        return
    with tempfile.TemporaryDirectory() as scratch:
        program = node(options.version, Path(scratch, "storagenode"))
        archive(program, options.release / options.version / ASSET)


if __name__ == "__main__":
    main()
