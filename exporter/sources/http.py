"""One bounded GET: no redirects, no proxies, no more bytes and no more time than allowed."""

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from exporter.cutoff import cut_off
from exporter.status import Failure, FailureReason

LARGEST_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The body of a 200 answer, and its media type in lower case."""

    content_type: str
    body: bytes


def get(url: str, timeout: float) -> Answer | Failure:
    """Fetch a URL within `timeout` seconds in all; whatever is not a 200 within the limits is a Failure."""
    deadline = time.monotonic() + timeout
    try:
        with (
            socket.create_connection(_host_and_port(url), timeout) as raw,
            cut_off(raw, deadline - time.monotonic()),
        ):
            answer = _exchange(url, raw)
    except TimeoutError:
        return _too_late(url, timeout)
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= deadline:
            return _too_late(url, timeout)
        # What the other side has sent may be in it, whatever that is.
        return Failure(FailureReason.UNREACHABLE, f"{url}: {ascii(str(error))[1:-1][:200] or type(error).__name__}")
    # What was cut off at the deadline may look like a short but complete body.
    return _too_late(url, timeout) if time.monotonic() >= deadline else answer


def _exchange(url: str, raw: socket.socket) -> Answer | Failure:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connection = http.client.HTTPConnection(parts.hostname or "")
    connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname) if secure else raw
    try:
        connection.request("GET", parts.path or "/", headers={"Host": parts.netloc, "User-Agent": "storagenode-keeper"})
        response = connection.getresponse()
        if response.status != 200:
            return Failure(FailureReason.HTTP_STATUS, f"{url}: answered {response.status}, expected 200")
        body = response.read(LARGEST_BODY_BYTES + 1)
        if len(body) > LARGEST_BODY_BYTES:
            return Failure(FailureReason.TOO_LARGE, f"{url}: the answer is larger than {LARGEST_BODY_BYTES} bytes")
        # A bounded read does not notice a connection that ends before the announced length.
        if response.length:
            return Failure(FailureReason.UNREACHABLE, f"{url}: the answer ended {response.length} bytes too soon")
        return Answer(content_type=response.headers.get_content_type(), body=body)
    finally:
        connection.close()


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _too_late(url: str, timeout: float) -> Failure:
    return Failure(FailureReason.TIMEOUT, f"{url}: no complete answer within {timeout:.3g} s")
