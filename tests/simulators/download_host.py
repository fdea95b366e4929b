"""The simulated GitHub: the releases of storj/storj, their asset host, and the API that knows the assets' digests."""

import hashlib
import json
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
from tests.simulators.server import Handler, Server, arguments

PROJECT = "storj/storj"
ELSEWHERE = "downloads.invalid"  # a name that resolves nowhere, by RFC 2606
CHUNK_BYTES = 1 << 20
SLICES_A_SECOND = 20
QUERY = "?sp=r&sig=simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases(Control):
    """How the host behaves.

    `behaviour`, of downloads, is one of ok, slow:BYTES (a second), stall (after half), truncate (after half, and
    closes), wrong-length (half, and says that is all), status:NNN, html, redirect-elsewhere, redirect-http,
    redirect:URL, redirect-loop, endless.
    `digests`, of the API, is one of ok, none (null), missing (asset not listed), wrong, status:NNN, down (hangs).
    """

    digests: str = "ok"


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
            case _:
                self.not_found()

    def release(self, releases: Releases, tag: str, name: str) -> None:
        version = tag.removeprefix("v")
        location = f"/asset/{version}/{name}{QUERY}"
        match releases.behaviour.split(":", 1):
            case ["status", status]:
                self.reply(int(status), "text/plain; charset=utf-8", "simulated failure")
            case ["html"]:
                self.web_page()
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
            case ["endless"]:
                self.file(path, None, half)
                while True:
                    self.body(bytes(CHUNK_BYTES))
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

    def tag(self, releases: Releases, tag: str) -> None:
        folder = self.server.folder / tag.removeprefix("v")
        match releases.digests.split(":"):
            case ["status", "403"]:
                reset = str(int(time.time()) + 3600)
                limits = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
                self.api(403, {"message": "API rate limit exceeded for 127.0.0.1."}, limits)
            case ["status", status]:
                self.api(int(status), {"message": "simulated failure"})
            case ["down"]:
                self.hang()
            case [mode] if mode not in ("ok", "none", "missing", "wrong"):
                raise ValueError(f"unknown behaviour of digests: {mode!r}")
            case _ if not folder.is_dir():
                self.api(404, {"message": "Not Found", "status": "404"})
            case [mode]:
                assets = (
                    [] if mode == "missing" else [self.describe(path, mode) for path in sorted(folder.glob("*.zip"))]
                )
                self.api(
                    200, {"tag_name": tag, "name": tag, "draft": False, "prerelease": "-" in tag, "assets": assets}
                )

    def describe(self, path: Path, mode: str) -> dict[str, object]:
        known = {"ok": digest(path, path.stat().st_mtime_ns), "wrong": "0" * 64}
        return {
            "name": path.name,
            "state": "uploaded",
            "content_type": "application/zip",
            "size": path.stat().st_size,
            "digest": f"sha256:{known[mode]}" if mode in known else None,
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


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder with VERSION/ASSET.zip")
    options = parser.parse_args()
    host = Host(options.address, ReleaseHandler, options.control, options.log)
    host.folder = options.folder
    host.serve()
