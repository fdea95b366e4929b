"""The variables that systemd gives a service from files, `EnvironmentFile=`, read as systemd reads them."""

import glob
import re
from collections.abc import Iterator, Sequence

from exporter.nodefiles import read_regular

_LARGEST_BYTES = 512 * 1024
_BLANK = re.compile(r"[ \t\r\n]*(?:[#;][^\r\n]*[ \t\r\n]*)*")
_NAME = re.compile(r"(.[^\r\n=]*)(=?)", re.DOTALL)
_PIECE = re.compile(
    r"""[ \t]*(?: '(?P<single>[^']*)'?
                | "(?P<double>(?:[^"\\]|\\.)*)\\?"?
                | (?P<bare>(?:[^\\\r\n]|\\.|\\\Z)*) )""",
    re.DOTALL | re.VERBOSE,
)
_QUOTED_ESCAPE = re.compile(r'\\(?:\n|(["\\`$]))')
_BARE = re.compile(r"\\(?:[\r\n]|(?P<escaped>[^\r\n]))?|(?P<plain>[^\\]+)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variables(files: Sequence[tuple[str, bool]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables in files, and what could not be read and why; of a variable given twice the later counts.

    A path may be a pattern; with each goes whether it may be missing.
    """
    found: dict[str, str] = {}
    unread: list[str] = []
    for pattern, optional in files:
        for path in sorted(glob.glob(pattern)) or [pattern]:  # noqa: PTH207  (as glob(3) does it)
            try:
                found |= parse(read_regular(path, _LARGEST_BYTES))
            except FileNotFoundError as error:
                if not optional:
                    unread.append(f"{path}: {error.strerror}")
            except OSError as error:
                unread.append(f"{path}: {error.strerror}")
            except ValueError as error:
                unread.append(f"{path}: {error}")
    return found, tuple(unread)


def parse(content: bytes) -> dict[str, str]:
    """Read assignments, one a line but for quoted and escaped line ends, as systemd does (src/basic/env-file.c).

    A comment ends with its line, as it does since systemd 254; before, one that ends in a backslash goes on.

    Raises:
        ValueError: systemd would not take the file either.
    """
    if b"\0" in content:
        raise ValueError("contains a zero byte")
    found = list(_assignments(content.decode(errors="surrogateescape")))
    for name, value in found:
        f"{name}={value}".encode()  # what is not UTF-8 may stand in a comment alone
    return {name: value for name, value in found if _VARIABLE.fullmatch(name)}


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    at = _end(_BLANK, text, 0)
    while name := _NAME.match(text, at):
        at = name.end()
        if name[2]:
            value = ""
            while piece := _PIECE.match(text, at):
                at = piece.end()
                if piece["bare"] is not None:  # up to the line's end: quotes further on are letters like others
                    value += _unescaped(piece["bare"])
                    break
                value += piece["single"] or _QUOTED_ESCAPE.sub(r"\1", piece["double"] or "")
            yield name[1].rstrip(" \t"), value
        at = _end(_BLANK, text, at)


def _unescaped(bare: str) -> str:
    parts = list(_BARE.finditer(bare))
    texts = [part["escaped"] or part["plain"] or "" for part in parts]
    if parts and parts[-1]["plain"]:
        texts[-1] = texts[-1].rstrip(" \t")
    return "".join(texts)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None, "it may match nothing"
    return found.end()
