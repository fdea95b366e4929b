"""The exporter as a server: /metrics, health, and a page that says where they are."""

from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from exporter import __version__, web
from exporter.collector import registry
from exporter.config import Config
from exporter.observe import Observer


def serve(config: Config, listen: str) -> None:
    """Serve until asked to stop.

    Raises:
        ConfigError: the address or the token cannot be used.
    """
    token = web.read_token(config.web.token_file) if config.web.token_file else None
    observer = Observer(config, cache_dir=_cache_dir(config.state_dir))
    routes = [_page(config), web.metrics_route(partial(registry, observer)), *web.health_routes()]
    web.run(web.create_app(routes, token=token), listen, token=token)
    observer.close()


def _cache_dir(state_dir: Path) -> Path:
    """Make the directory if it may be made; that it cannot be used is said by whoever needs it."""
    with suppress(OSError):
        state_dir.mkdir(mode=0o755, exist_ok=True)
    return state_dir


def _page(config: Config) -> Route:
    nodes = "".join(f"<li>{escape(node.name)}" for node in config.nodes)
    text = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>storagenode-exporter</title>"
        f"<h1>storagenode-exporter {__version__}</h1><p>Nodes on this host:<ul>{nodes}</ul>"
        '<p><a href="/metrics">Metrics</a> · <a href="/-/healthy">Health</a>\n'
    )

    async def page(request: Request) -> Response:
        return HTMLResponse(text)

    return Route("/", page, methods=["GET"])
