"""A store of the version before becomes one of this version with nothing lost; one of a later version is left alone."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.version import NodeVersion
from remediate import schema
from remediate.decision import Reason
from remediate.journal import Decided, Outcome
from remediate.schema import SchemaError, open_database
from remediate.store import Store
from tests.remediate.conftest import NEW, OLD, TARGET, Stage
from tests.simulators import build

BEFORE = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, "trigger" TEXT NOT NULL, reason TEXT NOT NULL, binary TEXT NOT NULL,
    installed TEXT NOT NULL, target TEXT NOT NULL, subject TEXT NOT NULL, starts TEXT NOT NULL, seen TEXT NOT NULL,
    started REAL NOT NULL,
    finished REAL, outcome TEXT, detail TEXT NOT NULL DEFAULT '');
CREATE TABLE journal (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, step TEXT NOT NULL, event TEXT NOT NULL,
    at REAL NOT NULL, data TEXT NOT NULL);
CREATE INDEX journal_run ON journal (run);
CREATE TABLE decisions (
    node TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (node, decision, reason));
CREATE TABLE known_bad (
    binary TEXT NOT NULL, version TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (binary, version));
CREATE TABLE last_minimum (
    only INTEGER PRIMARY KEY CHECK (only = 1), version TEXT NOT NULL, fetched REAL NOT NULL);
"""
"""What 0.1.0 made, which said nothing of a version."""
TABLES = ("runs", "journal", "decisions", "known_bad", "last_minimum")
PROGRAM = [sys.executable, "-c", "from remediate.cli import main; main()"]


def store_of_before(stage: Stage) -> None:
    """Leave a store as 0.1.0 does that was killed when it had extracted the new binary."""
    stage.state_dir.mkdir()
    staged = stage.folder / ".storagenode.keeper-new"
    staged.write_bytes(stage.new.read_bytes())
    old = stage.binary.stat()
    new = staged.stat()
    subject = {"nodes": ["alpha"], "updaters": [], "old": {"device": old.st_dev, "inode": old.st_ino}}
    run = ("alpha", "alert", "below_minimum", str(stage.binary), OLD, NEW, json.dumps(subject))
    starts, seen = '{"alpha": [false, "asked_to_stop"]}', '{"alpha": "stopped"}'
    journal: list[tuple[str, str, dict[str, Any]]] = [
        ("hold", "intent", {"held": {}}),
        ("hold", "done", {"held": []}),
        ("extract", "intent", {}),
        ("extract", "done", {"staged": {"device": new.st_dev, "inode": new.st_ino}}),
        ("probe", "intent", {}),
    ]
    with closing(sqlite3.connect(stage.state_dir / "store.sqlite")) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(BEFORE)
        insert = (
            'INSERT INTO runs (node, "trigger", reason, binary, installed, target, subject, starts, seen, started,'
            " finished, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        database.execute(insert, (*run, starts, seen, 1000.5, 1060.5, "later", "answered 500"))
        database.execute(insert, (*run, starts, seen, 2000.5, None, None, ""))
        database.executemany(
            "INSERT INTO journal (run, step, event, at, data) VALUES (2, ?, ?, 2001.5, ?)",
            [(step, event, json.dumps(data)) for step, event, data in journal],
        )
        database.execute("INSERT INTO decisions VALUES ('alpha', 'skip', 'current', 7, 900.5)")
        database.execute("INSERT INTO known_bad VALUES (?, '1.103.0', 'it hung', 800.5)", (str(stage.binary),))
        database.execute("INSERT INTO last_minimum VALUES (1, '1.100.0', 700.5)")


def content(stage: Stage) -> dict[str, list[tuple[Any, ...]]]:
    """Give what the tables of before hold, in the columns of before."""
    with closing(sqlite3.connect(":memory:")) as empty, closing(opened(stage)) as database:
        empty.executescript(BEFORE)
        columns = {
            table: ", ".join(f'"{row[1]}"' for row in empty.execute(f"PRAGMA table_info({table})")) for table in TABLES
        }
        return {table: database.execute(f"SELECT {columns[table]} FROM {table}").fetchall() for table in TABLES}


def opened(stage: Stage) -> sqlite3.Connection:
    return sqlite3.connect(stage.state_dir / "store.sqlite")


def version(stage: Stage) -> int:
    with closing(opened(stage)) as database:
        found: int = database.execute("PRAGMA user_version").fetchone()[0]
        return found


def test_nothing_is_lost_on_the_way(stage: Stage) -> None:
    store_of_before(stage)
    before = content(stage)
    assert [len(rows) for rows in before.values()] == [2, 5, 1, 1, 1]
    with closing(Store(stage.state_dir)) as store:
        assert content(stage) == before
        assert store.history(stage.binary, ["alpha"]).known_bad == {NodeVersion.parse("1.103.0"): "it hung"}
        assert store.history(stage.binary, ["alpha"]).last_minimum == (NodeVersion.parse("1.100.0"), 700.5)
        assert store.decisions() == [Decided("alpha", "skip", "current", 7, 900.5, "")]
        assert [run.outcome for run in store.runs()] == [None, Outcome.LATER]
        assert store.pauses() == []
    assert version(stage) == 2
    assert (stage.state_dir / "store.sqlite").stat().st_size > 0


def test_the_run_that_was_open_is_recovered(stage: Stage) -> None:
    store_of_before(stage)
    result = stage.cli("recover")
    assert (result.exit_code, "undone" in result.stdout) == (1, True), result.output
    stage.assert_untouched()
    assert stage.cli("recover").stdout == "nothing to recover\n"
    told = stage.cli("history").stdout
    assert "undone" in told
    assert "answered 500" in told
    assert "current" in told


def test_a_store_of_this_version_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "store.sqlite")) as database:
        first = database.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        changes = database.execute("PRAGMA schema_version").fetchone()[0]
    with closing(open_database(tmp_path / "store.sqlite")) as database:
        assert database.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == first
        assert database.execute("PRAGMA schema_version").fetchone()[0] == changes


