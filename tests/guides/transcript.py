"""Type what a document says into a bash, and compare what comes with what it shows.

Documents show what one run gave. Both texts are compared after the same replacements: of times, of how long ago
something was, of how wide a column is, and of the machine that an archive is for. `…` in one stands for anything.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Self

from tests.documents import Block

PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.3
_VARYING = {
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?UTC|Z|[+-]\d\d:\d\d)?": "TIME",
    r"@\[\d+(\.\d+)?\]": "@[TIME]",
    r"\b\d+(\.\d+)? ?(s|m|h|d) ago\b": "AGO",
    r"linux_(amd64|arm64|arm)\b": "linux_ARCH",
    r"[ \t]+": " ",
}


def same(shown: str, found: str) -> bool:
    """Tell whether a command has said what the document shows."""
    pieces = [re.escape(piece) for piece in _normal(shown).split("…")]
    return re.fullmatch(".*?".join(pieces), _normal(found), re.DOTALL) is not None


def _normal(text: str) -> str:
    for pattern, instead in _VARYING.items():
        text = re.sub(pattern, instead, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


class Reader:
    """A bash that somebody types a document into; what it has started and not ended is killed with it.

    `instead` is what this reader's machine has for what the document shows: free ports, and his home folder.
    """

    def __init__(
        self, cwd: Path, environment: Mapping[str, str], instead: Mapping[str, str], prefix: tuple[str, ...] = ()
    ) -> None:
        self._instead = instead
        self._said: Queue[str | None] = Queue()
        self._bash = subprocess.Popen(
            [*prefix, "bash", "--noprofile", "--norc"],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        Thread(target=self._listen, daemon=True).start()

    def read(self, block: Block) -> None:
        """Do what a block says: all its lines at once, or its commands one by one, each with what it shows.

        The commands of a block whose runner ends in `-wait` are typed again until they say what is shown.
        """
        if block.language == "sh":
            said, failed = self.enter(block.text)
            assert not failed, f"{block.file}:{block.line}: this has failed: {failed}\n{said}"
            return
        for command, shown in _dialogue(block.text):
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not same(self._here(shown), said := self.enter(command)[0]):
                again = block.runner.endswith("-wait") and time.monotonic() < deadline
                assert again, f"{block.file}:{block.line}: {command}\nshown:\n{self._here(shown)}\nsaid:\n{said}"
                time.sleep(POLL_SECONDS)

    def enter(self, text: str) -> tuple[str, list[str]]:
        """Return what commands say, and those that failed."""
        assert self._bash.stdin is not None
        trap = """trap 'echo "@failed $BASH_COMMAND"' ERR"""
        self._bash.stdin.write(f"{trap}\n{{\n{self._here(text)}\n}} < /dev/null\nprintf '\\n@done\\n'\n")
        self._bash.stdin.flush()
        said: list[str] = []
        while (line := self._next(text)) != "@done\n":
            said.append(line)
        failed = [line for line in said if line.startswith("@failed ")]
        return "".join(line for line in said if line not in failed), failed

    def _next(self, text: str) -> str:
        try:
            line = self._said.get(timeout=PATIENCE_SECONDS)
        except Empty:
            raise TimeoutError(f"does not end: {text}") from None
        assert line is not None, f"bash has ended: {text}"
        return line

    def _here(self, text: str) -> str:
        for shown, ours in self._instead.items():
            text = re.sub(rf"(?<!\w){re.escape(shown)}(?!\w)", ours, text)
        return text

    def _listen(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._said.put(line)
        self._said.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._bash:
            os.killpg(self._bash.pid, signal.SIGKILL)


def _dialogue(text: str) -> list[tuple[str, str]]:
    """Return each command of a `console`, and what follows it."""
    return [
        (command, shown)
        for command, _, shown in (piece.partition("\n") for piece in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:])
    ]
