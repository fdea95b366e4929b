"""How a run is written to the store, and read from it."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from sqlite3 import Row

from exporter.commandline import Program
from exporter.version import NodeVersion
from remediate.decision import Reason, Trigger
from remediate.journal import Entry, Event, Inode, Outcome, Run, Subject
from remediate.starting import StartDecision, StartReason


def of_subject(subject: Subject) -> str:
    """Write what has no column of its own of what a run is about."""
    return json.dumps({"nodes": subject.nodes, "updaters": subject.updaters, "old": asdict(subject.old)})


def run(row: Row, entries: Iterable[Row]) -> Run:
    """Read a run, given with the lines of its journal."""
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
            program=Program(row["program"]),
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
