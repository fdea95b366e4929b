"""Who may ask: a bearer token, TLS and client certificates, from files that are read again when they change."""

import base64
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import Scope

from exporter.config import ConfigError, WebConfig
from exporter.reloaded import Reloaded, read_secret

if TYPE_CHECKING:
    from ssl import SSLContext

_TOKEN_LENGTH = range(16, 1025)
_LOOKING = ("GET", "HEAD")


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
        """Whether a request carries the token, if there has to be one.

        A browser, which knows users and passwords only, may look with the token for a password, whoever the user. It
        may not do more: whatever page is open in it can have it send that password along.
        """
        if self.token is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, credentials = given[0].partition(b" ")
        match scheme.lower():
            case b"bearer":
                shown = credentials.strip()
            case b"basic" if scope["method"] in _LOOKING:
                shown = _password(credentials)
            case _:
                return False
        return hmac.compare_digest(shown, self.token().encode())


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


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
