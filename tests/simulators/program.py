"""Run a simulated server as a process of its own, control it, and read what it was asked."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from tests.labs import TIED

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the control file of any server says; a field that a file leaves out has its default."""

    behaviour: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request a server got; status, bytes and the ends are None while it is still being answered.

    `time` and `done` are Unix times, `monotonic` and `done_monotonic` the system's monotonic clock, all in seconds.
    """

    id: int
    method: str
    path: str
    time: float
    monotonic: float
    status: int | None = None
    bytes: int | None = None
    done: float | None = None
    done_monotonic: float | None = None


C = TypeVar("C", bound=Control)


class Program(Generic[C]):
    """A simulated server in a process of its own; a context manager.

    `prefix` is put before the command: `["nsenter", "-t", PID, "-n"]` runs it in a container's network.
    After `stop`, `start` listens on the same address again, with the same control and log.
    """

    def __init__(
        self, module: str, control: C, *, arguments: Sequence[str] = (), address: str, prefix: Sequence[str]
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="simulator-")
        self._control_file = Path(self._folder.name, "control.json")
        self._log = Path(self._folder.name, "requests.jsonl")
        self._command = [*prefix, *TIED, sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.address = address
        self.control = control
        self.url = ""
        self.set()

    def set(self, **changes: str) -> None:
        """Change fields of the control file, for every request that begins after this."""
        self.control = replace(self.control, **changes)
        staged = self._control_file.with_suffix(".new")
        staged.write_text(json.dumps(asdict(self.control)))
        staged.replace(self._control_file)

    def requests(self, containing: str = "") -> list[Request]:
        """Return the requests got so far whose path contains a text, the earliest first."""
        found: dict[int, dict[str, object]] = {}
        for line in self._log.read_text().splitlines() if self._log.exists() else []:
            fields = json.loads(line)
            found.setdefault(fields["id"], {}).update(fields)
        requests = [Request(**fields) for fields in found.values()]  # type: ignore[arg-type]
        return [request for request in requests if containing in request.path]

    def start(self) -> None:
        """Start the server and wait until it listens."""
        files = ["--address", self.address, "--control", str(self._control_file), "--log", str(self._log)]
        self._process = subprocess.Popen([*self._command, *files], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        self.address = self.url.removeprefix("http://")

    def stop(self) -> None:
        """End the server, with whatever it is answering."""
        if self._process is not None:
            with self._process:
                self._process.terminate()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()
