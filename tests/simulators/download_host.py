"""The simulated GitHub: the releases of storj/storj, their asset host, and the API that knows the assets' digests."""

import gzip
import hashlib
import json
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.simulators.program import Control, Program
from tests.simulators.server import CHUNKED, Handler, Server, arguments

PROJECT = "storj/storj"
ELSEWHERE = "downloads.invalid"  # a name that resolves nowhere, by RFC 2606
CHUNK_BYTES = 1 << 20
SLICES_A_SECOND = 20
QUERY = "?sp=r&sig=simulated"
DIGESTS = ("ok", "none", "missing", "wrong", "other", "malformed", "algorithm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases(Control):
    """How the host behaves.

    `behaviour`, of downloads, is one of ok, slow:BYTES (a second), stall (after half), truncate (after half, and
    closes), reset (after half), wrong-length (half, and says that is all), announce:BYTES (says that many, and sends
    the file), no-length (ends with the connection), chunked, chunked-half, gzip, redirect-elsewhere, redirect-http,
    redirect:URL, redirect-loop, or what any part of it can do:
    status:NNN, html, endless, down (hangs), close (without a word), not-http, slow-head:BYTES (a second), head-flood,
    continue-flood (100 for ever), redirect-flood (with a body for ever), chunked-garbage.
    `digests`, of the API, is one of these last, or ok, none (null), missing (asset not listed), wrong, other (of
    another file), malformed, algorithm (sha512).
    `sums`, of the file sha256sums in the folder of a release, is one of these last, or ok, bsd, upstream (as Storj
    writes them), missing, wrong, twice (with two digests), malformed.
    """

    digests: str = "ok"
    sums: str = "ok"


@lru_cache
def digest(path: Path, modified_ns: int) -> str:
    """Return the SHA-256 of a file that was modified then."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Host(Server):
    """The server, and the folder whose `VERSION/ASSET.zip` it publishes."""

    folder: Path


class ReleaseHandler(Handler):
    """One request to the host."""

    server: Host

    def respond(self) -> None:
        releases = Releases(**self.server.settings())
        path = urlsplit(self.path).path
        match path.removeprefix("/").split("/"):
            case ["storj", "storj", "releases", "download", tag, name]:
                self.release(releases, tag, name)
            case ["asset", version, name]:
                self.asset(releases, self.server.folder / version / name)
            case ["repos", "storj", "storj", "releases", "tags", tag]:
                self.tag(releases, tag)
            case ["sums", tag, "sha256sums"]:
                self.sums(releases, self.server.folder / tag.removeprefix("v"))
            case _:
                self.not_found()

    def release(self, releases: Releases, tag: str, name: str) -> None:
        version = tag.removeprefix("v")
        location = f"/asset/{version}/{name}{QUERY}"
        if self.astray(releases.behaviour):
            return
        match releases.behaviour.split(":", 1):
            case ["redirect-elsewhere"]:
                self.redirect(f"https://{ELSEWHERE}{location}")
            case ["redirect-http"]:
                self.redirect(f"http://{ELSEWHERE}{location}")
            case ["redirect", target]:
                self.redirect(target)
            case ["redirect-loop"]:
                self.redirect(f"{self.server.url}{self.path}")
            case _ if (self.server.folder / version / name).is_file():
                self.redirect(f"{self.server.url}{location}")
            case _:
                self.not_found()

    def asset(self, releases: Releases, path: Path) -> None:
        if not path.is_file():
            return self.not_found()
        size = path.stat().st_size
        half = size // 2
        match releases.behaviour.split(":"):
            case ["slow", rate]:
                self.file(path, size, size, int(rate))
            case ["stall"]:
                self.file(path, size, half)
                self.hang()
            case ["truncate"]:
                self.file(path, size, half)
                self.close_connection = True
            case ["wrong-length"]:
                self.file(path, half, half)
            case ["reset"]:
                self.file(path, size, half)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                raise ConnectionResetError
            case ["announce", announced]:
                self.head(200, "application/octet-stream", None, {"Content-Length": announced})
                self.body(path.read_bytes())
                self.close_connection = True
            case ["no-length"]:
                self.file(path, None, size)
            case ["gzip"]:
                content = gzip.compress(path.read_bytes())
                self.head(200, "application/octet-stream", len(content), {"Content-Encoding": "gzip"})
                self.body(content)
            case ["chunked" | "chunked-half" as how]:
                self.head(200, "application/octet-stream", None, CHUNKED)
                self.chunk(path.read_bytes()[: half if how == "chunked-half" else size])
                if how == "chunked":
                    self.chunk(b"")
                self.close_connection = True
            case ["ok"]:
                self.file(path, size, size)
            case _:
                raise ValueError(f"unknown behaviour: {releases.behaviour!r}")
        return None

    def file(self, path: Path, declared: int | None, count: int, rate: int = 0) -> None:
        """Send the head and the first `count` bytes of a file, at so many bytes a second (0: as fast as it goes)."""
        disposition = {"Content-Disposition": f"attachment; filename={path.name}"}
        self.head(200, "application/octet-stream", declared, disposition)
        with path.open("rb") as file:
            while not rate and self.sent < count:
                self.sent += self.connection.sendfile(file, self.sent, min(CHUNK_BYTES, count - self.sent))
            began = time.monotonic()
            while self.sent < count:
                self.body(file.read(min(max(1, rate // SLICES_A_SECOND), count - self.sent)))
                time.sleep(max(0.0, began + self.sent / rate - time.monotonic()))

    def sums(self, releases: Releases, folder: Path) -> None:
        known = {path.name: digest(path, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.zip"))}
        if self.astray(releases.sums):
            return
        zero = "0" * 64
        known["other.zip"] = zero
        match releases.sums:
            case "ok":
                lines = [f"{value} *{name}" for name, value in known.items()]
            case "upstream":
                lines = [f"{value}  ./{name}" for name, value in known.items()]
            case "bsd":
                lines = [f"SHA256 ({name}) = {value.upper()}" for name, value in known.items()]
            case "missing":
                lines = [f"{zero}  other.zip", *(f"{zero}  {name}.sig" for name in known)]
            case "wrong":
                lines = [f"{zero}  {name}" for name in known]
            case "twice":
                lines = [f"{value}  {name}" for name in known for value in (known[name], zero)]
            case "malformed":
                lines = [f"{value[1:]}  {name}" for name, value in known.items()]
            case how:
                raise ValueError(f"unknown behaviour of sums: {how!r}")
        self.reply(200, "text/plain; charset=utf-8", "".join(f"{line}\n" for line in lines))

    def tag(self, releases: Releases, tag: str) -> None:
        folder = self.server.folder / tag.removeprefix("v")
        mode = releases.digests
        if mode in ("status:403", "status:429"):
            reset = str(int(time.time()) + 3600)
            limits = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
            return self.api(int(mode[-3:]), {"message": "API rate limit exceeded for 127.0.0.1."}, limits)
        if mode.startswith("status:"):
            return self.api(int(mode[-3:]), {"message": "simulated failure"})
        if self.astray(mode):
            return None
        if mode not in DIGESTS:
            raise ValueError(f"unknown behaviour of digests: {mode!r}")
        if not folder.is_dir():
            return self.api(404, {"message": "Not Found", "status": "404"})
        paths = [] if mode == "missing" else sorted(folder.glob("*.zip"))
        assets = [self.describe(path, mode) for path in paths]
        return self.api(200, {"tag_name": tag, "name": tag, "draft": False, "prerelease": "-" in tag, "assets": assets})

    def describe(self, path: Path, mode: str) -> dict[str, object]:
        content = path.read_bytes() if mode in ("other", "algorithm") else b""
        told = {
            "ok": f"sha256:{digest(path, path.stat().st_mtime_ns)}",
            "wrong": f"sha256:{'0' * 64}",
            "other": f"sha256:{hashlib.sha256(content[1:]).hexdigest()}",
            "malformed": "sha256:0123",
            "algorithm": f"sha512:{hashlib.sha512(content).hexdigest()}",
        }
        return {
            "name": path.name,
            "state": "uploaded",
            "content_type": "application/zip",
            "size": path.stat().st_size,
            "digest": told.get(mode),
            "browser_download_url": f"{self.server.url}/{PROJECT}/releases/download/v{path.parent.name}/{path.name}",
        }

    def api(self, status: int, content: dict[str, object], headers: dict[str, str] | None = None) -> None:
        self.reply(status, "application/json; charset=utf-8", json.dumps(content), headers)

    def not_found(self) -> None:
        self.reply(404, "text/plain; charset=utf-8", "Not Found")


class DownloadHost(Program[Releases]):
    """A download host in a process of its own; keyword arguments, and those of `set`, are fields of Releases."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1:0", prefix: Sequence[str] = (), **fields: str
    ) -> None:
        super().__init__(
            "tests.simulators.download_host",
            Releases(**fields),
            arguments=["--folder", str(folder.resolve())],
            address=address,
            prefix=prefix,
        )

    @property
    def releases(self) -> str:
        """Return the prefix of release downloads, as operators would configure it: PREFIX/vX.Y.Z/ASSET.zip."""
        return f"{self.url}/{PROJECT}/releases/download"

    @property
    def tags(self) -> str:
        """Return the prefix of the API that knows a release by its tag."""
        return f"{self.url}/repos/{PROJECT}/releases/tags"

    @property
    def sums(self) -> str:
        """Return the address of the list of digests, as operators would configure it."""
        return f"{self.url}/sums/v{{version}}/sha256sums"


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder with VERSION/ASSET.zip")
    options = parser.parse_args()
    host = Host(options.address, ReleaseHandler, options.control, options.log)
    host.folder = options.folder
    host.serve()
