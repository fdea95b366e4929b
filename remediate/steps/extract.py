"""Unpacking the one program of an archive beside the installed one."""

import errno
import os
import stat
import struct
import zipfile
import zlib
from typing import IO, BinaryIO, cast

from remediate.executable import ExecutableError, Kind, kind
from remediate.files import Directory
from remediate.journal import Outcome
from remediate.steps import StepError

_SIZE_LIMIT = 512 << 20
_CHUNK = 256 << 10
"""Measured: with 1 MiB, inflating a release takes a third longer."""
_ENCRYPTED = 0x1
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises for one damaged archive or another."""


def extract(archive: BinaryIO, directory: Directory, name: str, *, program: str, like: Kind) -> int:
    """Unpack the program and open it for reading; its mode lets anybody run it, so that a probe without rights can.

    Args:
        archive: the zip file.
        directory: where the installed binary is.
        name: what to call the new one there; an older file of that name is removed.
        program: what the one entry of the archive must be called.
        like: what kind of executable it must be.

    Returns:
        A descriptor of the unpacked file, the caller's to close.

    Raises:
        StepError: an archive that is not what upstream publishes (the version is to blame), or no room.
    """
    try:
        with zipfile.ZipFile(cast(IO[bytes], _Sparing(archive))) as zipped:
            entry = _only_entry(zipped, program)
            directory.remove(name)
            writing = directory.create(name, 0o755)
            try:
                with zipped.open(entry) as source, os.fdopen(writing, "wb", closefd=False) as target:
                    _inflate(source, target, entry)
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


class _Sparing:
    """A file of which not much is read at once: zipfile takes the whole list of entries into memory, by the million."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _CHUNK:
            raise _bad(f"the archive's list of entries has {size} bytes, expected that of one entry")
        return self._file.read(size)


def _only_entry(zipped: zipfile.ZipFile, program: str) -> zipfile.ZipInfo:
    entries = zipped.infolist()
    if len(entries) != 1:
        names = ", ".join(repr(each.filename[:60]) for each in entries[:3])
        raise _bad(f"the archive has {len(entries)} entries ({names}), expected only {program!r}")
    entry = entries[0]
    kind_bits = stat.S_IFMT(entry.external_attr >> 16)
    if entry.filename != program:
        raise _bad(f"the archive holds {entry.filename[:60]!r}, expected {program!r}")
    if entry.is_dir() or kind_bits not in (0, stat.S_IFREG):
        raise _bad(f"the archive's {program!r} is not a regular file")
    if entry.flag_bits & _ENCRYPTED:
        raise _bad(f"the archive's {program!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad(f"the archive's {program!r} is compressed by method {entry.compress_type}, expected deflate")
    if entry.file_size > _SIZE_LIMIT:
        raise _bad(f"the archive's {program!r} has {entry.file_size} bytes, at most {_SIZE_LIMIT} are taken")
    return entry


def _inflate(source: IO[bytes], target: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Copy what zipfile unpacks: never more than is announced, but perhaps less."""
    size = 0
    while part := source.read(_CHUNK):
        size += len(part)
        target.write(part)
    if size != entry.file_size:
        raise _bad(f"the archive's {entry.filename!r} has {size} bytes of the {entry.file_size} it announces")


def _bad(detail: str) -> StepError:
    return StepError(Outcome.BAD_VERSION, detail)
