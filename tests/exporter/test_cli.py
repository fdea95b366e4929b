import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import exporter
from tests.exporter.hostile import server
from tests.simulators import build
from tests.simulators.version_server import VersionServer

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from exporter.cli import main; main(prog_name='storagenode-exporter')"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, cwd=REPOSITORY)


@pytest.fixture
def allowed() -> Iterator[VersionServer]:
    with VersionServer(minimum="1.104.5", suggested="1.104.5") as started:
        yield started


@pytest.fixture
def config(tmp_path: Path, allowed: VersionServer) -> Path:
    """A configuration with one node, deadlocked, and another one, current."""
    nodes = []
    for name, version in {"old": "1.102.3", "new": "1.104.5"}.items():
        binary = build.node(version, tmp_path / name)
        nodes.append({"name": name, "service": "process", "binary": str(binary), "api": "127.0.0.1:1"})
    path = tmp_path / "keeper.yml"
    path.write_text(json.dumps({"version_server": allowed.url, "state_dir": str(tmp_path / "state"), "nodes": nodes}))
    return path


def test_the_configuration_is_checked_and_nothing_served(config: Path, tmp_path: Path) -> None:
    done = run("serve", "--config.check", "--config.file", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config}: can be used; nodes: old, new\n", "")
    content = json.loads(config.read_text())
    for wrong, said in (
        ({"version": 7}, "version: Input should be 1, found '7'"),
        ({"web": {"token_file": str(tmp_path / "nowhere")}}, f"{tmp_path / 'nowhere'}"),
        ({"refresh": 5, "nodez": []}, "nodez: unknown key"),
    ):
        config.write_text(json.dumps(content | wrong))
        done = run("--config.check", "--config.file", config)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_check_shows_the_nodes_and_what_to_do(config: Path) -> None:
    done = run("check", "--config.file", config)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NODE", "SERVICE", "SINCE", "INSTALLED", "RUNNING", "MINIMUM", "VERDICT"]
    assert lines[1].split() == ["old", "stopped", "-", "1.102.3", "-", "1.104.5", "DEADLOCKED"]
    assert lines[2].endswith("Do: storagenode-remediate run old")
    assert lines[3].split() == ["new", "stopped", "-", "1.104.5", "-", "1.104.5", "current"]
    assert len(lines) == 4


def test_check_says_what_time_is_left(config: Path, tmp_path: Path) -> None:
    kept = {"new": {"since": time.time() - 5 * 86400, "basis": "contact", "known": time.time() - 60}}
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "last-contact.json").write_text(json.dumps({"format": 1, "kept": kept}))
    done = run("check", "--config.file", config, "new")
    assert done.returncode == 0
    assert re.search(
        r"^  Not reached for 5 days \(last contact 20..-..-.. ..:.. UTC\)\. Suspended in", done.stdout, re.M
    )


def test_check_of_some_nodes(config: Path) -> None:
    done = run("check", "--config.file", config, "new")
    assert done.returncode == 0
    assert "old" not in done.stdout
    done = run("check", "--config.file", config, "new", "nwe")
    assert done.returncode == 2
    assert done.stderr == f"error: {config}: nodes: there is no 'nwe', expected one of: old, new\n"


def test_check_for_programs(config: Path) -> None:
    done = run("check", "--json", "--config.file", config)
    assert done.returncode == 1
    assert [node["deadlocked"] for node in json.loads(done.stdout)] == [True, False]


@pytest.mark.parametrize("behaviour", ["html", "status:500", "latest", "huge"])
def test_check_without_allowed_versions_is_unknown(config: Path, allowed: VersionServer, behaviour: str) -> None:
    allowed.set(behaviour=behaviour)
    done = run("check", "--config.file", config)
    assert done.returncode == 4
    assert "DEADLOCKED" not in done.stdout
    assert "Verdict not known: the allowed versions are not known: " in done.stdout


