"""Which words of a command line start a storagenode or its updater, and with which flags."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path

_OURS = re.compile(r"storagenode-(exporter|remediate|keeper)")
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Program(StrEnum):
    """The two of Storj's programs that run on a node's host."""

    STORAGENODE = "storagenode"
    UPDATER = "storagenode-updater"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program of Storj's, told to `run`: its absolute path, symbolic links kept, and the words behind it."""

    program: Program
    path: str
    arguments: tuple[str, ...]

    def flag(self, name: str) -> str | None:
        """Return the value of `--name VALUE` or `--name=VALUE`; the last one counts, as it does for the program."""
        value = None
        for word, following in zip_longest(self.arguments, self.arguments[1:]):
            if word == f"--{name}":
                value = following
            elif word.startswith(f"--{name}="):
                value = word.partition("=")[2]
        return value


def recognize(words: Sequence[str]) -> Command | None:
    """Find the program of Storj's that a command line runs, be it behind a wrapper such as `nice -n 5`.

    It is known by its name or by that of the file a symbolic link leads to. What a shell makes of `-c` is not looked
    into, and a script is no program of Storj's whatever its name.
    """
    for place, word in enumerate(words):
        path = word if word.startswith("/") else shutil.which(word, path=_SEARCH_PATH)
        if word.startswith("-") or path is None:
            continue
        name = Path(path).name
        if "storagenode" not in name:
            name = Path(os.path.realpath(path)).name
        if "storagenode" not in name or Path(path).is_dir():
            continue
        arguments = tuple(words[place + 1 :])
        if _OURS.search(name) or "run" not in arguments or _is_script(path):
            return None
        program = Program.UPDATER if Program.UPDATER in name else Program.STORAGENODE
        return Command(program=program, path=path, arguments=arguments)
    return None


def _is_script(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(descriptor, 2) == b"#!"
    except OSError:
        return False
    finally:
        os.close(descriptor)
