"""The story with bare processes: no root, no service manager, nothing installed on the host."""

import getpass
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from queue import Queue

import yaml

from tests.demo.story import NODE, OLD, DemoError, releases
from tests.labs.network import HOST
from tests.simulators import build
from tests.simulators.download_host import DownloadHost
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer

_PROGRAMS = Path(sys.executable).parent


class ProcessStage:
    """Everything as a child of ours, in one temporary folder."""

    network = HOST

    def __init__(self, folder: Path, stack: ExitStack, versions: VersionServer) -> None:
        host = stack.enter_context(DownloadHost(releases(folder)))
        self._folder = folder
        self._stack = stack
        self._api = f"127.0.0.1:{HOST.free_port()}"
        self.exporter = f"127.0.0.1:{HOST.free_port()}"
        self.webhook = f"127.0.0.1:{HOST.free_port()}"
        self.events: Queue[str] = Queue()
        self.token = folder / "token"
        self.token.write_text("a-token-for-the-demo-only\n")
        (folder / "bin").mkdir()
        self._binary = build.node(OLD, folder / "bin" / "storagenode")
        self._pid_file = folder / "node.pid"
        config_dir = configure(folder / "node", {"version.server-address": versions.url, "console.address": self._api})
        self._config_dir = config_dir
        self._config = folder / "storagenode-keeper.yml"
        (folder / "spool").mkdir()
        start = [str(self._binary), "run", "--config-dir", str(config_dir)]
        node = {
            "name": NODE,
            "binary": str(self._binary),
            "config_dir": str(config_dir),
            "api": self._api,
            # named, since a process of somebody else, which may not be looked into, could be the node
            "service": {"process": {"pid_file": str(self._pid_file), "start": start, "user": getpass.getuser()}},
        }
        remediation = {
            # a bare process cannot be seen to crash, so that only `always` starts it again
            "start": "always",
            "releases": host.releases,
            "digests": host.tags,
            "spool": str(folder / "spool"),
            "state_dir": str(folder / "worker"),
            "status_file": str(folder / "status.json"),
            "webhook": {"token_file": str(self.token)},
        }
        content = {
            "version_server": versions.url,
            "refresh": "1s",
            "state_dir": str(folder / "exporter"),
            "nodes": [node],
            "remediation": remediation,
        }
        self._config.write_text(yaml.safe_dump(content))
        stack.callback(self._kill_node)
        self._node = stack.enter_context(Node(self._binary, config_dir))

    def start_node(self) -> str:
        """Start it as a person would, and report what it answers."""
        with Node(self._binary, self._config_dir) as node:
            status = node.process.wait(10)
            last = node.log.splitlines()[-1]
        return f"it exits with status {status}: {last}"

    def stop_node(self) -> None:
        """Ask it to end."""
        self._node.stop()

    def run(self, *command: str) -> str:
        """Run one of our programs to its end."""
        program, subcommand, *arguments = command
        argv = [str(_PROGRAMS / program), subcommand, "--config.file", str(self._config), *arguments]
        finished = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return f"$ {' '.join(command)}\n{finished.stdout}"

    def start_programs(self) -> None:
        """Start the exporter, and the webhook with the worker in it."""
        self._start("storagenode-exporter", "serve", "--web.listen-address", self.exporter)
        self._start("storagenode-remediate", "serve", "--work", "--web.listen-address", self.webhook)

    def api_version(self) -> str:
        """Wait for the API to answer."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self._api}/api/sno/", timeout=5) as answer:
                    return str(json.load(answer)["version"])
            except urllib.error.URLError:
                time.sleep(0.05)
        raise DemoError(f"the node's API at {self._api} does not answer")

    def _start(self, program: str, *arguments: str) -> None:
        options = ["--config.file", str(self._config), "--log.format", "json"]
        process = subprocess.Popen(
            [str(_PROGRAMS / program), *arguments, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.events.put(line)

    def _kill_node(self) -> None:
        """End the node that the worker has started; nobody else has its process ID but its pid file."""
        if self._pid_file.exists():
            subprocess.run(["/bin/kill", self._pid_file.read_text().strip()], check=False)
