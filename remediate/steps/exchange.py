"""One GET, from the name service to the last byte: over in time, and never to a host that is not ours to ask."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from exporter.cutoff import cut_off
from remediate.journal import Outcome
from remediate.steps import StepError

ASSET_HOSTS = frozenset({"objects.githubusercontent.com", "release-assets.githubusercontent.com"})
"""Where GitHub's release addresses redirect to."""
CHUNK = 256 << 10
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "storagenode-keeper"}
_STALL_SECONDS = 30.0
_REDIRECTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answers; the body is yet to come."""

    url: str
    """Where redirects led, without what is asked of it there, which may be long and not for everybody."""
    status: int
    total: int | None
    """Bytes of the body, where they are announced."""
    parts: Iterator[bytes]
    """The body as it comes, at most 256 KiB at a time; raises what `ask` does."""


@contextmanager
def ask(url: str, seconds: float) -> Iterator[Answer]:
    """Ask for a document, and follow redirects to the same host or GitHub's asset hosts, and to no other.

    Args:
        url: https, or http to this very machine; the configuration has seen to that.
        seconds: limit for everything: names, connections, redirects, and the body while this context lasts.

    Raises:
        StepError: whatever is the network's or the server's fault, which is to be tried later.
    """
    deadline = time.monotonic() + seconds
    origin = urlsplit(url)
    with requests.Session() as session, closing(_Adapter(deadline)) as adapter:
        for _ in range(_REDIRECTS):
            # proxies, and whose certificates are believed
            settings: Any = session.merge_environment_settings(url, {}, True, None, None)
            settings["timeout"] = _STALL_SECONDS, _STALL_SECONDS
            try:
                # Not by the session: it reads the body of a redirect, however large, even when told not to follow it.
                response = adapter.send(requests.Request("GET", url, headers=_HEADERS).prepare(), **settings)
            except (requests.RequestException, ValueError, RuntimeError) as error:  # the last for want of a thread
                _in_time(url, deadline, 0)
                raise later(f"{_shown(url)}: {_innermost(error)}") from None
            with response:
                _in_time(url, deadline, 0)
                if not response.is_redirect:
                    yield Answer(
                        url=_shown(url),
                        status=response.status_code,
                        total=response.raw.length_remaining,
                        parts=_parts(response, url, deadline),
                    )
                    return
                location = response.headers["Location"]
            try:
                url = urljoin(url, location)
                place = urlsplit(url)
            except ValueError:
                raise later(f"{_shown(url)}: redirected to {location[:200]!r}, which is no address") from None
            ours = (place.scheme, place.netloc) == (origin.scheme, origin.netloc)
            if not ours and not (place.scheme == "https" and place.hostname in ASSET_HOSTS):
                raise later(f"redirected to {url[:200]!r}, which is neither {origin.netloc} nor GitHub's asset host")
        raise later(f"{_shown(url)}: more than {_REDIRECTS} redirects")


def later(detail: str) -> StepError:
    """Blame the network."""
    return StepError(Outcome.LATER, detail)


def _parts(response: requests.Response, url: str, deadline: float) -> Iterator[bytes]:
    """Yield what each receive brings."""
    if response.raw.length_remaining is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise later(f"{_shown(url)}: does not say how long it is, so that nobody could tell half of it from all of it")
    came = 0
    try:
        while part := response.raw.read1(CHUNK):
            came += len(part)
            yield part
    except Exception as error:  # urllib3 raises its own, http.client's and the socket's errors here
        _in_time(url, deadline, came)
        raise later(f"{_shown(url)}: broke off: {_innermost(error)}") from None
    _in_time(url, deadline, came)


def _in_time(url: str, deadline: float, came: int) -> None:
    """See that nothing was cut off, which may look like the end of a head or a body."""
    if time.monotonic() >= deadline:
        raise later(f"{_shown(url)}: not finished in time, {came} bytes came")


def _innermost(error: BaseException) -> str:
    """Say what an error comes from, and no more of what the other side has sent than a line can hold."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return ascii(said)[1:-1][:200]


def _shown(url: str) -> str:
    return ascii(url.partition("?")[0])[1:-1][:200]


class _Adapter(HTTPAdapter):
    """Connections that end at a deadline, whatever they are waiting for.

    A time limit of the socket's own is for each receive, and none at all for the name service.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline
        self._open = ExitStack()

    def get_connection_with_tls_context(self, *arguments: Any, **settings: Any) -> Any:
        """Take a pool whose connections are made our way."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **settings)
        make = type(pool).ConnectionCls

        def connection(**settings: Any) -> Any:
            made = make(**settings)
            self._open.callback(made.close)
            connect = made._new_conn  # of all that urllib3 does with a connection, only this is before any TLS
            made._new_conn = lambda: self._connected(connect)
            return made

        pool.ConnectionCls = connection
        return pool

    def _connected(self, connect: Callable[[], socket.socket]) -> socket.socket:
        future: Future[socket.socket] = Future()

        def run() -> None:
            try:
                future.set_result(connect())
            except Exception as error:
                future.set_exception(error)

        # A daemon, since a name service that does not answer must not keep the program from ending.
        Thread(target=run, daemon=True).start()
        try:
            made = future.result(max(self._deadline - time.monotonic(), 0))
        except TimeoutError:
            future.add_done_callback(_close_late)
            raise
        self._open.enter_context(cut_off(made, self._deadline - time.monotonic()))
        return made

    def close(self) -> None:
        """Let go of every connection."""
        super().close()
        self._open.close()


def _close_late(connecting: Future[socket.socket]) -> None:
    """Close the connection that nobody waits for any more, if it comes to one."""
    if connecting.exception() is None:
        connecting.result().close()
