"""The status file: what the worker makes known, so that the listener can serve it as metrics without any right."""

import json
import logging
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from exporter.commandline import Program
from remediate.files import replace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCount:
    """How many runs of a node or its updater, from one trigger, ended in one way."""

    node: str
    trigger: str
    outcome: str
    count: int
    program: str = Program.STORAGENODE


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCount:
    """How often it was decided so for a node or its updater, for one reason."""

    node: str
    decision: str
    reason: str
    count: int
    program: str = Program.STORAGENODE


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePublished:
    """Where a node's remediation stands; timestamps in Unix seconds, the duration in seconds."""

    node: str
    updater_held: bool = False
    in_progress: bool = False
    circuit_open: bool = False
    paused: bool = False
    paused_until: float | None = None
    """None: not paused, or until somebody ends it."""
    last_success: float | None = None
    last_failure: float | None = None
    last_run_duration: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Everything the worker makes known; `worker_last_seen` in Unix seconds."""

    worker_last_seen: float
    runs: tuple[RunCount, ...] = ()
    decisions: tuple[DecisionCount, ...] = ()
    nodes: tuple[NodePublished, ...] = ()


def write(path: Path, published: Published) -> None:
    """Replace the status file, readable by everybody; a reader sees the old one or the new one, whole.

    Raises:
        OSError: it could not be written.
    """
    replace(path, json.dumps(asdict(published)).encode(), mode=0o644)


def read(path: Path) -> Published | None:
    """Read the status file; None when there is none, and, with a warning the first time, when it cannot be used."""
    try:
        return TypeAdapter(Published).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn_once(path, error.strerror or str(error))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        _warn_once(path, f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip())
    return None


@lru_cache(maxsize=64)
def _warn_once(path: Path, problem: str) -> None:
    logger.warning("status file cannot be used", extra={"file": str(path), "problem": problem})
