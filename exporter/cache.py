"""What is worth keeping over a restart: small JSON files in one directory, which may be deleted at any time."""

import json
import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Of what is kept; what another format says is not guessed at."""
_LEFTOVER_SECONDS = 3600


class Cache:
    """A directory that may be missing or closed to us: then nothing is kept, which is said once.

    A file that is damaged, or of another version of this program, costs what it held and a line in the log. With
    `keep` false it is only read, by somebody whose it is not.
    """

    def __init__(self, directory: Path | None, *, keep: bool = True) -> None:
        self._directory = directory
        self._keep = keep
        self._said = directory is None

    def read(self, name: str) -> object:
        """Return what was kept under this name; None if there is nothing, or nothing that makes sense."""
        if self._directory is None:
            return None
        try:
            content = json.loads((self._directory / name).read_bytes(), parse_constant=_no_number)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say(name, error)
            return None
        except (ValueError, RecursionError) as error:
            self.spoiled(name, str(error))
            return None
        match content:
            case {"format": int(version), "kept": kept} if version == _FORMAT:
                return kept
            case _:
                self.spoiled(name, f"not of format {_FORMAT}")
                return None

    def write(self, name: str, value: object) -> None:
        """Replace what is kept under this name in one step, readable by everybody, that a power cut leaves whole."""
        if self._directory is None or not self._keep:
            return
        try:
            self._sweep(name)
            descriptor, unfinished = tempfile.mkstemp(prefix=f".{name}.", dir=self._directory)
            try:
                with os.fdopen(descriptor, "w") as file:
                    os.fchmod(descriptor, 0o644)
                    json.dump({"format": _FORMAT, "kept": value}, file)
                    file.flush()
                    os.fsync(descriptor)
                Path(unfinished).replace(self._directory / name)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as error:
            self._say(name, error)

    def spoiled(self, name: str, reason: str) -> None:
        """Say that what was kept under this name cannot be used; whoever keeps something there next replaces it."""
        where = f"{self._directory}/{name}"
        logger.warning("what was kept is damaged and not used", extra={"file": where, "error": reason[:200]})

    def _sweep(self, name: str) -> None:
        """Remove what a writer left that was killed in the middle; one that still writes is not that slow."""
        assert self._directory is not None
        for leftover in self._directory.glob(f".{name}.*"):
            with suppress(FileNotFoundError):  # its writer has just finished
                if leftover.lstat().st_mtime < time.time() - _LEFTOVER_SECONDS:
                    leftover.unlink()

    def _say(self, name: str, error: Exception) -> None:
        if not self._said:
            self._said = True
            where = f"{self._directory}/{name}"
            logger.warning("cannot keep what was seen over a restart", extra={"file": where, "error": str(error)})


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number")
