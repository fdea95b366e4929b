"""Alertmanager's webhook: from a payload to the names of configured nodes, to the spool, and not a step further."""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Annotated, Literal

from prometheus_client import CollectorRegistry, Counter
from pydantic import FailFast, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.access import Access
from exporter.web import HEALTH_PATHS, EarlyResponse, create_app, health_routes, in_thread, metrics_route
from remediate.metrics import RemediationCollector
from remediate.spool import Spool

logger = logging.getLogger(__name__)

PATH = "/alertmanager"
REMEDIATION = "offline-update"
"""The value of the label `remediation` that an alert asks with."""
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_VALUES = 500_000
"""Lists, objects and what is between commas: parsed, each takes a hundred bytes. An alert has about 20."""
_HELD_BYTES = 24 * 1024 * 1024
"""What the bodies that are arriving may hold together."""
_SMALL_BYTES = 64 * 1024
"""Until here a body is taken whatever the others hold."""
_BODY_SECONDS = 30
_STORING_THREADS = 8
"""The disk syncs what they ask for at the same time together; more would not be any faster."""
_WAITING = 1000
"""Payloads that may wait to be stored, on a disk that does not get on."""
_CODES = (200, 202, 400, 401, 404, 405, 413, 503)


class AlertResult(StrEnum):
    """What an alert of a payload came to."""

    ACCEPTED = "accepted"
    RESOLVED = "resolved"
    OTHER_ALERT = "other_alert"
    """It does not ask for the remediation we do."""
    UNKNOWN_NODE = "unknown_node"
    """No label `node`, or none of ours."""


class PayloadError(Exception):
    """A payload that is not Alertmanager's version 4; the text is one short line."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a payload asks for."""

    nodes: tuple[str, ...]
    """Each once, in the order of the alerts."""
    results: Mapping[AlertResult, int]


@dataclass(frozen=True, slots=True)
class _Labels:
    """Those that are looked at: of a hundred thousand others, each would be kept, or the fault in it."""

    remediation: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class _Alert:
    status: Literal["firing", "resolved"]
    labels: _Labels


@dataclass(frozen=True, slots=True)
class _Payload:
    version: Literal["4"]
    alerts: Annotated[list[_Alert], FailFast()]


_PAYLOAD = TypeAdapter(_Payload)


def requests_in(payload: bytes | bytearray, known: Collection[str]) -> Judged:
    """Judge each alert by its own status and labels; only the exact name of a known node ever counts.

    Raises:
        PayloadError: not JSON, not a payload of version 4, or with more in it than any Alertmanager has to say.
    """
    if (values := sum(map(payload.count, b"[{,"))) > MAX_VALUES:
        raise PayloadError(f"payload: found {values} values, expected at most {MAX_VALUES}")
    try:
        alerts = _PAYLOAD.validate_json(payload).alerts
    except ValidationError as error:
        raise PayloadError(_explain(error)) from None
    nodes: dict[str, None] = {}
    results: Tally[AlertResult] = Tally()
    for alert in alerts:
        result = _judge(alert, known)
        results[result] += 1
        if result is AlertResult.ACCEPTED and alert.labels.node is not None:
            nodes[alert.labels.node] = None
    return Judged(tuple(nodes), results)


def _judge(alert: _Alert, known: Collection[str]) -> AlertResult:
    if alert.labels.remediation != REMEDIATION:
        return AlertResult.OTHER_ALERT
    if alert.status == "resolved":
        return AlertResult.RESOLVED
    if alert.labels.node not in known:
        return AlertResult.UNKNOWN_NODE
    return AlertResult.ACCEPTED


