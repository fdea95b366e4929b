"""The loop closed: the site with its services, a real Prometheus on the shipped rules, and the shipped route."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.alerts import shipped
from tests.e2e.site import EXPORTER, PATH, TOKEN, WEBHOOK, WORKER, Node, Site, wait
from tests.labs.prometheus import Alertmanager, Prometheus
from tests.labs.systemd import Container

NAMES = ("stopped", "current", "running", "limited", "looping", "slow", "retried", "blind", "bystander", "unseen")
DEADLOCKED, BELOW_MINIMUM = "StorageNodeDeadlocked", "StorageNodeBelowMinimum"


class Loop(Site):
    """The site with everything that acts by itself; every interval is a second, and alerts come again each second."""

    prometheus: Prometheus
    waits: ClassVar[dict[str, str]] = {DEADLOCKED: "0s", BELOW_MINIMUM: "0s"}
    """Another `for` than the shipped one, by alert."""

    def __init__(self, container: Container, folder: Path) -> None:
        super().__init__(container, folder, NAMES)

    def _start(self, stack: ExitStack) -> None:
        super()._start(stack)
        network, token = self.container.network, self.folder / "token"
        token.write_text(TOKEN)
        rules = self.folder / "storagenode.rules.yml"
        rules.write_text(shipped.rules(**self.waits))
        route = self.folder / "alertmanager.yml"
        route.write_text(shipped.alertmanager("http://127.0.0.1:19652/alertmanager", token, repeat_interval="1s"))
        alertmanager = stack.enter_context(Alertmanager(route, network=network))
        credentials = {"authorization": {"credentials_file": str(token)}}
        targets = {
            "storagenode": credentials | {"static_configs": [{"targets": ["127.0.0.1:19651"]}]},
            "storagenode-remediate": credentials | {"static_configs": [{"targets": ["127.0.0.1:19652"]}]},
        }
        self.prometheus = stack.enter_context(
            Prometheus(targets, rule_files=[rules], alertmanager=alertmanager.url, network=network)
        )
        self.container.systemctl("enable", "--now", "--quiet", EXPORTER, WEBHOOK, WORKER, PATH)
        for job, unit in zip(targets, (EXPORTER, WEBHOOK), strict=True):
            try:
                self.prometheus.wait_query(f'up{{job="{job}"}} == 1', timeout=90)
            except TimeoutError as error:
                error.add_note(self.container.journal(unit)[-4000:])
                raise

    @contextmanager
    def nodes(self, *names: str) -> Iterator[list[Node]]:
        """Give nodes that can be installed, while the minimum is the old one; take them away when nothing alerts."""
        self.rise("1.102.3")
        nodes = [self.node(name) for name in names]
        try:
            yield nodes
        finally:
            self.downloads.set(behaviour="ok")
            self.rise("1.102.3")
            for node in nodes:
                self.prometheus.wait_alert(DEADLOCKED, node.name, "inactive")
                self.prometheus.wait_alert(BELOW_MINIMUM, node.name, "inactive")
                node.remove()

    def value(self, metric: str, **labels: str) -> float | None:
        """Return what Prometheus has of a metric now, summed; None for nothing."""
        chosen = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        found = self.prometheus.query(f"sum({metric}{{{chosen}}})")
        return float(found[0]["value"][1]) if found else None

    def wait_value(self, wanted: float | None, metric: str, timeout: float = 60, **labels: str) -> None:
        """Wait until Prometheus has this value of a metric; raises TimeoutError."""
        wait(lambda: self.value(metric, **labels) == wanted, f"{metric}{labels} is {wanted}", timeout)

    def wait_run(self, node: Node, timeout: float = 90) -> dict[str, Any]:
        """Return the newest run of a node, once it has ended."""

        def ended() -> dict[str, Any] | None:
            return next((run for run in node.runs() if run["outcome"] is not None), None)

        return wait(ended, f"a run of {node.name} has ended", timeout)

    def idle(self) -> bool:
        """Tell whether no request waits and no worker works."""
        spool = self.container.path("/var/spool/storagenode-keeper")
        return not any(spool.iterdir()) and self.container.show(WORKER, "ActiveState")["ActiveState"] == "inactive"

    def fired(self, node: Node, alert: str = DEADLOCKED) -> bool:
        """Tell whether an alert of a node has ever fired."""
        chosen = f'alertname="{alert}", alertstate="firing", node="{node.name}"'
        return bool(self.prometheus.query(f"count_over_time(ALERTS{{{chosen}}}[1h])"))

    def pause(self) -> None:
        """Wait for a round of scrape, evaluation, delivery and work: what has not come by then does not come."""
        time.sleep(4)
