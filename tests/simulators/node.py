"""Lay out a simulated node's folders, and run its executable as a bare process."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def configure(config_dir: Path, settings: dict[str, object]) -> Path:
    """Write config.yaml, and the storage folder with the file that marks it as a node's, and return the folder.

    `storage.path` is CONFIG_DIR/storage unless the settings say otherwise.
    """
    storage = Path(str(settings.get("storage.path", config_dir / "storage")))
    storage.mkdir(parents=True, exist_ok=True)
    (storage / "storage-dir-verification").write_bytes(bytes(32))
    lines = [f"{key}: {value}\n" for key, value in {"storage.path": storage, **settings}.items()]
    (config_dir / "config.yaml").write_text("".join(lines))
    return config_dir


class Node:
    """A node as a bare process that logs to CONFIG_DIR/node.log; a context manager, which kills it, as does our end."""

    def __init__(self, binary: Path, config_dir: Path) -> None:
        self._log = config_dir / "node.log"
        command = [str(binary), "run", "--config-dir", str(config_dir)]
        with self._log.open("ab") as log:
            tied = os.environ | {"SIM_TIED": "1"}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=tied)

    @property
    def log(self) -> str:
        """Return what the node has logged so far."""
        return self._log.read_text()

    def api(self, address: str, timeout: float = 40.0) -> dict[str, Any]:
        """Return the node API's answer, waiting until there is one. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{address}/api/sno/", timeout=timeout) as answer:
                    document: dict[str, Any] = json.load(answer)
                    return document
            except urllib.error.URLError:
                time.sleep(0.005)
        raise TimeoutError(f"no node API at {address}: {self.log}")

    def stop(self, timeout: float = 40.0) -> int:
        """Ask the node to stop, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
