"""The exporter as a server: /metrics, health, and the page for people."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from exporter import listening, web
from exporter.access import access
from exporter.collector import registry
from exporter.config import Config
from exporter.observe import Observer
from exporter.page import HEADERS, page
from exporter.status import NodeStatus

_PAGE_SECONDS = 2.0


def serve(config: Config, listen: str, *, without: str = "") -> None:
    """Serve until asked to stop; `without` says on the page why there are no nodes, where there are none.

    Raises:
        ConfigError: the address, the token or a certificate cannot be used.
    """
    admitted = access(config.web)
    observer = Observer(config, cache_dir=_cache_dir(config.state_dir))
    names = [node.name for node in config.nodes]
    routes = [
        page_route(partial(observer.observe_all, _PAGE_SECONDS), without),
        web.metrics_route(partial(registry, observer), names),
        *web.health_routes(),
    ]
    listening.run(web.create_app(routes, admitted), listen, admitted)
    observer.close()


def page_route(observe: Callable[[], list[NodeStatus]], without: str) -> Route:
    """Serve the page at /, of the nodes as they are when it is asked for."""

    async def answer(request: Request) -> Response:
        text = await web.in_thread(lambda: page(observe(), now=datetime.now(UTC), without=without))
        return HTMLResponse(text, headers=HEADERS)

    return Route("/", answer, methods=["GET"])


def _cache_dir(state_dir: Path) -> Path:
    """Make the directory if it may be made; that it cannot be used is said by whoever needs it."""
    with suppress(OSError):
        state_dir.mkdir(mode=0o755, exist_ok=True)
    return state_dir
