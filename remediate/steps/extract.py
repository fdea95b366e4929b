"""Unpacking the one program of an archive beside the installed one."""

import errno
import os
import stat
import struct
import zipfile
import zlib
from typing import IO, BinaryIO

from remediate.executable import ExecutableError, Kind, kind
from remediate.files import Directory
from remediate.journal import Outcome
from remediate.steps import StepError

_ENTRY = "storagenode"
_SIZE_LIMIT = 512 << 20
_CHUNK = 256 << 10
"""Measured: with 1 MiB, inflating a release takes a third longer."""
_ENCRYPTED = 0x1
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises for one damaged archive or another."""


def extract(archive: BinaryIO, directory: Directory, name: str, *, like: Kind) -> int:
    """Unpack the program and open it for reading; its mode lets anybody run it, so that a probe without rights can.

    Args:
        archive: the zip file.
        directory: where the installed binary is.
        name: what to call the new one there; an older file of that name is removed.
        like: what kind of executable it must be.

    Returns:
        A descriptor of the unpacked file, the caller's to close.

    Raises:
        StepError: an archive that is not what upstream publishes (the version is to blame), or no room.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            entry = _only_entry(zipped)
            directory.remove(name)
            writing = directory.create(name, 0o755)
            try:
                with zipped.open(entry) as source, os.fdopen(writing, "wb", closefd=False) as target:
                    _inflate(source, target, entry.file_size)
                # the name is looked up again, and could by then be somebody else's file
                reading = directory.open(name)
                if not os.path.samestat(os.fstat(reading), os.fstat(writing)):
                    os.close(reading)
                    raise StepError(Outcome.FAILED, f"{directory.path / name}: was replaced while it was written")
            finally:
                os.close(writing)
    except _DAMAGED as error:
        raise _bad(f"the archive cannot be unpacked: {str(error)[:200]}") from None
    except OSError as error:
        if error.errno != errno.EINVAL or error.filename is not None:
            raise
        raise _bad("the archive cannot be unpacked: it refers to a place outside itself") from None
    try:
        found = kind(reading)
        if found != like:
            raise _bad(f"the archive holds a {found}, the installed one is a {like}")
    except ExecutableError as error:
        os.close(reading)
        raise _bad(f"the archive's program is {error}") from None
    except StepError:
        os.close(reading)
        raise
    return reading


def _only_entry(zipped: zipfile.ZipFile) -> zipfile.ZipInfo:
    entries = zipped.infolist()
    if len(entries) != 1:
        names = ", ".join(repr(each.filename[:60]) for each in entries[:3])
        raise _bad(f"the archive has {len(entries)} entries ({names}), expected only {_ENTRY!r}")
    entry = entries[0]
    kind_bits = stat.S_IFMT(entry.external_attr >> 16)
    if entry.filename != _ENTRY:
        raise _bad(f"the archive holds {entry.filename[:60]!r}, expected {_ENTRY!r}")
    if entry.is_dir() or kind_bits not in (0, stat.S_IFREG):
        raise _bad(f"the archive's {_ENTRY!r} is not a regular file")
    if entry.flag_bits & _ENCRYPTED:
        raise _bad(f"the archive's {_ENTRY!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad(f"the archive's {_ENTRY!r} is compressed by method {entry.compress_type}, expected deflate")
    if entry.file_size > _SIZE_LIMIT:
        raise _bad(f"the archive's {_ENTRY!r} has {entry.file_size} bytes, at most {_SIZE_LIMIT} are taken")
    return entry


def _inflate(source: IO[bytes], target: IO[bytes], announced: int) -> None:
    """Copy what zipfile unpacks: never more than is announced, but perhaps less."""
    size = 0
    while part := source.read(_CHUNK):
        size += len(part)
        target.write(part)
    if size != announced:
        raise _bad(f"the archive's {_ENTRY!r} has {size} bytes of the {announced} it announces")


def _bad(detail: str) -> StepError:
    return StepError(Outcome.BAD_VERSION, detail)
