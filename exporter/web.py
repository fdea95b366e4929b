"""What both programs answer with over HTTP: one ASGI app, open to whom `access` says, and the routes both have."""

import asyncio
import gzip
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from threading import Thread
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest, gzip_accepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.access import Access

T = TypeVar("T")

OPEN = Access()
HEALTH_PATHS = frozenset({"/-/healthy", "/-/ready"})
_LINGER_SECONDS = 2


def create_app(routes: Sequence[BaseRoute], access: Access) -> ASGIApp:
    """Serve the routes, each behind the bearer token except health; 401, 404 and 405 are short plain text."""
    app = Starlette(routes=list(routes))
    # A redirect turns a POST into a GET, and Alertmanager takes its 200 for a delivery.
    app.router.redirect_slashes = False

    async def admit(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in HEALTH_PATHS and not access.admits(scope):
            refusal = EarlyResponse("a valid bearer token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
            # A browser asks for a password then. In a line of its own: not all read a second one behind the first.
            refusal.headers.append("WWW-Authenticate", 'Basic realm="storagenode-keeper", charset="UTF-8"')
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
            there = ", ".join(known) or "none"
            return PlainTextResponse(f"there is no node {ascii(unknown[0])[:80]}; there are: {there}\n", 404)

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


def _own_thread(work: Callable[[], None]) -> None:
    Thread(target=work, daemon=True).start()


async def in_thread(function: Callable[[], T], start: Callable[[Callable[[], None]], None] = _own_thread) -> T:
    """Run what may block in a thread of its own, which ends with the program: a hang does not outlive SIGTERM.

    `start` may hand it to another thread, which must end with the program as well.
    """
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

    start(work)
    return await answer


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
