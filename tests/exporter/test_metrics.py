import subprocess
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.allowed import AllowedVersions, Process, Release, UpdateState, Verdict
from exporter.metrics import DOCUMENT_ROWS, NODE_ROWS, families
from exporter.status import (
    Basis,
    Clock,
    Failure,
    FailureReason,
    InstalledVersion,
    NodeStatus,
    RunningNode,
    ServiceState,
    ServiceStatus,
    Source,
)
from exporter.version import NodeVersion
from tests.labs.prometheus import program

NODE_ID = "12S5avehqmwSC8Z6o6cQqof7q87eJQJGUm8cB4kjvuaMC5TkEVB"
FAILURE = Failure(FailureReason.TIMEOUT, "no answer within 2 s")
ALLOWED = AllowedVersions(
    processes={
        "storagenode": Process(
            minimum=Release(version=NodeVersion(1, 104, 5), url=""),
            suggested=Release(version=NodeVersion(1, 105, 0, "rc"), url=""),
            seed=bytes(32),
            cursor=b"\x80" + bytes(31),
        )
    },
    fetched=1_795_000_000.5,
)
RUNNING = NodeStatus(
    node="up",
    manager="systemd",
    service=ServiceStatus(
        state=ServiceState.RUNNING, detail="running", since=1_794_000_000.25, restarts=2, exit_code=1, pid=7
    ),
    installed=InstalledVersion(version=NodeVersion(1, 105, 0, "rc"), release=True, device=1, inode=2),
    running=RunningNode(
        version=NodeVersion(1, 104, 6),
        node_id=NODE_ID,
        allowed_version=None,
        started=1_794_000_001.0,
        last_contact=None,
    ),
    allowed=ALLOWED,
    verdict=Verdict(UpdateState.CURRENT),
    node_id=NODE_ID,
    last_contact=1_794_999_999.0,
    durations={Source.SERVICE: 0.01, Source.BINARY: 0.02, Source.NODE_API: 0.03, Source.VERSION_SERVER: 0.0},
)
DOWN = NodeStatus(
    node="down",
    manager="process",
    service=ServiceStatus(state=ServiceState.STOPPED, detail="stopped"),
    installed=InstalledVersion(version=NodeVersion(1, 102, 3), release=True, device=1, inode=2),
    running=FAILURE,
    allowed=ALLOWED,
    verdict=Verdict(UpdateState.BELOW_MINIMUM, NodeVersion(1, 104, 5)),
)
DARK = NodeStatus(
    node="dark",
    manager="systemd",
    service=ServiceStatus(state=ServiceState.UNKNOWN, detail="no bus"),
    installed=FAILURE,
    running=FAILURE,
    allowed=FAILURE,
    verdict=Verdict(UpdateState.UNKNOWN, reason="the installed version is not known"),
)


class Given:
    """Collects what was seen of some nodes."""

    def __init__(self, *statuses: NodeStatus) -> None:
        self._statuses = statuses

    def collect(self) -> object:
        return families(self._statuses)


def registry(*statuses: NodeStatus) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(Given(*statuses))  # type: ignore[arg-type]
    return made


def samples(*statuses: NodeStatus) -> list[str]:
    """Return the samples as they are exposed, without the lines of zero of states."""
    lines = generate_latest(registry(*statuses)).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and not ("state=" in line and line.endswith(" 0.0"))]


