"""A host as the documents have it: nodes and updaters, our programs, Prometheus and Alertmanager, all of them units."""

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.alerts import shipped
from tests.e2e import updater
from tests.e2e.site import EXPORTER, OLD, PATH, TOKEN_FILE, WEBHOOK, WORKER, Node, Site
from tests.e2e.updater import Updater
from tests.labs.prometheus import program
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.packaging.host import CONFIG, SPOOL, WEBHOOK_USER
from tests.simulators import build

PROMETHEUS, ALERTMANAGER = "http://127.0.0.1:9090", "http://127.0.0.1:9093"
RUNNING = (EXPORTER, WEBHOOK, PATH, "prometheus.service", "prometheus-alertmanager.service")
TEMPLATES = "usr/share/prometheus/alertmanager"
MONITORING_TOKEN = "/etc/prometheus/storagenode-keeper.token"
_SLOWEST = 120
"""Seconds that anything may take on a machine that has other work: nothing waits for as long unless it fails."""


def until(found: Callable[[], object], what: str) -> None:
    """Wait until `found` finds something; it is asked seldom, since the answer costs others something."""
    deadline = time.monotonic() + _SLOWEST
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_SLOWEST} s: {what}")
        time.sleep(0.2)


def hurried(rules: str) -> str:
    """Have what is asked for over minutes, so that gaps do not show, asked for over five scrapes."""
    return re.sub(r"\[[0-9]+m\]", "[5s]", rules)