def _explain(error: ValidationError) -> str:
    """Say in one line what is wrong first, with nothing of the payload but a short, escaped value."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(ascii(part).strip("'")[:40] for part in problem["loc"])
    found = f", found {ascii(problem['input'])[:40]}" if problem["type"] == "literal_error" else ""
    return f"payload: {where + ': ' if where else ''}{problem['msg'][:120]}{found}"


class Webhook:
    """The route, and the counters of what came in by it."""

    def __init__(self, spool: Spool, nodes: Collection[str]) -> None:
        self._spool = spool
        self._nodes = frozenset(nodes)
        self._held = 0
        self._waiting: Queue[Callable[[], None]] = Queue(_WAITING)
        for _ in range(_STORING_THREADS):
            Thread(target=self._work, daemon=True).start()
        self.requests = Counter(
            "storagenode_webhook_requests",
            "Requests to the webhook, by the code of the answer.",
            ["code"],
            registry=None,
        )
        self.alerts = Counter(
            "storagenode_webhook_alerts",
            "Alerts in well-formed payloads, by what they came to.",
            ["result"],
            registry=None,
        )
        for code in _CODES:
            self.requests.labels(str(code))
        for result in AlertResult:
            self.alerts.labels(result)

    def route(self) -> Route:
        """Take payloads at POST /alertmanager: 202 stored or pending, 200 nothing to do, 400, 413, 503 not stored."""
        return Route(PATH, self._receive, methods=["POST"])

    def counted(self, app: ASGIApp) -> ASGIApp:
        """Count the answers to everything but health and /metrics, those included that never reach the route."""

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            async def counting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.requests.labels(str(message["status"])).inc()
                await send(message)

            elsewhere = scope["path"] == "/metrics" or scope["path"] in HEALTH_PATHS
            await app(scope, receive, send if elsewhere else counting)

        return count

    async def _receive(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await self._body(request)
        except TimeoutError:
            return EarlyResponse(f"the body did not arrive within {_BODY_SECONDS} s\n", 400)
        except ClientDisconnect:
            return EarlyResponse("the body ended early\n", 400)
        if isinstance(body, Response):
            return body
        # Here, not in a thread: one at a time, since a payload takes many times its size while it is parsed.
        try:
            judged = requests_in(body, self._nodes)
        except PayloadError as error:
            logger.warning("payload refused", extra={"reason": str(error)})
            return PlainTextResponse(f"{error}\n", 400)
        for result, count in judged.results.items():
            self.alerts.labels(result).inc(count)
        if unknown := judged.results.get(AlertResult.UNKNOWN_NODE):
            logger.warning("alerts for nodes that are not configured here", extra={"count": unknown})
        try:
            return await in_thread(partial(self._store, judged.nodes), self._waiting.put_nowait)
        except Full:
            logger.error("requests not stored, as many wait already", extra={"waiting": _WAITING})
            return PlainTextResponse("too much waits to be stored\n", 503)

    async def _body(self, request: Request) -> bytearray | Response:
        """Read the body; what to answer as soon as it is known to be too large, for itself or beside the others."""
        too_large = EarlyResponse(f"the body is larger than {MAX_BODY_BYTES} bytes\n", 413)
        if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
            return too_large
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self._held += len(chunk)
                if len(body) > MAX_BODY_BYTES:
                    return too_large
                if self._held > _HELD_BYTES and len(body) > _SMALL_BYTES:
                    return EarlyResponse("too many large bodies at once\n", 503)
            return body
        finally:
            self._held -= len(body)

    def _work(self) -> None:
        while True:
            self._waiting.get()()

    def _store(self, nodes: Collection[str]) -> Response:
        stored = pending = 0
        for node in nodes:
            try:
                if self._spool.put(node):
                    stored += 1
                    logger.info("request stored", extra={"node": node})
                else:
                    pending += 1
            except OSError as error:
                logger.error("request not stored", extra={"node": node, "error": str(error)})
        text = f"stored {stored}, already pending {pending}, not stored {len(nodes) - stored - pending}\n"
        if stored + pending < len(nodes):
            return PlainTextResponse(text, 503)
        return PlainTextResponse(text, 202 if nodes else 200)


def create_webhook_app(*, spool: Spool, nodes: Collection[str], status_file: Path, access: Access) -> ASGIApp:
    """Serve the webhook, health, and the remediation's metrics."""
    webhook = Webhook(spool, nodes)
    registry = CollectorRegistry()
    registry.register(RemediationCollector(spool, nodes, status_file))
    registry.register(webhook.requests)
    registry.register(webhook.alerts)
    routes = [webhook.route(), metrics_route(lambda timeout, chosen: registry), *health_routes()]
    return webhook.counted(create_app(routes, access))