def test_a_running_node() -> None:
    assert samples(RUNNING) == [
        'storagenode_up{node="up"} 1.0',
        'storagenode_service_state{manager="systemd",node="up",state="running"} 1.0',
        'storagenode_service_state_since_timestamp_seconds{node="up"} 1.79400000025e+09',
        'storagenode_service_last_exit_code{node="up"} 1.0',
        'storagenode_service_restarts_total{node="up"} 2.0',
        'storagenode_version_info{node="up",release="true",source="installed",version="1.105.0-rc"} 1.0',
        'storagenode_version_info{node="up",release="unknown",source="running",version="1.104.6"} 1.0',
        'storagenode_version_number{node="up",source="installed"} 1.105e+06',
        'storagenode_version_number{node="up",source="running"} 1.104006e+06',
        'storagenode_update_state{node="up",state="current"} 1.0',
        'storagenode_below_minimum{node="up"} 0.0',
        'storagenode_deadlocked{node="up"} 0.0',
        'storagenode_restart_pending{node="up"} 1.0',
        'storagenode_rollout_position_ratio{node="up"} 0.6657406516833279',
        'storagenode_minor_releases_above_minimum{node="up"} 1.0',
        'storagenode_last_contact_timestamp_seconds{node="up"} 1.794999999e+09',
        'storagenode_started_timestamp_seconds{node="up"} 1.794000001e+09',
        'storagenode_source_success{node="up",source="version_server"} 1.0',
        'storagenode_source_success{node="up",source="node_api"} 1.0',
        'storagenode_source_success{node="up",source="binary"} 1.0',
        'storagenode_source_success{node="up",source="service"} 1.0',
        'storagenode_source_duration_seconds{node="up",source="service"} 0.01',
        'storagenode_source_duration_seconds{node="up",source="binary"} 0.02',
        'storagenode_source_duration_seconds{node="up",source="node_api"} 0.03',
        'storagenode_source_duration_seconds{node="up",source="version_server"} 0.0',
        'storagenode_allowed_version_info{kind="minimum",process="storagenode",version="1.104.5"} 1.0',
        'storagenode_allowed_version_info{kind="suggested",process="storagenode",version="1.105.0-rc"} 1.0',
        'storagenode_allowed_version_number{kind="minimum",process="storagenode"} 1.104005e+06',
        'storagenode_allowed_version_number{kind="suggested",process="storagenode"} 1.105e+06',
        "storagenode_allowed_versions_consistent 1.0",
        "storagenode_allowed_versions_fetched_timestamp_seconds 1.7950000005e+09",
        'storagenode_rollout_cursor_ratio{process="storagenode"} 0.5',
        'storagenode_exporter_build_info{version="0.1.0"} 1.0',
    ]


def test_a_development_build() -> None:
    """What no minimum keeps from starting is not near one."""
    build = replace(
        RUNNING, installed=InstalledVersion(version=NodeVersion(1, 105, 0), release=False, device=1, inode=2)
    )
    assert 'storagenode_version_info{node="up",release="false",source="installed",version="1.105.0"} 1.0' in samples(
        build
    )
    assert "storagenode_minor_releases_above_minimum" not in "".join(samples(build))


def test_a_deadlocked_node() -> None:
    assert [line for line in samples(DOWN) if 'node="' in line] == [
        'storagenode_up{node="down"} 0.0',
        'storagenode_service_state{manager="process",node="down",state="stopped"} 1.0',
        'storagenode_version_info{node="down",release="true",source="installed",version="1.102.3"} 1.0',
        'storagenode_version_number{node="down",source="installed"} 1.102003e+06',
        'storagenode_update_state{node="down",state="below_minimum"} 1.0',
        'storagenode_below_minimum{node="down"} 1.0',
        'storagenode_deadlocked{node="down"} 1.0',
        'storagenode_minor_releases_above_minimum{node="down"} -2.0',
        'storagenode_source_success{node="down",source="version_server"} 1.0',
        'storagenode_source_success{node="down",source="node_api"} 0.0',
        'storagenode_source_success{node="down",source="binary"} 1.0',
        'storagenode_source_success{node="down",source="service"} 1.0',
    ]


