"""An update, from the first byte of the archive asked for to the rename: us against upstream's own updater.

Run by `unshare --net`, since upstream's programs must not reach any other network.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from tests.bench.measure import Finished, Renames, finish
from tests.labs.upstream import DEFECTIVE, FIXED, programs, storagenode_zip
from tests.simulators.build import ASSET
from tests.simulators.download_host import DownloadHost
from tests.simulators.version_server import VersionServer

_PAIRS = 7
_TARGET = FIXED.removeprefix("v")


@dataclass(frozen=True, slots=True)
class Update:
    """One measured update; `swap_seconds` from the archive's request, as the server saw it, to the rename."""

    swap_seconds: float
    whole: Finished
    probe_seconds: float = 0.0
    """How much of it went into running the new binary, which the floor does not do."""


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="storagenode-keeper-bench-") as name:
        folder = Path(name)
        archive = folder / "releases" / _TARGET / ASSET
        archive.parent.mkdir(parents=True)
        shutil.copy(storagenode_zip(FIXED), archive)
        with (
            VersionServer(
                minimum=_TARGET, suggested=_TARGET, updater_minimum="1.0.0", updater_suggested="1.0.0"
            ) as versions,
            DownloadHost(folder / "releases") as host,
        ):
            versions.set(url=f"{host.releases}/v{{version}}/storagenode_{{os}}_{{arch}}.zip")
            bench = _Bench(folder, versions, host)
            bench.ours(), bench.theirs(), _floor(archive, folder)
            turns = [(bench.ours(), bench.theirs(), _floor(archive, folder)) for _ in range(_PAIRS)]
    _print(turns)


class _Bench:
    def __init__(self, folder: Path, versions: VersionServer, host: DownloadHost) -> None:
        self._folder, self._versions, self._host = folder, versions, host
        self._binary = folder / "bin" / "storagenode"
        self._binary.parent.mkdir()
        self._storage = folder / "storage"
        self._storage.mkdir()
        self._env = {"HOME": str(folder), "PATH": os.environ["PATH"]}
        identity = ["identity", "create", "identity", "--difficulty=1", f"--identity-dir={folder}"]
        subprocess.run([programs(FIXED)["identity"], *identity[1:]], env=self._env, check=True, capture_output=True)
        (folder / "config.yaml").write_text(
            f"version.server-address: {versions.url}\nmetrics.addr: ''\ntracing.enabled: false\n"
        )
        self._config = folder / "keeper.yml"
        remediation = {
            "releases": host.releases,
            "digests": host.tags,
            "state_dir": str(folder / "worker"),
            "status_file": str(folder / "status.json"),
        }
        node = {"name": "node", "service": "process", "binary": str(self._binary), "storage": str(self._storage)}
        self._config.write_text(
            yaml.safe_dump({"version_server": versions.url, "nodes": [node], "remediation": remediation})
        )

    def ours(self) -> Update:
        """By `storagenode-remediate run`, with the digest asked for, everything synced, and the new binary probed."""
        program = Path(sys.executable).parent / "storagenode-remediate"
        options = [f"--config.file={self._config}"]
        update = self._measure([program, "run", "--yes", *options, "node"])
        history = subprocess.run([program, "history", "--json", *options], check=True, capture_output=True)
        (run, *_) = json.loads(history.stdout)["runs"]
        at = {(entry["step"], entry["event"]): entry["at"] for entry in run["journal"]}
        return replace(update, probe_seconds=at["probe", "done"] - at["probe", "intent"])

    def theirs(self) -> Update:
        """By upstream's updater, once."""
        options = ["--standalone", "--version.check-interval=0s", f"--binary-location={self._binary}"]
        dirs = [f"--config-dir={self._folder}", f"--identity-dir={self._folder / 'identity'}"]
        return self._measure([programs(FIXED)["storagenode-updater"], "run", *options, *dirs])

    def _measure(self, argv: list[str | Path]) -> Update:
        shutil.copy(programs(DEFECTIVE)["storagenode"], self._binary)
        os.sync()
        before = len(self._host.requests("/asset/"))
        with Renames(self._binary) as renames:
            whole = finish(argv, self._env)
            time.sleep(0.1)
        asked = self._host.requests("/asset/")[before:]
        if len(asked) != 1 or len(renames.seen) != 1:
            raise RuntimeError(f"{argv[0]}: {len(asked)} downloads and {len(renames.seen)} renames, expected one each")
        return Update(renames.seen[0] - asked[0].monotonic, whole)


def _floor(archive: Path, folder: Path) -> float:
    """Do only what cannot be left out: sha256, inflate, write, fsync; in seconds."""
    began = time.monotonic()
    with archive.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    with zipfile.ZipFile(archive) as zipped, zipped.open("storagenode") as source:
        target = folder / "floor"
        with target.open("wb") as file:
            shutil.copyfileobj(source, file, 256 << 10)
            file.flush()
            os.fsync(file.fileno())
    return time.monotonic() - began


def _print(turns: list[tuple[Update, Update, float]]) -> None:
    def median(values: list[float]) -> str:
        return f"{statistics.median(values):6.3f} ({min(values):.3f} to {max(values):.3f})"

    ours, theirs = [turn[0] for turn in turns], [turn[1] for turn in turns]
    print(f"an update of {DEFECTIVE} to {FIXED}, {len(turns)} turns after a warm-up: median (least to most)")
    print(f"  archive asked for to rename, us       {median([each.swap_seconds for each in ours])} s")
    print(f"  archive asked for to rename, upstream {median([each.swap_seconds for each in theirs])} s")
    print(f"  ratio us / upstream                   {median([a.swap_seconds / b.swap_seconds for a, b, _ in turns])}")
    print(f"  whole command, us                     {median([each.whole.seconds for each in ours])} s")
    print(f"  whole command, upstream               {median([each.whole.seconds for each in theirs])} s")
    print(f"  ratio us / upstream                   {median([a.whole.seconds / b.whole.seconds for a, b, _ in turns])}")
    print(f"  peak memory, us                       {median([each.whole.peak_mib for each in ours])} MiB")
    print(f"  peak memory, upstream                 {median([each.whole.peak_mib for each in theirs])} MiB")
    print(f"  floor: sha256, inflate, write, fsync  {median([floor for *_, floor in turns])} s")
    ratios = [(a.swap_seconds - a.probe_seconds) / floor for a, _, floor in turns]
    print(f"  ratio us, without the probe / floor   {median(ratios)}")


if __name__ == "__main__":
    main()
