"""What is shown as it is: the exporter's page and `check`, of simulated nodes that run here as bare processes."""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tests.labs.network import HOST
from tests.serving import exporting
from tests.simulators import build
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer

_NODES = {
    "alpha": ("1.162.3", True),
    "bravo": ("1.158.2", False),
    "charlie": ("1.158.2", True),
    "delta": ("1.161.5", True),
    "echo": ("1.162.3", False),
}
"""Versions installed, and whether the node runs."""
_COLORS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341"}
_TERMINAL = """
body { margin: 0; background: #0d1117; color: #e6edf3; }
pre { margin: 0; padding: 20px 24px; font: 15px/1.5 "DejaVu Sans Mono", monospace; width: max-content; }
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Some nodes, and their exporter at a URL."""

    url: str
    config: Path

    def check(self) -> str:
        """Run `check` on a terminal of its own, and return all that it prints."""
        program = Path(sys.executable).with_name("storagenode-exporter")
        command = shlex.join([str(program), "check", "--config.file", str(self.config)])
        terminal = ["script", "--quiet", "--return", "--command", f"{command} 2>/dev/null", "/dev/null"]
        done = subprocess.run(terminal, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        assert done.returncode == 1, f"one is below the minimum: {done.stdout.decode()}"
        return done.stdout.decode().replace("\r\n", "\n")


@contextmanager
def site() -> Iterator[Site]:
    """Run the nodes and their exporter."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storagenode-keeper-pictures-")))
        versions = stack.enter_context(VersionServer(minimum="1.158.2", suggested="1.162.3", cursor="0" * 64))
        nodes = []
        for name, (version, runs) in _NODES.items():
            (home := folder / name).mkdir()
            binary, api = build.node(version, home / "storagenode"), f"127.0.0.1:{HOST.free_port()}"
            config_dir = configure(home, {"version.server-address": versions.url, "console.address": api})
            if runs:
                node = stack.enter_context(Node(binary, config_dir))
                node.api(api)
                (home / "pid").write_text(str(node.process.pid))
            start = [str(binary), "run", "--config-dir", str(config_dir)]
            service = {"process": {"pid_file": str(home / "pid"), "start": start}}
            said = {"binary": str(binary), "config_dir": str(config_dir), "api": api}
            nodes.append({"name": name, "service": service, **said})
        versions.set(minimum="1.160.3")
        config = {"version_server": versions.url, "refresh": "1s", "state_dir": str(folder / "state"), "nodes": nodes}
        yield Site(stack.enter_context(exporting(folder, config))[1], folder / "keeper.yml")


def page(printed: str) -> str:
    """Draw a terminal in which `check` has printed this."""
    text = re.sub(
        r"\x1b\[(\d+)m(.*?)\x1b\[0m",
        lambda match: f'<span style="color:{_COLORS[match[1]]}">{match[2]}</span>',
        escape(printed, quote=False),
        flags=re.DOTALL,
    )
    assert "\x1b" not in text, f"a control sequence that is not known here: {text!r}"
    shown = f"$ storagenode-exporter check\n{text.rstrip()}"
    return f'<!doctype html><meta charset="utf-8"><style>{_TERMINAL}</style><pre>{shown}</pre>'
