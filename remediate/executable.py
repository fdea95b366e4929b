"""What kind of executable a file is: the release asset that fits it, and whether another is of the same kind."""

import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

from exporter.commandline import Program
from exporter.status import InstalledVersion
from remediate.files import Directory

_HEADER = 20
_ELF = b"\x7fELF"
_GO_ARCH = {0x3E: "amd64", 0xB7: "arm64", 0x28: "arm"}
"""ELF machine numbers and Go's names for them; the old binary decides, since a 64-bit kernel may run a 32-bit one."""


class ExecutableError(ValueError):
    """A file that is no executable a storage node could be."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The parts of an ELF header that decide whether a machine can run a file."""

    bits: int
    little_endian: bool
    machine: int

    def __str__(self) -> str:
        return f"{self.bits}-bit ELF for {_GO_ARCH.get(self.machine, f'machine {self.machine:#x}')}"

    def asset(self, program: Program) -> str:
        """Name of the release archive of a program for this kind of executable.

        Raises:
            ExecutableError: upstream releases nothing for it.
        """
        if self.machine not in _GO_ARCH:
            raise ExecutableError(f"no release exists for a {self}")
        return f"{program}_{platform.system().lower()}_{_GO_ARCH[self.machine]}.zip"


def kind(fd: int) -> Kind:
    """Read the header of an open file.

    Raises:
        ExecutableError: not an ELF file.
    """
    header = os.pread(fd, _HEADER, 0)
    if len(header) < _HEADER or not header.startswith(_ELF) or header[4] not in (1, 2) or header[5] not in (1, 2):
        raise ExecutableError(f"not an ELF executable: it begins with {header[:4]!r}")
    (machine,) = struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)
    return Kind(bits=32 * header[4], little_endian=header[5] == 1, machine=machine)


def asset_for(binary: Path, installed: InstalledVersion, program: Program) -> str:
    """Name the release archive of a program for the machine the installed binary is made for.

    Raises:
        OSError: unreadable, or replaced since it said its version.
        ExecutableError: upstream releases nothing for it.
    """
    with Directory(binary.parent) as directory:
        fd = directory.open(binary.name)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != (installed.device, installed.inode):
                raise OSError("was replaced while it was looked at")
            return kind(fd).asset(program)
        finally:
            os.close(fd)
