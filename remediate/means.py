"""What a run is carried out with."""

from collections.abc import Callable
from dataclasses import dataclass

from exporter.config import Config
from exporter.sources.binary import Execute
from remediate.rules import Rules
from remediate.steps.confirm import Look
from remediate.steps.fetch import Progress
from remediate.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The configuration, the memory, and the ways to look, to run a binary, and to tell."""

    config: Config
    rules: Rules
    store: Store
    look: Look
    execute: Execute
    progress: Progress
    changed: Callable[[], None]
    """Called whenever the store has."""
