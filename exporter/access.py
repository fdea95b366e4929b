"""Who may ask: a bearer token, TLS and client certificates, from files that are read again when they change."""

import hmac
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from starlette.types import Scope

from exporter.config import ConfigError, WebConfig

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger(__name__)
T = TypeVar("T")

_TOKEN_LENGTH = range(16, 1025)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a client has to show; as it stands, anybody may ask, without TLS."""

    token: Callable[[], str] | None = None
    """Gives the bearer token of the moment."""
    tls: "SSLContext | None" = None
    client_certificates: bool = False
    """Whether the TLS context lets in only who has a certificate of ours."""

    @property
    def known_only(self) -> bool:
        """Whether a client has to show who it is. TLS alone shows only who we are."""
        return self.token is not None or self.client_certificates

    def admits(self, scope: Scope) -> bool:
        """Whether a request carries the token, if there has to be one."""
        if self.token is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, credentials = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), self.token().encode())


def access(config: WebConfig) -> Access:
    """Read the files that the configuration names.

    Raises:
        ConfigError: one of them cannot be used.
    """
    token = tls = None
    if config.token_file:
        token = Reloaded([config.token_file], partial(read_token, config.token_file))
    if config.tls_cert_file and config.tls_key_file:
        from exporter.tls import rotating

        tls = rotating(config.tls_cert_file, config.tls_key_file, config.client_ca_file)
    return Access(token=token, tls=tls, client_certificates=config.client_ca_file is not None)


class Reloaded(Generic[T]):
    """What some files say, read again once one of them has changed; what cannot be used leaves what was there.

    Raises:
        ConfigError: when it is made, if the files cannot be used.
    """

    def __init__(self, files: Sequence[Path], load: Callable[[], T]) -> None:
        self._files = files
        self._load = load
        self._stamps = self._stamp()
        self._value = load()

    def __call__(self) -> T:
        """Look at the files, and return what they say."""
        stamps = self._stamp()
        if stamps != self._stamps:
            self._stamps = stamps
            files = ", ".join(map(str, self._files))
            try:
                self._value = self._load()
                logger.info("changed files are in use", extra={"files": files})
            except ConfigError as error:
                logger.error("changed files cannot be used, what was read before stays", extra={"error": str(error)})
        return self._value

    def _stamp(self) -> list[tuple[int, ...] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # The time of change, not of modification: a permission that was missing may have been given.
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def read_token(path: Path) -> str:
    """Read the bearer token, one line of 16 to 1024 characters; warn when everybody may read the file.

    Raises:
        ConfigError: unreadable, or not such a line.
    """
    token = read_secret(path, "the bearer token").strip()
    if not re.fullmatch(rb"[!-~]*", token):
        raise ConfigError(f"{path}: expected the bearer token on one line, in printable ASCII without spaces")
    if len(token) not in _TOKEN_LENGTH:
        raise ConfigError(f"{path}: found {len(token)} characters, expected a token of 16 to 1024")
    return token.decode()


def read_secret(path: Path, expected: str) -> bytes:
    """Read a file of at most 64 KiB that not everybody should be able to read; warn when everybody is.

    Raises:
        ConfigError: unreadable.
    """
    content = read_file(path, expected)
    if path.stat().st_mode & 0o004:
        logger.warning("secret file is readable by everybody", extra={"file": str(path)})
    return content


def read_file(path: Path, expected: str) -> bytes:
    """Read the first 64 KiB of a file that has to be there.

    Raises:
        ConfigError: unreadable.
    """
    try:
        with path.open("rb") as file:
            return file.read(65536)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}, expected {expected}") from None
