"""The machines of the monitoring: processes with a network and an /etc of their own, which end with us."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

from tests.labs import Unavailable, install, require_root, temporary_folder
from tests.labs.network import Network
from tests.labs.systemd import ENVIRONMENT, child

_OWN_ETC = """
mount --make-rprivate /
mount -t tmpfs etc "$0"
mkdir "$0/upper" "$0/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" etc /etc
"""
_STAY = """
ip link set lo up
echo ready
exec sleep infinity
"""


class Machine:
    """A network that begins empty, and files that are the host's but for /etc, whose changes are in memory.

    `beside` another one, it shares the files of that. Whatever is run in it ends with it, and it with the thread that
    starts it.
    """

    network: Network

    def __init__(self, beside: "Machine | None" = None) -> None:
        require_root()
        install({"ip": "iproute2", "openssl": "openssl"})
        self._beside = beside

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = temporary_folder()
            stack.callback(folder.rmdir)
            enter, setup = (self._beside.network.enter, "") if self._beside else ([], _OWN_ETC)
            spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child"]
            self._process = subprocess.Popen(
                [*enter, "setpriv", "--pdeathsig=KILL", "unshare", *spaces, "sh", "-ec", setup + _STAY, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(self._end)
            assert self._process.stdout and self._process.stderr
            if self._process.stdout.readline() != "ready\n":
                raise Unavailable(f"cannot make a machine of namespaces: {self._process.stderr.read()[-500:]}")
            init = child(self._process.pid)
            assert init is not None
            self.pid = init
            self.network = Network(self.pid, mounts=True)
            stack.callback(self.network.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ip(self, *args: str) -> None:
        """Change the network."""
        ip(self.network, *args)

    def link(self, name: str, other: int, other_name: str) -> None:
        """Lay a cable to the network of a process; it is gone when either network is."""
        self.ip("link", "add", name, "type", "veth", "peer", "name", other_name, "netns", str(other))

    def shell(
        self, script: str, *, cwd: Path, env: Mapping[str, str], timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a script there to its end, until a line fails; raises CalledProcessError with what it said."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--wd=.", "--"]
        argv: Sequence[str] = [*enter, "setpriv", "--pdeathsig=KILL", "sh", "-ec", script]
        # A file, not a pipe: ssh's connections that stay for the next task would keep it open.
        with TemporaryFile("w+") as said:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=ENVIRONMENT | dict(env),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=timeout,
                check=False,
            )
            said.seek(0)
            text = said.read()
        if done.returncode:
            failed = subprocess.CalledProcessError(done.returncode, script, text)
            failed.add_note(text[-6000:])
            raise failed
        return subprocess.CompletedProcess(script, 0, text)

    def write(self, path: str, content: str) -> None:
        """Write a file below its /etc, folders included."""
        target = Path(f"/proc/{self.pid}/root{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def read(self, path: str) -> str:
        """Read a file of it."""
        return Path(f"/proc/{self.pid}/root{path}").read_text()


def ip(network: Network, *args: str) -> None:
    """Change a network."""
    subprocess.run([*network.enter, "ip", *args], check=True, capture_output=True, text=True)
