"""Logging for both programs: one line an event on standard error, as logfmt or JSON, with the fields of `extra`."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f]+")


class Format(StrEnum):
    """How a line is written."""

    LOGFMT = "logfmt"
    JSON = "json"


class Level(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def setup(level: Level, format: Format) -> None:
    """Log from now on to standard error, in place of whatever was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(format))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It would put into our log what a server sends, whatever that is and at its full length.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class _Formatter(logging.Formatter):
    def __init__(self, format: Format) -> None:
        super().__init__()
        self._line = _logfmt if format is Format.LOGFMT else _json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        fields["logger"] = record.name
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self._line(fields)


def _json(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, default=str, ensure_ascii=False)


def _logfmt(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items())


def _value(value: object) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
