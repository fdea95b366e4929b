"""The metrics of the updater, as they are exposed, and how many series a node has at most with them."""

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.status import Basis, Clock, NodeStatus, ServiceState, ServiceStatus
from exporter.updater_metrics import UPDATER_ROWS
from exporter.updaterlog import Blocked, UpdaterFailure, UpdaterLog
from exporter.version import NodeVersion
from tests.exporter.test_metrics import RUNNING, registry, samples
from tests.exporter.test_updater import BEFORE, LOG, REJECTED, STATUS, STUCK, UNKNOWN, UPDATER, program
from tests.labs.prometheus import program as lab_program

FULL = replace(RUNNING, updater=UPDATER, clock=Clock(since=1.0, known=2.0, basis=Basis.CONTACT))


def told(status: NodeStatus) -> list[str]:
    return [line for line in samples(status) if line.startswith("storagenode_updater_")]


def test_an_updater_that_is_well() -> None:
    assert told(STATUS) == [
        'storagenode_updater_service_state{node="n",state="running"} 1.0',
        'storagenode_updater_version_info{node="n",release="true",version="1.162.3"} 1.0',
        'storagenode_updater_replaces_stopped{node="n"} 1.0',
        'storagenode_updater_last_check_timestamp_seconds{node="n"} 1.79499994e+09',
        'storagenode_updater_last_update_timestamp_seconds{node="n"} 1.7941e+09',
        'storagenode_updater_last_failure_timestamp_seconds{node="n"} 1.786e+09',
        'storagenode_updater_failures_total{kind="check",node="n"} 0.0',
        'storagenode_updater_failures_total{kind="download",node="n"} 0.0',
        'storagenode_updater_failures_total{kind="install",node="n"} 0.0',
        'storagenode_updater_blocked{kind="last_failed",node="n"} 0.0',
        'storagenode_updater_blocked{kind="left_over",node="n"} 0.0',
        'storagenode_updater_check_interval_seconds{node="n"} 900.0',
        'storagenode_updater_version_server_ours{node="n"} 1.0',
    ]


def test_an_updater_with_every_trouble() -> None:
    ill = replace(
        UPDATER,
        service=ServiceStatus(state=ServiceState.CRASHED, detail="why"),
        installed=replace(BEFORE, release=False),
        log=replace(STUCK, failures={**LOG.failures, UpdaterFailure.INSTALL: 96}),
        interval_seconds=0.0,
        server_is_ours=False,
    )
    assert told(replace(STATUS, updater=ill)) == [
        'storagenode_updater_service_state{node="n",state="crashed"} 1.0',
        'storagenode_updater_version_info{node="n",release="false",version="1.105.4"} 1.0',
        'storagenode_updater_replaces_stopped{node="n"} 0.0',
        'storagenode_updater_last_check_timestamp_seconds{node="n"} 1.79499994e+09',
        'storagenode_updater_last_update_timestamp_seconds{node="n"} 1.7941e+09',
        'storagenode_updater_last_failure_timestamp_seconds{node="n"} 1.786e+09',
        'storagenode_updater_failures_total{kind="check",node="n"} 0.0',
        'storagenode_updater_failures_total{kind="download",node="n"} 0.0',
        'storagenode_updater_failures_total{kind="install",node="n"} 96.0',
        'storagenode_updater_blocked{kind="not_initialized",node="n"} 1.0',
        'storagenode_updater_blocked{kind="left_over",node="n"} 0.0',
        'storagenode_updater_check_interval_seconds{node="n"} 0.0',
        'storagenode_updater_version_server_ours{node="n"} 0.0',
    ]


def test_what_is_unknown_has_no_number() -> None:
    dark = replace(
        UPDATER,
        service=ServiceStatus(state=ServiceState.UNKNOWN, detail="no bus"),
        installed=UNKNOWN,
        log=UNKNOWN,
        leftovers=UNKNOWN,
        rejected=UNKNOWN,
        interval_seconds=None,
        server_is_ours=None,
    )
    unknown = ['storagenode_updater_service_state{node="n",state="unknown"} 1.0']
    assert told(replace(STATUS, updater=dark)) == unknown
    logged = replace(dark, log=UpdaterLog(version=NodeVersion(1, 106, 1)))
    assert 'storagenode_updater_version_info{node="n",release="unknown",version="1.106.1"} 1.0' in told(
        replace(STATUS, updater=logged)
    )
    assert told(replace(STATUS, updater=None)) == told(replace(STATUS, updater=UNKNOWN)) == []


@pytest.mark.parametrize("state", ServiceState)
def test_exactly_one_state_is_set_and_all_are_there(state: ServiceState) -> None:
    status = replace(STATUS, updater=replace(UPDATER, service=ServiceStatus(state=state, detail="")))
    lines = [
        line
        for line in generate_latest(registry(status)).decode().splitlines()
        if line.startswith("storagenode_updater_service_state{")
    ]
    assert len(lines) == len(ServiceState)
    assert [line for line in lines if line.endswith(" 1.0")] == [
        f'storagenode_updater_service_state{{node="n",state="{state}"}} 1.0'
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rejected": REJECTED},
        {"installed": program(NodeVersion(1, 127, 0))},
        {"installed": BEFORE, "log": STUCK},
        {"installed": UNKNOWN},
        {"installed": UNKNOWN, "log": replace(LOG, version=NodeVersion(1, 104, 5), blocked=Blocked.LEFT_OVER)},
    ],
)
def test_a_node_has_at_most_sixty_series(changes: Mapping[str, Any]) -> None:
    status = replace(FULL, updater=replace(UPDATER, **changes))
    lines = [line for line in generate_latest(registry(status)).decode().splitlines() if 'node="up"' in line]
    assert {line.partition("{")[0] for line in lines} >= {
        "storagenode_updater_blocked",
        "storagenode_started_timestamp_seconds",
    }
    assert 50 < len(lines) <= 60, "\n".join(lines)


def test_both_formats_have_every_metric() -> None:
    text = generate_openmetrics(registry(FULL)).decode()  # type: ignore[no-untyped-call]
    for row in UPDATER_ROWS:
        assert f"# TYPE {row.name} {row.type}\n" in text


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say() -> None:
    text = generate_latest(registry(FULL))
    checked = subprocess.run([lab_program("promtool"), "check", "metrics"], input=text, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
