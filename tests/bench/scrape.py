"""A scrape, of nodes that are healthy, stopped, or hang: us, and beside us the usual way, an API call a scrape.

What others do at a scrape (Storj-Exporter among them) is rebuilt here as a pattern: one API call, with three tries of
ten seconds and two seconds between the last of them. Its times are scaled by 1:20 so that this ends today, and given
back scaled up.
"""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.bench.measure import p50_p99, peak_mib, resident_mib, threads
from tests.labs import Unavailable
from tests.labs.network import HOST
from tests.labs.systemd import Container
from tests.simulators import build
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer

_COUNTS = (1, 50, 200)
_SCRAPES = 40
_SCRAPES_HANGING = 6
_SCRAPE_TIMEOUT = 1.0
_DEADLINE = 0.5
"""What the exporter makes of that scrape timeout."""
_SCALE = 20
_TRIES, _TRY_SECONDS, _BACKOFF_SECONDS = 3, 10.0, 2.0


@dataclass(frozen=True, slots=True)
class Scraped:
    """Seconds of each scrape, and then the exporter's memory (now and at its most, in MiB) and threads."""

    seconds: Sequence[float]
    resident_mib: float
    peak_mib: float
    threads: int


def main() -> None:
    """Measure, and print a line for each figure."""
    with tempfile.TemporaryDirectory(prefix="storagenode-keeper-bench-") as name, VersionServer() as versions:
        folder = Path(name)
        binary = build.node("1.102.3", folder / "storagenode")
        print(f"scrape of /metrics: p50 and p99 in ms, memory now and at most; deadline when hanging {_DEADLINE:g} s")
        for count in _COUNTS:
            with _healthy(folder / f"healthy-{count}", binary, count) as nodes:
                _print(f"healthy, {count}", _scrape(folder, versions.url, nodes, _SCRAPES))
                calls = [_timed(_call, str(nodes[0]["api"])) for _ in range(_SCRAPES)]
                print(f"    beside it, one bare call of the node API: {p50_p99(calls)}")
            with _hanging() as address:
                down = [_node(f"n{number}", binary, folder / "none", address) for number in range(count)]
                _print(f"hanging, {count}", _scrape(folder, versions.url, down, _SCRAPES_HANGING))
            down = [node | {"api": f"127.0.0.1:{HOST.free_port()}"} for node in down]
            _print(f"stopped, {count}", _scrape(folder, versions.url, down, _SCRAPES))
        _systemd(folder, binary, versions.url)
        _pattern(folder, binary)


def _systemd(folder: Path, binary: Path, versions: str) -> None:
    try:
        with Container() as container, _healthy(folder / "api", binary, 1) as (one,):
            units = [f"node{number}.service" for number in range(max(_COUNTS))]
            for unit in units:
                container.write(f"/etc/systemd/system/{unit}", "[Service]\nExecStart=/bin/sleep infinity\n")
            container.systemctl("daemon-reload")
            container.systemctl("start", *units)
            nodes = [one | {"name": unit, "service": f"systemd:{unit}"} for unit in units]
            env = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": container.bus_address}
            _print(f"healthy under systemd, {len(units)}", _scrape(folder, versions, nodes, _SCRAPES, env=env))
    except Unavailable as reason:
        print(f"  no figure for systemd: {reason}")


def _pattern(folder: Path, binary: Path) -> None:
    with _healthy(folder / "pattern", binary, 1) as (node,):
        healthy = [_timed(_usual, str(node["api"])) for _ in range(_SCRAPES)]
    stopped = [_timed(_usual, f"127.0.0.1:{HOST.free_port()}") * _SCALE for _ in range(5)]
    with _hanging() as address:
        hanging = [_timed(_usual, address) * _SCALE for _ in range(3)]
    print(f"the usual way, one node, no versions but the running one (times down scaled 1:{_SCALE} and back)")
    for name, seconds in {"healthy": healthy, "stopped": stopped, "hanging": hanging}.items():
        print(f"  {name}: {p50_p99(seconds)}")


def _usual(address: str) -> None:
    for tried in range(1, _TRIES + 1):
        try:
            _call(address, _TRY_SECONDS / _SCALE)
            break
        except OSError:
            if tried == _TRIES - 1:
                time.sleep(_BACKOFF_SECONDS / _SCALE)


def _call(address: str, timeout: float = 10) -> None:
    _get(address, "/api/sno/", timeout)


def _get(address: str, path: str, timeout: float) -> None:
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"X-Prometheus-Scrape-Timeout-Seconds": f"{_SCRAPE_TIMEOUT}"})
        answer = connection.getresponse()
        if not answer.read() or answer.status != 200:
            raise RuntimeError(f"{address}{path}: {answer.status}")
    finally:
        connection.close()


def _timed(do: Callable[[str], None], address: str) -> float:
    began = time.perf_counter()
    do(address)
    return time.perf_counter() - began


def _scrape(
    folder: Path,
    versions: str,
    nodes: Sequence[Mapping[str, object]],
    scrapes: int,
    env: Mapping[str, str] | None = None,
) -> Scraped:
    """Serve the nodes by a process of its own, and scrape that."""
    config, address = folder / "keeper.yml", f"127.0.0.1:{HOST.free_port()}"
    settings = {"version_server": versions, "state_dir": str(folder / "state"), "nodes": [dict(node) for node in nodes]}
    config.write_text(yaml.safe_dump(settings))
    program = Path(sys.executable).parent / "storagenode-exporter"
    argv: list[str | Path] = [program, "serve", f"--config.file={config}", f"--web.listen-address={address}"]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                _get(address, "/metrics", 10)
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        _get(address, "/metrics", 10)
        seconds = [_timed(lambda at: _get(at, "/metrics", 10), address) for _ in range(scrapes)]
        return Scraped(seconds, resident_mib(process.pid), peak_mib(process.pid), threads(process.pid))
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _healthy(folder: Path, binary: Path, count: int) -> Iterator[list[dict[str, object]]]:
    """Run so many simulated nodes."""
    with ExitStack() as stack:
        nodes = []
        for number in range(count):
            config_dir, address = folder / f"n{number}", f"127.0.0.1:{HOST.free_port()}"
            config_dir.mkdir(parents=True)
            configure(config_dir, {"console.address": address})
            stack.enter_context(Node(binary, config_dir)).api(address)
            nodes.append(_node(f"n{number}", binary, config_dir, address))
        yield nodes
    shutil.rmtree(folder)


@contextmanager
def _hanging() -> Iterator[str]:
    """Listen, and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def _node(name: str, binary: Path, config_dir: Path, api: str) -> dict[str, object]:
    return {"name": name, "service": "process", "binary": str(binary), "config_dir": str(config_dir), "api": api}


def _print(name: str, scraped: Scraped) -> None:
    memory = f"{scraped.resident_mib:.0f} MiB (at most {scraped.peak_mib:.0f})"
    print(f"  {name}: {p50_p99(scraped.seconds)}; {memory}, {scraped.threads} threads", flush=True)


if __name__ == "__main__":
    main()
