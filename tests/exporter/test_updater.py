"""What is wrong with an updater, derived from what was seen of it; and the files that it leaves, on a real disk."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.allowed import AllowedVersions, Process, Release, UpdateState, Verdict
from exporter.leftbehind import leftovers, rejected
from exporter.status import (
    Failure,
    FailureReason,
    InstalledVersion,
    Leftover,
    NodeStatus,
    Rejected,
    ServiceState,
    ServiceStatus,
    UpdaterStatus,
)
from exporter.updater import blocked, is_late, replaces_stopped, targets, troubles
from exporter.updaterlog import Blocked, UpdaterLog
from exporter.version import NodeVersion
from tests.exporter.test_metrics import DOWN
from tests.remediate.test_files import root_only

OLD, MINIMUM, SUGGESTED = NodeVersion(1, 102, 3), NodeVersion(1, 104, 5), NodeVersion(1, 105, 2)
NOW = 1_795_000_000.0
UNKNOWN = Failure(FailureReason.DENIED, "may not be seen")
ALLOWED = AllowedVersions(
    processes={
        "storagenode": Process(
            minimum=Release(version=MINIMUM, url=""),
            suggested=Release(version=SUGGESTED, url=""),
            seed=bytes(32),
            cursor=bytes(32),
        )
    },
    fetched=0,
)


def program(version: NodeVersion) -> InstalledVersion:
    return InstalledVersion(version=version, release=True, device=1, inode=2)


LOG = UpdaterLog(last_check=NOW - 60, last_update=NOW - 9e5, last_failure=NOW - 9e6, found=OLD)
UPDATER = UpdaterStatus(
    unit="u.service",
    service=ServiceStatus(state=ServiceState.RUNNING, detail="running"),
    installed=program(NodeVersion(1, 162, 3)),
    log=LOG,
    leftovers=(),
    rejected=None,
    interval_seconds=900.0,
    server="https://v.test",
    server_is_ours=True,
    looked=NOW,
)
"""One that is well."""
STATUS = replace(DOWN, node="n", allowed=ALLOWED, installed=program(OLD), updater=UPDATER)
LEFT = Leftover(path=Path("/opt/node/storagenode.1.104.5"), version=MINIMUM, age_seconds=601)
REJECTED = Rejected(path=Path("/last-failed-update.storagenode.json"), version=MINIMUM, failure="signal: terminated")
BEFORE = program(NodeVersion(1, 105, 4))
"""The last release whose updater leaves a stopped node alone."""


def updater(**changes: Any) -> NodeStatus:
    return replace(STATUS, updater=replace(UPDATER, **changes))


def test_of_one_that_is_well_nothing_is_said() -> None:
    assert list(troubles(STATUS)) == []
    assert blocked(STATUS) == {Blocked.LAST_FAILED: False, Blocked.LEFT_OVER: False}
    assert list(troubles(replace(STATUS, updater=None))) == []
    assert list(troubles(replace(STATUS, updater=UNKNOWN))) == []
    assert blocked(replace(STATUS, updater=UNKNOWN)) == {}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (STATUS, {MINIMUM, SUGGESTED}),
        (replace(STATUS, installed=program(MINIMUM)), {SUGGESTED}),
        (replace(STATUS, installed=program(SUGGESTED)), set()),
        (replace(STATUS, installed=UNKNOWN), None),
        (replace(STATUS, allowed=UNKNOWN), None),
    ],
)
def test_the_versions_that_may_come_next(status: NodeStatus, expected: set[NodeVersion] | None) -> None:
    assert targets(status) == expected


@pytest.mark.parametrize(
    ("changes", "serious", "check", "words"),
    [
        ({"service": ServiceStatus(state=ServiceState.STOPPED, detail="asleep")}, True, "updater", "stopped: asleep"),
        ({"service": ServiceStatus(state=ServiceState.UNKNOWN, detail="no bus")}, True, "updater", "unknown: no bus"),
        ({"rejected": REJECTED}, True, "rejected", "never tries 1.104.5 again, since: signal: terminated"),
        ({"rejected": replace(REJECTED, version=NodeVersion(1, 103, 1))}, False, "rejected", "1.103.1"),
        ({"leftovers": (LEFT,)}, True, "leftover", "in its way to 1.104.5"),
        ({"leftovers": (replace(LEFT, version=NodeVersion(1, 103, 1)),)}, False, "leftover", "in its way to 1.103.1"),
        ({"leftovers": (replace(LEFT, age_seconds=599),)}, False, "leftover", "unpacking"),
        ({"leftovers": (replace(LEFT, version=None),)}, False, "leftover", "backup"),
        ({"interval_seconds": 0.0}, True, "interval", "looks once"),
        ({"interval_seconds": -1.0}, True, "interval", "looks once"),
        ({"interval_seconds": 3601.0}, True, "interval", "only every 1.0 h"),
        ({"installed": BEFORE}, True, "updater_version", "is 1.105.4, and before 1.106"),
        ({"server": "https://e.test", "server_is_ours": False}, True, "updater_version_server", "'https://e.test'"),
        ({"log": replace(LOG, last_check=NOW - 2701)}, True, "updater_silent", "last learned 2026-11-18 "),
    ],
)
def test_what_is_wrong(changes: Mapping[str, Any], serious: bool, check: str, words: str) -> None:
    (found,) = troubles(updater(**changes))
    assert (found.serious, found.check) == (serious, check)
    assert words in found.what
    assert found.todo


def test_what_one_does_not_read_is_not_serious() -> None:
    found = troubles(updater(installed=program(NodeVersion(1, 127, 9)), rejected=REJECTED))
    assert [(each.check, each.serious) for each in found] == [("rejected", False)]


@pytest.mark.parametrize("state", ServiceState)
def test_it_is_missed_where_it_does_not_run(state: ServiceState) -> None:
    well = state in (ServiceState.RUNNING, ServiceState.STARTING)
    status = updater(service=ServiceStatus(state=state, detail="why"))
    assert [each.check for each in troubles(status)] == ([] if well else ["updater"])
    undecided = updater(service=ServiceStatus(state=ServiceState.UNKNOWN, detail="", undecided=True))
    assert list(troubles(undecided)) == []


@pytest.mark.parametrize(
    ("version", "offline"),
    [("1.105.4", False), ("1.106.0-rc", False), ("1.106.0", True), ("1.106.1", True), ("1.162.3", True)],
)
def test_since_when_it_replaces_the_binary_of_a_stopped_node(version: str, offline: bool) -> None:
    parsed = NodeVersion.parse(version)
    assert replaces_stopped(replace(UPDATER, installed=program(parsed))) is offline
    assert replaces_stopped(replace(UPDATER, installed=UNKNOWN, log=replace(LOG, version=parsed))) is offline
    assert replaces_stopped(replace(UPDATER, installed=UNKNOWN)) is None
    assert replaces_stopped(replace(UPDATER, installed=UNKNOWN, log=UNKNOWN)) is None


STUCK = replace(LOG, blocked=Blocked.NOT_INITIALIZED)
STUMBLES = replace(LOG, blocked=Blocked.LEFT_OVER)
N, F, L = Blocked.NOT_INITIALIZED, Blocked.LAST_FAILED, Blocked.LEFT_OVER


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"installed": BEFORE}, {N: False, L: False}),
        ({"installed": BEFORE, "log": STUCK}, {N: True, L: False}),
        ({"installed": BEFORE, "log": replace(STUCK, found=NodeVersion(1, 101, 3))}, {N: False, L: False}),
        ({"installed": BEFORE, "log": UNKNOWN}, {L: False}),
        ({"installed": BEFORE, "rejected": REJECTED}, {N: False, L: False}),
        ({"installed": program(NodeVersion(1, 106, 0)), "log": STUCK, "rejected": REJECTED}, {L: False}),
        ({"installed": program(NodeVersion(1, 127, 9)), "rejected": REJECTED}, {L: False}),
        ({"installed": program(NodeVersion(1, 128, 0)), "rejected": REJECTED}, {F: True, L: False}),
        ({"rejected": REJECTED}, {F: True, L: False}),
        ({"rejected": replace(REJECTED, version=SUGGESTED)}, {F: True, L: False}),
        ({"rejected": replace(REJECTED, version=NodeVersion(1, 103, 1))}, {F: False, L: False}),
        ({"rejected": UNKNOWN}, {L: False}),
        ({"leftovers": (LEFT,)}, {F: False, L: True}),
        ({"leftovers": (replace(LEFT, age_seconds=599),)}, {F: False, L: False}),
        ({"leftovers": (replace(LEFT, version=None),)}, {F: False, L: False}),
        ({"leftovers": (replace(LEFT, version=NodeVersion(1, 103, 1)),)}, {F: False, L: False}),
        ({"leftovers": (), "log": STUMBLES}, {F: False, L: False}),
        ({"leftovers": (replace(LEFT, age_seconds=1),), "log": STUMBLES}, {F: False, L: True}),
        ({"leftovers": UNKNOWN, "log": STUMBLES}, {F: False, L: True}),
        ({"leftovers": UNKNOWN}, {F: False}),
        ({"installed": UNKNOWN, "log": STUCK, "rejected": REJECTED, "leftovers": (LEFT,)}, {N: True, F: True, L: True}),
    ],
)
def test_by_what_it_is_blocked(changes: Mapping[str, Any], expected: Mapping[Blocked, bool]) -> None:
    status = updater(**changes)
    assert blocked(status) == expected
    assert ("not_initialized" in {each.check for each in troubles(status)}) == expected.get(N, False)


def test_it_is_blocked_no_more_once_the_node_has_the_version() -> None:
    stuck = updater(installed=BEFORE, log=STUCK, leftovers=(LEFT,))
    assert blocked(stuck) == {N: True, L: True}
    assert blocked(replace(stuck, installed=program(SUGGESTED))) == {N: False, L: False}
    gone = updater(rejected=REJECTED)
    assert blocked(replace(gone, installed=program(SUGGESTED)))[F] is False


def test_what_the_versions_are_needed_for_is_not_known_without_them() -> None:
    for status in (replace(STATUS, allowed=UNKNOWN), replace(STATUS, installed=UNKNOWN)):
        assert blocked(status) == {}
        assert blocked(replace(status, updater=replace(UPDATER, leftovers=(LEFT,), rejected=REJECTED))) == {}
    waiting = replace(STATUS, verdict=Verdict(UpdateState.WAITING), installed=program(MINIMUM))
    assert blocked(replace(waiting, updater=replace(UPDATER, rejected=replace(REJECTED, version=SUGGESTED))))[F]


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"log": replace(LOG, last_check=NOW - 2700)}, False),
        ({"log": replace(LOG, last_check=NOW - 2701)}, True),
        ({"log": replace(LOG, last_check=NOW - 86400), "interval_seconds": 0.0}, False),
        ({"log": replace(LOG, last_check=NOW - 86401), "interval_seconds": 0.0}, True),
        ({"log": replace(LOG, last_check=NOW - 86401), "interval_seconds": None}, True),
        ({"log": replace(LOG, last_check=None)}, False),
        ({"log": UNKNOWN}, False),
        (
            {
                "log": replace(LOG, last_check=NOW - 2701),
                "service": ServiceStatus(state=ServiceState.STOPPED, detail="asleep"),
            },
            False,
        ),
    ],
)
def test_when_it_has_not_looked_for_long(changes: Mapping[str, Any], late: bool) -> None:
    assert is_late(replace(UPDATER, **changes)) is late


def test_what_lies_beside_a_binary(tmp_path: Path) -> None:
    binary = tmp_path / "storage.node"
    kept = ["storage.node", "storage.node.conf", "storage.node-updater", "storagenode.1.2.3", "storage.node.1.2"]
    kept += ["1.2.3", "old.v1.2.3", "storage.node.1.2.3.zip"]
    for name in [*kept, "storage.node.1.104.5", "storage.node.v1.105.0-rc", "storage.node.old.v1.102.3"]:
        (tmp_path / name).touch()
    os.utime(tmp_path / "storage.node.1.104.5", (1, 1))
    found = leftovers(binary)
    assert not isinstance(found, Failure)
    assert {each.path.name: each.version and str(each.version) for each in found} == {
        "storage.node.1.104.5": "1.104.5",
        "storage.node.v1.105.0-rc": "1.105.0-rc",
        "storage.node.old.v1.102.3": None,
    }
    ages = {each.path.name: each.age_seconds for each in found}
    assert ages["storage.node.1.104.5"] > 1e9
    assert 0 <= ages["storage.node.v1.105.0-rc"] < 60
    assert isinstance(leftovers(tmp_path / "none/storagenode"), Failure)


@pytest.mark.parametrize(
    ("content", "version"),
    [
        ({"Version": "1.160.3", "Date": "2026-01-01T00:00:00Z", "Failure": " signal: \n terminated\n"}, "1.160.3"),
        ({"Version": "v1.160.3"}, "1.160.3"),
        ({"Version": "soon"}, None),
        ({"Version": None}, None),
        ({}, None),
        ([], None),
        ("1.160.3", None),
    ],
)
def test_what_it_has_written_down(tmp_path: Path, content: object, version: str | None) -> None:
    path = tmp_path / "last-failed-update.storagenode.json"
    assert rejected(path) is None
    path.write_text(json.dumps(content))
    found = rejected(path)
    assert (found and not isinstance(found, Failure) and str(found.version)) == version
    if isinstance(content, dict) and "Failure" in content:
        assert found == Rejected(path=path, version=NodeVersion(1, 160, 3), failure="signal: terminated")


def test_what_is_shown_of_it_is_one_line_of_text(tmp_path: Path) -> None:
    path = tmp_path / "last-failed-update.storagenode.json"
    path.write_text(json.dumps({"Version": "1.160.3", "Failure": "a\x1b[2J\nb" + "c" * 500}))
    found = rejected(path)
    assert isinstance(found, Rejected)
    assert found.failure == f"a?[2J b{'c' * 193}"


def test_what_is_no_file_of_its_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "last-failed-update.storagenode.json"
    os.mkfifo(path)
    assert rejected(path) is None
    path.unlink()
    path.write_text("[" * 60_000)
    assert rejected(path) is None


@root_only
def test_what_may_not_be_seen_is_not_taken_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed/verdict.json").write_text("{}")
    os.seteuid(65534)
    try:
        assert isinstance(rejected(tmp_path / "closed/verdict.json"), Failure)
        assert isinstance(leftovers(tmp_path / "closed/storagenode"), Failure)
    finally:
        os.seteuid(0)
