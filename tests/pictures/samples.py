"""So many nodes that live through the story, as the samples that a Prometheus would have scraped of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

from prometheus_client import Metric

from exporter import metrics as node_metrics
from exporter.allowed import AllowedVersions, UpdateState, Verdict, rollout_position
from exporter.identity import _base58
from exporter.status import NodeStatus, ServiceState, ServiceStatus, Source
from exporter.updaterlog import UpdaterLog
from remediate import metrics as remediation_metrics
from remediate.published import DecisionCount, NodePublished, Published, RunCount
from tests.fleet import BEFORE, MINIMUM, NEW, OLD, SEED, counted, document, node, updater
from tests.pictures.story import LENGTH, MINUTE, NAMES, RISE, ROLLOUT, Script, at, cursor, moment, script

_PLACES = {0: (0.1, 0.2), 4: (0, 0.04), 8: (0.3, 0.35), 9: (0.36, 0.39)} | dict.fromkeys(
    (1, 2, 3, 5, 6, 7, 10, 11), (0.6, 1)
)
"""Where in the rollout a kind of node has to stand for its story."""
_PER_HOST = 4
_SECONDS = {Source.VERSION_SERVER: 0.0006, Source.NODE_API: 0.004, Source.BINARY: 0.0002, Source.SERVICE: 0.003}


class Fleet:
    """So many nodes; the first ones each of another kind."""

    def __init__(self, nodes: int) -> None:
        more = [f"rack{number // 20}-disk{number % 20:02}" for number in range(len(NAMES), nodes)]
        self.names = ["bravo"] if nodes == 1 else [*NAMES[:nodes], *more]
        self._ids, self._scripts = dict[str, str](), dict[str, Script]()
        ids = map(_node_id, count())
        for index, name in enumerate(self.names):
            kind = NAMES.index(name) if name in NAMES else index // 23 * (index % 23 == 0)
            low, high = _PLACES.get(kind, (0, 1)) if kind or name in NAMES else (0, 1)
            self._ids[name], place = next((each, where) for each in ids if low <= (where := _position(each)) <= high)
            self._scripts[name] = script(kind, place)

    def samples(self, every: float) -> Iterator[str]:
        """Yield lines of OpenMetrics: what a Prometheus that scrapes all hosts would have read."""
        for step in range(int(LENGTH // every)):
            minute = step * every / MINUTE
            when = f"{at(minute):.0f}"
            yield f'up{{instance="127.0.0.1:9093",job="alertmanager"}} 1 {when}\n'
            for target, families in self._scraped(minute):
                yield f"up{{{target}}} 1 {when}\n"
                for sample in (sample for family in families for sample in family.samples):
                    labels = "".join(f',{name}="{value}"' for name, value in sample.labels.items())
                    yield f"{sample.name}{{{target}{labels}}} {float(sample.value)!r} {when}\n"
        yield "# EOF\n"

    def _scraped(self, minute: float) -> Iterator[tuple[str, Iterable[Metric]]]:
        """Yield what each job on each host serves."""
        minimum, suggested = MINIMUM if minute >= RISE else OLD, NEW if minute >= ROLLOUT else BEFORE
        allowed = document(minimum, suggested, at(minute // 5 * 5), cursor(minute))
        for first in range(0, len(self.names), _PER_HOST):
            host, names = f"host{first // _PER_HOST + 1}.example", self.names[first : first + _PER_HOST]
            moments = {name: moment(self._scripts[name], minute) for name in names}
            statuses = [_status(name, minute, now, self._ids[name], allowed) for name, now in moments.items()]
            yield f'instance="{host}:19651",job="storagenode"', node_metrics.families(statuses)
            yield f'instance="{host}:19652",job="storagenode-remediate"', _remediation(minute, moments)


def _remediation(minute: float, moments: Mapping[str, dict[str, Any]]) -> list[Metric]:
    runs = [
        RunCount(node=name, trigger="alert", outcome=outcome, program=program, count=total)
        for name, now in moments.items()
        for (outcome, program), total in now["runs"].items()
    ]
    decisions = [
        DecisionCount(node=name, decision=decision, reason=reason, program=program, count=total)
        for name, now in moments.items()
        for (decision, reason, program), total in now["decisions"].items()
    ]
    pending = [name for name, now in moments.items() if now["stands"].pop("pending")]
    nodes = tuple(NodePublished(node=name, **now["stands"]) for name, now in moments.items())
    seen = at(minute // 10 * 10)
    published = Published(worker_last_seen=seen, runs=tuple(runs), decisions=tuple(decisions), nodes=nodes)
    asked, done = (sum(one.count for one in counts) for counts in (decisions, runs))
    return [*remediation_metrics.families(published, pending, list(moments)), *counted(asked, done)]


def _status(name: str, minute: float, now: Mapping[str, Any], node_id: str, allowed: AllowedVersions) -> NodeStatus:
    """Put what a node is into what is observed of it."""
    looked = min(minute, 90) if now["updater"]["state"] is ServiceState.STOPPED else minute
    log = UpdaterLog(
        last_check=at(looked // 15 * 15),
        found=now["node"]["installed"],
        version=now["updater"]["version"],
        interval=900.0,
        **now["log"],
    )
    told = now["node"] | {"contact": now["node"]["contact"] or at(minute - 2), "node_id": node_id}
    if now["node"]["installed"]:
        told["updater"] = updater(at(minute), log, **now["updater"])
    else:
        told |= {"updater": None, "verdict": Verdict(UpdateState.UNKNOWN)}
    seen = node(name, at(minute), ServiceStatus(detail="", **now["service"]), allowed, **told)
    wobble = 1 + sha256(f"{name} {minute}".encode()).digest()[0] / 512
    return replace(seen, durations={source: seconds * wobble for source, seconds in _SECONDS.items()})


def _node_id(number: int) -> str:
    """Make up a node ID, with its checksum."""
    payload = b"\0\1" + sha256(number.to_bytes(8)).digest()[:-2] + b"\0"
    return _base58(payload + sha256(sha256(payload).digest()).digest()[:4])


def _position(node_id: str) -> float:
    """Say where the rollout reaches a node, from 0 to 1."""
    return int.from_bytes(rollout_position(SEED, node_id)) / (2**256 - 1)
