"""So many nodes that live through the story, as the samples that a Prometheus would have scraped of them.

The families are those of the programs; only what was observed is made up.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from exporter import metrics as node_metrics
from exporter.allowed import STORAGENODE, Verdict, judge
from exporter.status import (
    Basis,
    Clock,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    Rejected,
    RunningNode,
    ServiceState,
    ServiceStatus,
    Source,
    UpdaterStatus,
)
from exporter.updaterlog import Blocked, UpdaterFailure, UpdaterLog
from remediate import metrics as remediation_metrics
from remediate.published import Published
from remediate.webhook import AlertResult
from tests.pictures.story import (
    BEFORE,
    BEGIN,
    LENGTH,
    MINUTE,
    NAMES,
    NEW,
    Moment,
    Script,
    added,
    document,
    node_id,
    position,
    script,
)

_PLACES = {0: (0.1, 0.2), 4: (0, 0.04), 8: (0.3, 0.35), 9: (0.36, 0.39)} | dict.fromkeys(
    (1, 2, 3, 5, 6, 7, 10, 11), (0.6, 1)
)
"""Where in the rollout a kind of node has to stand for its story."""
_UNSEEN = Failure(FailureReason.DENIED, "its binary may not be run: permission denied")
_UNREACHED = Failure(FailureReason.UNREACHABLE, "connection refused")


class Fleet:
    """So many nodes, four on a host; the first ones each of another kind."""

    def __init__(self, nodes: int) -> None:
        more = [f"rack{number // 20}-disk{number % 20:02}" for number in range(len(NAMES), nodes)]
        self.names = ["bravo"] if nodes == 1 else [*NAMES[:nodes], *more]
        self._ids, self._scripts = dict[str, str](), dict[str, Script]()
        ids = map(node_id, count())
        for index, name in enumerate(self.names):
            kind = NAMES.index(name) if name in NAMES else index // 23 * (index % 23 == 0)
            low, high = _PLACES.get(kind, (0, 1)) if kind or name in NAMES else (0, 1)
            self._ids[name] = next(identity for identity in ids if low <= position(identity) <= high)
            self._scripts[name] = script(name, kind, position(self._ids[name]))
        self._hosts = [self.names[at : at + 4] for at in range(0, nodes, 4)]

    def moment(self, node: str, minute: float) -> Moment:
        """Say how a node is."""
        now = Moment()
        for begins, changes in self._scripts[node]:
            if begins <= minute:
                counted = {name: added(getattr(now, name), changes.get(name, ())) for name in ("runs", "decisions")}
                now = replace(now, **{**changes, **counted})
        return now

    def status(self, node: str, minute: float) -> NodeStatus:
        """Put what a node is into what is observed of it."""
        now, at, allowed = self.moment(node, minute), BEGIN + minute * MINUTE, document(minute)
        contact = BEGIN + (minute - 2 if now.contact is None else now.contact) * MINUTE
        started = BEGIN + (now.since if now.since is not None else 0) * MINUTE
        installed = InstalledVersion(version=now.installed, release=True, device=1, inode=1)
        runs = None if now.running is None else now.running
        running = RunningNode(
            version=runs or BEFORE, node_id="", allowed_version=None, started=started, last_contact=contact
        )
        known = judge(now.installed, allowed.processes[STORAGENODE], self._ids[node])
        wobble = sha256(f"{node} {minute}".encode()).digest()[0] / 256
        return NodeStatus(
            node=node,
            manager="systemd",
            service=ServiceStatus(
                state=now.service,
                detail="",
                since=None if now.since is None else started,
                exit_code=now.exit_code,
                restarts=now.restarts,
            ),
            installed=installed if now.seen else _UNSEEN,
            running=_UNREACHED if runs is None else running,
            allowed=allowed,
            verdict=known if now.seen else replace(Verdict(known.state), state=type(known.state).UNKNOWN),
            node_id=self._ids[node],
            last_contact=contact,
            clock=Clock(contact, Basis.CONTACT, at),
            updater=_updater(now, minute) if now.seen else _UNSEEN,
            durations={
                Source.VERSION_SERVER: 0.0006,
                Source.NODE_API: 0.004 + 0.002 * wobble,
                Source.BINARY: 0.0002,
                Source.SERVICE: 0.003 + 0.001 * wobble,
            },
        )

    def _families(self, host: str, nodes: Sequence[str], minute: float) -> Iterator[tuple[str, Iterable[Metric]]]:
        """Yield what each job on a host serves."""
        moments = {node: self.moment(node, minute) for node in nodes}
        runs = tuple(run for moment in moments.values() for run in moment.runs)
        decisions = tuple(one for moment in moments.values() for one in moment.decisions)
        published = Published(
            worker_last_seen=BEGIN + minute // 10 * 10 * MINUTE,
            runs=runs,
            decisions=decisions,
            nodes=tuple(replace(moment.stands, node=node) for node, moment in moments.items()),
        )
        waiting = [node for node, moment in moments.items() if moment.pending]
        yield f"{host}:19651", node_metrics.families([self.status(node, minute) for node in nodes])
        remediation = remediation_metrics.families(published, waiting, nodes)
        taken, done = sum(one.count for one in decisions), sum(run.count for run in runs)
        requests = CounterMetricFamily("storagenode_webhook_requests", "", labels=["code"])
        alerts = CounterMetricFamily("storagenode_webhook_alerts", "", labels=["result"])
        for code, total in {"200": done, "202": taken, "400": 0, "401": 0, "503": 0}.items():
            requests.add_metric([code], total)
        for result in AlertResult:
            alerts.add_metric([result], {AlertResult.ACCEPTED: taken, AlertResult.RESOLVED: done}.get(result, 0))
        yield f"{host}:19652", [*remediation, requests, alerts]

    def samples(self, every: float) -> Iterator[str]:
        """Yield lines of OpenMetrics: what a Prometheus that scrapes all hosts would have read."""
        jobs = {"19651": "storagenode", "19652": "storagenode-remediate"}
        for step in range(int(LENGTH // every)):
            minute, at = step * every / MINUTE, f"{BEGIN + step * every:.0f}"
            yield f'up{{instance="127.0.0.1:9093",job="alertmanager"}} 1 {at}\n'
            for number, nodes in enumerate(self._hosts, 1):
                for instance, families in self._families(f"host{number}.example", nodes, minute):
                    target = f'instance="{instance}",job="{jobs[instance[-5:]]}"'
                    yield f"up{{{target}}} 1 {at}\n"
                    for family in families:
                        for sample in family.samples:
                            labels = "".join(f',{name}="{value}"' for name, value in sample.labels.items())
                            yield f"{sample.name}{{{target}{labels}}} {float(sample.value)!r} {at}\n"
        yield "# EOF\n"

    def write(self, path: Path, every: float) -> None:
        """Write all samples as a file for `promtool tsdb create-blocks-from openmetrics`."""
        with path.open("w") as file:
            file.writelines(self.samples(every))


def _updater(now: Moment, minute: float) -> UpdaterStatus:
    at = BEGIN + minute * MINUTE
    check = BEGIN + (min(minute, 90) if now.updater is not ServiceState.RUNNING else minute) // 15 * 15 * MINUTE
    rejected = Rejected(path=Path("/last-failed-update.storagenode.json"), version=NEW, failure="signal: terminated")
    log = UpdaterLog(
        last_check=check,
        last_update=BEGIN + now.updated * MINUTE,
        last_failure=None if now.failed is None else BEGIN + now.failed * MINUTE,
        failures={kind: now.failures if kind is UpdaterFailure.INSTALL else 0 for kind in UpdaterFailure},
        found=now.installed,
        version=now.updater_version,
        blocked=now.blocked,
        interval=900.0,
    )
    return UpdaterStatus(
        unit="storagenode-updater.service",
        service=ServiceStatus(state=now.updater, detail=""),
        installed=InstalledVersion(version=now.updater_version, release=True, device=1, inode=2),
        log=log,
        leftovers=(),
        rejected=rejected if now.blocked is Blocked.LAST_FAILED else None,
        interval_seconds=900.0,
        server="https://version.storj.io",
        server_is_ours=True,
        looked=at,
    )
