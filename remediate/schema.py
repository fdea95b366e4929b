"""The tables of the worker's memory, and how those of an older version become those of this one."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

_FIRST = (
    """
    CREATE TABLE IF NOT EXISTS runs (
        id INTEGER PRIMARY KEY, node TEXT NOT NULL, "trigger" TEXT NOT NULL, reason TEXT NOT NULL, binary TEXT NOT NULL,
        installed TEXT NOT NULL, target TEXT NOT NULL, subject TEXT NOT NULL, starts TEXT NOT NULL, seen TEXT NOT NULL,
        started REAL NOT NULL,
        finished REAL, outcome TEXT, detail TEXT NOT NULL DEFAULT '')
    """,
    """
    CREATE TABLE IF NOT EXISTS journal (
        id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, step TEXT NOT NULL, event TEXT NOT NULL,
        at REAL NOT NULL, data TEXT NOT NULL)
    """,
    "CREATE INDEX IF NOT EXISTS journal_run ON journal (run)",
    """
    CREATE TABLE IF NOT EXISTS decisions (
        node TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, last REAL NOT NULL,
        PRIMARY KEY (node, decision, reason))
    """,
    """
    CREATE TABLE IF NOT EXISTS known_bad (
        binary TEXT NOT NULL, version TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (binary, version))
    """,
    """
    CREATE TABLE IF NOT EXISTS last_minimum (
        only INTEGER PRIMARY KEY CHECK (only = 1), version TEXT NOT NULL, fetched REAL NOT NULL)
    """,
)
_RESTRAINT = (
    "ALTER TABLE decisions RENAME TO decisions_before",
    """
    CREATE TABLE decisions (
        node TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, last REAL NOT NULL,
        detail TEXT NOT NULL DEFAULT '', program TEXT NOT NULL DEFAULT 'storagenode',
        PRIMARY KEY (node, program, decision, reason))
    """,
    "INSERT INTO decisions (node, decision, reason, count, last) SELECT * FROM decisions_before",
    "DROP TABLE decisions_before",
    "ALTER TABLE runs ADD COLUMN told INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE runs ADD COLUMN program TEXT NOT NULL DEFAULT 'storagenode'",
    "CREATE TABLE pauses (node TEXT PRIMARY KEY, since REAL NOT NULL, until REAL, reason TEXT NOT NULL)",
    "CREATE TABLE forgiven (binary TEXT PRIMARY KEY, run INTEGER NOT NULL)",
    """
    CREATE TABLE told (
        node TEXT NOT NULL, program TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (node, program))
    """,
)
_VERSIONS = (_FIRST, _RESTRAINT)
_TIMEOUT = 10
"""Seconds to wait for another that has the store locked."""


class SchemaError(Exception):
    """A store that cannot be used; the text says what was found and what was expected."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the store, every change on disk when its statement returns; create or migrate it first where needed.

    Raises:
        SchemaError: a newer version has made it.
        sqlite3.DatabaseError: it is no database, or cannot be written.
    """
    database = sqlite3.connect(path, isolation_level=None, timeout=_TIMEOUT, check_same_thread=False)
    try:
        database.row_factory = sqlite3.Row
        _use_wal(database)
        database.execute("PRAGMA synchronous=FULL")
        _migrate(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _use_wal(database: sqlite3.Connection) -> None:
    """Wait for a lock here too: SQLite's own timeout does not hold where a read turns into a change of the mode."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    with closing(database.cursor()) as cursor:
        if _version(cursor) == len(_VERSIONS):
            return
        cursor.execute("BEGIN IMMEDIATE")
        try:
            found = _version(cursor)
            if found > len(_VERSIONS):
                expected = f"expected at most {len(_VERSIONS)}"
                raise SchemaError(f"{path}: found version {found}, {expected}: a newer storagenode-keeper has made it")
            for statements in _VERSIONS[found:]:
                for statement in statements:
                    cursor.execute(statement)
            cursor.execute(f"PRAGMA user_version = {len(_VERSIONS)}")
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise


def _version(cursor: sqlite3.Cursor) -> int:
    version: int = cursor.execute("PRAGMA user_version").fetchone()[0]
    return version
