"""10,000 nodes on paper: what they cost a real Prometheus and a real Alertmanager, with all that is shipped."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.alerts.shipped import RULES, alertmanager, changed
from tests.bench.measure import peak_mib, resident_mib
from tests.bench.nodes import Fleet, name
from tests.grafana.boards import BOARDS, EVERY, FLEET, fill, panels, read, worst
from tests.labs.prometheus import Alertmanager, Prometheus

SLOWER = 4
"""How many evaluations a slow group waits for: as shipped, where Prometheus evaluates every 30 s."""
DAY_MINUTES = 24 * 60
"""What the boards show unless asked for another time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of it; times in seconds."""

    hosts: int
    nodes: int
    """On each of them."""
    interval: int
    """Between two scrapes, and between two evaluations."""
    history: int
    """What there is to look back on when it is measured."""
    deadlocked_for: int
    """The wait of StorageNodeDeadlocked."""
    steps: int
    """Of a query of a range: about as many as a panel has pixels."""
    evaluations: int
    """Of the rules, of which the quickest counts: what else the machine does is no matter of theirs."""


FULL = Size(hosts=2000, nodes=5, interval=30, history=660, deadlocked_for=60, steps=660, evaluations=3)
"""Most rules look back on ten minutes; the wait is the one that is shipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a Prometheus has to bear; seconds and MiB."""

    series: int
    samples: int
    """Of one round of scrapes."""
    alerts: int
    """That fire, or are about to."""
    resident: float
    peak: float
    groups: dict[str, float]
    rules: dict[str, float]
    """What the evaluation of each takes."""
    errors: dict[str, str]
    """Of those that could not be evaluated."""
    shares: dict[str, float]
    """How often a group is evaluated, of each time that Prometheus evaluates."""

    @property
    def whole(self) -> float:
        """What it takes to evaluate all of them once."""
        return sum(self.groups.values())

    @property
    def each_time(self) -> float:
        """What it takes to evaluate, on average, those whose time it is."""
        return sum(took * self.shares[group] for group, took in self.groups.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The queries of the dashboards: seconds of each that was answered, and why one was not."""

    took: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What came of so many alerts at once; seconds since all nodes were deadlocked, and MiB."""

    nodes: int
    """That the webhook was asked for."""
    messages: int
    first: float
    half: float
    last: float
    dropped: int
    """Alerts that Prometheus had no room for in its queue."""
    resident: float
    peak: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One node in a hundred deadlocked, and then all of them."""

    version: str
    """Of Prometheus."""
    quiet: Load
    boards: Asked
    delivered: Delivered
    risen: Load


def main() -> None:
    """Measure, and print the figures."""
    with TemporaryDirectory(prefix="storagenode-keeper-bench-") as folder:
        found = measure(Path(folder), FULL)
    nodes = FULL.hosts * FULL.nodes
    every = f"scraped and evaluated every {FULL.interval} s"
    print(f"{nodes} nodes on {FULL.hosts} hosts, {every} by Prometheus {found.version}")
    _print("one in a hundred deadlocked", found.quiet)
    took = found.boards.took
    print(
        f"    {len(took)} queries of the dashboards, {sum(took.values()):.1f} s in all; the slowest: {_slowest(took)}"
    )
    for query, why in found.boards.refused.items():
        print(f"    refused: {query}: {why}")
    _print("all deadlocked", found.risen)
    delivered = found.delivered
    print(
        f"  the webhook asked for {delivered.nodes} of {nodes} nodes in {delivered.messages} messages, after ", end=""
    )
    print(f"{delivered.first:.0f} s the first, {delivered.half:.0f} s half, {delivered.last:.0f} s the last ", end="")
    print(
        f"(of which {FULL.deadlocked_for} s are the alert's own wait); {delivered.dropped} alerts were dropped; ",
        end="",
    )
    print(f"Alertmanager {delivered.resident:.0f} MiB, at most {delivered.peak:.0f}", flush=True)


def _print(what: str, load: Load) -> None:
    print(f"  {what}: {load.series} series, {load.samples} samples a round, {load.alerts} alerts; ", end="")
    print(f"Prometheus {load.resident:.0f} MiB, at most {load.peak:.0f}")
    print(f"    all rules {load.whole:.2f} s, each time {load.each_time:.2f} s: {_slowest(load.groups)}")
    print(f"    the slowest rules: {_slowest(load.rules)}", flush=True)
    for rule, error in load.errors.items():
        print(f"    cannot be evaluated: {rule}: {error}", flush=True)


def _slowest(seconds: dict[str, float]) -> str:
    ordered = sorted(seconds.items(), key=lambda each: -each[1])[:8]
    return ", ".join(f"{what} {each:.3f} s" for what, each in ordered)


def measure(folder: Path, size: Size) -> Measured:
    """Let a fleet be scraped, alerted on and looked at; then let the minimum rise above all of it.

    Raises:
        TimeoutError: Prometheus does not come to scrape or evaluate them all.
    """
    fleet = Fleet(size.hosts, size.nodes)
    token, config, rule_file = folder / "token", folder / "alertmanager.yml", folder / "storagenode.rules.yml"
    token.write_text("0123456789abcdef")
    every = f"{size.interval}s"
    changes = {
        # What looks at an hour ago has that much to look at here.
        "offset 1h": f"offset {size.history // 2}s",
        "for: 1m\n": f"for: {size.deadlocked_for}s\n",
    }
    slower = f"interval: {SLOWER * size.interval}s\n"
    rule_file.write_text(changed(RULES.read_text(), changes).replace("interval: 2m\n", slower))
    with fleet.serving() as url:
        config.write_text(alertmanager(f"{url}/alertmanager", token, group_interval="1m", repeat_interval="1h"))
        with (
            Alertmanager(config) as manager,
            Prometheus(
                fleet.jobs(url) | {"alertmanager": manager.address},
                rule_files=[rule_file],
                alertmanager=manager.url,
                scrape_interval=every,
                evaluation_interval=every,
            ) as prometheus,
        ):
            everything = f"count(last_over_time(storagenode_up[5m])) == {size.hosts * size.nodes}"
            prometheus.wait_query(everything, 60 + 10 * size.interval)
            time.sleep(size.history)
            quiet = _load(prometheus, size)
            boards = _asked(prometheus, size)
            delivered = _delivered(fleet, prometheus, manager)
            version = _get(prometheus, "status/buildinfo")["version"]
            risen = _load(prometheus, size)
            return Measured(version=version, quiet=quiet, boards=boards, delivered=delivered, risen=risen)


