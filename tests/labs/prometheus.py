"""Start a real Prometheus and a real Alertmanager: those on PATH, else Debian's, fetched without being installed."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache as once
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.labs import TIED, Unavailable, cached, say, temporary_folder
from tests.labs.debian import unpack
from tests.labs.network import HOST, Network

_TEMPLATES = "usr/share/prometheus/alertmanager"

Target = str | Sequence[str] | Mapping[str, Any]


@once
def program(name: str) -> Path:
    """Return the path of prometheus, promtool, prometheus-alertmanager or amtool.

    Raises Unavailable where it is neither installed nor to be had from Debian.
    """
    for known in (name, name.removeprefix("prometheus-")):
        if path := shutil.which(known):
            return Path(path)
    return cached("prometheus", _fetch) / "usr/bin" / name


def _fetch(folder: Path) -> None:
    """Unpack Debian's packages in `folder`."""
    say("fetching Debian's prometheus and prometheus-alertmanager (once, 33 MB)")
    # From trixie on promtool is a package of its own.
    unpack(folder, ["prometheus", "promtool", "prometheus-alertmanager"])
    # Debian's Alertmanager reads its templates under /usr/share: make that the folder it runs in, in as many bytes.
    alertmanager = folder / "usr/bin/prometheus-alertmanager"
    installed = f"/{_TEMPLATES}".encode()
    alertmanager.write_bytes(alertmanager.read_bytes().replace(installed, b".".ljust(len(installed), b"/")))


def promtool(*args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    return subprocess.run([program("promtool"), *args], capture_output=True, text=True, check=check)


def amtool(*args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run amtool to its end."""
    return subprocess.run([program("amtool"), *args], capture_output=True, text=True, check=check)


class _Server:
    """A program with a folder, a log and a port of its own, which answers /-/ready when it is."""

    def __init__(self, network: Network, address: str | None = None) -> None:
        self.network = network
        self.folder = temporary_folder()
        self.address = address or f"127.0.0.1:{network.free_port()}"
        self.url = f"http://{self.address}"

    def _argv(self) -> list[str | Path]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        with (self.folder / "log").open("wb") as log:
            argv = [*self.network.enter, *TIED, *self._argv()]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.request("GET", "/-/ready")
                return self
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log_end = self.log()[-2000:]
                    self.__exit__(None, None, None)
                    raise RuntimeError(f"{type(self).__name__} does not become ready: {error}\n{log_end}") from error
            time.sleep(0.01)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """Return what the program has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer; raises urllib.error.HTTPError with it when it is not 2xx."""
        asked = urllib.request.Request(self.url + path, data=body, method=method)
        if body is not None:
            asked.add_header("Content-Type", "application/json")
        return self.network.call(_read, asked)

    def get(self, path: str) -> Any:
        """Return the JSON document at `path`."""
        return json.loads(self.request("GET", path))

    def reload(self) -> None:
        """Make the program read its configuration again; raises urllib.error.HTTPError when it rejects it."""
        self.request("POST", "/-/reload")


def _read(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        error.add_note(error.read().decode(errors="replace"))
        raise


class Prometheus(_Server):
    """A Prometheus that scrapes `targets` (by job: host:port or URL, several of them, or a whole scrape_config).

    The first scrape comes 5 to 6 s after the start, whatever the interval: start it before what it is to watch.
    `config` (rewritten in `folder`) replaces all the rest when the configuration itself is under test.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        *,
        rule_files: Sequence[Path] = (),
        alertmanager: str | None = None,
        scrape_interval: str = "1s",
        evaluation_interval: str = "1s",
        network: Network = HOST,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(network)
        self.options = options
        self.config: dict[str, Any] = {
            "global": {"scrape_interval": scrape_interval, "evaluation_interval": evaluation_interval},
            "rule_files": [str(file.resolve()) for file in rule_files],
            "scrape_configs": [{"job_name": job} | _scrape(target) for job, target in targets.items()],
        }
        if alertmanager is not None:
            host = urllib.parse.urlsplit(alertmanager).netloc
            self.config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [host]}]}]}
        self.write_config()

    def write_config(self) -> None:
        """Write `config` for the next start or reload."""
        (self.folder / "prometheus.yml").write_text(json.dumps(self.config))

    def _argv(self) -> list[str | Path]:
        return [
            program("prometheus"),
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={self.address}",
            "--web.enable-lifecycle",
            "--rules.alert.resend-delay=1s",
            *self.options,
        ]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of an expression; raises urllib.error.HTTPError when it does not parse."""
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        result: list[dict[str, Any]] = self.get(path)["data"]["result"]
        return result

    def wait_query(self, expression: str, timeout: float = 45) -> list[dict[str, Any]]:
        """Return the instant vector as soon as it is not empty; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not (result := self.query(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} stays empty for {timeout} s")
            time.sleep(0.05)
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing."""
        alerts: list[dict[str, Any]] = self.get("/api/v1/alerts")["data"]["alerts"]
        return alerts

    def wait_alert(self, name: str, node: str | None = None, state: str = "firing", timeout: float = 45) -> Any:
        """Return the alert once it is `firing` or `pending`; None once it is `inactive`. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            alerts = self.alerts()
            found = [
                alert
                for alert in alerts
                if alert["labels"]["alertname"] == name and node in (None, alert["labels"].get("node"))
            ]
            if not found and state == "inactive":
                return None
            for alert in found:
                if alert["state"] == state:
                    return alert
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} of {node} is not {state} after {timeout} s; alerts: {alerts}")
            time.sleep(0.05)


