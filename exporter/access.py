"""Who may ask: a bearer token, TLS and client certificates, from files that are read again when they change."""

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
