"""The webhook under load, beside what it cannot do without: a file made and synced, and its directory synced.

Both are measured from the moment they are due, turn about, on the same file system, a thread of the same pool for each.
"""

import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import p50_p99, peak_mib, resident_mib, threads
from tests.serving import receiving

_NODES = 200
_PER_SECOND = 100
_SECONDS = 60
_SENDERS = 16
_RECORDED = Path(__file__).parents[1] / "data/alertmanager_payloads.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Seconds of each request and of each bare sync, and the memory (MiB) before, after and at most, and threads."""

    requests: list[float]
    bare: list[float]
    before_mib: float
    after_mib: float
    peak_mib: float
    threads: int


def main() -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory(prefix="storagenode-keeper-bench-") as folder:
        loaded = load(Path(folder), _SECONDS)
    print(f"webhook, {_PER_SECOND} requests a second for {_SECONDS} s, {_NODES} nodes, each stored before its answer")
    print(f"  a request: {p50_p99(loaded.requests)}")
    print(f"  a bare create, fsync and fsync of the directory beside it: {p50_p99(loaded.bare)}")
    ours, bare = (statistics.quantiles(each, n=100, method="inclusive") for each in (loaded.requests, loaded.bare))
    print(
        f"  more than it: p50 {1000 * (ours[49] - bare[49]):.1f} ms, p99 {1000 * (ours[98] - bare[98]):.1f} ms; ",
        end="",
    )
    print(f"ratio of p50 {ours[49] / bare[49]:.2f}, of p99 {ours[98] / bare[98]:.2f}")
    print(
        f"  memory {loaded.before_mib:.1f} MiB before, {loaded.after_mib:.1f} after, {loaded.peak_mib:.1f} at most; ",
        end="",
    )
    print(f"{loaded.threads} threads after", flush=True)


def load(folder: Path, seconds: float) -> Loaded:
    """Send requests to the served program, and take them away again as the worker does.

    Raises:
        RuntimeError: one was not stored when it was answered.
    """
    nodes = [f"node{number}" for number in range(_NODES)]
    spool, bare = folder / "spool", folder / "bare"
    spool.mkdir()
    bare.mkdir()
    bodies = [_payload(node) for node in nodes]
    settings = {
        "nodes": [{"name": node, "service": "process", "binary": str(folder / node)} for node in nodes],
        "remediation": {"spool": str(spool), "status_file": str(folder / "status.json")},
    }
    with receiving(folder, settings) as (pid, url), ThreadPoolExecutor(2 * _SENDERS) as pool:
        own = threading.local()
        directory = os.open(bare, os.O_RDONLY)

        def request(number: int) -> None:
            if not hasattr(own, "connection"):
                own.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
            own.connection.request("POST", "/alertmanager", bodies[number])
            answer = own.connection.getresponse()
            if (answer.status, answer.read()) != (202, b"stored 1, already pending 0, not stored 0\n"):
                raise RuntimeError(f"{nodes[number]}: {answer.status}")

        def sync(number: int) -> None:
            file = os.open(nodes[number], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
            os.fsync(file)
            os.close(file)
            os.fsync(directory)

        def timed(do: Callable[[int], None], clean: Path, number: int, due: float) -> float:
            time.sleep(max(0, due - time.perf_counter()))
            do(number)
            took = time.perf_counter() - due
            (clean / nodes[number]).unlink()
            return took

        for number in range(_NODES):
            timed(request, spool, number, 0)
        before = resident_mib(pid)
        begin = time.perf_counter() + 0.1
        sent = []
        for turn in range(round(seconds * _PER_SECOND)):
            due, number = begin + turn / _PER_SECOND, turn % _NODES
            time.sleep(max(0, due - time.perf_counter() - 0.005))
            first, second = (request, spool), (sync, bare)
            if turn % 2:  # neither is always the one that comes after the other
                first, second = second, first
            pair = [
                pool.submit(timed, *first, number, due),
                pool.submit(timed, *second, number, due + 0.5 / _PER_SECOND),
            ]
            sent.append(pair[::-1] if turn % 2 else pair)
        took = [(one.result(), other.result()) for one, other in sent]
        os.close(directory)
        return Loaded(
            [one for one, _ in took],
            [other for _, other in took],
            before,
            resident_mib(pid),
            peak_mib(pid),
            threads(pid),
        )


def _payload(node: str) -> bytes:
    recorded = json.loads(_RECORDED.read_text())["prom3.5_am0.33"]["firing"]
    recorded["alerts"][0]["labels"] |= {"node": node, "remediation": "offline-update"}
    return json.dumps(recorded).encode()


if __name__ == "__main__":
    main()
