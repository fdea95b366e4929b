"""What is worth keeping over a restart: small JSON files in one directory."""

import json
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)


class Cache:
    """A directory that may be missing or closed to us: then nothing is kept, which is said once."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._said = directory is None

    def read(self, name: str) -> object:
        """Return what was kept under this name; None if there is nothing, or nothing that makes sense."""
        if self._directory is None:
            return None
        try:
            value: object = json.loads((self._directory / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._say(name, error)
            return None
        return value

    def write(self, name: str, value: object) -> None:
        """Replace what is kept under this name in one step, readable by everybody."""
        if self._directory is None:
            return
        try:
            descriptor, unfinished = tempfile.mkstemp(prefix=f".{name}.", dir=self._directory)
            try:
                with os.fdopen(descriptor, "w") as file:
                    os.fchmod(descriptor, 0o644)
                    json.dump(value, file)
                Path(unfinished).replace(self._directory / name)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as error:
            self._say(name, error)

    def _say(self, name: str, error: Exception) -> None:
        if not self._said:
            self._said = True
            where = f"{self._directory}/{name}"
            logger.warning("cannot keep what was seen over a restart", extra={"file": where, "error": str(error)})
