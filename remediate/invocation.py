"""What the commands have in common: the configuration, the worker's parts, and errors as exit codes."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from exporter.cli import EXIT_USAGE, usable

if TYPE_CHECKING:
    from exporter.config import Config
    from remediate.assembly import Assembly
    from remediate.rules import Rules

EXIT_FAILED = 1
EXIT_REFUSED = 3
EXIT_PERSON_NEEDED = 4

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


def load(config_file: Path, *, names_suffice: bool = False) -> "tuple[Config, Rules]":
    """Read the configuration; where the nodes' names suffice, what it leaves out of them is not looked for.

    Raises:
        ConfigError: it cannot be used.
    """
    from exporter.discover import load_or_discover
    from remediate.rules import rules

    config = load_or_discover(config_file, names_suffice=names_suffice)
    return config, rules(config, source=str(config_file))


def check(config_file: Path) -> NoReturn:
    """Say whether the configuration can be used, with the files and the user it names, and end the program."""
    with refusing():
        from exporter.access import access
        from remediate.steps.probe import executor, hidden

        config, rules = load(config_file)
        access(rules.webhook)
        executor(hidden(config), rules)
    click.echo(usable(config_file, config))
    sys.exit()


@contextmanager
def assembled(config_file: Path) -> "Iterator[tuple[Config, Assembly]]":
    """Put the worker's parts together; what cannot be used ends the program."""
    from sqlite3 import DatabaseError

    from remediate import assembly
    from remediate.progress import bar

    with refusing():
        config, rules = load(config_file)
        try:
            with assembly.assembled(config, rules, progress=bar()) as parts:
                yield config, parts
        except DatabaseError as error:
            # what has been done up to here is not known to be undone, nor what is held to be put back
            fail(f"remediation.state_dir: {rules.state_dir} cannot be used any more: {error}", EXIT_PERSON_NEEDED)


@contextmanager
def ending() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM and Ctrl-C end what is under way, once: it is undone, and that is not interrupted by a second one.

    Gives what says whether it is time to end; the block ends where it is interrupted, and what follows it is done.
    """
    asked = False

    def end(number: int, frame: object) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    before = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with suppress(KeyboardInterrupt):
            yield lambda: asked
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_IGN if asked else handler)


@contextmanager
def refusing() -> Iterator[None]:
    """End the program when the configuration cannot be used."""
    from exporter.config import ConfigError

    try:
        yield
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)


@contextmanager
def unless_busy() -> Iterator[None]:
    """End the program when another run is in progress."""
    from remediate.store import BusyError

    try:
        yield
    except BusyError as error:
        fail(str(error), EXIT_REFUSED)


def fail(text: str, code: int) -> NoReturn:
    """Say what is wrong, and end the program."""
    click.echo(f"error: {text}", err=True)
    sys.exit(code)
