"""An HTTP server that sends exactly the bytes it is told to, as slowly as it is told to."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Piece = bytes | float
"""Bytes to send, or seconds to wait."""


def answer(body: bytes, *, content_type: str = "application/json", status: str = "200 OK") -> bytes:
    """Return an answer with its length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def server(pieces: Sequence[Piece]) -> Iterator[tuple[str, list[bytes]]]:
    """Serve on loopback; yield `host:port` and the list that the requests are put in."""
    requests: list[bytes] = []
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def converse(connection: socket.socket) -> None:
            with connection:
                requests.append(connection.recv(65536))
                try:
                    for piece in pieces:
                        if isinstance(piece, bytes):
                            connection.sendall(piece)
                        elif ended.wait(piece):
                            return
                except OSError:
                    return  # the client has had enough

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=converse, args=[connection], daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", requests
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


class Clock:
    """Unix time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now
