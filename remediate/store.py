"""The worker's memory: the journal of every run, and what later decisions need to know of earlier ones."""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.version import NodeVersion
from remediate.decision import Decision, History, Reason, StartDecision, StartReason, Trigger
from remediate.journal import Entry, Event, Inode, Outcome, Run, Subject

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, "trigger" TEXT NOT NULL, reason TEXT NOT NULL, binary TEXT NOT NULL,
    installed TEXT NOT NULL, target TEXT NOT NULL, subject TEXT NOT NULL, starts TEXT NOT NULL, seen TEXT NOT NULL,
    started REAL NOT NULL,
    finished REAL, outcome TEXT, detail TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, step TEXT NOT NULL, event TEXT NOT NULL,
    at REAL NOT NULL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS journal_run ON journal (run);
CREATE TABLE IF NOT EXISTS decisions (
    node TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (node, decision, reason));
CREATE TABLE IF NOT EXISTS known_bad (
    binary TEXT NOT NULL, version TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (binary, version));
CREATE TABLE IF NOT EXISTS last_minimum (
    only INTEGER PRIMARY KEY CHECK (only = 1), version TEXT NOT NULL, fetched REAL NOT NULL);
"""


class BusyError(Exception):
    """Another run is in progress on this host."""


class Store:
    """A SQLite file in a directory of the worker's own; every change is on disk when its method returns."""

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._now = now
        self._db = sqlite3.connect(
            directory / "store.sqlite", isolation_level=None, timeout=10, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the only right to change anything on this host.

        Raises:
            BusyError: somebody else holds it.
        """
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError("another run is in progress on this host") from None
            yield
        finally:
            os.close(fd)

    def begin(
        self,
        *,
        node: str,
        trigger: Trigger,
        reason: Reason,
        subject: Subject,
        target: NodeVersion,
        starts: Mapping[str, StartDecision],
        seen: Mapping[str, str],
    ) -> Run:
        """Put a new run on record."""
        cursor = self._db.execute(
            'INSERT INTO runs (node, "trigger", reason, binary, installed, target, subject, starts, seen, started)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                node,
                trigger,
                reason,
                str(subject.binary),
                str(subject.installed),
                str(target),
                json.dumps({"nodes": subject.nodes, "updaters": subject.updaters, "old": asdict(subject.old)}),
                json.dumps({name: [decision.start, decision.reason] for name, decision in starts.items()}),
                json.dumps(dict(seen)),
                self._now(),
            ),
        )
        return self.run(cursor.lastrowid or 0)

    def note(self, run: int, step: str, event: Event, data: Mapping[str, Any]) -> None:
        """Add a line to the journal of a run."""
        self._db.execute(
            "INSERT INTO journal (run, step, event, at, data) VALUES (?, ?, ?, ?, ?)",
            (run, step, event, self._now(), json.dumps(data)),
        )

    def finish(self, run: int, outcome: Outcome, detail: str) -> None:
        """Close a run."""
        self._db.execute(
            "UPDATE runs SET finished = ?, outcome = ?, detail = ? WHERE id = ?", (self._now(), outcome, detail, run)
        )

    def run(self, number: int) -> Run:
        """Read a run with its journal."""
        row = self._db.execute("SELECT * FROM runs WHERE id = ?", (number,)).fetchone()
        entries = self._db.execute("SELECT * FROM journal WHERE run = ? ORDER BY id", (number,))
        subject = json.loads(row["subject"])
        return Run(
            id=row["id"],
            node=row["node"],
            trigger=Trigger(row["trigger"]),
            reason=Reason(row["reason"]),
            subject=Subject(
                binary=Path(row["binary"]),
                nodes=tuple(subject["nodes"]),
                updaters=tuple(subject["updaters"]),
                installed=NodeVersion.parse(row["installed"]),
                old=Inode(**subject["old"]),
            ),
            target=NodeVersion.parse(row["target"]),
            starts={
                name: StartDecision(start, StartReason(reason))
                for name, (start, reason) in json.loads(row["starts"]).items()
            },
            seen=json.loads(row["seen"]),
            started=row["started"],
            journal=tuple(
                Entry(step=entry["step"], event=Event(entry["event"]), at=entry["at"], data=json.loads(entry["data"]))
                for entry in entries
            ),
            finished=row["finished"],
            outcome=Outcome(row["outcome"]) if row["outcome"] else None,
            detail=row["detail"],
        )

    def open_run(self) -> Run | None:
        """Find the run that was begun and not finished."""
        row = self._db.execute("SELECT id FROM runs WHERE finished IS NULL ORDER BY id DESC LIMIT 1").fetchone()
        return self.run(row["id"]) if row else None

    def runs(self, *, node: str | None = None, limit: int = 20) -> list[Run]:
        """Read the newest runs, newest first."""
        rows = self._db.execute(
            "SELECT id FROM runs WHERE ?1 IS NULL OR node = ?1 ORDER BY id DESC LIMIT ?2", (node, limit)
        )
        return [self.run(row["id"]) for row in rows.fetchall()]

    def count(self, node: str, decision: Decision) -> None:
        """Count a decision."""
        self._db.execute(
            "INSERT INTO decisions VALUES (?, ?, ?, 1, ?)"
            " ON CONFLICT DO UPDATE SET count = count + 1, last = excluded.last",
            (node, decision.name, decision.reason, self._now()),
        )

    def mark_bad(self, binary: Path, version: NodeVersion, reason: str) -> None:
        """Remember a version that failed by itself."""
        self._db.execute(
            "INSERT OR REPLACE INTO known_bad VALUES (?, ?, ?, ?)", (str(binary), str(version), reason, self._now())
        )

    def believe(self, minimum: NodeVersion, fetched: float) -> None:
        """Remember a minimum that made sense, as the measure for the next."""
        self._db.execute("INSERT OR REPLACE INTO last_minimum VALUES (1, ?, ?)", (str(minimum), fetched))

    def history(self, binary: Path) -> History:
        """Gather what a decision about a binary has to consider."""
        bad = self._db.execute("SELECT version, reason FROM known_bad WHERE binary = ?", (str(binary),))
        last = self._db.execute("SELECT version, fetched FROM last_minimum").fetchone()
        return History(
            known_bad={NodeVersion.parse(row["version"]): row["reason"] for row in bad},
            last_minimum=(NodeVersion.parse(last["version"]), last["fetched"]) if last else None,
        )

    def decision_counts(self) -> list[tuple[str, str, str, int]]:
        """List node, decision, reason and how often."""
        rows = self._db.execute("SELECT node, decision, reason, count FROM decisions ORDER BY node, decision, reason")
        return [tuple(row) for row in rows]

    def run_counts(self) -> list[tuple[str, str, str, int]]:
        """List node, trigger, outcome and how often."""
        rows = self._db.execute(
            'SELECT node, "trigger", outcome, COUNT(*) FROM runs WHERE outcome IS NOT NULL'
            ' GROUP BY node, "trigger", outcome ORDER BY node, "trigger", outcome'
        )
        return [tuple(row) for row in rows]

    def last_ends(self, node: str) -> tuple[float | None, float | None, float | None]:
        """Say when a node's last success and last failure ended, and how long its last run took, in seconds."""
        good = [outcome for outcome in Outcome if outcome.exit_code == 0]
        marks = ", ".join("?" * len(good))
        row = self._db.execute(
            f"SELECT MAX(CASE WHEN outcome IN ({marks}) THEN finished END),"  # noqa: S608  only question marks
            f" MAX(CASE WHEN outcome NOT IN ({marks}) THEN finished END) FROM runs WHERE node = ?",
            (*good, *good, node),
        ).fetchone()
        last = self._db.execute(
            "SELECT finished - started FROM runs WHERE node = ? AND finished IS NOT NULL ORDER BY id DESC LIMIT 1",
            (node,),
        ).fetchone()
        return row[0], row[1], last[0] if last else None
