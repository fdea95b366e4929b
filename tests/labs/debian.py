"""Fetch Debian's packages and unpack them, without installing them."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.labs import Unavailable, command


def unpack(folder: Path, names: Sequence[str], *, release: str | None = None) -> None:
    """Unpack those of the packages that there are: of the host's own apt sources, or of another release of Debian.

    Needs no root: the host's sources, or only its mirror, and its settings are read, its state is let alone. Raises
    Unavailable where there is no apt or nothing to be had.
    """
    if shutil.which("apt-get") is None:
        raise Unavailable(f"without apt-get {' and '.join(names)} cannot be fetched")
    state = Path(tempfile.mkdtemp(dir=folder))
    (state / "lists/partial").mkdir(parents=True)
    (state / "cache/archives/partial").mkdir(parents=True)
    # The host's settings (a proxy, say), less the hooks by which apt would touch the host.
    kept = [line for line in command(["apt-config", "dump"]).splitlines() if "-Invoke" not in line]
    ours: dict[str, str | Path] = {"Dir::Etc::main": "/dev/null", "Dir::Etc::parts": "/dev/null"}
    ours |= {"Dir::State": state, "Dir::State::lists": state / "lists", "Dir::Cache": state / "cache"}
    if release is not None:
        (state / "sources.list").write_text(f"deb {_mirror()} {release} main\n")
        ours |= {"Dir::Etc::sourcelist": state / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
    configuration = state / "apt.conf"
    configuration.write_text("\n".join([*kept, *(f'{key} "{value}";' for key, value in ours.items()), ""]))
    env = {"APT_CONFIG": str(configuration)}
    command(["apt-get", "-q", "update"], env=env)
    known = set(command(["apt-cache", "pkgnames"], env=env).split())
    wanted = [name for name in names if name in known]
    if not wanted:
        raise Unavailable(f"the apt sources have no {' and no '.join(names)}")
    command(["apt-get", "-q", "download", *wanted], env=env, cwd=state)
    for package in state.glob("*.deb"):
        command(["dpkg", "-x", package, folder])
    shutil.rmtree(state)


def _mirror() -> str:
    sites = command(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]).split()
    for site in sites:
        if site.rstrip("/").endswith("/debian"):
            return site
    raise Unavailable("no mirror of Debian is among the apt sources, from which to fetch of another release")
