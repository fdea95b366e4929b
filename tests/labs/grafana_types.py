"""Check TypeScript by the types that Grafana generates of what a board may hold, which it publishes on npm."""

import re
import shutil
import subprocess
from functools import cache as once
from pathlib import Path

from tests.labs import Unavailable, cached, command, say

VERSIONS = ("10", "11", "12", "13")
"""Of Grafana: the newest release of each."""

_PACKAGES = Path(__file__).parent / "grafana_types"
_STRICT = ("--strict", "--noEmit", "--skipLibCheck", "--pretty", "false")
_MODULES = ("--module", "esnext", "--moduleResolution", "bundler", "--preserveSymlinks")
_ERROR = re.compile(r"^(.+)\.ts\((\d+),\d+\): error (.+)$", re.MULTILINE)


def wrong(folder: Path, version: str) -> dict[tuple[str, int], str]:
    """Return what is wrong in a folder's files, by file and line, where `@grafana/schema` is of this version.

    `schema-10` is always that of 10. Raises Unavailable without node, or when npm does not get the packages.
    """
    modules = _modules()
    theirs = folder / "node_modules"
    (theirs / "@grafana").mkdir(parents=True)
    (theirs / "@grafana/schema").symlink_to(modules / f"schema-{version}")
    (theirs / "schema-10").symlink_to(modules / "schema-10")
    compiler = modules / "typescript/bin/tsc"
    argv: list[str | Path] = ["node", compiler, *_STRICT, *_MODULES, *folder.glob("*.ts")]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    found = {(each[1], int(each[2])): each[3] for each in _ERROR.finditer(done.stdout)}
    assert bool(found) == bool(done.returncode), done
    return found


@once
def _modules() -> Path:
    if shutil.which("node") is None:
        raise Unavailable("checking by Grafana's types needs node")
    return cached("grafana-types", _build, (_PACKAGES / "package-lock.json").read_bytes()) / "node_modules"


def _build(folder: Path) -> None:
    say("fetching Grafana's types with npm (once, 30 MB)")
    for listed in _PACKAGES.iterdir():
        shutil.copy(listed, folder)
    command(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
