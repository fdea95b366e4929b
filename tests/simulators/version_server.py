"""The simulated version server, with the document, headers and errors of upstream's (versioncontrol/peer.go)."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.simulators.program import Control, Program
from tests.simulators.server import Handler, Server, arguments

PROCESSES = ("satellite", "storagenode", "storagenode-updater", "uplink", "gateway", "identity", "object-mount-gui")
PLATFORMS = {
    "storagenode": {"freebsd_amd64", "linux_amd64", "linux_arm", "linux_arm64", "windows_amd64"},
    "storagenode-updater": {"linux_amd64", "linux_arm", "linux_arm64", "windows_amd64"},
}
HUGE_BYTES = 2 << 20
TRICKLE_SECONDS = 0.1  # for each byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Control):
    """What the server says about storagenode and its updater, and how it behaves.

    `behaviour` is one of ok, hang, html, status:NNN, redirect, huge (a valid document of 2 MiB), empty,
    latest (a version that is a word), trickle (a byte each 0.1 s), close (without an answer).
    `{version}` in `url` becomes the version; `{os}` and `{arch}` are left to clients, as upstream does.
    """

    minimum: str = "v0.0.1"
    suggested: str = "v0.0.1"
    url: str = ""
    seed: str = ""
    cursor: str = "f" * 64
    updater_minimum: str = "v0.0.1"
    updater_suggested: str = "v0.0.1"

    def process(self, name: str) -> dict[str, dict[str, str]]:
        """Return the part of the document about one process."""
        minimum, suggested, url, seed, cursor = "v0.0.1", "v0.0.1", "", "", ""
        if name == "storagenode":
            minimum, suggested, url, seed, cursor = self.minimum, self.suggested, self.url, self.seed, self.cursor
        elif name == "storagenode-updater":
            minimum, suggested, seed, cursor = self.updater_minimum, self.updater_suggested, self.seed, self.cursor
        if self.behaviour == "latest":
            minimum = suggested = "latest"
        return {
            "minimum": {"version": minimum, "url": url.replace("{version}", minimum)},
            "suggested": {"version": suggested, "url": url.replace("{version}", suggested)},
            "rollout": {"seed": seed, "cursor": cursor},
        }

    def render(self) -> str:
        """Return the document as JSON, in upstream's order and spacing."""
        document: dict[str, object] = {"processes": {name: self.process(name) for name in PROCESSES}}
        if self.behaviour == "huge":
            document["padding"] = "x" * HUGE_BYTES
        return json.dumps(document, separators=(",", ":"))


class VersionHandler(Handler):
    """One request to the version server."""

    def respond(self) -> None:
        document = Document(**self.server.settings())
        url = urlsplit(self.path)
        match url.path.split("/")[1:]:
            case [""]:
                self.answer(document)
            case ["moved"]:
                self.reply(200, "application/json", document.render())
            case ["processes", service, kind, "url"]:
                self.binary_url(document, service, kind, parse_qs(url.query))
            case ["processes", _, _]:
                self.text_error(404, "service does not exist")
            case _:
                self.text_error(404, "404 page not found")

    def answer(self, document: Document) -> None:
        match document.behaviour.split(":"):
            case ["hang"]:
                self.hang()
            case ["html"]:
                self.web_page()
            case ["status", status]:
                self.text_error(int(status), "simulated failure")
            case ["redirect"]:
                self.redirect(f"{self.server.url}/moved")
            case ["empty"]:
                self.reply(200, "application/json", "")
            case ["trickle"]:
                content = document.render().encode()
                self.head(200, "application/json", len(content), {})
                for byte in content:
                    self.body(bytes([byte]))
                    time.sleep(TRICKLE_SECONDS)
            case ["close"]:
                self.close_connection = True
            case ["ok"] | ["huge"] | ["latest"]:
                self.reply(200, "application/json", document.render())
            case _:
                raise ValueError(f"unknown behaviour: {document.behaviour!r}")

    def binary_url(self, document: Document, service: str, kind: str, query: dict[str, list[str]]) -> None:
        system, architecture = query.get("os", [""])[0], query.get("arch", [""])[0]
        if service not in PROCESSES:
            self.text_error(404, "service does not exists")
        elif kind not in ("minimum", "suggested"):
            self.text_error(400, "invalid version, should be minimum or suggested")
        elif not system:
            self.text_error(400, "goos is not specified")
        elif not architecture:
            self.text_error(400, "goarch is not specified")
        elif f"{system}_{architecture}" not in PLATFORMS.get(service, ()):
            self.text_error(404, f"binary scheme {service}_{system}_{architecture} is not supported")
        else:
            template = document.process(service)[kind]["url"]
            self.reply(200, "text/plain", template.replace("{os}", system, 1).replace("{arch}", architecture, 1))

    def not_allowed(self) -> None:
        self.close_connection = True
        self.head(405, "text/plain", 0, {})

    do_POST = do_PUT = do_DELETE = do_HEAD = not_allowed

    def text_error(self, status: int, message: str) -> None:
        self.reply(status, "text/plain; charset=utf-8", f"{message}\n", {"X-Content-Type-Options": "nosniff"})


class VersionServer(Program[Document]):
    """A version server in a process of its own; keyword arguments, and those of `set`, are fields of Document."""

    def __init__(self, *, address: str = "127.0.0.1:0", prefix: Sequence[str] = (), **fields: str) -> None:
        super().__init__("tests.simulators.version_server", Document(**fields), address=address, prefix=prefix)


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    Server(options.address, VersionHandler, options.control, options.log).serve()
