"""docs/tutorial.md, typed in from its first block to its last, by somebody who is not root and has an empty home."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks
from tests.e2e.site import wait
from tests.guides.transcript import Reader
from tests.labs import Unavailable, cache, cached, command
from tests.labs.network import HOST
from tests.labs.prometheus import program
from tests.simulators import build

TUTORIAL = ROOT / "docs/tutorial.md"
PORTS = sorted(set(re.findall(r"\b29\d{3}\b", TUTORIAL.read_text())))
NOBODY = 65534
PATH = "/usr/local/bin:/usr/bin:/bin"
PARTS = ("alerts", "exporter", "remediate", "tests", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of somebody's who is not root: a copy of the repository, an empty home, and a cache."""
    with tempfile.TemporaryDirectory(prefix="storagenode-keeper-reader-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "repository").mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")  # others write there meanwhile
                shutil.copytree(ROOT / part, folder / "repository" / part, ignore=ignored)
            else:
                shutil.copy(ROOT / part, folder / "repository" / part)
        shutil.copytree(_wheels(), folder / "wheels")
        (folder / "home").mkdir()
        (folder / "cache/storagenode-keeper").mkdir(parents=True)
        yield folder


def reader(place: Path, ports: dict[str, str]) -> Reader:
    home = place / "home"
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": PATH,
        "XDG_CACHE_HOME": str(place / "cache"),
        "PIP_FIND_LINKS": str(place / "wheels"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_COMPILE": "1",  # or half of the test is that
    }
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.geteuid() == 0 else ()
    return Reader(place / "repository", environment, {**ports, "/home/you": str(home)}, nobody)


@pytest.mark.prometheus
def test_a_node_dies_of_old_age_and_comes_back(place: Path) -> None:
    kept = place / "cache/storagenode-keeper"
    compiled = build.compiled()
    (kept / compiled.relative_to(cache())).parent.mkdir(parents=True)
    shutil.copy(compiled, kept / compiled.relative_to(cache()))
    if program("prometheus-alertmanager").is_relative_to(cache()):
        subprocess.run(["cp", "-a", "--reflink=auto", cache() / "prometheus", kept], check=True)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", place], check=True)
    ports = {port: str(HOST.free_port()) for port in PORTS}
    steps = [*blocks("tutorial-install"), *blocks("tutorial"), *blocks("tutorial-wait")]
    with reader(place, ports) as person:
        try:
            for step in sorted(steps, key=lambda step: step.line):
                person.read(step)
        finally:
            _end_node(place / "home/storj-tutorial/node.pid")
        wait(lambda: not any(map(_listens, ports.values())), "everything has ended")
        assert list((place / "home").iterdir()) == []


def _wheels() -> Path:
    """Return a folder with what `pip install` of this repository needs, so that no test depends on the network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needs = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    (python,) = command(["sh", "-c", "command -v python3"], env={"PATH": PATH}).split()
    version = command([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    if tuple(map(int, version.split("."))) < (3, 11):
        raise Unavailable(f"needs a Python 3.11 for everybody, and {python} is {version}")

    def download(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            command([python, "-m", "venv", scratch])
            command([f"{scratch}/bin/pip", "download", "--quiet", f"--dest={folder}", *needs])

    return cached(f"wheelhouse/python{version}", download, " ".join(needs).encode())


def _end_node(pid_file: Path) -> None:
    """End the node that the worker has started in a session of its own, if the tutorial has not come so far."""
    if pid_file.exists():
        with suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _listens(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0
