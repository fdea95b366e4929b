"""Make the root file systems of the containers, once."""

import atexit
import platform
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.labs import Unavailable, cached, command, install, require_root, say, temporary_folder

REPOSITORY = Path(__file__).parents[2]
VENV = Path("/opt/storagenode-keeper")

_PACKAGES = ["systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "strace", "openssh-server"]
_UNWANTED = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "ssh.service",
]


@once
def base() -> Path:
    """Return a minimal Debian of the host's release with systemd and Python, made by debootstrap.

    Raises Unavailable without root, on a host that is not Debian, and without its mirror.
    """
    require_root()
    install({"systemd-nspawn": "systemd-container", "debootstrap": "debootstrap"})
    try:
        release = platform.freedesktop_os_release()
        suite = release["VERSION_CODENAME"]
    except (OSError, KeyError) as error:
        raise Unavailable("needs a Debian release as host, for its mirror and its keys") from error
    if release["ID"] != "debian":
        raise Unavailable(f"needs Debian as host, for its mirror and its keys, and this is {release['ID']}")

    def build(folder: Path) -> None:
        say(f"making a root file system of {suite} with debootstrap (once)")
        wanted = ["Created-By: Packages", "Component: main", f"Codename: {suite}"]
        mirrors = command(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()
        if not mirrors:
            raise Unavailable(f"apt's sources name no mirror of {suite}")
        include = f"--include={','.join(_PACKAGES)}"
        command(["debootstrap", "--variant=minbase", include, suite, folder, mirrors[0]])
        shutil.rmtree(folder / "var/cache/apt")
        shutil.rmtree(folder / "var/lib/apt/lists")
        for unit in _UNWANTED:
            (folder / "etc/systemd/system" / unit).symlink_to("/dev/null")
        # Without one, every boot would be a first boot.
        (folder / "etc/machine-id").write_text("5707a9e40de5707a9e40de5707a9e40d\n")

    return cached(f"rootfs/{suite}", build, " ".join([*_PACKAGES, *_UNWANTED]).encode())


@once
def with_dependencies() -> Path:
    """Return `base` with a venv in /opt/storagenode-keeper that has what the project depends on."""
    needs: list[str] = _project()["project"]["dependencies"]
    root = base()

    def build(folder: Path) -> None:
        say("fetching the project's dependencies for the containers (once)")
        command(["cp", "--archive", "--reflink=auto", f"{root}/.", folder])
        target = f"--target={folder / site_packages(root)}"
        command([*_pip(), "install", "-q", target, "--no-compile", *_wheels_for(root), *needs])
        command(["chroot", folder, "python3", "-m", "venv", "--without-pip", VENV])
        command(["chroot", folder, "python3", "-m", "compileall", "-q", VENV])

    return cached(f"rootfs/{root.name}", build, " ".join(needs).encode())


@once
def wheelhouse() -> Path:
    """Return a folder with the wheels that `pip install .` needs in a container: dependencies, and what builds ours."""
    needs: list[str] = [*_project()["project"]["dependencies"], *_project()["build-system"]["requires"]]
    root = base()

    def build(folder: Path) -> None:
        say("fetching what `pip install` needs in the containers (once)")
        command([*_pip(), "download", "-q", f"--dest={folder}", *_wheels_for(root), *needs])

    return cached(f"wheelhouse/{root.name}", build, " ".join(needs).encode())


def _project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def _wheels_for(root: Path) -> list[str]:
    """Ask pip for wheels: the container's Python need not be ours, and it has no network."""
    python = site_packages(root).parent.name.removeprefix("python")
    wheels = [f"--platform=manylinux_2_{minor}_{platform.machine()}" for minor in (17, 28, 34)]
    return [*wheels, "--only-binary=:all:", f"--python-version={python}"]


def site_packages(root: Path) -> Path:
    """Return where the venv of a root file system has its packages, relative to the root."""
    return Path(VENV, "lib", (root / "usr/bin/python3").readlink().name, "site-packages").relative_to("/")


@once
def wheel() -> Path:
    """Return the project's wheel, built from the work tree as it is; it lasts as long as this process."""
    folder = temporary_folder()
    atexit.register(shutil.rmtree, folder)
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    argv = [*_pip(), "wheel", "-q", "--no-deps", *isolation, f"--wheel-dir={folder}", str(REPOSITORY)]
    subprocess.run(argv, check=True, stdout=sys.stderr)
    return next(folder.glob("*.whl"))


def install_wheel(root: Path) -> None:
    """Unpack the project's wheel in the venv of a root file system and write its console scripts."""
    with zipfile.ZipFile(wheel()) as archive:
        archive.extractall(root / site_packages(root))
        entry_points = next(name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        scripts = ConfigParser()
        scripts.read_string(archive.read(entry_points).decode())
    for name, entry in scripts["console_scripts"].items():
        module, function = entry.split(":")
        script = root / VENV.relative_to("/") / "bin" / name
        script.write_text(f"#!{VENV}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        script.chmod(0o755)


def _pip() -> list[str]:
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if pip := shutil.which("pip3"):
        return [pip]
    raise Unavailable("needs pip")