def _scrape(target: Target) -> dict[str, Any]:
    match target:
        case Mapping():
            return dict(target)
        case str():
            addresses: Sequence[str] = [target]
        case _:
            addresses = target
    urls = [urllib.parse.urlsplit(address if "//" in address else f"http://{address}/metrics") for address in addresses]
    return {
        "scheme": urls[0].scheme,
        "metrics_path": urls[0].path or "/metrics",
        "static_configs": [{"targets": [url.netloc for url in urls]}],
    }


def link_templates(folder: Path) -> None:
    """Put Alertmanager's templates where a fetched one reads them: into the folder that it runs in."""
    for template in (program("prometheus-alertmanager").parents[2] / _TEMPLATES).glob("*.tmpl"):
        link = folder / template.name
        if link.is_symlink() and link.readlink() != template:  # of a cache that is gone, or somebody else's
            link.unlink()
        with suppress(FileExistsError):
            link.symlink_to(template)


class Alertmanager(_Server):
    """An Alertmanager with a configuration file or the like as a mapping.

    `cluster` are its options to be one of several. It listens at `address`, host:port, or at a free port of loopback.
    """

    def __init__(
        self,
        config: Path | Mapping[str, Any],
        *,
        network: Network = HOST,
        address: str | None = None,
        cluster: Sequence[str] = ("--cluster.listen-address=",),  # else it gossips on every interface
    ) -> None:
        super().__init__(network, address)
        self.cluster = cluster
        link_templates(self.folder)
        self.config_file = config if isinstance(config, Path) else self.folder / "alertmanager.yml"
        if not isinstance(config, Path):
            self.config_file.write_text(json.dumps(config))

    def _argv(self) -> list[str | Path]:
        return [
            program("prometheus-alertmanager"),
            f"--config.file={self.config_file.resolve()}",
            f"--storage.path={self.folder}/data",
            f"--web.listen-address={self.address}",
            *self.cluster,
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts it has."""
        alerts: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return alerts

    def post_alerts(self, *alerts: Mapping[str, Any]) -> None:
        """Hand it alerts as Prometheus would: labels, annotations, startsAt, endsAt."""
        self.request("POST", "/api/v2/alerts", json.dumps(alerts).encode())


def main() -> None:
    """Become one of the programs: `python -m tests.labs.prometheus prometheus --config.file=…`, in this folder."""
    known = {"prometheus": "prometheus", "promtool": "promtool", "amtool": "amtool"}
    known["alertmanager"] = "prometheus-alertmanager"
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit(f"usage: python -m tests.labs.prometheus {'|'.join(known)} …")
    try:
        path = program(known[sys.argv[1]])
    except Unavailable as reason:
        sys.exit(f"{sys.argv[1]} cannot be had: {reason}")
    if sys.argv[1] == "alertmanager":
        link_templates(Path.cwd())
    os.execv(path, [str(path), *sys.argv[2:]])


if __name__ == "__main__":
    main()
