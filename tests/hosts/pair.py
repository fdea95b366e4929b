"""What the pair of Alertmanagers says, and what it is told."""

import json
from datetime import UTC, datetime, timedelta

from tests.e2e.site import wait
from tests.hosts.farm import Farm
from tests.hosts.host import Host
from tests.labs.prometheus import Alertmanager

DEADLOCKED = "StorageNodeDeadlocked"
PATIENCE = 180
"""Seconds for what goes by way of several machines; it takes a few."""


def metric(alertmanager: Alertmanager, name: str, **labels: str) -> float:
    """Sum a metric of an Alertmanager."""
    total = 0.0
    for line in alertmanager.request("GET", "/metrics").decode().splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{key}="{value}"' in series for key, value in labels.items()):
            total += float(value)
    return total


def failures(farm: Farm) -> float:
    """Return how often a webhook has not been reached."""
    return sum(
        metric(each, "alertmanager_notification_requests_failed_total", integration="webhook")
        for each in farm.alertmanagers
    )


def members(farm: Farm, count: int) -> None:
    """Wait until each of the pair sees so many of it, itself included."""

    def agreed() -> bool:
        return all(metric(each, "alertmanager_cluster_members") == count for each in farm.alertmanagers)

    wait(agreed, f"{count} in the cluster", PATIENCE)


def silenced(farm: Farm, host: Host) -> str:
    """Silence the deadlocks of a host with one of the pair, wait until both know, and return the silence's ID."""
    matchers = {"alertname": DEADLOCKED, "instance": f"{host.fqdn}:19651"}
    silence = {
        "matchers": [{"name": key, "value": value, "isRegex": False} for key, value in matchers.items()],
        "startsAt": datetime.now(UTC).isoformat(),
        "endsAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        "createdBy": "a person",
        "comment": "it is being moved",
    }
    answer = json.loads(farm.alertmanagers[0].request("POST", "/api/v2/silences", json.dumps(silence).encode()))
    wanted = str(answer["silenceID"])

    def known() -> bool:
        return all(wanted in {each["id"] for each in one.get("/api/v2/silences")} for one in farm.alertmanagers)

    wait(known, "both know of the silence", PATIENCE)
    return wanted