def test_what_is_unknown_has_no_number() -> None:
    assert samples(DARK) == [
        'storagenode_up{node="dark"} 0.0',
        'storagenode_service_state{manager="systemd",node="dark",state="unknown"} 1.0',
        'storagenode_update_state{node="dark",state="unknown"} 1.0',
        'storagenode_source_success{node="dark",source="version_server"} 0.0',
        'storagenode_source_success{node="dark",source="node_api"} 0.0',
        'storagenode_source_success{node="dark",source="binary"} 0.0',
        'storagenode_source_success{node="dark",source="service"} 0.0',
        'storagenode_exporter_build_info{version="0.1.0"} 1.0',
    ]


def test_the_whole_text_of_one_family() -> None:
    text = generate_latest(registry(DOWN)).decode()
    start = text.index("# HELP storagenode_update_state")
    assert text[start : text.index("# HELP storagenode_below_minimum")] == (
        "# HELP storagenode_update_state How the installed version stands against the allowed ones, by upstream's rule;"
        " 1 for the state it is in.\n"
        "# TYPE storagenode_update_state gauge\n"
        'storagenode_update_state{node="down",state="current"} 0.0\n'
        'storagenode_update_state{node="down",state="waiting"} 0.0\n'
        'storagenode_update_state{node="down",state="due"} 0.0\n'
        'storagenode_update_state{node="down",state="below_minimum"} 1.0\n'
        'storagenode_update_state{node="down",state="unknown"} 0.0\n'
    )


@pytest.mark.parametrize("state", ServiceState)
def test_exactly_one_state_is_set_and_all_are_there(state: ServiceState) -> None:
    status = replace(DOWN, service=ServiceStatus(state=state, detail=""))
    family = next(f for f in families([status]) if f.name == "storagenode_service_state")
    assert {sample.labels["state"] for sample in family.samples} == set(ServiceState)
    assert [sample.labels["state"] for sample in family.samples if sample.value == 1] == [state]
    deadlocked = [line for line in samples(status) if line.startswith("storagenode_deadlocked")]
    match state:
        case ServiceState.UNKNOWN:
            assert deadlocked == []
        case ServiceState.STOPPED | ServiceState.CRASHED | ServiceState.CRASH_LOOPING:
            assert deadlocked == ['storagenode_deadlocked{node="down"} 1.0']
        case _:
            assert deadlocked == ['storagenode_deadlocked{node="down"} 0.0']


def test_an_undecided_service_was_read() -> None:
    undecided = replace(DARK, service=ServiceStatus(state=ServiceState.UNKNOWN, detail="", undecided=True))
    assert 'storagenode_source_success{node="dark",source="service"} 1.0' in samples(undecided)


def test_a_node_id_that_is_none_has_no_position() -> None:
    assert not [line for line in samples(replace(RUNNING, node_id="nonsense")) if "position" in line]


def test_the_document_is_told_once_for_all_nodes() -> None:
    lines = samples(DARK, RUNNING, DOWN)
    assert len([line for line in lines if line.startswith("storagenode_allowed_versions_fetched")]) == 1


def test_a_node_has_at_most_sixty_series() -> None:
    told = replace(RUNNING, clock=Clock(1_794_999_999.0, Basis.CONTACT, 1_795_000_000.0))
    lines = generate_latest(registry(told)).decode().splitlines()
    assert len([line for line in lines if 'node="' in line]) <= 60


def test_both_formats_have_every_metric() -> None:
    text = generate_openmetrics(registry(RUNNING)).decode()  # type: ignore[no-untyped-call]
    types = [(row.name, row.type) for row in NODE_ROWS] + [(row.name, row.type) for row in DOCUMENT_ROWS]
    for name, kind in types:
        assert f"# TYPE {name} {kind}\n" in text
    assert text.endswith("# EOF\n")


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say() -> None:
    text = generate_latest(registry(RUNNING, DOWN, DARK))
    checked = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    bad = text.replace(b"storagenode_up", b"storagenode_up_total")
    assert subprocess.run([program("promtool"), "check", "metrics"], input=bad, capture_output=True).returncode == 3
