"""Memory of the two programs that always run, at rest."""

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml

from tests.bench.measure import resident_mib
from tests.labs.network import HOST

_SCRAPES = 20
_SETTLE_SECONDS = 1.0


def at_rest(folder: Path, program: str) -> float:
    """Start one of our programs with one node, scrape it a few times, and say what stays resident, in MiB."""
    port = HOST.free_port()
    node = {"name": "node", "service": "process", "binary": str(folder / "storagenode")}
    paths = {"spool": str(folder), "state_dir": str(folder), "status_file": str(folder / "status.json")}
    config = folder / "keeper.yml"
    server = f"http://127.0.0.1:{HOST.free_port()}"
    config.write_text(
        yaml.safe_dump({"version_server": server, "state_dir": str(folder), "nodes": [node], "remediation": paths})
    )
    options = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    argv = [str(Path(sys.executable).parent / program), "serve", *options]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        scraped = 0
        while scraped < _SCRAPES and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    scraped += bool(answer.read())
            except OSError:
                time.sleep(0.05)
        time.sleep(_SETTLE_SECONDS)
        return resident_mib(process.pid)
    finally:
        process.terminate()
        process.wait()
