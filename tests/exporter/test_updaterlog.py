"""What an updater's log tells: recordings of upstream's own, and lines as before and since 1.146."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from exporter.updaterlog import Blocked, UpdaterFailure, UpdaterLog, heard
from exporter.version import NodeVersion

RECORDED = Path(__file__).parents[1] / "data/upstream"
OLD, NEW = NodeVersion(1, 104, 5), NodeVersion(1, 162, 3)
CHECK, DOWNLOAD, INSTALL = UpdaterFailure.CHECK, UpdaterFailure.DOWNLOAD, UpdaterFailure.INSTALL


def recorded(name: str) -> UpdaterLog:
    return heard(UpdaterLog(), (RECORDED / name).read_text().splitlines())


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def none(**more: int) -> dict[UpdaterFailure, int]:
    return dict.fromkeys(UpdaterFailure, 0) | {UpdaterFailure(kind): count for kind, count in more.items()}


def test_the_recorded_deadlock_of_1_104() -> None:
    assert recorded("1.104.5/updater.node-stopped.log") == UpdaterLog(
        last_check=at("2026-11-23T06:46:07Z"),
        last_failure=at("2026-11-23T06:46:07Z"),
        failures=none(install=1),
        server="http://127.0.0.1:8080",
        asked=at("2026-11-23T06:46:05Z"),
        version=OLD,
        found=OLD,
        blocked=Blocked.NOT_INITIALIZED,
    )


def test_the_recorded_update_of_a_stopped_node_by_a_later_one() -> None:
    assert recorded("1.162.3/updater.node-stopped.log") == UpdaterLog(
        last_check=at("2026-11-23T06:47:47Z"),
        last_update=at("2026-11-23T06:47:47Z"),
        server="http://127.0.0.1:8080",
        asked=at("2026-11-23T06:47:47Z"),
        version=NEW,
        found=OLD,
    )


def test_the_recorded_silence_after_a_version_was_written_off() -> None:
    assert recorded("1.162.3/updater.blocked-by-last-failed.log") == UpdaterLog(
        last_check=at("2026-11-23T06:47:17Z"),
        asked=at("2026-11-23T06:47:17Z"),
        server="http://127.0.0.1:8080",
        version=NEW,
        found=OLD,
    )


@pytest.mark.parametrize(
    "name", ["1.104.5/node.refused.log", "1.104.5/node.started-without-version-server.log", "1.162.3/node.started.log"]
)
def test_what_a_node_logs_to_the_same_file_tells_nothing(name: str) -> None:
    assert recorded(name) == UpdaterLog()


def line(message: str, level: str = "INFO", second: int = 0, **fields: str) -> str:
    about = json.dumps({"process": "storagenode-updater", **fields})
    return f"1970-01-01T00:00:{second:02}Z\t{level}\t{message}\t{about}"


def test_how_often_it_asks_is_told_by_the_last_two_times_but_not_by_a_restart() -> None:
    def asks(*seconds: int) -> list[str]:
        return [line("Downloading versions.", second=second) for second in seconds]

    started = line("Running on version", version="v1.162.3")
    assert heard(UpdaterLog(), [started, *asks(4)]).interval is None
    assert heard(UpdaterLog(), [started, *asks(4, 14)]).interval == 10
    assert heard(UpdaterLog(), asks(4, 14, 34)).interval == 20
    assert heard(UpdaterLog(), asks(4, 14, 14, 3)).interval == 10, "a clock that is set says nothing"
    assert heard(UpdaterLog(), [*asks(4, 14), started, *asks(17)]).interval == 10
    assert heard(UpdaterLog(), [*asks(4, 14), started, *asks(17, 47)]).interval == 30


def test_an_address_is_not_taken_at_any_length() -> None:
    server = heard(UpdaterLog(), [line("Downloading versions.", server_address="x" * 5000)]).server
    assert server == "x" * 200


def cycle(*lines: str, later: int = 0) -> list[str]:
    return [
        line("Downloading versions.", second=later, server_address="https://v.test"),
        line("Current binary version", second=later + 1, service="storagenode", version="v1.104.5"),
        *lines,
        line("Current binary version", second=later + 3, service="storagenode-updater", version="v1.162.3"),
    ]


def error(text: str, service: str = "storagenode", second: int = 2) -> str:
    return line("Error updating service.", "ERROR", second, service=service, error=text)


DOWNLOADING = line("Download started.", second=2, to="/tmp/x.zip")
DOWNLOADED = line("Download finished.", second=2, to="/tmp/x.zip")
NOT_INITIALIZED = error("error stopping storagenode service: os: process not initialized")
IN_THE_WAY = error("open /opt/storagenode.1.162.3: file exists")
UPDATED = line("Service restarted successfully.", second=2, service="storagenode")
UP_TO_DATE = line("Version is up to date", second=2, service="storagenode")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], {}),
        ([line("Error retrieving version info.", "ERROR", 4)], {"last_failure": 4.0, "failures": none(check=1)}),
        ([line("Error loading identity.", "FATAL", 4)], {"last_failure": 4.0, "failures": none(check=1)}),
        ([line("Unable to do something.", "ERROR", 4)], {}),
        ([line("Running on version", version="v1.106.1")], {"version": NodeVersion(1, 106, 1)}),
        ([line("Running on version", version="soon")], {}),
        (
            [line("Downloading versions.", second=4, server_address="https://v.test")],
            {"server": "https://v.test", "asked": 4.0},
        ),
        (cycle(), {"last_check": 3.0}),
        (cycle(DOWNLOADING, error("bad status: 404")), {"last_failure": 2.0, "failures": none(download=1)}),
        (cycle(DOWNLOADING, DOWNLOADED, error("exit 1")), {"last_failure": 2.0, "failures": none(install=1)}),
        (
            cycle(DOWNLOADING, IN_THE_WAY),
            {"last_failure": 2.0, "failures": none(install=1), "blocked": Blocked.LEFT_OVER},
        ),
        (
            cycle(NOT_INITIALIZED),
            {"last_failure": 2.0, "failures": none(install=1), "blocked": Blocked.NOT_INITIALIZED},
        ),
        (cycle(NOT_INITIALIZED, UPDATED), {"last_update": 2.0, "last_failure": 2.0, "failures": none(install=1)}),
        (cycle(NOT_INITIALIZED, UP_TO_DATE), {"last_failure": 2.0, "failures": none(install=1)}),
        (
            cycle(IN_THE_WAY, DOWNLOADING, error("bad status: 404")),
            {"last_failure": 2.0, "failures": none(install=1, download=1), "blocked": Blocked.LEFT_OVER},
        ),
        (
            cycle(error("open /opt/storagenode-updater.1.162.3: file exists", "storagenode-updater")),
            {"last_failure": 2.0, "failures": none(install=1)},
        ),
        (
            cycle(NOT_INITIALIZED, line("Service restarted successfully.", service="storagenode-updater")),
            {"last_failure": 2.0, "failures": none(install=1), "blocked": Blocked.NOT_INITIALIZED},
        ),
        (
            # Whether it is still blocked is known when the next check has ended, not when it begins.
            [*cycle(NOT_INITIALIZED), line("Downloading versions.", server_address="https://v.test")],
            {"last_failure": 2.0, "failures": none(install=1), "blocked": Blocked.NOT_INITIALIZED},
        ),
    ],
)
def test_lines(lines: list[str], expected: dict[str, object]) -> None:
    log = heard(UpdaterLog(), lines)
    if "Current binary version" in "".join(lines):
        expected = {"last_check": 3.0, "found": OLD, "server": "https://v.test", "asked": 0.0, **expected}
    assert log == UpdaterLog(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "server"),
    [
        ('{"Process": "storagenode-updater", "Server Address": "https://v.test"}', "https://v.test"),
        ('{"process": "storagenode-updater", "server_address": "https://v.test"}', "https://v.test"),
        ('{"Server Address": "https://v.test"}', "https://v.test"),
        ('{"Process": "storagenode", "Server Address": "https://v.test"}', None),
    ],
)
def test_both_ways_to_call_the_fields(fields: str, server: str | None) -> None:
    assert heard(UpdaterLog(), [f"2026-11-23T06:46:05Z\tINFO\tDownloading versions.\t{fields}\n"]).server == server


@pytest.mark.parametrize("time", ["2026-11-23T06:46:05Z", "2026-11-23T07:46:05+01:00", "2026-11-23T06:46:05.000+0000"])
def test_times(time: str) -> None:
    log = heard(UpdaterLog(), [f'{time}\tERROR\tupdate\tError retrieving version info.\t{{"error": "x"}}'])
    assert log.last_failure == at("2026-11-23T06:46:05Z")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\t\t\t",
        "panic: runtime error",
        "2026-11-23T06:46:05Z\tINFO\tDownloading versions.\t{",
        '2026-11-23T06:46:05Z\tINFO\tDownloading versions.\t{"server_address": }',
        "yesterday\tFATAL\tError loading identity.\t{}",
        "0001-01-01T00:00:00+14:00\tFATAL\tError loading identity.\t{}",
        "0001-01-01T00:00:00\tFATAL\tError loading identity.\t{}",
        "2026-11-23T06:46:05Z\tLOUD\tError retrieving version info.\t{}",
        "2026-11-23T06:46:05Z\tERROR\tError retrieving version info.\t" + "[" * 10_000,
        '2026-11-23T06:46:05Z\tERROR\tError retrieving version info.\t{"a":' + "[" * 50_000,
        "2026-11-23T06:46:05Z\tERROR\tError retrieving version info.\t" + '{"a": "' + "x" * 70_000 + '"}',
    ],
)
def test_what_is_no_line_of_its_log_tells_nothing(text: str) -> None:
    assert heard(UpdaterLog(), [text]) == UpdaterLog()


def test_it_goes_on_from_what_was_heard_before() -> None:
    lines = [
        *cycle(DOWNLOADING, error("bad status: 500")),
        *cycle(NOT_INITIALIZED, later=20),
        *cycle(UPDATED, later=40),
    ]
    whole = heard(UpdaterLog(), lines)
    assert whole.failures == none(download=1, install=1)
    for place in range(len(lines)):
        assert heard(heard(UpdaterLog(), lines[:place]), lines[place:]) == whole
    assert heard(whole, []) == replace(whole)
