"""The worker's memory: the journal of every run, and what later decisions need to know of earlier ones."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.commandline import Program
from exporter.version import NodeVersion
from remediate import records
from remediate.decision import Decision, Reason, Trigger
from remediate.history import History, Pause
from remediate.journal import Decided, Event, Outcome, Run, Subject
from remediate.schema import open_database
from remediate.starting import StartDecision

_EVERY_NODE = ""


class BusyError(Exception):
    """Another run is in progress on this host."""


class Store:
    """A SQLite file in a directory of the worker's own; every change is on disk when its method returns."""

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._now = now
        self._db = open_database(directory / "store.sqlite")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the only right to change anything on this host.

        Raises:
            BusyError: somebody else holds it.
        """
        fd = self._open_lock("lock")
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError("another run is in progress on this host") from None
            yield
        finally:
            os.close(fd)

    @contextmanager
    def alone(self, at: str) -> Iterator[None]:
        """Wait until no other process is at a thing, and keep it so: nothing is told twice, or replaced by older."""
        fd = self._open_lock(at)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _open_lock(self, name: str) -> int:
        return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

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
        """Put a new run on record; what was said of its nodes before may be said again."""
        for name in subject.nodes:
            self.say(name, subject.program, None)
        cursor = self._db.execute(
            'INSERT INTO runs (node, program, "trigger", reason, binary, installed, target, subject, starts, seen,'
            " started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                node,
                subject.program,
                trigger,
                reason,
                str(subject.binary),
                str(subject.installed),
                str(target),
                records.of_subject(subject),
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
        """Read a run with its journal.

        Raises:
            LookupError: there is none of this number.
        """
        row = self._db.execute("SELECT * FROM runs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise LookupError(f"there is no run {number}")
        entries = self._db.execute("SELECT * FROM journal WHERE run = ? ORDER BY id", (number,))
        return records.run(row, entries)

    def open_runs(self) -> list[Run]:
        """Read the runs that were begun and not finished, oldest first."""
        rows = self._db.execute("SELECT id FROM runs WHERE finished IS NULL ORDER BY id").fetchall()
        return [self.run(row["id"]) for row in rows]

    def runs(self, *, node: str | None = None, limit: int = 20) -> list[Run]:
        """Read the newest runs, newest first; of one node, those that updated its binary for another as well."""
        rows = self._db.execute(
            "SELECT id FROM runs WHERE ?1 IS NULL OR EXISTS"
            " (SELECT 1 FROM json_each(subject, '$.nodes') WHERE value = ?1) ORDER BY id DESC LIMIT ?2",
            (node, limit),
        )
        return [self.run(row["id"]) for row in rows.fetchall()]

    def count(self, node: str, program: Program, decision: Decision) -> None:
        """Count a decision, and keep the last one's detail."""
        self._db.execute(
            "INSERT INTO decisions (node, program, decision, reason, count, last, detail) VALUES (?, ?, ?, ?, 1, ?, ?)"
            " ON CONFLICT DO UPDATE SET count = count + 1, last = excluded.last, detail = excluded.detail",
            (node, program, decision.name, decision.reason, self._now(), decision.detail),
        )

    def mark_bad(self, binary: Path, version: NodeVersion, reason: str) -> None:
        """Remember a version that failed by itself."""
        self._db.execute(
            "INSERT OR REPLACE INTO known_bad VALUES (?, ?, ?, ?)", (str(binary), str(version), reason, self._now())
        )

    def believe(self, minimum: NodeVersion, fetched: float) -> None:
        """Remember a minimum that made sense, as the measure for the next; a lower one than before is none.

        It may be a slip, and the true one after it would be taken for a jump.
        """
        before = self._db.execute("SELECT version FROM last_minimum").fetchone()
        if before is None or minimum >= NodeVersion.parse(before["version"]):
            self._db.execute("INSERT OR REPLACE INTO last_minimum VALUES (1, ?, ?)", (str(minimum), fetched))

    def history(self, binary: Path, nodes: Collection[str]) -> History:
        """Gather what a decision about a binary, which these nodes share, has to consider."""
        bad = self._db.execute("SELECT version, reason FROM known_bad WHERE binary = ?", (str(binary),))
        last = self._db.execute("SELECT version, fetched FROM last_minimum").fetchone()
        ends = self._db.execute(
            "SELECT finished, outcome, id > IFNULL((SELECT run FROM forgiven WHERE forgiven.binary = runs.binary), 0)"
            ' AS unforgiven FROM runs WHERE binary = ? AND "trigger" != ? AND outcome != ? ORDER BY id',
            (str(binary), Trigger.PERSON, Outcome.INTERRUPTED),
        ).fetchall()
        return History(
            known_bad={NodeVersion.parse(row["version"]): row["reason"] for row in bad},
            failures=tuple(
                row["finished"] for row in ends if row["unforgiven"] and Outcome(row["outcome"]).counts_against
            ),
            last_end=ends[-1]["finished"] if ends and ends[-1]["unforgiven"] else None,
            pauses=tuple(pause for pause in self.pauses() if pause.node is None or pause.node in nodes),
            last_minimum=(NodeVersion.parse(last["version"]), last["fetched"]) if last else None,
        )

    def pause(self, node: str | None, *, lasting: float | None, reason: str) -> None:
        """Stop everything automatic for a node, or for all, for so many seconds, or until `resume`."""
        now = self._now()
        values = (_EVERY_NODE if node is None else node, now, None if lasting is None else now + lasting, reason)
        self._db.execute("INSERT OR REPLACE INTO pauses VALUES (?, ?, ?, ?)", values)

    def pauses(self) -> list[Pause]:
        """List the pauses that last, that of all nodes first."""
        rows = self._db.execute("SELECT node, since, until, reason FROM pauses ORDER BY node").fetchall()
        pauses = [Pause(None if row[0] == _EVERY_NODE else row[0], *row[1:]) for row in rows]
        return [pause for pause in pauses if pause.lasts(self._now())]

    def resume(self, node: str | None, binary: Path | None) -> None:
        """End the pause of a node, and forgive its binary and its updater's what went wrong; of all without one."""
        with self._transaction():
            # each is given as what it must be, or None for whatever it is
            self._db.execute("DELETE FROM pauses WHERE ?1 IS NULL OR node = ?1", (node,))
            updaters = self._db.execute(
                "SELECT DISTINCT binary FROM runs WHERE program = ? AND EXISTS"
                " (SELECT 1 FROM json_each(subject, '$.nodes') WHERE value = ?)",
                (Program.UPDATER, node),
            ).fetchall()
            for which in (str(binary) if binary is not None else None, *(row["binary"] for row in updaters)):
                self._forgive(which)

    def _forgive(self, binary: str | None) -> None:
        self._db.execute("DELETE FROM known_bad WHERE ?1 IS NULL OR binary = ?1", (binary,))
        self._db.execute(
            "INSERT OR REPLACE INTO forgiven"
            " SELECT binary, MAX(id) FROM runs WHERE ?1 IS NULL OR binary = ?1 GROUP BY binary",
            (binary,),
        )

    def untold(self, since: float) -> list[Run]:
        """List the runs that nobody asked for, that ended since a time in Unix seconds, and that nobody was told of."""
        rows = self._db.execute(
            'SELECT id FROM runs WHERE NOT told AND finished >= ? AND "trigger" != ? ORDER BY id',
            (since, Trigger.PERSON),
        )
        return [self.run(row["id"]) for row in rows.fetchall()]

    def mark_told(self, run: Run) -> None:
        """Note that somebody was told of a run."""
        self._db.execute("UPDATE runs SET told = 1 WHERE id = ?", (run.id,))

    def said(self, node: str, program: Program) -> str | None:
        """Give the reason that somebody was last told for a node or its updater, with no run since."""
        row = self._db.execute("SELECT reason FROM told WHERE node = ? AND program = ?", (node, program)).fetchone()
        return row["reason"] if row else None

    def say(self, node: str, program: Program, reason: str | None) -> None:
        """Note the reason that somebody was told for a node or its updater, or that it no longer holds."""
        if reason is None:
            self._db.execute("DELETE FROM told WHERE node = ? AND program = ?", (node, program))
        else:
            self._db.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", (node, program, reason))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def decisions(self, node: str | None = None) -> list[Decided]:
        """List what was decided and how often, for one node or all."""
        rows = self._db.execute(
            "SELECT node, decision, reason, count, last, detail, program FROM decisions WHERE ?1 IS NULL OR node = ?1"
            " ORDER BY node, program, decision, reason",
            (node,),
        )
        return [
            Decided(node, decision, reason, count, last, detail, Program(program))
            for node, decision, reason, count, last, detail, program in rows
        ]

    def run_counts(self) -> list[tuple[str, str, str, str, int]]:
        """List node, program, trigger, outcome and how often."""
        rows = self._db.execute(
            'SELECT node, program, "trigger", outcome, COUNT(*) FROM runs WHERE outcome IS NOT NULL'
            ' GROUP BY node, program, "trigger", outcome ORDER BY node, program, "trigger", outcome'
        )
        return [tuple(row) for row in rows]

    def last_ends(self, node: str) -> tuple[float | None, float | None, float | None]:
        """Say when a node's last success and last failure ended, and how long its last run took, in seconds.

        Those of its updater are none of these.
        """
        good = [outcome for outcome in Outcome if outcome.exit_code == 0]
        marks = ", ".join("?" * len(good))
        row = self._db.execute(
            f"SELECT MAX(CASE WHEN outcome IN ({marks}) THEN finished END),"  # noqa: S608  only question marks
            f" MAX(CASE WHEN outcome NOT IN ({marks}) THEN finished END) FROM runs WHERE node = ? AND program = ?",
            (*good, *good, node, Program.STORAGENODE),
        ).fetchone()
        last = self._db.execute(
            "SELECT finished - started FROM runs WHERE node = ? AND program = ? AND finished IS NOT NULL"
            " ORDER BY id DESC LIMIT 1",
            (node, Program.STORAGENODE),
        ).fetchone()
        return row[0], row[1], last[0] if last else None