def test_one_that_was_migrated_is_as_one_made_anew(stage: Stage, tmp_path: Path) -> None:
    store_of_before(stage)
    with (
        closing(open_database(stage.state_dir / "store.sqlite")) as migrated,
        closing(open_database(tmp_path / "new.sqlite")) as made,
    ):
        tables = made.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            described = f"PRAGMA table_info({name})"
            assert list(map(tuple, migrated.execute(described))) == list(map(tuple, made.execute(described))), name
    assert len(tables) == len(TABLES) + 3


def test_one_of_a_later_version_is_refused_by_name(stage: Stage) -> None:
    Store(stage.state_dir).close()
    with closing(opened(stage)) as database:
        database.execute("PRAGMA user_version = 9")
    before = (stage.state_dir / "store.sqlite").read_bytes()
    path = stage.state_dir / "store.sqlite"
    with pytest.raises(SchemaError, match="found version 9"):
        Store(stage.state_dir)
    commands = (["run", "--yes", "alpha"], ["work"], ["watch", "--once"], ["history"], ["pause"], ["recover"])
    for command in commands:
        result = stage.cli(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        said = f"{path}: found version 9, expected at most 2: a newer storagenode-keeper has made it"
        assert result.stderr == f"error: remediation.state_dir: {stage.state_dir} cannot be used: {said}\n"
    assert path.read_bytes() == before
    stage.assert_untouched()


def test_many_that_open_it_at_once(stage: Stage) -> None:
    store_of_before(stage)
    before = content(stage)
    command = [*PROGRAM, "history", "--config.file", str(stage.write())]
    started = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    for each in started:
        said, problem = each.communicate(timeout=120)
        assert (each.returncode, problem) == (0, "")
        assert "answered 500" in said
    assert content(stage) == before
    assert version(stage) == 2


def test_one_that_another_is_making_is_waited_for(tmp_path: Path) -> None:
    """SQLite gives up at once, without its own wait, when a store that is locked is first put into WAL mode."""
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.execute, ["COMMIT"])
        timer.start()
        open_database(path).close()
        timer.join()


@pytest.mark.parametrize("fresh", [False, True])
def test_threads_that_open_it_at_the_same_instant(stage: Stage, fresh: bool) -> None:
    """What takes processes luck: every one finds it unmigrated, or not there at all."""
    if not fresh:
        store_of_before(stage)
    barrier, problems = threading.Barrier(8), list[Exception]()

    def open_it() -> None:
        barrier.wait()
        try:
            Store(stage.state_dir).close()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert version(stage) == 2


KILLED = """
import os, pathlib, signal, sqlite3, sys
from remediate import schema
class Dying(sqlite3.Cursor):
    seen = 0
    def execute(self, *arguments):
        Dying.seen += 1
        if Dying.seen == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments)
schema.closing = lambda cursor: __import__("contextlib").closing(cursor.connection.cursor(Dying))
schema.open_database(pathlib.Path(sys.argv[1]))
"""


def test_killed_in_the_middle_of_it(stage: Stage) -> None:
    store_of_before(stage)
    before = content(stage)
    path = stage.state_dir / "store.sqlite"
    statements = 4 + sum(map(len, schema._VERSIONS)) + 1
    for kill_at in range(1, statements + 1, 1 if os.environ.get("EXHAUSTIVE") else 4):
        command = [sys.executable, "-c", KILLED, str(path), str(kill_at)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL, kill_at
        assert version(stage) == 0
        assert content(stage) == before
    with closing(Store(stage.state_dir)) as store:
        assert content(stage) == before
        assert store.open_runs()
    assert version(stage) == 2
    run = stage.cli("run", "--yes", "alpha")
    assert run.exit_code == 0, run.output
    assert build.sha256(stage.binary) == build.sha256(stage.new)


def test_what_it_remembers_still_counts(stage: Stage) -> None:
    store_of_before(stage)
    assert stage.cli("recover").exit_code == 1
    with closing(Store(stage.state_dir)) as store:
        store.mark_bad(stage.binary, TARGET, "it hung")
    (stage.spool / "alpha").touch()
    result = stage.cli("work", "--json")
    assert json.loads(result.stdout)[0]["reason"] == Reason.KNOWN_BAD
