"""Start the real parts that the tests, the demo and the benchmarks run on."""

import fcntl
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class Unavailable(Exception):
    """Say why a lab cannot start here; tests/conftest.py skips on it, or fails where REQUIRE_LABS=1."""


TIED = ["setpriv", "--pdeathsig=KILL"]
"""Before a command: it is killed when the thread that started it ends, in whatever way."""


def say(line: str) -> None:
    """Tell the person who waits what takes so long."""
    print(f"labs: {line}", file=sys.stderr, flush=True)


def cache() -> Path:
    """Return the folder for what is slow to make: $XDG_CACHE_HOME/storagenode-keeper."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storagenode-keeper"


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock that other processes with the same cache respect; wait for it as long as it takes."""
    path = cache() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, build: Callable[[Path], None], made_of: bytes = b"") -> Path:
    """Return the folder `name` of the cache, made by `build` in a temporary folder if it is not there yet.

    What it is made of, where that changes, is part of its name.
    """
    if made_of:
        name = f"{name}-{hashlib.sha256(made_of).hexdigest()[:8]}"
    path = cache() / name
    if not path.exists():
        with lock(name):
            if not path.exists():
                for abandoned in path.parent.glob(f"{path.name}.????????"):  # by a build that was killed
                    shutil.rmtree(abandoned)
                unfinished = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
                unfinished.chmod(0o755)
                try:
                    build(unfinished)
                    unfinished.rename(path)
                except BaseException:
                    shutil.rmtree(unfinished, ignore_errors=True)
                    raise
    return path


_names = (f"storagenode-keeper-{os.getpid()}-{number}" for number in itertools.count(1))


def temporary_folder() -> Path:
    """Make a folder that is removed when the next one is made after we were killed; else whoever asked removes it."""
    place = Path(tempfile.gettempdir())
    remove_leftovers(place, lambda path: shutil.rmtree(path, ignore_errors=True))
    folder = place / next(_names)
    folder.mkdir()
    return folder


def remove_leftovers(place: Path, remove: Callable[[Path], None]) -> None:
    """Remove from a folder what processes that are no more named after a temporary folder of theirs."""
    with lock("leftovers"):
        for path in place.glob("storagenode-keeper-*"):
            owner = re.fullmatch(r"storagenode-keeper-(\d+)-\d+", path.name)
            if owner and not Path("/proc", owner[1]).exists():
                remove(path)


def command(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a step of building a lab and return its output; `env` is added to ours.

    Raises Unavailable, with the end of what the command said, when it fails: no network, no space, no right.
    """
    try:
        done = subprocess.run(
            argv,
            env=os.environ | (env or {}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{argv[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr.strip() or error.stdout.strip())[-500:].split())
        raise Unavailable(f"{' '.join(map(str, argv))}: exit {error.returncode}: {said}") from error
    return done.stdout


def require_root() -> None:
    """Raise Unavailable unless we are root."""
    if os.geteuid() != 0:
        raise Unavailable("needs root")


def install(programs: Mapping[str, str]) -> None:
    """Install the Debian packages (values) whose programs (keys) are not on PATH; needs root for that."""
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0:
        raise Unavailable(f"needs the packages {' '.join(missing)}, or root to install them")
    with lock("apt"):
        say(f"installing {' '.join(missing)} with apt-get")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        apt_get = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]
        command([*apt_get, "update"], env=quiet)
        command([*apt_get, "install", "--yes", "--no-install-recommends", *missing], env=quiet)