def test_check_has_colors_on_a_terminal(config: Path) -> None:
    ours, theirs = pty.openpty()
    subprocess.run([*PROGRAM, "check", "--config.file", config], stdout=theirs, cwd=REPOSITORY)
    os.close(theirs)
    assert b"\x1b[31mold" in os.read(ours, 65536)
    os.close(ours)


@contextmanager
def watching(config: Path, *arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `check --watch`, and end it when that has not happened yet."""
    command = [*PROGRAM, "check", "--watch", "--config.file", str(config), *arguments]
    process = subprocess.Popen(command, text=True, cwd=REPOSITORY, stderr=subprocess.PIPE, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_watching_in_a_pipe_says_what_changes(config: Path) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | {"refresh": "1ms"}))
    with watching(config, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}Z  old  stopped  .*DEADLOCKED  It is too old", first)
        assert "new  stopped  -  1.104.5  -  1.104.5  current" in second
        time.sleep(2.5)  # a look in which nothing has changed
        build.node("1.104.5", config.parent / "old")
        assert "old  stopped  -  1.104.5  -  1.104.5  current" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
        assert (process.returncode, said, complained) == (0, "", "")


def test_watching_ends_with_the_last_exit_code(config: Path) -> None:
    with watching(config, "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [(line["node"], line["deadlocked"]) for line in lines] == [("old", True), ("new", False)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1


def watched_on_a_terminal(config: Path, *arguments: str, rows: int, until: bytes) -> str:
    """Return what `check --watch` has drawn when `until` has come twice; it ends with the exit code of what it saw."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 200, 0, 0))
    with watching(config, *arguments, stdout=theirs) as process:
        os.close(theirs)
        said, deadline = b"", time.monotonic() + 60
        while said.count(until) < 2:
            assert time.monotonic() < deadline, said
            said += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
    os.close(ours)
    return said.decode()


@pytest.mark.parametrize(("rows", "last", "drawn"), [(4, "… 2 more lines;", 3), (5, "\x1b[33mnew", 4)])
def test_watching_on_a_terminal_draws_the_table_anew(config: Path, rows: int, last: str, drawn: int) -> None:
    cleared, first, second = watched_on_a_terminal(config, rows=rows, until=b"Ctrl-C ends").split("\x1b[H")
    assert cleared == "\x1b[2J"
    assert first == second.removesuffix("^C")
    lines = first.splitlines()
    assert lines[0].startswith("NODE")
    assert lines[1].startswith("\x1b[31mold")
    assert lines[drawn - 1].startswith(last)
    assert len(lines) == drawn + 1


def test_json_is_not_drawn_on_a_terminal(config: Path) -> None:
    said = watched_on_a_terminal(config, "--json", rows=24, until=b'"advice"')
    assert [json.loads(line)["node"] for line in said.splitlines()] == ["old", "new"]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_bad_configuration_is_one_clear_line(tmp_path: Path, command: str) -> None:
    path = tmp_path / "keeper.yml"
    path.write_text("nodes: []")
    done = run(command, "--config.file", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {path}: nodes: empty, expected at least one node\n"
    done = run(command, "--config.file", tmp_path / "none.yml")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/none.yml: cannot be read: No such file or directory\n"


def test_usage_is_explained() -> None:
    for arguments in (["--help"], ["serve", "--help"], ["check", "--help"]):
        assert run(*arguments).returncode == 0
    assert "Example: storagenode-exporter check" in run("check", "--help").stdout
    assert "STORAGENODE_EXPORTER_COMPLETE=bash_source" in run("--help").stdout
    assert run("--version").stdout == f"storagenode-exporter {exporter.__version__}\n"
    for wrong in (["--no-such-option"], ["no-such-command"], ["check", "--log.level", "loud"]):
        done = run(*wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "not_needed"),
    [
        (["serve", "--help"], {"pydantic", "yaml", "prometheus_client", "uvicorn", "jeepney", "ssl"}),
        (["check", "--config.file", "CONFIG"], {"prometheus_client", "uvicorn", "starlette", "cryptography"}),
    ],
)
def test_a_command_imports_only_what_it_needs(config: Path, arguments: Sequence[str], not_needed: set[str]) -> None:
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); " + PROGRAM[-1]
    given = [str(config) if argument == "CONFIG" else argument for argument in arguments]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, cwd=REPOSITORY)
    imported = set(done.stderr.split())
    assert "click" in imported
    assert not imported & not_needed


