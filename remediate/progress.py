"""A progress bar for a download, on a terminal; silence elsewhere."""

import sys

import click

from remediate.steps.fetch import Progress


def bar() -> Progress:
    """Draw on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda done, total: None
    drawn = click.progressbar(length=0, label="fetching", file=sys.stderr)

    def show(done: int, total: int | None) -> None:
        if done < drawn.pos:
            drawn.pos, drawn.finished = 0, False
        drawn.length = total
        drawn.update(done - drawn.pos)
        if done == total:
            drawn.render_finish()

    return show