class Monitored(Site):
    """The site with all that watches it, on one host. Of Prometheus, Alertmanager hears of the watchdog alone."""

    def __init__(self, container: Container, folder: Path, names: Sequence[str]) -> None:
        super().__init__(container, folder, names)
        newest = updater.program(updater.RELEASE, folder, works=True)
        build.archive(newest, folder / "releases" / updater.RELEASE / updater.ASSET, newest.name)

    def _start(self, stack: ExitStack) -> None:
        super()._start(stack)
        self.versions.set(updater_suggested=f"v{updater.RELEASE}")
        # No other: of a node that is known before it is installed, it would be remembered that it was down.
        self.write_config(self.config() | {"nodes": [self.node("healthy").config()]})
        self._install_monitoring()
        self.container.systemctl("enable", "--now", "--quiet", *RUNNING, WORKER)
        for job in ("storagenode", "storagenode-remediate", "alertmanager"):
            self.wait_query(f'up{{job="{job}"}} == 1')

    def _install_monitoring(self) -> None:
        """Install Prometheus and Alertmanager with what we ship, as Debian has them; every interval is a second."""
        container = self.container
        for name in ("prometheus", "promtool", "prometheus-alertmanager", "amtool"):
            container.put(program(name), f"/usr/bin/{name}")
        for template in (program("prometheus-alertmanager").parents[2] / TEMPLATES).glob("*.tmpl"):
            container.put(template, f"/{TEMPLATES}/{template.name}")
        container.write("/etc/hosts", "127.0.0.1 localhost\n")  # which any host has
        container.run(["useradd", "--system", "--create-home", "--home-dir=/var/lib/prometheus", "prometheus"])
        container.write("/etc/prometheus/prometheus.yml", yaml.safe_dump(self._prometheus()))
        # A node is missed that was there an hour ago: five seconds ago, here.
        rules = hurried(shipped.changed(shipped.unslowed(), {"offset 1h": "offset 5s"}))
        container.write("/etc/prometheus/storagenode.rules.yml", rules)
        route = shipped.alertmanager(
            "http://127.0.0.1:19652/alertmanager", Path(MONITORING_TOKEN), repeat_interval="1s"
        )
        container.write("/etc/prometheus/alertmanager.yml", route)
        self._share_token()
        for name, options in {
            "prometheus": "--web.listen-address=127.0.0.1:9090 --storage.tsdb.path=data "
            "--config.file=/etc/prometheus/prometheus.yml --rules.alert.resend-delay=1s",
            "prometheus-alertmanager": "--web.listen-address=127.0.0.1:9093 --cluster.listen-address= "
            "--storage.path=/var/lib/prometheus/silences --config.file=/etc/prometheus/alertmanager.yml",
        }.items():
            # Debian's Alertmanager, where it is not installed but unpacked, looks for its templates where it runs.
            folder = f"/{TEMPLATES}" if name.endswith("alertmanager") else "/var/lib/prometheus"
            container.write(
                f"/usr/lib/systemd/system/{name}.service",
                f"[Service]\nUser=prometheus\nWorkingDirectory={folder}\nExecStart=/usr/bin/{name} {options}\n"
                "ExecReload=/bin/kill -HUP $MAINPID\n[Install]\nWantedBy=multi-user.target\n",
            )
        container.path(f"/{TEMPLATES}").mkdir(parents=True, exist_ok=True)
        container.systemctl("daemon-reload")

    def _share_token(self) -> None:
        self.container.run(["install", "-m", "0640", "-g", "prometheus", TOKEN_FILE, MONITORING_TOKEN])

    def _prometheus(self) -> dict[str, Any]:
        only = {"source_labels": ["alertname"], "regex": "StorageNodeWatchdog", "action": "keep"}
        scraped = {"storagenode": 19651, "storagenode-remediate": 19652, "alertmanager": 9093}
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["storagenode.rules.yml"],
            "alerting": {
                "alert_relabel_configs": [only],
                "alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}],
            },
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                | ({} if job == "alertmanager" else {"authorization": {"credentials_file": MONITORING_TOKEN}})
                for job, port in scraped.items()
            ],
        }

    def updater(self, name: str) -> Updater:
        """Return a configured node's updater, which is there once it is installed."""
        return Updater(self.node(name))

    def config(self) -> dict[str, Any]:
        """Return our configuration."""
        config: dict[str, Any] = yaml.safe_load(self.container.path(CONFIG).read_text())
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write our configuration; a program reads it when it starts."""
        self.container.write(CONFIG, yaml.safe_dump(config))

    @contextmanager
    def installed(self, name: str) -> Iterator[Node]:
        """Give a node that can be installed, on a host where all runs and the minimum is the old version."""
        node = self.node(name)
        self.rise(OLD)
        self._share_token()
        self.container.systemctl("start", *RUNNING)
        try:
            yield node
        finally:
            self.downloads.set(behaviour="ok")
            self.rise(OLD)
            if self.container.path(self.updater(name).store).exists():
                self.updater(name).remove()
            node.remove()

    def ask(self, node: Node) -> None:
        """Leave a request in the spool, as the webhook does."""
        self.container.run(["setpriv", *WEBHOOK_USER, "touch", f"{SPOOL}/{node.name}"])

    def spool_is_empty(self) -> bool:
        """Tell whether all that was asked for is done."""
        return not any(self.container.path(SPOOL).iterdir())

    def at_step(self, node: Node, step: str) -> bool:
        """Tell whether the worker has logged that it begins a step for a node."""
        return any((line.get("step"), line.get("node")) == (step, node.name) for line in self.log(WORKER))

    def ended(self, node: Node) -> list[str]:
        """Return how the worker's runs for a node ended, oldest first; of what a person ran it has no log."""
        lines = [line for line in self.log(WORKER) if (line["message"], line.get("node")) == ("run ended", node.name)]
        return [line["outcome"] for line in lines]

    def watch(self, node: Node, updater: Updater | None = None, *, webhook: bool = False) -> None:
        """Have the exporter, and the webhook, know this node as it is now and no other; what runs later does anyway."""
        self.write_config(self.config() | {"nodes": [(updater or node).config()]})
        self.container.systemctl("restart", EXPORTER, *([WEBHOOK] if webhook else []))

    def look_again(self) -> None:
        """Have the exporter look at updaters now, which it does once a minute."""
        self.container.systemctl("restart", EXPORTER)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of an expression; nothing while Prometheus does not answer."""
        asked = urllib.parse.urlencode({"query": expression})
        try:
            found: list[dict[str, Any]] = self._get(f"{PROMETHEUS}/api/v1/query?{asked}")["data"]["result"]
        except urllib.error.URLError:
            return []
        return found

    def wait_query(self, expression: str) -> None:
        """Wait until an expression has a result."""
        until(lambda: self.query(expression), expression)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that Alertmanager has."""
        found: list[dict[str, Any]] = self._get(f"{ALERTMANAGER}/api/v2/alerts")
        return found

    def has_alert(self, name: str) -> bool:
        """Tell whether Alertmanager, if it answers, has an alert of this name."""
        try:
            return any(alert["labels"]["alertname"] == name for alert in self.alerts())
        except urllib.error.URLError:
            return False

    def remediate_says(self, *arguments: str, ends: int) -> str:
        """Return what a command prints that ends with this exit status."""
        done = self.container.run([VENV / "bin/storagenode-remediate", *arguments], check=False)
        assert done.returncode == ends, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def post_alert(self, labels: Mapping[str, str], **more: str) -> None:
        """Hand Alertmanager an alert; `endsAt` ends it."""
        body = json.dumps([{"labels": labels, **more}]).encode()
        request = urllib.request.Request(
            f"{ALERTMANAGER}/api/v2/alerts", body, headers={"Content-Type": "application/json"}
        )
        self.container.network.call(_read, request)

    def _get(self, url: str) -> Any:
        return json.loads(self.container.network.call(_read, urllib.request.Request(url)))


def _read(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
        return content
