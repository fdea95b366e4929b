"""What would block or endanger an update: derived from what was seen, and seen on real folders and a real systemd."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from exporter.status import Failure, FailureReason, InstalledVersion, ServiceState, ServiceStatus
from exporter.version import NodeVersion
from remediate import surroundings
from remediate.cli import main
from remediate.diagnosis import Severity
from remediate.files import Directory
from remediate.findings import HostFacts, NodeFacts, Unfinished, WorkerUnits, diagnose
from remediate.history import History, Pause
from remediate.rules import Rules
from remediate.steps.swap import Obstacle, obstacles
from tests import schemas
from tests.e2e.site import NEW, OLD, PATH, USER, WORKER, Site, wait
from tests.exporter.hostile import answer, server
from tests.exporter.test_updater import LEFT, MINIMUM, REJECTED, STATUS, UNKNOWN, UPDATER
from tests.exporter.test_updater import OLD as OLD_VERSION
from tests.labs.rootfs import VENV
from tests.labs.systemd import Container
from tests.remediate.conftest import Stage, as_json, peak
from tests.remediate.test_files import attribute, mounted, root_only
from tests.simulators import build

FOLDER = Path("/opt/node")
UNITS = WorkerUnits(
    installed=True, enabled="enabled", active="active", protect_system="full", read_write=("/usr/local",)
)
HOST = HostFacts(version_server="https://v.test", worker=UNITS, worker_last_seen=1.0, clock_ahead_seconds=-60)
NODE = NodeFacts(status=STATUS, folder=FOLDER, own_version_server="https://v.test", restart="always")
DEVELOPMENT = InstalledVersion(version=NodeVersion(1, 102, 3), release=False, device=1, inode=2)
BLOCKS, ENDANGERS, NOTE = Severity.BLOCKS, Severity.ENDANGERS, Severity.NOTE


def service(state: ServiceState, **more: Any) -> dict[str, Any]:
    return {"status": replace(STATUS, service=ServiceStatus(state=state, detail="why", **more))}


def updater(**changes: Any) -> dict[str, Any]:
    return {"status": replace(STATUS, updater=replace(UPDATER, **changes))}


def alone(**changes: Any) -> dict[str, Any]:
    """Give a node without an updater."""
    return {"status": replace(STATUS, updater=None), **changes}


def test_where_all_is_well_nothing_is_found() -> None:
    diagnosis = diagnose(HOST, [NODE])
    assert (diagnosis.findings, diagnosis.exit_code) == ((), 0)
    assert str(diagnosis) == "n\n  fine\nthe host\n  fine"


@pytest.mark.parametrize(
    ("changes", "severity", "check", "words"),
    [
        (service(ServiceState.MASKED), BLOCKS, "service", "why"),
        (service(ServiceState.ABSENT), BLOCKS, "service", "why"),
        (service(ServiceState.UNKNOWN), BLOCKS, "service", "unknown: why"),
        ({"restart": "no"}, ENDANGERS, "restart", "Restart=no"),
        (alone(restart="on-failure"), NOTE, "restart", "Restart=on-failure"),
        (
            {"status": replace(STATUS, installed=Failure(FailureReason.TIMEOUT, "`version` hangs"))},
            BLOCKS,
            "probe",
            "`version` hangs",
        ),
        ({"status": replace(STATUS, installed=DEVELOPMENT)}, BLOCKS, "probe", "development build"),
        ({"obstacles": ((Obstacle.NO_ROOM, "1 byte is free"),)}, BLOCKS, "no_room", "1 byte"),
        ({"folder": Path("/usr/bin")}, BLOCKS, "sandbox", "/usr/bin"),
        ({"staged": FOLDER / ".storagenode.keeper-new"}, NOTE, "leftover", "keeper-new"),
        (alone(leftovers=(LEFT,)), ENDANGERS, "leftover", "in its way to 1.104.5"),
        (updater(leftovers=(LEFT,)), ENDANGERS, "leftover", "in its way to 1.104.5"),
        (updater(leftovers=(replace(LEFT, version=None),)), NOTE, "leftover", "backup"),
        (updater(rejected=REJECTED), ENDANGERS, "rejected", "never tries 1.104.5 again, since: signal: terminated"),
        (updater(log=UNKNOWN), NOTE, "updater_log", "denied: may not be seen"),
        ({"status": replace(STATUS, updater=UNKNOWN)}, NOTE, "updater_log", "denied: may not be seen"),
        ({"own_version_server": "https://e.test"}, ENDANGERS, "version_server", "'https://e.test'"),
        ({"config_problem": "c: Permission denied"}, ENDANGERS, "config_dir", "c: Permission denied"),
        ({"storage_problem": "no marker"}, ENDANGERS, "storage", "no marker"),
        ({"history": History(known_bad={MINIMUM: "wrong digest"})}, BLOCKS, "known_bad", "1.104.5 failed before"),
        ({"history": History(failures=(1.0, 2.0, 3.0))}, BLOCKS, "circuit", "three times within a day"),
        ({"pause": Pause("n", 1.0, None, "a new disk")}, NOTE, "paused", "a new disk"),
    ],
)
def test_what_is_found_of_a_node(changes: Mapping[str, Any], severity: Severity, check: str, words: str) -> None:
    diagnosis = diagnose(HOST, [replace(NODE, **changes)])
    (found,) = diagnosis.findings
    assert (found.node, found.severity, found.check) == ("n", severity, check)
    assert words in found.what
    assert found.todo
    assert diagnosis.exit_code == (severity is not NOTE)


@pytest.mark.parametrize(
    "changes",
    [
        service(ServiceState.UNKNOWN, undecided=True),
        {"history": History(known_bad={OLD_VERSION: "older than this", NodeVersion(1, 200, 0): "nobody wants it"})},
        alone(own_version_server=None, restart=None),
        {
            "status": replace(STATUS, installed=InstalledVersion(version=MINIMUM, release=True, device=1, inode=2)),
            "history": History(known_bad={MINIMUM: "installed since"}),
        },
        updater(interval_seconds=None, installed=UNKNOWN),
        {"folder": Path("/usr/local/bin")},
        {"folder": Path("/usrlocal")},
    ],
)
def test_what_is_nothing_to_be_found(changes: Mapping[str, Any]) -> None:
    assert diagnose(HOST, [replace(NODE, **changes)]).findings == ()


@pytest.mark.parametrize(
    ("changes", "severity", "check", "words"),
    [
        ({"problems": {"spool": (BLOCKS, "gone", "make it")}}, BLOCKS, "spool", "gone"),
        ({"clock_ahead_seconds": -61}, ENDANGERS, "clock", "-61 s"),
        ({"clock_ahead_seconds": 61}, ENDANGERS, "clock", "+61 s"),
        ({"unfinished": (Unfinished(id=7, node="m", under_way=True),)}, NOTE, "unfinished", "run 7 of m is under way"),
        ({"unfinished": (Unfinished(id=7, node="m", under_way=False),)}, ENDANGERS, "unfinished", "was interrupted"),
        ({"worker": replace(UNITS, installed=False), "worker_last_seen": None}, NOTE, "worker", "not installed"),
        ({"worker": replace(UNITS, enabled="disabled")}, ENDANGERS, "worker", "is disabled and active"),
        ({"worker": replace(UNITS, active="failed")}, ENDANGERS, "worker", "is enabled and failed"),
        ({"worker_last_seen": None}, ENDANGERS, "worker", "never been seen"),
    ],
)
def test_what_is_found_of_the_host(changes: Mapping[str, Any], severity: Severity, check: str, words: str) -> None:
    diagnosis = diagnose(replace(HOST, **changes), [NODE])
    (found,) = diagnosis.findings
    assert (found.node, found.severity, found.check) == (None, severity, check)
    assert words in found.what
    assert diagnosis.exit_code == (severity is not NOTE)


def test_without_systemd_nobody_misses_its_units() -> None:
    assert diagnose(replace(HOST, worker=None, worker_last_seen=None), [NODE]).findings == ()


@pytest.mark.parametrize(
    ("changes", "folder", "writable"),
    [
        ({}, "/usr/bin", False),
        ({}, "/etc/node", False),
        ({}, "/usr/local/bin", True),
        ({}, "/home/storj", True),
        ({"protect_system": "yes"}, "/etc/node", True),
        ({"protect_system": "no"}, "/usr/bin", True),
        ({"protect_system": "strict"}, "/opt/node", False),
        ({"protect_system": "strict", "read_write": ("/opt",)}, "/opt/node", True),
        ({"protect_home": "read-only"}, "/home/storj", False),
        ({"protect_home": "yes", "read_write": ("/home/storj",)}, "/home/storj/bin", True),
        ({"read_only": ("/usr/local/bin",)}, "/usr/local/bin", False),
    ],
)
def test_where_the_workers_unit_may_write(changes: Mapping[str, Any], folder: str, writable: bool) -> None:
    assert replace(UNITS, **changes).may_write(Path(folder)) is writable


def test_the_schema_is_that_of_what_is_printed() -> None:
    assert schemas.path("doctor").read_text() == schemas.schema("doctor"), "run: python -m tests.schemas"
    diagnosis = diagnose(HOST, [replace(NODE, restart="no")])
    printed = json.dumps(diagnosis.as_json())
    assert schemas.PRINTED["doctor"].validate_json(printed) == diagnosis


def found(stage: Stage, *arguments: str) -> dict[tuple[str | None, str], str]:
    """Run `doctor --json`, and return what it finds; it must leave everything as it is."""
    before = snapshot(stage.root)
    result = stage.cli("doctor", "--json", *arguments)
    assert snapshot(stage.root) == before
    findings = as_json(result)["findings"]
    assert result.exit_code == any(each["severity"] != "note" for each in findings)
    return {(each["node"], each["check"]): each["what"] for each in findings if each["check"] != "user"}


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    """Tell files and folders apart, but for our configuration, and the moments SQLite had its own files in a folder."""
    found = [(path, path.lstat()) for path in sorted(root.rglob("*")) if path.name != "keeper.yml"]
    return [(str(path), seen.st_ino, 0 if path.is_dir() else seen.st_mtime_ns) for path, seen in found]


def test_a_node_that_is_well(stage: Stage) -> None:
    assert found(stage) == {}
    assert stage.cli("doctor", "alpha").exit_code == 0


def test_a_node_with_several_troubles(stage: Stage, tmp_path: Path) -> None:
    stage.binary.with_name(f"storagenode.v{NEW}").touch()
    os.utime(stage.binary.with_name(f"storagenode.v{NEW}"), (1, 1))
    stage.binary.with_name(".storagenode.keeper-new").touch()
    stage.binary.with_name(f".storagenode.keeper-old-{OLD}").mkdir()
    (stage.root / "alpha/storage/storage-dir-verification").unlink()
    config = stage.root / "alpha/config.yaml"
    config.write_text(config.read_text().replace(stage.versions.url, "https://elsewhere.test"))
    stage.add("beta", config_dir=str(tmp_path / "none"))
    stage.rules |= {"spool": str(tmp_path / "nowhere"), "state_dir": str(stage.status_file)}
    stage.status_file.write_text("{")
    assert found(stage).keys() == {
        ("alpha", "in_the_way"),
        ("alpha", "leftover"),
        ("alpha", "storage"),
        ("alpha", "version_server"),
        ("beta", "in_the_way"),
        ("beta", "leftover"),
        ("beta", "config_dir"),
        ("beta", "storage"),
        (None, "spool"),
        (None, "status_file"),
        (None, "state_dir"),
    }
    assert {node for node, _ in found(stage, "beta")} == {"beta", None}


def test_what_cannot_be_reached(stage: Stage) -> None:
    closed = "http://127.0.0.1:1"
    stage.rules |= {"releases": closed, "digests": closed}
    stage.versions.set(behaviour="status:500")
    assert found(stage) == {
        (None, "releases"): f"{closed}: cannot be reached: Connection refused",
        (None, "digests"): f"{closed}: cannot be reached: Connection refused",
        (None, "version_server"): "the allowed versions are not known, "
        f"http_status: {stage.versions.url}: answered 500, expected 200",
    }
    stage.rules["verify"] = "tls"
    assert found(stage).keys() == {(None, "releases"), (None, "version_server")}


@pytest.mark.parametrize(
    ("status", "said", "todo"),
    [
        ("404 Not Found", None, ""),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", None, ""),
        ("403 rate limit exceeded", "answers 403", "wait an hour"),
        ("429 Too Many Requests", "answers 429", "wait an hour"),
        ("503 Service Unavailable", "answers 503", "wait"),
    ],
)
def test_what_answers_that_it_will_not_answer(stage: Stage, status: str, said: str | None, todo: str) -> None:
    with server([answer(b"", status=status)]) as (address, _):
        stage.rules["digests"] = f"http://{address}/tags"
        findings = as_json(stage.cli("doctor", "--json"))["findings"]
    seen = [(each["check"], each["what"], each["todo"]) for each in findings if each["check"] != "user"]
    assert seen == ([("digests", f"http://{address}/tags: {said}", seen[0][2])] if said else [])
    assert not said or seen[0][2].endswith(todo)


@pytest.mark.parametrize(("ahead", "off"), [(3600, True), (-3600, True), (30, False)])
def test_a_clock_is_compared_with_the_version_servers(stage: Stage, ahead: int, off: bool) -> None:
    date = formatdate(time.time() - ahead, usegmt=True).encode()
    head = b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nContent-Length: 0\r\n\r\n"
    with server([head]) as (address, _):
        config = yaml.safe_load(stage.write().read_text())
        path = stage.root / "keeper.yml"
        path.write_text(yaml.safe_dump(config | {"version_server": f"http://{address}"}))
        result = CliRunner().invoke(main, ["doctor", "--json", "--config.file", str(path)])
    clock = [each["what"] for each in json.loads(result.stdout)["findings"] if each["check"] == "clock"]
    assert len(clock) == off
    for each in clock:
        (seconds,) = re.findall(r"differs by ([-+]\d+) s", each)
        assert abs(int(seconds) - ahead) <= 5


def test_the_version_server_is_not_asked_through_a_proxy(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert found(stage).keys() == {(None, "releases"), (None, "digests")}


def test_whom_an_update_asks_for_a_digest(stage: Stage) -> None:
    closed = "http://127.0.0.1:1"
    stage.rules |= {"digests": closed, "sha256sums": f"{closed}/{{version}}"}
    assert found(stage).keys() == {(None, "sha256sums"), (None, "digests")}
    stage.rules["verify"] = "require"
    assert found(stage).keys() == {(None, "sha256sums")}
    stage.rules["sha256sums"] = stage.host.sums
    assert found(stage) == {}, "that there is none of version 0.0.0 says nothing"


def test_the_body_of_a_redirect_is_not_read(stage: Stage) -> None:
    stage.host.set(digests="redirect-flood")
    stage.rules["digests"] = f"{stage.host.tags}/v1.0.0"
    peak()
    before = peak()
    assert found(stage) == {}
    assert peak() - before < 24 << 20


@pytest.mark.slow
def test_an_address_that_does_not_answer_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_REACH_SECONDS", 3.0)
    with server([60.0]) as (address, _):
        stage.rules["releases"] = f"http://{address}"
        began = time.monotonic()
        seen = found(stage)
    assert time.monotonic() - began < 40
    assert seen.keys() == {(None, "releases")}
    assert "cannot be reached: " in seen[None, "releases"]


def test_a_version_that_failed_before_and_a_run_that_was_interrupted(stage: Stage) -> None:
    stage.publish(build.node(NEW, stage.root / "bad", misbehave="exit1"))
    assert stage.cli("run", "--yes", "alpha").exit_code == 1
    with stage.assembly() as assembly:
        assembly.store._db.execute("UPDATE runs SET finished = NULL, outcome = NULL")
        with assembly.store.lock():
            assert "is under way" in found(stage)[None, "unfinished"]
    seen = found(stage)
    assert seen.keys() == {("alpha", "known_bad"), (None, "unfinished")}
    assert "was interrupted" in seen[None, "unfinished"]


def test_a_binary_that_does_not_run(stage: Stage) -> None:
    stage.install(build.node(OLD, stage.root / "bad", misbehave="exit1"))
    ((where, what),) = found(stage).items()
    assert where == ("alpha", "probe")
    assert "exit status 1" in what


def test_what_a_run_of_ours_has_left(stage: Stage) -> None:
    left = stage.binary.with_name(".storagenode.keeper-new")
    left.touch()
    assert found(stage) == {("alpha", "leftover"): f"{left}: left by an earlier run"}


def test_who_updates_by_hand_needs_no_spool(tmp_path: Path) -> None:
    rules = Rules(spool=tmp_path / "a", status_file=tmp_path / "b/status", state_dir=tmp_path / "c/d")
    by_hand = surroundings.folders(rules, automatic=False)
    assert {what: severity for what, (severity, *_) in by_hand.items()} == {"spool": NOTE, "status_file": NOTE}
    automatic = surroundings.folders(rules, automatic=True)
    assert {what: severity for what, (severity, *_) in automatic.items()} == {"spool": BLOCKS, "status_file": ENDANGERS}


def test_an_unknown_node_is_a_usage_error(stage: Stage) -> None:
    refused = stage.cli("doctor", "beta")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "there is no 'beta', expected one of: alpha" in refused.stderr


@root_only
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mount", "remount", "check"),
    [
        (["--bind"], "remount,bind,ro", "not_writable"),
        (["--bind"], "remount,bind,noexec", "noexec"),
    ],
)
def test_a_file_system_that_takes_no_binary(stage: Stage, mount: list[str], remount: str, check: str) -> None:
    with mounted(stage.folder, *mount, source=str(stage.folder)):
        subprocess.run(["mount", "-o", remount, str(stage.folder)], check=True)
        assert ("alpha", check) in found(stage)


@root_only
@pytest.mark.slow
def test_a_file_system_without_room(stage: Stage) -> None:
    with mounted(stage.folder, "-t", "tmpfs", "-o", f"size={stage.old.stat().st_size + 8192}"):
        stage.install(stage.old)
        assert found(stage).keys() == {("alpha", "no_room")}


@root_only
@pytest.mark.slow
def test_what_is_immutable(stage: Stage) -> None:
    with attribute(stage.binary, "i"):
        assert found(stage).keys() == {("alpha", "protected")}
    with attribute(stage.folder, "i"):
        ((where, what),) = found(stage).items()
        assert where == ("alpha", "not_writable")
        assert "Operation not permitted" in what


@root_only
def test_a_folder_that_the_user_may_not_write(stage: Stage) -> None:
    with Directory(stage.folder) as directory:
        os.seteuid(65534)
        try:
            assert list(obstacles(directory, "storagenode", "staged", "backup")) == [
                (Obstacle.NOT_WRITABLE, f"{stage.folder}: cannot be written: Permission denied")
            ]
        finally:
            os.seteuid(0)
        assert list(obstacles(directory, "storagenode", "staged", "backup")) == []


UPDATER_UNIT = "ill-updater.service"


@pytest.mark.systemd
def test_in_a_real_systemd(tmp_path: Path) -> None:
    with Container() as container, Site(container, tmp_path, ["well", "ill"]) as site:
        site.rise()
        site.node("well").install().stop()
        ill = site.node("ill")
        ill.binary = Path("/usr/lib/ill/storagenode")
        ill.install(service="Restart=on-failure")
        site.remediate("history")  # the store is made
        container.systemctl("enable", "--now", "--quiet", PATH, WORKER)
        wait(lambda: container.path("/var/lib/storagenode-keeper/status.json").exists(), "the worker's status file")

        config = yaml.safe_load(container.path("/etc/storagenode-keeper.yml").read_text())
        config["nodes"] = [site.node("well").config(), ill.config() | {"updater_service": f"systemd:{UPDATER_UNIT}"}]
        container.write("/etc/storagenode-keeper.yml", yaml.safe_dump(config))
        container.put(build.node("1.105.4", tmp_path / "storagenode-updater"), "/usr/lib/ill/storagenode-updater")
        container.unit(
            UPDATER_UNIT,
            f"[Service]\nUser={USER}\nExecStart=/usr/lib/ill/storagenode-updater run --config-dir {ill.config_dir}"
            f" --binary-location {ill.binary} --service-name ill\n",
        )
        container.write(
            ill.config_dir / "config.yaml",
            "version.server-address: https://elsewhere.test\nversion.check-interval: 0s\n",
        )
        container.path(ill.config_dir / "storage/storage-dir-verification").unlink()
        rejected = {"Version": NEW, "Date": "2026-01-01T00:00:00Z", "Failure": "signal: terminated\n"}
        container.write("/last-failed-update.ill.json", json.dumps(rejected))
        container.write(f"/usr/lib/ill/storagenode.{NEW}", "")
        container.write("/usr/lib/ill/storagenode.old.v1.101.1", "")
        container.run(["touch", "-d", "1 hour ago", f"/usr/lib/ill/storagenode.{NEW}"])

        doctor: list[str | Path] = [VENV / "bin/storagenode-remediate", "doctor"]
        well = container.run([*doctor, "well"], check=False)
        assert (well.returncode, well.stdout) == (0, "well\n  fine\nthe host\n  fine\n")

        both = container.run([*doctor, "--json"], check=False)
        assert both.returncode == 1
        findings = json.loads(both.stdout)["findings"]
        assert {each["node"] for each in findings} == {"ill"}
        assert {(each["check"], each["severity"]) for each in findings} == {
            ("sandbox", "blocks"),
            ("restart", "endangers"),
            ("version_server", "endangers"),
            ("storage", "endangers"),
            ("leftover", "endangers"),
            ("leftover", "note"),
            ("rejected", "note"),  # one of 1.105.4 does not read it
            ("updater", "endangers"),
            ("interval", "endangers"),
            ("updater_version", "endangers"),
            ("updater_version_server", "endangers"),
        }
        assert ill.installed() == OLD

        container.systemctl("disable", "--now", "--quiet", PATH)
        said = container.run([*doctor, "well"], check=False)
        assert (said.returncode, "is disabled and inactive" in said.stdout) == (1, True)
