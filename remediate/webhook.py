"""Alertmanager's webhook: from a payload to the names of configured nodes, to the spool, and not a step further."""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ValidationError
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
_BODY_SECONDS = 30
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


class _Alert(BaseModel):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]


class _Payload(BaseModel):
    version: Literal["4"]
    alerts: list[_Alert]


def requests_in(payload: bytes, known: Collection[str]) -> Judged:
    """Judge each alert by its own status and labels; only the exact name of a known node ever counts.

    Raises:
        PayloadError: not JSON, or not a payload of version 4.
    """
    try:
        alerts = _Payload.model_validate_json(payload).alerts
    except ValidationError as error:
        raise PayloadError(_explain(error)) from None
    judged = [(_judge(alert, known), alert.labels.get("node", "")) for alert in alerts]
    accepted = dict.fromkeys(node for result, node in judged if result is AlertResult.ACCEPTED)
    return Judged(tuple(accepted), Tally(result for result, _ in judged))


def _judge(alert: _Alert, known: Collection[str]) -> AlertResult:
    if alert.labels.get("remediation") != REMEDIATION:
        return AlertResult.OTHER_ALERT
    if alert.status == "resolved":
        return AlertResult.RESOLVED
    if alert.labels.get("node") not in known:
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
                body = await _body(request)
        except TimeoutError:
            return EarlyResponse(f"the body did not arrive within {_BODY_SECONDS} s\n", 400)
        except ClientDisconnect:
            return EarlyResponse("the body ended early\n", 400)
        if body is None:
            return EarlyResponse(f"the body is larger than {MAX_BODY_BYTES} bytes\n", 413)
        return await in_thread(partial(self._store, body))

    def _store(self, body: bytes) -> Response:
        try:
            judged = requests_in(body, self._nodes)
        except PayloadError as error:
            logger.warning("payload refused", extra={"reason": str(error)})
            return PlainTextResponse(f"{error}\n", 400)
        for result, count in judged.results.items():
            self.alerts.labels(result).inc(count)
        if unknown := judged.results.get(AlertResult.UNKNOWN_NODE):
            logger.warning("alerts for nodes that are not configured here", extra={"count": unknown})
        stored = pending = 0
        for node in judged.nodes:
            try:
                if self._spool.put(node):
                    stored += 1
                    logger.info("request stored", extra={"node": node})
                else:
                    pending += 1
            except OSError as error:
                logger.error("request not stored", extra={"node": node, "error": str(error)})
        text = f"stored {stored}, already pending {pending}, not stored {len(judged.nodes) - stored - pending}\n"
        if stored + pending < len(judged.nodes):
            return PlainTextResponse(text, 503)
        return PlainTextResponse(text, 202 if judged.nodes else 200)


async def _body(request: Request) -> bytes | None:
    """Read the body; None as soon as it is known to be too large."""
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def create_webhook_app(*, spool: Spool, nodes: Collection[str], status_file: Path, access: Access) -> ASGIApp:
    """Serve the webhook, health, and the remediation's metrics."""
    webhook = Webhook(spool, nodes)
    registry = CollectorRegistry()
    registry.register(RemediationCollector(spool, nodes, status_file))
    registry.register(webhook.requests)
    registry.register(webhook.alerts)
    routes = [webhook.route(), metrics_route(lambda timeout, chosen: registry), *health_routes()]
    return webhook.counted(create_app(routes, access))
