"""TLS with certificates from files: each connection gets the ones that are there when it comes."""

import logging
import ssl
from asyncio.sslproto import SSLProtocol
from functools import partial
from pathlib import Path
from typing import Any

from exporter.config import ConfigError
from exporter.reloaded import Reloaded, read_file, read_secret

logger = logging.getLogger(__name__)

_RECORD_BYTES = 16 * 1024
"""The largest piece that TLS sends at once."""
_CERTIFICATE = "a certificate in PEM (tls_cert_file)"
_KEY = "its private key in PEM, not encrypted (tls_key_file)"
_CLIENT_CA = "the certificates of who signs the clients' ones, in PEM (client_ca_file)"


def rotating(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Make a context for servers that follows its files; with a client CA, only its certificates are let in.

    Raises:
        ConfigError: names the file, the key of the configuration, and what was expected.
    """
    # asyncio gives each connection a buffer of 256 KiB before it has said a word: too many for a few hundred of them.
    SSLProtocol.max_size = _RECORD_BYTES
    files = [certificate, key, *([client_ca] if client_ca else [])]
    context = _Rotating(ssl.PROTOCOL_TLS_SERVER)
    context.current = Reloaded(files, partial(_context, certificate, key, client_ca))
    return context


class _Rotating(ssl.SSLContext):
    """Hands each connection over to the context of the moment: one context can be given new files, but not forget."""

    current: Reloaded[ssl.SSLContext]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current().wrap_bio(*args, **kwargs)


class _Explained(ssl.SSLObject):
    """Says why a client was not let in: asyncio is silent about it, to the log and to the client."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            logger.debug("TLS handshake failed", extra={"error": str(error)})
            raise


def _context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _Explained
    read_file(certificate, _CERTIFICATE)
    read_secret(key, _KEY)
    _holds_certificates(certificate, _CERTIFICATE)
    try:
        context.load_cert_chain(certificate, key, password=partial(_encrypted, key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key}: found another key than that of {certificate}, expected {_KEY}") from None
        raise ConfigError(f"{key}: cannot be used: {error.reason or error}, expected {_KEY}") from None
    if client_ca:
        read_file(client_ca, _CLIENT_CA)
        _holds_certificates(client_ca, _CLIENT_CA)
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _holds_certificates(path: Path, expected: str) -> None:
    """See that a file holds certificates, since loading them with their key does not say which of the two is wrong."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{path}: cannot be used: {error.reason or error}, expected {expected}") from None


def _encrypted(key: Path) -> str:
    """Stand in for the terminal, where OpenSSL would ask for the password."""
    raise ConfigError(f"{key}: found an encrypted key, expected {_KEY}")
