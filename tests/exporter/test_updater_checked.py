"""What `check` and a status say of the updater: in words, as JSON, and when watched."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.allowed import UpdateState, Verdict
from exporter.check import advice, exit_code, table
from exporter.checked import as_json
from exporter.config import Config, NodeConfig, SystemdService
from exporter.observe import Observer
from exporter.status import Failure, FailureReason, NodeStatus, ServiceState, ServiceStatus, UpdaterStatus
from exporter.watch import _tell
from tests import schemas
from tests.exporter.hostile import server
from tests.exporter.test_metrics import RUNNING
from tests.exporter.test_updater import BEFORE, LEFT, LOG, MINIMUM, NOW, REJECTED, STATUS, STUCK, UNKNOWN, UPDATER
from tests.simulators import build

WELL = replace(RUNNING, node="well", updater=UPDATER, verdict=Verdict(UpdateState.CURRENT), running=RUNNING.running)
ILL = replace(
    STATUS,
    node="ill",
    updater=replace(
        UPDATER,
        service=ServiceStatus(state=ServiceState.STOPPED, detail="asleep"),
        installed=BEFORE,
        log=STUCK,
        leftovers=(LEFT, replace(LEFT, path=Path("/opt/node/storagenode.old.v1.1.1"), version=None)),
        rejected=REJECTED,
        interval_seconds=None,
    ),
)


def test_what_is_wrong_with_it_is_a_line_and_what_is_not_is_none() -> None:
    now = datetime.fromtimestamp(NOW, UTC)
    lines = table([ILL], now=now, color=False).splitlines()[3:]
    assert lines == [
        "  The official updater u.service is stopped: asleep. Do: systemctl enable --now u.service",
        "  /opt/node/storagenode.1.104.5: left by the official updater, and in its way to 1.104.5."
        " Do: storagenode-remediate run --updater ill",
        "  The official updater fetches each update and takes it back, since the node does not run."
        " Do: storagenode-remediate run ill",
        "  The official updater is 1.105.4, and before 1.106 leaves alone a node that does not run."
        " Do: storagenode-remediate run --updater ill",
    ]
    silent = replace(STATUS, updater=replace(UPDATER, rejected=REJECTED))
    assert table([silent], now=now, color=False).splitlines()[-1] == (
        "  /last-failed-update.storagenode.json: the official updater never tries 1.104.5 again, since:"
        " signal: terminated. Do: storagenode-remediate run --updater n"
    )
    by_itself = replace(STATUS, updater=replace(UPDATER, rejected=replace(REJECTED, failure="exit status 2")))
    assert (
        table([by_itself], now=now, color=False)
        .splitlines()[-1]
        .endswith("since: exit status 2. Do: see why it does not run here, before you remove that file")
    )
    assert "pdater" not in table([WELL, replace(WELL, updater=UNKNOWN)], now=now, color=False)


def test_one_that_is_blocked_is_not_expected_to_do_anything() -> None:
    due = replace(STATUS, verdict=Verdict(UpdateState.DUE, MINIMUM), service=RUNNING.service, running=RUNNING.running)
    assert any("should install 1.104.5 within the hour" in each for each in advice(due))
    stuck = replace(due, updater=replace(UPDATER, rejected=REJECTED))
    assert not any("should install" in each for each in advice(stuck))


def test_it_does_not_change_the_exit_code() -> None:
    for updater in (ILL.updater, UNKNOWN, None):
        assert exit_code([replace(WELL, updater=updater)]) == exit_code([WELL]) == 0


def test_json() -> None:
    well, ill, dark, none = json.loads(
        json.dumps(
            as_json(
                [
                    WELL,
                    ILL,
                    replace(WELL, updater=replace(UPDATER, log=UNKNOWN, installed=UNKNOWN)),
                    replace(WELL, updater=UNKNOWN),
                ]
            )
        )
    )
    assert well["updater"] == {
        "unit": "u.service",
        "state": "running",
        "detail": "running",
        "version": "1.162.3",
        "replaces_stopped": True,
        "blocked": [],
        "last_check": LOG.last_check,
        "last_update": LOG.last_update,
        "last_failure": LOG.last_failure,
        "check_interval_seconds": 900,
        "version_server_ours": True,
    }
    assert (ill["updater"]["replaces_stopped"], ill["updater"]["version"]) == (False, "1.105.4")
    assert ill["updater"]["blocked"] == ["not_initialized", "left_over"]
    assert dark["unknown"] == {"updater_log": "denied: may not be seen"}
    assert {dark["updater"][key] for key in ("version", "replaces_stopped", "last_check")} == {None}
    assert (none["updater"], none["unknown"]) == (None, {"updater": "denied: may not be seen"})
    for printed in (well, ill, dark, none):
        schemas.PRINTED["check"].validate_json(json.dumps([printed]))


def test_watching_is_silent_while_only_its_checks_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    seen = _tell([WELL], {}, as_json=True)
    goes_on = replace(UPDATER, log=replace(LOG, last_check=NOW + 900, last_update=NOW + 900), looked=NOW + 900)
    seen = _tell([replace(WELL, updater=goes_on)], seen, as_json=True)
    assert len(capsys.readouterr().out.splitlines()) == 1
    hangs = replace(goes_on, looked=NOW + 5000)
    seen = _tell([replace(WELL, updater=hangs)], seen, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert "last learned" in json.loads(line)["advice"][-1]
    _tell([replace(WELL, updater=replace(hangs, looked=NOW + 9000))], seen, as_json=True)
    assert capsys.readouterr().out == ""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    node = NodeConfig.model_validate(
        {
            "name": "n",
            "service": "process",
            "binary": build.node("1.102.3", tmp_path / "storagenode"),
            "api": "127.0.0.1:1",
            "updater_service": "systemd:u.service",
        }
    )
    with server([b"HTTP/1.1 503 x\r\n\r\n"]) as (address, _):
        yield Config(nodes=(node,), version_server=f"http://{address}")


def observed(config: Config, *, fresh: bool = False) -> NodeStatus:
    return Observer(config, cache_dir=None, fresh=fresh).observe_all(5)[0]


def test_it_is_looked_at_with_the_node_but_not_for_a_remediation(config: Config, tmp_path: Path) -> None:
    (tmp_path / "storagenode.1.104.5").touch()
    updater = observed(config).updater
    assert isinstance(updater, UpdaterStatus)
    assert updater.service.state is ServiceState.UNKNOWN
    assert isinstance(updater.log, Failure)
    assert updater.log.reason is FailureReason.UNREACHABLE
    assert not isinstance(updater.leftovers, Failure)
    assert [each.path.name for each in updater.leftovers] == ["storagenode.1.104.5"]
    assert observed(config, fresh=True).updater is None
    alone = config.nodes[0].model_copy(update={"updater_service": None})
    assert observed(config.model_copy(update={"nodes": (alone,)})).updater is None
    assert config.nodes[0].updater_service == SystemdService(unit="u.service")
