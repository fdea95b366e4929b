"""Boot a real systemd in a container, with a private network and a private copy of a cached root file system."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.labs import Unavailable, remove_leftovers, temporary_folder
from tests.labs.network import Network
from tests.labs.rootfs import install_wheel, with_dependencies

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
}

_HALT = signal.SIGRTMIN + 4


class Container:
    """A booted Debian; `leader` is its PID 1 as the host sees it, `root` its files, `network` its network.

    Changes are in memory and gone at the end. It ends with the thread that starts it, so start it in the main thread.
    """

    halt_timeout: float = 5
    """How long it may take to halt, in seconds, before it is killed."""

    def __enter__(self) -> Self:
        rootfs = with_dependencies()
        self._folder = temporary_folder()
        self.name = self._folder.name
        self._cgroup = _hierarchies()[0] / self.name
        try:
            for hierarchy in _hierarchies():
                remove_leftovers(hierarchy, _remove_cgroup)
            self._cgroup.mkdir()
        except OSError as error:
            self._folder.rmdir()
            raise Unavailable(f"cannot make a cgroup: {error}") from error
        boot = [sys.executable, "-I", "-S", str(Path(__file__).with_name("boot.py"))]
        boot += [str(self._folder), str(rootfs), str(self._cgroup)]
        nspawn = ["systemd-nspawn", "--boot", "--quiet", "--private-network", "--register=no", "--keep-unit"]
        nspawn += [f"--directory={self._folder}/root", f"--machine={self.name}", "--console=pipe"]
        nspawn += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "systemd.unit=multi-user.target"]
        with tempfile.TemporaryFile() as output:
            self._process = subprocess.Popen(
                [*boot, *nspawn],
                env=ENVIRONMENT | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                self._wait_booted()
            except BaseException as error:
                self.__exit__(None, None, None)
                if not isinstance(error, TimeoutError):
                    raise
                output.seek(0)
                said = output.read().decode(errors="replace")[-1000:]
                raise Unavailable(f"systemd does not boot in a container: {error}: {said}") from error
        self._enter_new()
        return self

    def _enter_new(self) -> None:
        self.root = Path(f"/proc/{self.leader}/root")
        self.bus_address = f"unix:path={self.root}/run/dbus/system_bus_socket"
        self.network = Network(self.leader)

    def reboot(self, *, politely: bool = True) -> None:
        """Boot anew, as `systemctl reboot` does it or as a power cut would; it has a new network then."""
        before = self.leader
        self.network.close()
        self.run(["systemctl", "reboot", *([] if politely else ["--force", "--force"])], check=False)
        deadline = time.monotonic() + 30
        while self._leader() in (None, before):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError("it does not boot again")
            time.sleep(0.01)
        self._wait_booted()
        self._enter_new()

    def _wait_booted(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        state = "nothing"
        while state != "running":
            if time.monotonic() > deadline or self._process.poll() is not None or state == "degraded":
                raise TimeoutError(f"its state is {state}")
            if leader := self._leader():
                self.leader = leader
                # Exits not zero while it boots, and says so.
                state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip() or state
            time.sleep(0.01)

    def _leader(self) -> int | None:
        """Return PID 1 of the container, if it is there by now."""
        nspawn = child(self._process.pid)
        return child(nspawn) if nspawn else None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if hasattr(self, "network"):
            self.network.close()
        for number in (_HALT, signal.SIGKILL):
            if leader := self._leader():
                os.kill(leader, number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(self.halt_timeout)
        for hierarchy in _hierarchies():
            if (hierarchy / self.name).exists():
                _remove_cgroup(hierarchy / self.name)
        self._process.wait()
        self._folder.rmdir()

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout: float = 60,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the container to its end, as root; `env` is added to a clean environment.

        Raises subprocess.CalledProcessError with its output in a note, and subprocess.TimeoutExpired after killing it.
        """
        done = subprocess.run(
            self._enter(argv),
            env=ENVIRONMENT | dict(env or {}),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            failed = subprocess.CalledProcessError(done.returncode, list(argv), done.stdout, done.stderr)
            failed.add_note(f"stdout: {done.stdout[-2000:]}\nstderr: {done.stderr[-2000:]}")
            raise failed
        return done

    def popen(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a program in the container. `kill` of what is returned kills it; for other signals use `signal`."""
        return subprocess.Popen(
            self._enter(argv),
            env=ENVIRONMENT | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _enter(self, argv: Sequence[str | Path]) -> list[str | Path]:
        # nsenter waits outside while its child runs inside, and dies alone: hence the death signal for the child.
        return ["nsenter", f"--target={self.leader}", "--all", "--", "setpriv", "--pdeathsig", "KILL", *argv]

    @staticmethod
    def signal(process: subprocess.Popen[str], number: int) -> None:
        """Send a signal to a program that `popen` started."""
        inside = child(process.pid)
        if inside is None:
            raise ProcessLookupError(f"{process.args!r} is not running")
        os.kill(inside, number)

    def path(self, path: str | Path) -> Path:
        """Return the host's path of a file of the container; symbolic links in it are resolved by the host."""
        return self.root / Path(path).relative_to("/")

    def write(self, path: str | Path, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of the container, its folders included."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()  # it leads to a file of the host: a masked unit to its /dev/null
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def put(self, source: Path, path: str | Path) -> None:
        """Copy a file with its mode, or a folder, of the host to `path` of the container; owner is root."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
        else:
            target.unlink(missing_ok=True)  # a program that runs cannot be written to
            shutil.copy(source, target)

    def systemctl(self, *args: str, check: bool = True) -> str:
        """Run systemctl and return what it prints."""
        return self.run(["systemctl", *args], check=check).stdout

    def unit(self, name: str, content: str, *, enable: bool = True) -> None:
        """Write a unit file and make systemd read it.

        It is enabled by default: systemd forgets how a unit ended that it has no reason to keep loaded.
        """
        self.write(f"/etc/systemd/system/{name}", content)
        self.systemctl("daemon-reload")
        if enable:
            self.systemctl("enable", "--quiet", name)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit, all of them if none is named."""
        only = [f"--property={','.join(properties)}"] if properties else []
        lines = self.systemctl("show", *only, unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, unit: str) -> str:
        """Return what a unit has logged, and systemd about it."""
        self.run(["journalctl", "--sync"])
        return self.run(["journalctl", "--no-pager", "--output=cat", f"--unit={unit}"]).stdout

    def wait_state(self, unit: str, active: str, sub: str | None = None, timeout: float = 45) -> dict[str, str]:
        """Wait for an ActiveState (and SubState) and return all properties then; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.show(unit)
            if found["ActiveState"] == active and sub in (None, found["SubState"]):
                return found
            if time.monotonic() > deadline:
                seen = f"{found['ActiveState']}/{found['SubState']}"
                raise TimeoutError(f"{unit} is {seen}, not {active}/{sub or '*'}, after {timeout} s")
            time.sleep(0.02)

    def install_project(self) -> None:
        """Install the work tree's wheel in /opt/storagenode-keeper, as a user would; its programs are in bin there."""
        install_wheel(self.root)


def child(pid: int) -> int | None:
    """Return the only child of a process, if it has one by now."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def _hierarchies() -> list[Path]:
    """Return where cgroup2 is mounted, and then, on older hosts, where nspawn mirrors it for systemd in cgroup1."""
    root = Path("/sys/fs/cgroup")
    return [root] if (root / "cgroup.procs").exists() else [root / "unified", root / "systemd"]


def _remove_cgroup(cgroup: Path) -> None:
    """Kill whatever is left in a container, and remove its cgroups."""
    if (cgroup / "cgroup.kill").exists():
        (cgroup / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 5
        while "populated 1" in (cgroup / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
    for path, _, _ in os.walk(cgroup, topdown=False):
        Path(path).rmdir()
