"""Listening for both programs: only where `access` lets it, patient with nobody who is slow, and polite at the end."""

import asyncio
import ipaddress
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.access import Access
from exporter.config import ConfigError
from exporter.notified import notify

logger = logging.getLogger(__name__)

_REQUEST_HEAD_SECONDS = 10
"""And as long for the TLS handshake before it."""
_REQUEST_SECONDS = 60
"""For a request and its answer, at least; twice as long at most."""
_KEEP_ALIVE_SECONDS = 75
_STOP_SECONDS = 1
_TLS_CLOSE_SECONDS = 0.5
_HEAD_BYTES = 32 * 1024
_BACKLOG = 2048


def bind(listen: str, access: Access) -> socket.socket:
    """Listen on `host:port` (`[::1]:port`); port 0 takes a free one.

    Raises:
        ConfigError: not such an address, not to be had, or beyond loopback for anybody.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):([0-9]{1,5})", listen)
    if not match or int(match[3]) > 65535:
        raise ConfigError(
            f"listen address: found {listen!r}, expected host:port such as 127.0.0.1:19651 or [::1]:19651"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            match[1] or match[2], int(match[3]), type=socket.SOCK_STREAM
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"listen address {listen}: {getattr(error, 'strerror', None) or error}") from None
    if not ipaddress.ip_address(address[0]).is_loopback:
        if not access.known_only:
            found = "TLS that lets anybody in" if access.tls else "no token"
            raise ConfigError(
                f"listen address {listen}: found {found}, expected a `token_file` or a `client_ca_file` in the"
                " configuration: without one only this machine is served (127.0.0.1 or [::1])"
            )
        if access.tls is None:
            logger.warning("without TLS the token is sent for everybody on the way to read", extra={"address": listen})
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"listen address {listen}: {error.strerror}") from None
    return listening


def server(app: ASGIApp, access: Access) -> uvicorn.Server:
    """Make a quiet server for the app; it logs through our logging, warnings and errors only."""
    return _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        ),
        access,
    )


def run(app: ASGIApp, listen: str, access: Access, *, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way within 2 s and return; only in the main thread.

    `on_ready` is called with the actual address, `host:port`, once connections are accepted.

    Raises:
        ConfigError: the address cannot be listened on, see `bind`.
    """
    listening = bind(listen, access)
    host, port = listening.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with listening:
        logger.info("listening", extra={"tls": access.tls is not None, "address": address})
        on_ready(address)
        server(app, access).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Take a signal as the end of serving; the original raises it again afterwards, which would end the program."""

    def __init__(self, config: uvicorn.Config, access: Access) -> None:
        super().__init__(config)
        self._access = access

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections; the original gives a client a minute for its TLS handshake, and half of one to part."""
        limits: dict[str, Any] = {}
        if self._access.tls:
            limits = {"ssl_handshake_timeout": _REQUEST_HEAD_SECONDS, "ssl_shutdown_timeout": _TLS_CLOSE_SECONDS}
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._protocol, sock=each, backlog=_BACKLOG, ssl=self._access.tls, **limits)
            for each in sockets or ()
        ]
        self.started = True
        notify("READY=1")

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        notify("STOPPING=1")
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if current_thread() is not main_thread():
            yield
            return
        original = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in original.items():
                signal.signal(number, handler)


class _Protocol(H11Protocol):
    """Give up on a client that does not send a request's head, does not send the rest, or does not read the answer."""

    _patience: asyncio.TimerHandle
    _seen: object = None
    """The request that was under way when it was last looked at."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._patience = self.loop.call_later(_REQUEST_HEAD_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        # Between requests uvicorn has a timer of its own: only until the first byte of the next one, and whether or not
        # the answer has been taken.
        waiting = self.timeout_keep_alive_task is None or self.transport.get_write_buffer_size() > 0
        if self.cycle is self._seen and waiting:
            self.transport.abort()
            return
        self._seen = self.cycle
        self._patience = self.loop.call_later(_REQUEST_SECONDS, self._look)