@contextmanager
def serving(config: Path, *arguments: str, command: Sequence[str] = ("serve",)) -> Iterator[str]:
    """Run the exporter on a free port until it is asked to stop; yield its address."""
    options = ["--config.file", str(config), "--web.listen-address", "127.0.0.1:0", "--log.format", "json"]
    process = subprocess.Popen(
        [*PROGRAM, *command, *options, *arguments], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert process.stderr is not None
    try:
        line: dict[str, Any] = json.loads(process.stderr.readline())
        assert line["message"] == "listening"
        yield f"http://{line['address']}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response:
        content: bytes = response.read()
        return content.decode()


@pytest.mark.parametrize("command", [["serve"], []], ids=["serve", "default"])
def test_serve(config: Path, command: list[str]) -> None:
    with serving(config, command=command) as url:
        text = get(f"{url}/metrics")
        assert 'storagenode_deadlocked{node="old"} 1.0\n' in text
        assert 'storagenode_deadlocked{node="new"} 0.0\n' in text
        page = get(f"{url}/")
        assert "DEADLOCKED" in page and page.index(">old<") < page.index(">new<")
        chosen = get(f"{url}/metrics?node=new")
        assert 'node="new"' in chosen and 'node="old"' not in chosen
        assert get(f"{url}/-/healthy") == get(f"{url}/-/ready") == "OK\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}/other")
    assert (config.parent / "state" / "allowed-versions.json").exists()


def test_serve_goes_on_with_the_last_known_good(config: Path, allowed: VersionServer) -> None:
    with serving(config) as url:
        get(f"{url}/metrics")
    allowed.stop()
    with serving(config) as url:
        assert 'storagenode_deadlocked{node="old"} 1.0\n' in get(f"{url}/metrics")


def test_a_scrape_ends_before_the_scraper_gives_up(config: Path, allowed: VersionServer) -> None:
    allowed.set(behaviour="hang")
    with server([60.0]) as (address, _):
        config.write_text(config.read_text().replace("127.0.0.1:1", address))
        options = ["--config.file", str(config), "--web.listen-address", "127.0.0.1:0", "--log.level", "info"]
        process = subprocess.Popen([*PROGRAM, *options], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert process.stderr is not None
        try:
            url = "http://" + process.stderr.readline().partition("address=")[2].split()[0]
            for timeout, least, most in [("1", 0.4, 1), ("10", 1.9, 2.6)]:
                for _ in range(10):  # on a busy machine not every one is in time
                    began = time.monotonic()
                    text = get(f"{url}/metrics", **{"X-Prometheus-Scrape-Timeout-Seconds": timeout})
                    took = time.monotonic() - began
                    if took < most:
                        break
                assert least < took < most
                assert 'storagenode_source_success{node="old",source="node_api"} 0.0\n' in text
                assert 'storagenode_source_success{node="old",source="service"} 1.0\n' in text
                assert "storagenode_deadlocked{" not in text
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def test_a_token_is_asked_for(config: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    token.chmod(0o600)
    settings = json.loads(config.read_text()) | {"web": {"token_file": str(token)}}
    config.write_text(json.dumps(settings))
    with serving(config) as url:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"{url}/metrics")
        assert "storagenode_up" in get(f"{url}/metrics", Authorization="Bearer a-token-of-some-length")


def test_what_cannot_be_listened_on_is_one_clear_line(config: Path, tmp_path: Path) -> None:
    done = run("serve", "--config.file", config, "--web.listen-address", "0.0.0.0:0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: listen address 0.0.0.0:0: found no token")
    settings = json.loads(config.read_text()) | {"web": {"token_file": str(tmp_path / "none")}}
    config.write_text(json.dumps(settings))
    done = run("serve", "--config.file", config)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}/none: cannot be read: No such file or directory, expected the bearer token\n"
    )
