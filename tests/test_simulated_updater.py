"""The simulated official updater logs what upstream's has logged, for a node that does not run and is too old."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.simulators import build, updater
from tests.simulators.download_host import DownloadHost
from tests.simulators.version_server import VersionServer

RECORDED = Path(__file__).parent / "data/upstream"
NEW = "1.162.3"
FOREIGN = ("Invalid configuration file key", "Got a signal from the OS")
"""What a node's own settings bring about, which the simulated has none of, and what ended the recording."""


def lines(log: Iterable[str]) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield level, message and fields; of paths and addresses, which are each one's own, the field alone."""
    for text in log:
        _, *parts = text.rstrip("\n").split("\t")
        if len(parts) == 3 and not parts[1].startswith(FOREIGN):
            fields = json.loads(parts[2])
            own = {"from", "to", "path", "location", "server address", "server_address", "errorverbose"}
            yield parts[0], parts[1], [(key, "" if key.lower() in own else value) for key, value in fields.items()]


@pytest.mark.parametrize("release", ["1.104.5", NEW])
def test_its_log_is_as_recorded(release: str, tmp_path: Path) -> None:
    recorded = list(lines((RECORDED / release / "updater.node-stopped.log").read_text().splitlines()))
    releases, binary, tools = tmp_path / "releases", tmp_path / "storagenode", tmp_path / "bin"
    build.node("1.104.5", binary)
    build.archive(build.node(NEW, tmp_path / "new"), releases / NEW / build.ASSET)
    tools.mkdir()
    (tools / "systemctl").write_text("#!/bin/sh\necho MainPID=0\n")
    (tools / "systemctl").chmod(0o755)
    with DownloadHost(releases) as downloads, VersionServer(minimum=NEW, suggested=NEW) as versions:
        versions.set(url=f"{downloads.releases}/v{NEW}/storagenode_{{os}}_{{arch}}.zip")
        (tmp_path / "config.yaml").write_text(f"version.server-address: {versions.url}\n")
        command = [sys.executable, updater.__file__, "run", f"--config-dir={tmp_path}", "--version.check-interval=0s"]
        command += [f"--binary-location={binary}", f"--release={release}"]
        environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, env=environment, timeout=60)
    assert list(lines(done.stderr.splitlines())) == recorded
