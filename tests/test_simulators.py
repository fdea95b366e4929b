"""The simulators behave as the recordings of the real programs, and misbehave as told."""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.labs.network import HOST
from tests.simulators import build
from tests.simulators.build import BadArchive
from tests.simulators.download_host import DownloadHost
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer

RECORDED = Path(__file__).parent / "data" / "upstream"
OLD, NEW = "1.104.5", "1.162.3"
VARIABLE = {"Build timestamp", "Git commit"}


@pytest.fixture(scope="module")
def server() -> Iterator[VersionServer]:
    with VersionServer() as running:
        yield running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DownloadHost]:
    folder = tmp_path_factory.mktemp("releases")
    binary = build.node(NEW, folder / "storagenode", pad=3 << 20)
    build.archive(binary, folder / NEW / build.ASSET)
    with DownloadHost(folder) as running:
        yield running


def version(binary: Path, *flags: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary, "version", *flags], capture_output=True, text=True, env={}, timeout=timeout)


def get(url: str, timeout: float = 60) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def free_address() -> str:
    return f"127.0.0.1:{HOST.free_port()}"


def wait_for(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def shape(document: Any) -> Any:
    """Return a document with each value replaced by its type."""
    if isinstance(document, dict):
        return {key: shape(value) for key, value in document.items()}
    return type(document).__name__


BUSY = """
import os
import time
from pathlib import Path
from tests.serving import exporting
from tests.simulators import build
from tests.simulators.download_host import DownloadHost
from tests.simulators.node import Node, configure
from tests.simulators.version_server import VersionServer
from tests.simulators.witness import Witness

def test_that_does_not_end(tmp_path):
    config_dir = configure(tmp_path / "config", {"console.address": "127.0.0.1:0"})
    binary = build.node("1.162.3", tmp_path / "node")
    node = {"name": "alpha", "binary": str(binary), "config_dir": str(config_dir), "service": "process"}
    with VersionServer() as versions, DownloadHost(tmp_path), Node(binary, config_dir) as running, Witness(binary):
        with exporting(tmp_path, {"version_server": versions.url, "nodes": [node]}):
            while running.log.count("started") == 0:
                time.sleep(0.01)
            Path(os.environ["BUSY"], "all-run").touch()
            time.sleep(1000)
"""


def belonging(mark: str) -> list[str]:
    """Return the command lines of the processes that have something in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
def test_they_end_with_a_test_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "test_busy.py").write_text(BUSY)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        f"--rootdir={tmp_path}",
        f"--basetemp={tmp_path}/b",
        tmp_path,
    ]
    environment = os.environ | {"BUSY": str(tmp_path), "PYTHONPATH": str(RECORDED.parents[2])}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as busy:
        wait_for(lambda: (tmp_path / "all-run").exists() or busy.poll() is not None)
        assert len(belonging(f"BUSY={tmp_path}")) >= 6
        busy.kill()
    wait_for(lambda: not belonging(f"BUSY={tmp_path}"))


# The node: `version`


@pytest.mark.parametrize("release", [OLD, NEW])
def test_version_prints_what_the_real_node_prints(release: str, tmp_path: Path) -> None:
    recorded = (RECORDED / release / "storagenode.version.stdout").read_text()
    flags = ["--tracing.enabled=false", "--metrics.addr=", "--config-dir", str(tmp_path)]
    binary = build.node(release, tmp_path / "node")
    for result in (version(binary), version(binary, *flags)):
        assert result.returncode == 0
        assert result.stderr == ""
        for line, wanted in zip(result.stdout.split("\n"), recorded.split("\n"), strict=True):
            key = wanted.partition(":")[0]
            assert line.partition(":")[0] == key if key in VARIABLE else line == wanted


def test_any_version_can_be_built_quickly_of_one_executable(tmp_path: Path) -> None:
    build.compiled()
    before = build.compiled.cache_info().misses
    for number in range(20):
        build.node(f"1.{number}.0-rc", tmp_path / str(number), release=number % 2 == 0)
    assert build.compiled.cache_info().misses == before
    assert version(tmp_path / "18").stdout.startswith("Release build\nVersion: v1.18.0-rc\n")
    assert version(tmp_path / "19").stdout.startswith("Development build\nVersion: v1.19.0-rc\n")
    assert (tmp_path / "19").read_bytes()[:4] == b"\x7fELF"


def test_a_padded_node_is_larger_and_works(tmp_path: Path) -> None:
    plain, padded = build.node(NEW, tmp_path / "plain"), build.node(NEW, tmp_path / "padded", pad=1 << 20)
    assert padded.stat().st_size == plain.stat().st_size + (1 << 20)
    assert version(padded).stdout == version(plain).stdout


def test_a_running_node_can_be_replaced_at_its_path(tmp_path: Path) -> None:
    binary = build.node(OLD, tmp_path / "node", misbehave="hang")
    process = subprocess.Popen([binary, "version"])
    try:
        inode = binary.stat().st_ino
        assert build.node(NEW, binary).stat().st_ino != inode
    finally:
        process.kill()
        process.wait()


def test_version_works_through_a_descriptor(tmp_path: Path) -> None:
    with build.node(NEW, tmp_path / "node").open("rb") as file:
        command = [f"/proc/self/fd/{file.fileno()}", "version"]
        result = subprocess.run(command, capture_output=True, env={}, pass_fds=[file.fileno()])
    assert b"Version: v1.162.3\n" in result.stdout


def test_misbehaviour_of_version(tmp_path: Path) -> None:
    def built(misbehave: str) -> Path:
        return build.node(NEW, tmp_path / "node", misbehave=misbehave)

    assert version(built("exit1")).returncode == 1
    assert "Version: v1.2.3\n" in version(built("says:1.2.3")).stdout
    with pytest.raises(subprocess.TimeoutExpired):
        version(built("hang"), timeout=0.1)
    with subprocess.Popen([built("endless"), "version"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        content = process.stdout.read(1 << 20)
        process.kill()
    assert len(content) == 1 << 20


def test_version_of_a_curious_binary_says_what_it_could_reach(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    result = version(build.node(NEW, tmp_path / "node", misbehave=f"read:{secret}"))
    assert (result.returncode, result.stdout.split("\n")[0]) == (0, f"read:{secret} No such file or directory")
    secret.touch()
    assert version(tmp_path / "node").returncode == 7
    address = free_address()
    assert version(build.node(NEW, tmp_path / "node", misbehave=f"connect:{address}")).returncode == 0
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert version(tmp_path / "node").returncode == 7


# The node: `run`


def logged(path: Path, message: str) -> str:
    """Return the one line with a message of a log, without its time."""
    (line,) = {line.partition("\t")[2] for line in path.read_text().splitlines() if message in line and "\t" in line}
    return line


@pytest.mark.parametrize("release", [OLD, NEW])
def test_an_outdated_node_refuses_to_start(release: str, server: VersionServer, tmp_path: Path) -> None:
    server.set(minimum="v1.163.0", behaviour="ok")
    configure(tmp_path, {"version.server-address": server.url, "console.address": free_address()})
    with Node(build.node(release, tmp_path / "node"), tmp_path) as node:
        assert node.process.wait(60) == 1
    error = f"software outdated: outdated software version (v{release}), please update"
    assert f"\nError: Failed to check version: {error}" in node.log
    line = logged(tmp_path / "node.log", "version not allowed/outdated")
    if release == OLD:
        recorded = logged(RECORDED / OLD / "node.refused.log", "version not allowed/outdated")
        assert line == recorded.replace("v1.162.3", "v1.163.0")
    else:
        assert line.endswith('"current_version": "1.162.3", "minimum_allowed_version": "v1.163.0"}')
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\t", node.log)


@pytest.mark.parametrize("minimum", ["1.162.3", "v1.162.3", "1.162.3-rc", "1.99.9", "0.0.1"])
@pytest.mark.parametrize("release", [OLD, NEW])
def test_the_node_api_has_the_recorded_fields(
    release: str, minimum: str, server: VersionServer, tmp_path: Path
) -> None:
    if release == OLD:
        minimum = minimum.replace("162.3", "104.5")
    server.set(minimum=minimum, behaviour="ok")
    address = free_address()
    configure(tmp_path, {"version.server-address": server.url, "console.address": address, "sim.node-id": "1abc"})
    with Node(build.node(release, tmp_path / "node"), tmp_path) as node:
        api = node.api(address)
        recorded = json.loads((RECORDED / release / "api_sno.json").read_text())
        assert shape(api) == shape(recorded)
        assert list(api) == list(recorded)
        assert (api["nodeID"], api["version"], api["allowedVersion"]) == ("1abc", release, minimum.removeprefix("v"))
        unknown = (RECORDED / NEW / "unknown_path.txt").read_text().partition("\n\n")[2]
        assert get(f"http://{address}/api/other") == (404, unknown.encode())
        assert node.stop() == 0
    assert logged(tmp_path / "node.log", "Got a signal") == logged(
        RECORDED / release / ("node.started.log" if release == NEW else "node.started-without-version-server.log"),
        "Got a signal",
    )


def test_a_pre_release_comes_before_its_release_and_numbers_are_numbers(server: VersionServer, tmp_path: Path) -> None:
    configure(tmp_path, {"version.server-address": server.url, "console.address": free_address()})
    for release, minimum in [("1.162.3-rc", "1.162.3"), ("1.99.0", "1.100.0"), ("1.162.3-rc1", "1.162.3-rc2")]:
        server.set(minimum=minimum, behaviour="ok")
        with Node(build.node(release, tmp_path / "node"), tmp_path) as node:
            assert node.process.wait(60) == 1, (release, minimum)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    {
        "html": "invalid version document",
        "status:503": "non-success http status code",
        "empty": "invalid version document",
        "latest": "invalid version document",
        "close": "unexpected EOF",
        "stopped": "Connection refused",
        "https": "only plain http is simulated",
    }.items(),
)
def test_the_node_starts_when_the_minimum_is_unknown(
    behaviour: str, reason: str, server: VersionServer, tmp_path: Path
) -> None:
    server.set(minimum="9.9.9", behaviour=behaviour if behaviour not in ("stopped", "https") else "ok")
    unreachable = {"stopped": f"http://{free_address()}", "https": "https://127.0.0.1:1"}
    url, address = unreachable.get(behaviour, server.url), free_address()
    configure(tmp_path, {"version.server-address": url, "console.address": address})
    with Node(build.node(OLD, tmp_path / "node"), tmp_path) as node:
        api = node.api(address)
    assert (api["allowedVersion"], api["upToDate"]) == ("0.0.0", True)
    line = logged(tmp_path / "node.log", "failed to get process version info")
    assert line.startswith("ERROR\tversion\tfailed to get process version info\t")
    assert reason in line


def test_a_development_build_is_always_allowed(server: VersionServer, tmp_path: Path) -> None:
    server.set(minimum="9.9.9", behaviour="ok")
    address = free_address()
    configure(tmp_path, {"version.server-address": server.url, "console.address": address})
    with Node(build.node(OLD, tmp_path / "node", release=False), tmp_path) as node:
        assert node.api(address)["allowedVersion"] == OLD


def test_a_node_hung_on_its_version_server_still_stops_at_once(server: VersionServer, tmp_path: Path) -> None:
    server.set(behaviour="hang")
    configure(tmp_path, {"version.server-address": server.url, "console.address": free_address()})
    before = len(server.requests())
    with Node(build.node(OLD, tmp_path / "node"), tmp_path) as node:
        wait_for(lambda: len(server.requests()) > before)
        assert node.stop() == 0


def test_many_connections_at_once_and_one_that_says_nothing(tmp_path: Path) -> None:
    address = free_address()
    configure(tmp_path, {"console.address": address})
    with Node(build.node(NEW, tmp_path / "node"), tmp_path) as node:
        node.api(address)
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))), ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: get(f"http://{address}/api/sno/")[0], range(200)))
    assert answers == [200] * 200


def test_a_late_start(tmp_path: Path) -> None:
    address = free_address()
    configure(tmp_path, {"console.address": address, "sim.start-delay": 0.3})
    began = time.monotonic()
    with Node(build.node(NEW, tmp_path / "node"), tmp_path) as node:
        node.api(address)
        assert time.monotonic() - began >= 0.3


def test_endings(tmp_path: Path) -> None:
    binary = build.node(NEW, tmp_path / "node")
    address = free_address()
    configure(tmp_path, {"console.address": address, "sim.exit-code-on-term": 1})
    with Node(binary, tmp_path) as node:
        node.api(address)
        assert node.stop() == 1
    configure(tmp_path, {"console.address": address, "sim.ignore-term": "true"})
    with Node(binary, tmp_path) as node:
        node.api(address)
        with pytest.raises(subprocess.TimeoutExpired):
            node.stop(timeout=0.2)
        node.process.send_signal(signal.SIGKILL)
        assert node.process.wait(60) == -signal.SIGKILL
    configure(tmp_path, {"console.address": address, "sim.crash-after": 0.2, "sim.crash-code": 3})
    began = time.monotonic()
    with Node(binary, tmp_path) as node:
        assert node.process.wait(60) == 3
        assert time.monotonic() - began >= 0.2
        assert node.log.count(" started") == 3
    with Node(build.node(NEW, binary, misbehave="crash"), tmp_path) as node:
        assert node.process.wait(60) == 1


def test_a_node_without_its_storage_or_its_port_exits_1(tmp_path: Path) -> None:
    binary = build.node(NEW, tmp_path / "node")
    configure(tmp_path, {})
    (tmp_path / "config.yaml").write_text("storage.path: /nonexistent\n")
    with Node(binary, tmp_path) as node:
        assert node.process.wait(60) == 1
    assert "Error: stat /nonexistent: No such file or directory" in node.log
    with socket.create_server(("127.0.0.1", 0)) as taken:
        configure(tmp_path, {"console.address": f"127.0.0.1:{taken.getsockname()[1]}"})
        with Node(binary, tmp_path) as node:
            assert node.process.wait(60) == 1


# The version server


def test_the_document_is_upstreams_to_the_byte(server: VersionServer) -> None:
    recorded = (RECORDED / NEW / "version_document.json").read_bytes()
    server.set(
        behaviour="ok",
        minimum=NEW,
        suggested=NEW,
        url="http://127.0.0.1:9000/storagenode_{os}_{arch}.zip",
        seed="000102030405060708090a0b0c0d0e0ff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        cursor="f" * 64,
        updater_minimum="1.0.0",
        updater_suggested="1.104.5",
    )
    with urllib.request.urlopen(server.url + "/") as answer:
        assert answer.read() == recorded
        headers = (RECORDED / NEW / "version_document.headers").read_text().splitlines()[1:-1]
        assert answer.headers.keys() == [line.partition(":")[0] for line in headers]
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("storagenode/minimum/url?os=linux&arch=arm64", (200, b"http://host/v1.2.3/storagenode_linux_arm64.zip")),
        ("storagenode/suggested/url?os=linux&arch=amd64", (200, b"http://host/v1.4.0/storagenode_linux_amd64.zip")),
        ("storagenode/latest/url?os=linux&arch=arm64", (400, b"invalid version, should be minimum or suggested\n")),
        ("storagenode/minimum/url?arch=arm64", (400, b"goos is not specified\n")),
        ("storagenode/minimum/url?os=linux", (400, b"goarch is not specified\n")),
        ("storagenode/minimum/url?os=plan9&arch=arm", (404, b"binary scheme storagenode_plan9_arm is not supported\n")),
        ("toaster/minimum/url?os=linux&arch=arm64", (404, b"service does not exists\n")),
        ("storagenode/minimum", (404, b"service does not exist\n")),
        ("storagenode/minimum/url/more", (404, b"404 page not found\n")),
    ],
)
def test_urls_of_binaries(path: str, expected: tuple[int, bytes], server: VersionServer) -> None:
    url = "http://host/v{version}/storagenode_{os}_{arch}.zip"
    server.set(behaviour="ok", minimum="1.2.3", suggested="1.4.0", url=url)
    assert get(f"{server.url}/processes/{path}") == expected


def test_the_version_server_takes_only_get(server: VersionServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server.url + "/", data=b"{}")
    refused.value.close()
    assert refused.value.code == 405


def test_misbehaviour_of_the_version_server(server: VersionServer) -> None:
    def answer(behaviour: str, timeout: float = 60) -> tuple[int, bytes]:
        server.set(behaviour=behaviour, minimum="1.2.3")
        return get(server.url + "/", timeout)

    good = answer("ok")
    assert answer("redirect") == good
    assert answer("html")[1].startswith(b"<!DOCTYPE html>")
    assert answer("status:503")[0] == 503
    assert answer("empty") == (200, b"")
    assert json.loads(answer("latest")[1])["processes"]["storagenode"]["minimum"]["version"] == "latest"
    huge = answer("huge")[1]
    assert len(huge) > 2 << 20
    assert json.loads(huge)["processes"] == json.loads(good[1])["processes"]
    with pytest.raises(http.client.RemoteDisconnected):
        answer("close")
    with pytest.raises(TimeoutError):
        answer("hang", 0.1)
    server.set(behaviour="trickle")
    with urllib.request.urlopen(server.url + "/", timeout=60) as trickle:
        assert trickle.read(2) == good[1][:2]
    with pytest.raises(TypeError):
        server.set(minimun="1.2.3")


def test_a_server_comes_back_at_its_address(tmp_path: Path) -> None:
    with VersionServer(minimum="1.2.3") as server:
        url = server.url
        before = get(f"{url}/?first")
        wait_for(lambda: server.requests()[0].status == 200)
        server.stop()
        with pytest.raises(urllib.error.URLError):
            get(url)
        server.start()
        assert server.url == url
        assert get(f"{url}/?second") == before
        assert [request.path for request in server.requests()] == ["/?first", "/?second"]
        assert [request.path for request in server.requests("second")] == ["/?second"]


def test_a_server_is_started_by_its_file_too(tmp_path: Path) -> None:
    path = Path(build.__file__).with_name("version_server.py")
    with subprocess.Popen([sys.executable, path], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert get(json.loads(process.stdout.readline())["url"])[0] == 200
        finally:
            process.terminate()


# The download host


def asset(host: DownloadHost) -> Path:
    folder = Path(host._command[host._command.index("--folder") + 1])
    return folder / NEW / build.ASSET


def test_a_release_is_redirected_to_the_asset_host_and_logged(host: DownloadHost) -> None:
    host.set(behaviour="ok", digests="ok")
    before = len(host.requests())
    status, content = get(f"{host.releases}/v{NEW}/{build.ASSET}")
    assert (status, content) == (200, asset(host).read_bytes())
    wait_for(lambda: host.requests()[-1].done is not None)
    first, second = host.requests()[before:]
    assert (first.path, first.status) == (f"/storj/storj/releases/download/v{NEW}/{build.ASSET}", 302)
    assert second.path.startswith(f"/asset/{NEW}/{build.ASSET}?")
    assert (second.status, second.bytes) == (200, len(content))
    assert second.done_monotonic is not None
    assert first.monotonic <= second.monotonic <= second.done_monotonic
    assert abs(second.time - time.time()) < 60


def test_the_digests_of_a_release(host: DownloadHost) -> None:
    def answer(digests: str) -> tuple[int, Any]:
        host.set(digests=digests)
        status, content = get(f"{host.tags}/v{NEW}")
        return status, json.loads(content)

    status, release = answer("ok")
    assert (status, release["tag_name"]) == (200, f"v{NEW}")
    (found,) = release["assets"]
    assert found["name"] == build.ASSET
    assert found["size"] == asset(host).stat().st_size
    assert found["digest"] == "sha256:" + hashlib.sha256(asset(host).read_bytes()).hexdigest()
    assert found["browser_download_url"] == f"{host.releases}/v{NEW}/{build.ASSET}"
    assert answer("none")[1]["assets"][0]["digest"] is None
    assert answer("wrong")[1]["assets"][0]["digest"] == "sha256:" + "0" * 64
    assert answer("missing")[1]["assets"] == []
    assert answer("status:500")[0] == 500
    with pytest.raises(urllib.error.HTTPError) as limited:
        host.set(digests="status:403")
        urllib.request.urlopen(f"{host.tags}/v{NEW}")
    assert limited.value.headers["X-RateLimit-Remaining"] == "0"
    limited.value.close()
    with pytest.raises(TimeoutError):
        host.set(digests="down")
        get(f"{host.tags}/v{NEW}", 0.1)
    host.set(digests="ok")
    assert get(f"{host.tags}/v0.0.9")[0] == 404


def test_misbehaviour_of_downloads(host: DownloadHost) -> None:
    def download(behaviour: str, timeout: float = 60) -> tuple[int, bytes]:
        host.set(behaviour=behaviour)
        return get(f"{host.releases}/v{NEW}/{build.ASSET}", timeout)

    whole = asset(host).read_bytes()
    half = whole[: len(whole) // 2]
    assert download("wrong-length") == (200, half)
    with pytest.raises(http.client.IncompleteRead) as truncated:
        download("truncate")
    assert truncated.value.partial == half
    with pytest.raises(TimeoutError):
        download("stall", 0.1)
    assert download("status:404")[0] == 404
    assert download("status:500")[0] == 500
    assert download("html")[1].startswith(b"<!DOCTYPE html>")
    with pytest.raises(urllib.error.HTTPError, match="infinite loop"):
        host.set(behaviour="redirect-loop")
        urllib.request.urlopen(f"{host.releases}/v{NEW}/{build.ASSET}")
    host.set(behaviour="endless")
    with urllib.request.urlopen(f"{host.releases}/v{NEW}/{build.ASSET}") as endless:
        assert endless.headers["Content-Length"] is None
        assert len(endless.read(4 * len(whole))) == 4 * len(whole)
    began = time.monotonic()
    assert download(f"slow:{len(whole) * 3}") == (200, whole)
    assert time.monotonic() - began >= 0.3
    for behaviour, location in {
        "redirect-elsewhere": "https://downloads.invalid/asset/",
        "redirect-http": "http://downloads.invalid/asset/",
        "redirect:ftp://127.0.0.1/x": "ftp://127.0.0.1/x",
    }.items():
        host.set(behaviour=behaviour)
        connection = http.client.HTTPConnection(host.address)
        connection.request("GET", f"/storj/storj/releases/download/v{NEW}/{build.ASSET}")
        answer = connection.getresponse()
        assert answer.status == 302
        assert (answer.headers["Location"] or "").startswith(location)
        connection.close()


# Archives


def test_a_good_archive_has_one_executable_entry(tmp_path: Path) -> None:
    binary = build.node(NEW, tmp_path / "node")
    digest = build.archive(binary, tmp_path / "x" / "a.zip")
    assert digest == hashlib.sha256((tmp_path / "x" / "a.zip").read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "x" / "a.zip") as archive:
        assert archive.namelist() == ["storagenode"]
        assert archive.read("storagenode") == binary.read_bytes()


def refused(archive: zipfile.ZipFile) -> bool:
    try:
        archive.read(archive.namelist()[0])
    except (zipfile.BadZipFile, RuntimeError, EOFError):
        return True
    return False


WRONG: dict[BadArchive, Callable[[zipfile.ZipFile], bool]] = {
    BadArchive.TWO_ENTRIES: lambda archive: len(archive.namelist()) == 2,
    BadArchive.EMPTY: lambda archive: archive.namelist() == [],
    BadArchive.SYMLINK: lambda archive: archive.infolist()[0].external_attr >> 28 == 0o12,
    BadArchive.DIRECTORY: lambda archive: archive.infolist()[0].is_dir(),
    BadArchive.ENCRYPTED: lambda archive: archive.infolist()[0].flag_bits & 1 == 1 and refused(archive),
    BadArchive.WRONG_MACHINE: lambda archive: archive.read("storagenode")[18] != build.compiled().read_bytes()[18],
    BadArchive.NOT_ELF: lambda archive: not archive.read("storagenode").startswith(b"\x7fELF"),
    BadArchive.DECLARES_LESS: lambda archive: (
        refused(archive) and 0 < archive.infolist()[0].file_size < build.compiled().stat().st_size
    ),
    # zipfile reads this one without complaint: only the size gives it away.
    BadArchive.DECLARES_MORE: lambda archive: len(archive.read("storagenode")) < archive.infolist()[0].file_size,
    BadArchive.BAD_CRC: refused,
}


@pytest.mark.parametrize("kind", BadArchive)
def test_a_bad_archive_is_bad_in_its_own_way(kind: BadArchive, tmp_path: Path) -> None:
    binary = build.node(NEW, tmp_path / "node")
    digest = build.bad_archive(kind, binary, tmp_path / "a.zip")
    assert digest == hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    if kind is BadArchive.TRUNCATED:
        assert not zipfile.is_zipfile(tmp_path / "a.zip")
    else:
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            assert WRONG[kind](archive)
