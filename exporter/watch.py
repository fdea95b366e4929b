"""`check --watch`: looks again and again, until Ctrl-C."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import accumulate

import click

from exporter.check import EXIT_UNKNOWN, advice, exit_code, row, table
from exporter.checked import CheckedNode, checked
from exporter.status import NodeStatus

Look = Callable[[], Sequence[NodeStatus]]
_PAUSE_SECONDS = 2.0
_HOME, _CLEAR, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"


def watch(look: Look, *, as_json: bool, color: bool) -> int:
    """Look every two seconds until Ctrl-C, and return the exit code of the last look.

    On a terminal the table is drawn anew each time. Elsewhere, and as JSON, a node has a line at first and then
    whenever something about it has changed; the moment of its last contact is not counted, since that always changes.
    """
    drawn = sys.stdout.isatty() and not as_json
    code, before = EXIT_UNKNOWN, dict[str, CheckedNode]()
    try:
        if drawn:
            click.echo(_CLEAR, nl=False)
        while True:
            statuses = look()
            code = exit_code(statuses)
            if drawn:
                _draw(table(statuses, now=datetime.now(UTC), color=color))
            else:
                before = _tell(statuses, before, as_json=as_json)
            time.sleep(_PAUSE_SECONDS)
    except KeyboardInterrupt:
        return code


def _tell(
    statuses: Sequence[NodeStatus], before: Mapping[str, CheckedNode], *, as_json: bool
) -> dict[str, CheckedNode]:
    seen = {}
    for status in statuses:
        now = checked(status)
        updater = now.updater and replace(now.updater, last_check=None, last_update=None, last_failure=None)
        seen[status.node] = replace(now, last_contact=None, clock=None, updater=updater)
        if before.get(status.node) != seen[status.node]:
            line = json.dumps(asdict(now)) if as_json else _line(status, datetime.now(UTC))
            click.echo(line)
            sys.stdout.flush()
    return seen


def _line(status: NodeStatus, now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%SZ}  {'  '.join(row(status, now))}  {' '.join(advice(status))}".rstrip()


def _draw(text: str) -> None:
    """Draw over what was drawn before; what the terminal has no room for is counted, not scrolled away."""
    size = os.get_terminal_size(sys.stdout.fileno())  # a terminal on a serial line does not know its own
    lines, columns, rows = text.splitlines(), size.columns or 80, size.lines or 24
    heights = [1 + max(len(line) - 1, 0) // columns for line in lines]
    if sum(heights) < rows:
        screen = lines
    else:
        fitting = sum(1 for end in accumulate(heights) if end < rows - 1)
        screen = [*lines[:fitting], f"… {len(lines) - fitting} more lines; name nodes to see only those"]
    drawn = "".join(f"{line}{_CLEAR_LINE}\n" for line in screen)
    click.echo(f"{_HOME}{drawn}every {_PAUSE_SECONDS:.0f} s; Ctrl-C ends{_CLEAR_REST}", nl=False, color=True)
    sys.stdout.flush()