def _load(prometheus: Prometheus, size: Size) -> Load:
    """Take the evaluations that come next, and what there is after them."""
    seen: dict[str, dict[str, tuple[float, dict[str, float]]]] = {}
    errors: dict[str, str] = {}
    shares: dict[str, float] = {}
    limit = time.monotonic() + 60 + 20 * SLOWER * size.interval * size.evaluations
    while not seen or min(map(len, seen.values())) < size.evaluations:
        if time.monotonic() > limit:
            raise TimeoutError(f"the rules are not evaluated {size.evaluations} times: {seen}")
        for group in _get(prometheus, "rules")["groups"]:
            errors |= {rule["name"]: rule["lastError"] for rule in group["rules"] if rule["health"] == "err"}
            shares[group["name"]] = size.interval / group["interval"]
            times = seen.setdefault(group["name"], {})
            if group["evaluationTime"]:
                numbered = enumerate(group["rules"])
                each = {f"{rule['name']} ({number})": rule["evaluationTime"] for number, rule in numbered}
                times[group["lastEvaluation"]] = group["evaluationTime"], each
        time.sleep(min(1.0, size.interval / 4))
    last = {group: list(found.values())[-size.evaluations :] for group, found in seen.items()}
    per_rule = {rule: min(each[rule] for _, each in found) for found in last.values() for rule in found[0][1]}
    return Load(
        series=_get(prometheus, "status/tsdb")["headStats"]["numSeries"],
        samples=int(prometheus.query('sum(scrape_samples_scraped{job=~"storagenode.*"})')[0]["value"][1]),
        alerts=int(prometheus.query('count(ALERTS{alertname=~"StorageNode.+"})')[0]["value"][1]),
        resident=resident_mib(prometheus.process.pid),
        peak=peak_mib(prometheus.process.pid),
        errors=errors,
        shares=shares,
        groups={group: min(whole for whole, _ in found) for group, found in last.items()},
        rules=per_rule,
    )


def _dropped(prometheus: Prometheus) -> int:
    own = text_string_to_metric_families(prometheus.request("GET", "/metrics").decode())
    (dropped,) = (family for family in own if family.name == "prometheus_notifications_dropped")
    return int(dropped.samples[0].value)


def _delivered(fleet: Fleet, prometheus: Prometheus, manager: Alertmanager) -> Delivered:
    """Let the minimum rise, and wait until all nodes have been asked for, or no more come."""
    before, dropped = len(fleet.asked), _dropped(prometheus)
    fleet.rise()
    began, nodes = time.monotonic(), fleet.hosts * fleet.nodes
    limit = began + 900
    while len(fleet.asked) < nodes and time.monotonic() < limit:
        time.sleep(0.1)
    times = sorted(fleet.asked.values())[before:]
    return Delivered(
        nodes=len(fleet.asked),
        messages=fleet.messages,
        first=times[0] - began,
        half=times[len(times) // 2] - began,
        last=times[-1] - began,
        dropped=_dropped(prometheus) - dropped,
        resident=resident_mib(manager.process.pid),
        peak=peak_mib(manager.process.pid),
    )


def _asked(prometheus: Prometheus, size: Size) -> Asked:
    """Ask every query of the dashboards once, as Grafana does: all nodes on the fleet's, one of them on a node's."""
    asked, now = Asked(), time.time()
    chosen = worst(lambda query: _get(prometheus, f"query?{urllib.parse.urlencode({'query': query})}")["result"])
    asked.took[f"{FLEET.stem}: who is worst"] = time.time() - now
    for path in BOARDS:
        node = EVERY if path == FLEET else name(0)
        values = {"node": node, "worst": chosen, "__range": f"{size.history}s", "__interval": f"{size.interval}s"}
        values["__rate_interval"] = f"{4 * size.interval}s"
        for title, target in _targets(path):
            expression = fill(target["expr"], values)
            parameters: dict[str, object] = {"query": expression, "time": now}
            if not target.get("instant"):
                shown = DAY_MINUTES // int(target.get("interval", "1m").removesuffix("m"))
                step = max(size.history / min(size.steps, shown), 0.1)
                parameters = {"query": expression, "start": now - size.history, "end": now, "step": step}
            endpoint = "query" if target.get("instant") else "query_range"
            began = time.monotonic()
            try:
                _get(prometheus, f"{endpoint}?{urllib.parse.urlencode(parameters)}")
                asked.took[f"{path.stem}: {title}"] = time.monotonic() - began
            except urllib.error.HTTPError as error:
                asked.refused[f"{path.stem}: {title}"] = json.load(error)["error"]
    return asked


def _targets(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels(read(path)):
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target.get('refId', '')}".strip(), target


def _get(prometheus: Prometheus, path: str) -> Any:
    """Return the answer of the API, however long it takes."""
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/{path}", timeout=300) as answer:
        return json.load(answer)["data"]


if __name__ == "__main__":
    main()
