"""The HTTP side of both programs: one ASGI app, open to whom `access` says, and a server that stops politely."""

import asyncio
import gzip
import ipaddress
import logging
import math
import re
import signal
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar, cast

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest, gzip_accepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.access import Access
from exporter.config import ConfigError

logger = logging.getLogger(__name__)
T = TypeVar("T")

OPEN = Access()
HEALTH_PATHS = frozenset({"/-/healthy", "/-/ready"})
_REQUEST_HEAD_SECONDS = 10
"""And as long for the TLS handshake before it."""
_REQUEST_SECONDS = 60
"""For a request and its answer, at least; twice as long at most."""
_KEEP_ALIVE_SECONDS = 75
_STOP_SECONDS = 1
_TLS_CLOSE_SECONDS = 0.5
_LINGER_SECONDS = 2
_HEAD_BYTES = 32 * 1024
_BACKLOG = 2048


def create_app(routes: Sequence[BaseRoute], access: Access) -> ASGIApp:
    """Serve the routes, each behind the bearer token except health; 401, 404 and 405 are short plain text."""
    app = Starlette(routes=list(routes))
    # A redirect turns a POST into a GET, and Alertmanager takes its 200 for a delivery.
    app.router.redirect_slashes = False

    async def admit(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in HEALTH_PATHS and not access.admits(scope):
            refusal = EarlyResponse("a valid bearer token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # the server has been told to stop, and has waited long enough
            await PlainTextResponse("stopping\n", 503)(scope, receive, send)

    return admit


class EarlyResponse(PlainTextResponse):
    """Answer at once though the body has not been read, then close.

    What still arrives is thrown away for up to 2 s first: closing a connection with bytes unread resets it, and the
    client would see that instead of the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, linger, close."""
        self.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})


def metrics_route(
    collect: Callable[[float | None, Collection[str]], CollectorRegistry], nodes: Collection[str] | None = None
) -> Route:
    """Serve /metrics in the format and encoding the scraper asks for, of all nodes or of those that `?node=` names.

    `collect` gets the scrape timeout in seconds, None when the scraper names none, and the nodes that are asked for;
    it runs in a thread. Without `nodes` there is nothing to choose from, and `?node=` says nothing.
    """

    async def metrics(request: Request) -> Response:
        known = nodes or ()
        chosen = request.query_params.getlist("node") or known
        if nodes is not None and (unknown := [name for name in chosen if name not in known]):
            return PlainTextResponse(f"there is no node {ascii(unknown[0])[:80]}\n", 404)

        def expose() -> Response:
            encode, content_type = _encoder(request.headers.get("accept", ""))
            body = encode(collect(_scrape_timeout(request), chosen))
            headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
            if gzip_accepted(request.headers.get("accept-encoding", "")):
                return Response(gzip.compress(body, 4), headers=headers | {"Content-Encoding": "gzip"})
            return Response(body, headers=headers)

        return await in_thread(expose)

    return Route("/metrics", metrics, methods=["GET"])


def health_routes() -> list[Route]:
    """Answer that the program is up; it listens only once its configuration is loaded, so healthy is also ready."""

    async def health(request: Request) -> Response:
        return PlainTextResponse("OK\n")

    return [Route(path, health, methods=["GET"]) for path in sorted(HEALTH_PATHS)]


async def in_thread(function: Callable[[], T]) -> T:
    """Run what may block in a thread of its own, which ends with the program: a hang does not outlive SIGTERM."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.cancelled():
            return
        if error is None:
            answer.set_result(cast(T, result))
        else:
            answer.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop has ended without us
            loop.call_soon_threadsafe(settle, result, error)

    Thread(target=work, daemon=True).start()
    return await answer


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

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

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


def _scrape_timeout(request: Request) -> float | None:
    try:
        seconds = float(request.headers.get("x-prometheus-scrape-timeout-seconds", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # a format version that is no number
        return generate_latest, "text/plain; version=0.0.4; charset=utf-8"
