"""The fenced blocks of our documents. What follows ```sh names the test that runs it: ```sh install is run by whoever
asks for `blocks("install")`; tests/test_documents.py holds that somebody does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: `language` is empty without one, and so is `runner`."""

    file: Path
    line: int
    heading: str
    language: str
    runner: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines to run, one that is continued by a backslash as one; of a `console`, those behind `$ `."""
        lines = self.text.replace("\\\n", "").splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        """Of a `console`, each command with what it prints."""
        parts = re.split(r"^\$ ", self.text.replace("\\\n", ""), flags=re.MULTILINE)
        return [(command, said) for command, _, said in (part.partition("\n") for part in parts[1:])]

    @property
    def where(self) -> str:
        """The file, as seen from the repository, and the line."""
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """Return every document that a reader is meant to read."""
    folders = ("docs", "alerts", "grafana", "packaging")
    return [*sorted(ROOT.glob("*.md")), *(path for name in folders for path in sorted((ROOT / name).rglob("*.md")))]


def blocks(runner: str | None = None, file: Path | None = None) -> list[Block]:
    """Return the blocks that this runner runs (all without one), in the order in which they are read."""
    found = [block for path in documents() if file in (None, path) for block in _blocks(path)]
    return [block for block in found if runner in (None, block.runner)]


def _blocks(path: Path) -> Iterator[Block]:
    text = path.read_text()
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", before), re.MULTILINE)
        language, _, runner = match["info"].partition(" ")
        yield Block(
            file=path,
            line=before.count("\n") + 1,
            heading=headings[-1] if headings else "",
            language=language,
            runner=runner.strip(),
            text=re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
        )
