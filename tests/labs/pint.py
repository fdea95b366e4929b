"""Build pint, a linter of Prometheus rules, with Go."""

import shutil
import subprocess
import time
from functools import cache as once
from pathlib import Path

from tests.labs import Unavailable, cached, command, say

_SOURCES = Path(__file__).parent / "pint"


@once
def program() -> Path:
    """Return the path of pint, built into the cache the first time; raises Unavailable without Go or the modules."""
    return cached("pint", _build, (_SOURCES / "go.mod").read_bytes() + (_SOURCES / "go.sum").read_bytes()) / "pint"


def _build(folder: Path) -> None:
    if shutil.which("go") is None:
        raise Unavailable("building pint needs go")
    begin = time.monotonic()
    say("building pint with Go (once)")
    package = "github.com/cloudflare/pint/cmd/pint"
    command(["nice", "go", "build", "-mod=readonly", "-trimpath", "-o", folder / "pint", package], cwd=_SOURCES)
    say(f"built pint in {time.monotonic() - begin:.0f} s")


def pint(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run pint to its end, without asking any Prometheus."""
    return subprocess.run([program(), "--no-color", "--offline", *args], capture_output=True, text=True)
