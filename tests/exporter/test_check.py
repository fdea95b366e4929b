import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from exporter.allowed import UpdateState, Verdict
from exporter.check import advice, exit_code, table, verdict
from exporter.checked import as_json
from exporter.status import Basis, Clock, NodeStatus, ServiceState, ServiceStatus
from exporter.version import NodeVersion
from exporter.watch import _tell
from tests import schemas
from tests.exporter.test_metrics import DARK, DOWN, RUNNING

NOW = datetime.fromtimestamp(1_794_000_000 + 7300, UTC)
CRASHED = replace(
    RUNNING, node="crashed", service=ServiceStatus(state=ServiceState.CRASHED, detail=""), running=DARK.running
)
SILENT = replace(RUNNING, node="silent", running=DARK.running)


def in_state(state: ServiceState, status: NodeStatus = DOWN) -> NodeStatus:
    return replace(status, service=ServiceStatus(state=state, detail="why"))


def test_the_table() -> None:
    assert table([RUNNING, DOWN, DARK], now=NOW, color=False) == (
        "NODE  SERVICE  SINCE   INSTALLED   RUNNING  MINIMUM  VERDICT\n"
        "up    running  2h ago  1.105.0-rc  1.104.6  1.104.5  current\n"
        "  The installed version is not the running one: it takes effect at the next start.\n"
        "down  stopped  -       1.102.3     -        1.104.5  DEADLOCKED\n"
        "  It is too old to start, and its updater may leave it so. Do: storagenode-remediate run down\n"
        "dark  unknown  -       unknown     -        unknown  unknown\n"
        "  Service not known: no bus.\n"
        "  Verdict not known: the installed version is not known."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0s ago"), (59, "59s ago"), (60, "1m ago"), (3599, "59m ago"), (86399, "23h ago"), (864_000, "10d ago")],
)
def test_since_is_told_in_the_largest_unit_that_fits(seconds: int, words: str) -> None:
    then = ServiceStatus(state=ServiceState.RUNNING, detail="", since=NOW.timestamp() - seconds)
    assert words in table([replace(RUNNING, service=then)], now=NOW, color=False)


def test_colors_are_for_terminals() -> None:
    assert "\x1b" not in table([RUNNING, DOWN, DARK], now=NOW, color=False)
    lines = table([RUNNING, DOWN, DARK, CRASHED], now=NOW, color=True).splitlines()
    colors = [line.split("m")[0] + "m" for line in lines if line.startswith("\x1b")]
    assert colors == ["\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[33m"]
    assert all(line.endswith("\x1b[0m") for line in lines if line.startswith("\x1b"))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([RUNNING], 0),
        ([CRASHED], 0),
        ([RUNNING, DOWN], 1),
        ([in_state(ServiceState.RUNNING)], 1),
        ([in_state(ServiceState.UNKNOWN)], 1),
        ([DARK], 4),
        ([SILENT], 4),
        ([DARK, DOWN], 1),
        ([RUNNING, DARK], 4),
        ([in_state(ServiceState.UNKNOWN, RUNNING)], 4),
        ([replace(RUNNING, verdict=Verdict(UpdateState.UNKNOWN))], 4),
    ],
)
def test_the_exit_code(statuses: list[NodeStatus], expected: int) -> None:
    assert exit_code(statuses) == expected


@pytest.mark.parametrize("state", UpdateState)
def test_every_verdict_has_words(state: UpdateState) -> None:
    status = replace(RUNNING, verdict=Verdict(state, NodeVersion(1, 2, 3)))
    assert verdict(status)
    assert ("1.2.3" in verdict(status)) == (state is UpdateState.DUE)


def test_advice_says_what_to_do() -> None:
    for status, words in [
        (DOWN, "storagenode-remediate run down"),
        (in_state(ServiceState.RUNNING), "will not start again once it has stopped"),
        (in_state(ServiceState.MASKED), "Look into the state of its service"),
        (CRASHED, "another reason than its version"),
        (SILENT, "does not answer: timeout: no answer within 2 s"),
        (replace(RUNNING, verdict=Verdict(UpdateState.DUE, NodeVersion(1, 2, 3))), "should install 1.2.3"),
    ]:
        assert any(words in line for line in advice(status)), status
    assert advice(replace(RUNNING, running=replace(DARK.running))) == advice(SILENT)


def test_json_says_it_all_in_plain_types() -> None:
    up, down, dark = json.loads(json.dumps(as_json([RUNNING, DOWN, DARK])))
    assert up["service"]["since"] == 1_794_000_000.25
    assert (up["installed_version"], up["running_version"]) == ("1.105.0-rc", "1.104.6")
    assert (up["below_minimum"], up["deadlocked"], up["restart_pending"]) == (False, False, True)
    assert (down["update_state"], down["target_version"], down["deadlocked"]) == ("below_minimum", "1.104.5", True)
    assert down["unknown"] == {"running_version": "timeout: no answer within 2 s"}
    assert (dark["deadlocked"], dark["installed_version"], dark["minimum_version"]) == (None, None, None)
    assert dark["unknown"] == {
        "service": "no bus",
        "installed_version": "timeout: no answer within 2 s",
        "running_version": "timeout: no answer within 2 s",
        "minimum_version": "timeout: no answer within 2 s",
        "update_state": "the installed version is not known",
    }
    assert up["unknown"] == {}


def test_the_schema_is_that_of_what_is_printed() -> None:
    assert schemas.path("check").read_text() == schemas.schema("check"), "run: python -m tests.schemas"
    printed = json.dumps(as_json([RUNNING, DOWN, DARK]))
    (required,) = {tuple(sorted(node)) for node in json.loads(printed)}
    described = json.loads(schemas.schema("check"))["$defs"]["CheckedNode"]
    assert tuple(sorted(described["required"])) == required
    assert schemas.PRINTED["check"].dump_json(schemas.PRINTED["check"].validate_json(printed)) == compact(printed)


def test_watching_is_silent_while_only_the_last_contact_changes(capsys: pytest.CaptureFixture[str]) -> None:
    seen = _tell([RUNNING, DOWN], {}, as_json=True)
    assert [json.loads(line)["node"] for line in capsys.readouterr().out.splitlines()] == ["up", "down"]
    later = Clock(1_795_000_009.0, Basis.CONTACT, 1_795_000_010.0)
    seen = _tell([replace(RUNNING, last_contact=later.since, clock=later), DOWN], seen, as_json=True)
    assert capsys.readouterr().out == ""
    _tell([RUNNING, in_state(ServiceState.CRASHED)], seen, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["service"]["state"] == "crashed"


def compact(text: str) -> bytes:
    return json.dumps(json.loads(text), separators=(",", ":")).encode()
