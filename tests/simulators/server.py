"""What the simulated servers share: a control file read at each request, and a request log."""

import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HANG_SECONDS = 600.0
CHUNKED = {"Transfer-Encoding": "chunked"}
MIB = 1 << 20


class Log:
    """A file with one JSON line when a request begins, before anything is answered, and one when it is done."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a", buffering=1) if path else None
        self._lock = threading.Lock()

    def begin(self, method: str, path: str) -> int:
        with self._lock:
            request = time.monotonic_ns()  # tells requests apart, also those of an earlier process with the same log
            self._write(id=request, method=method, path=path, time=time.time(), monotonic=time.monotonic())
            return request

    def end(self, request: int, status: int, sent: int) -> None:
        with self._lock:
            self._write(id=request, status=status, bytes=sent, done=time.time(), done_monotonic=time.monotonic())

    def _write(self, **fields: float | str) -> None:
        if self._file:
            self._file.write(json.dumps(fields) + "\n")


class Server(ThreadingHTTPServer):
    """An HTTP server with a control file and a request log."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: str, handler: type["Handler"], control: Path | None, log: Path | None) -> None:
        host, _, port = address.rpartition(":")
        super().__init__((host, int(port)), handler)
        self.control = control
        self.log = Log(log)
        self.url = f"http://{host}:{self.server_address[1]}"

    def settings(self) -> dict[str, str]:
        """Return what the control file says now; nothing without one."""
        if self.control is None or not self.control.exists():
            return {}
        settings: dict[str, str] = json.loads(self.control.read_text())
        return settings

    def serve(self) -> None:
        """Say where the server listens, as a JSON line, and serve until the process is ended."""
        print(json.dumps({"url": self.url}), flush=True)
        self.serve_forever()


class Handler(BaseHTTPRequestHandler):
    """A request, logged when it begins and when it is done; a subclass answers it in `respond`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    status = 0
    sent = 0

    def respond(self) -> None:
        """Answer a GET."""
        raise NotImplementedError

    def do_GET(self) -> None:
        request = self.server.log.begin(self.command, self.path)
        self.status = self.sent = 0
        try:
            self.respond()
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        finally:
            self.server.log.end(request, self.status, self.sent)

    def head(self, status: int, content_type: str, length: int | None, headers: dict[str, str]) -> None:
        """Send the head of an answer; without a length the body ends with the connection."""
        self.status = status
        self.send_response_only(status)
        for name, value in {"Content-Type": content_type, **headers, "Date": self.date_time_string()}.items():
            self.send_header(name, value)
        if length is None and "Transfer-Encoding" not in headers:
            self.send_header("Connection", "close")
        elif length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def body(self, content: bytes) -> None:
        """Send a piece of the body."""
        self.wfile.write(content)
        self.sent += len(content)

    def reply(self, status: int, content_type: str, content: str, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        encoded = content.encode()
        self.head(status, content_type, len(encoded), headers or {})
        self.body(encoded)

    def redirect(self, location: str) -> None:
        """Send a redirection."""
        self.reply(302, "text/html; charset=utf-8", "", {"Location": location})

    def web_page(self) -> None:
        """Send what a captive portal would, whatever was asked for."""
        self.reply(200, "text/html; charset=utf-8", "<!DOCTYPE html>\n<title>Sign in</title>\n")

    def hang(self) -> None:
        """Send nothing more until the client goes away."""
        self.close_connection = True
        self.connection.settimeout(HANG_SECONDS)
        self.connection.recv(1)

    def astray(self, how: str) -> bool:
        """Do what a server can do wrong whatever it is asked for; say whether that was it."""
        match how.split(":", 1):
            case ["status", status]:
                self.reply(int(status), "text/plain; charset=utf-8", "simulated failure")
            case ["html"]:
                self.web_page()
            case ["down"]:
                self.hang()
            case ["close"]:
                self.close_connection = True
            case ["not-http"]:
                self.close_connection = True
                self.body(b"SSH-2.0-" + b"x" * 1000 + b"\r\n")
            case ["slow-head", rate]:
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Slow: " + b"x" * 60_000:
                    self.body(bytes([byte]))
                    time.sleep(1 / int(rate))
            case ["head-flood"]:
                self.flood(b"X-Flood: " + b"x" * 1000 + b"\r\n", b"HTTP/1.1 200 OK\r\n")
            case ["continue-flood"]:
                self.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            case ["redirect-flood"]:
                self.flood(bytes(MIB), f"HTTP/1.1 302 Found\r\nLocation: {self.path}\r\n\r\n".encode())
            case ["endless"]:
                self.head(200, "application/zip", None, CHUNKED)
                self.chunk(b"PK\x03\x04")
                while True:
                    self.chunk(bytes(MIB))
            case ["chunked-garbage"]:
                self.head(200, "application/zip", None, CHUNKED)
                self.body(b"zz\r\n")
                self.close_connection = True
            case _:
                return False
        return True

    def flood(self, piece: bytes, first: bytes = b"") -> None:
        """Send something for ever."""
        self.body(first)
        while True:
            self.body(piece)

    def chunk(self, content: bytes) -> None:
        """Send a chunk of a body that is sent in chunks; an empty one is the last."""
        self.body(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: there is the request log."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments every server takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--address", default="127.0.0.1:0", help="host:port to listen on; port 0 picks a free one")
    parser.add_argument("--control", type=Path, help="JSON file that says how to behave, read at each request")
    parser.add_argument("--log", type=Path, help="file to append a JSON line to for each request begun and done")
    return parser
