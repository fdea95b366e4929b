"""The command line as a person meets it: exit codes, what is printed where, and never a traceback."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from remediate.journal import Outcome
from tests.remediate.conftest import NEW, OLD, Stage, as_json
from tests.remediate.test_files import mounted
from tests.remediate.test_invariants import program as killed
from tests.remediate.test_plan import ORDER
from tests.simulators import build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]
PROGRAM = [sys.executable, "-c", "from remediate.cli import main; main()"]


def on_a_terminal(stage: Stage, *arguments: str, answer: str = "") -> tuple[int, str]:
    """Run the program on a terminal of its own, answering the first question."""
    command = [*PROGRAM, arguments[0], "--config.file", str(stage.write()), *arguments[1:]]
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True) as process:
        os.close(follower)
        said, answered = b"", False
        deadline = time.monotonic() + 60
        with suppress(OSError):  # EIO: the other side is closed
            while time.monotonic() < deadline and (part := os.read(leader, 65536)):
                said += part
                if b"[y/N]" in said and not answered:
                    os.write(leader, answer.encode())
                    answered = True
        code = process.wait(60)
    os.close(leader)
    return code, said.decode()


def in_a_pipe(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, arguments[0], "--config.file", str(stage.write()), *arguments[1:]]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def test_0_done_and_nothing_to_do(stage: Stage) -> None:
    done = stage.cli("run", "--yes", "alpha")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert done.stdout.startswith(f"alpha: updated, {OLD} -> {NEW} (person, below_minimum)")
    again = stage.cli("run", "--yes", "alpha")
    assert (again.exit_code, again.stdout) == (0, "alpha: nothing to do (current): the installed version is current\n")


def test_1_failed(stage: Stage) -> None:
    stage.host.set(behaviour="status:503")
    failed = stage.cli("run", "--yes", "alpha")
    assert failed.exit_code == 1
    assert re.fullmatch(r"alpha: later, .*answered 503, expected 200\n", failed.stdout)
    stage.assert_untouched()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--yes", "beta"], "nodes: there is no 'beta', expected one of: alpha"),
        (["run", "--yes", "../alpha"], "there is no '../alpha'"),
        (["run", "--yes"], "Missing argument"),
        (["run", "--yes", "--to", "latest", "alpha"], "not a version: 'latest'"),
        (["run", "--yes", "--to", "1.2.3.4", "alpha"], "not a version"),
        (["run", "--yes", "--sha256", "xyz", "alpha"], "'xyz' is no sha256, expected 64 hex digits"),
        (["run", "--yes", "--sha256", "0" * 63 + "ß", "alpha"], "is no sha256"),
        (["run", "--yes", "--artifact", "/dev/null", "alpha"], "--artifact needs --sha256"),
        (["run", "--yes", "--artifact", "/nowhere.zip", "--sha256", "0" * 64, "alpha"], "does not exist"),
        (["run", "--yes", "--start", "sometimes", "alpha"], "'sometimes'"),
        (["run", "--log.level", "loud", "--yes", "alpha"], "'loud'"),
        (["plan", "beta"], "there is no 'beta'"),
        (["plan"], "Missing argument"),
        (["history", "--limit", "many"], "'many'"),
        (["nonsense"], "No such command"),
    ],
)
def test_2_usage(stage: Stage, arguments: list[str], said: str) -> None:
    result = stage.cli(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    stage.assert_untouched()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"starts": "never"}, "remediation: starts: unknown key"),
        ({"start": "sometimes"}, "remediation: start: "),
        ({"verify": 1}, "remediation: verify: "),
        ({"releases": "http://github.com/x"}, "remediation: releases: expected https"),
        ({"digests": "ftp://x"}, "remediation: digests: expected https"),
        ({"download_timeout": 30}, "remediation: download_timeout: expected a duration"),
        ({"sha256sums": "https://x/sha256sums"}, "remediation: sha256sums: expected {version} in it"),
        ({"sha256sums": "http://x/{version}"}, "remediation: sha256sums: expected https"),
        ({"sha256sums": "https://x/{version}?x"}, "remediation: sha256sums: expected an address such as"),
        ({"sha256sums": "https://x/{version}", "verify": "tls"}, "remediation: found sha256sums and `verify: tls`"),
        ({"spool": "relative"}, "remediation: spool: expected an absolute path"),
        ({"state_dir": "/a/../b"}, "remediation: state_dir: expected an absolute path"),
        ({"probe_user": "no-such-user"}, "remediation.probe_user: there is no user 'no-such-user'"),
    ],
)
def test_2_configuration(stage: Stage, rules: dict[str, Any], said: str) -> None:
    if "probe_user" in rules and (os.geteuid() != 0 or Path("/run/systemd/system").is_dir()):
        pytest.skip("the user is for hosts without systemd, and for root")
    stage.rules |= rules
    for command in (["run", "--yes", "alpha"], ["plan", "alpha"], ["work"], ["recover"]):
        result = stage.cli(*command)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    stage.assert_untouched()


@pytest.mark.parametrize("content", [None, b"", b"- 1", b"a: [", b"\xff\xfe\x00\x01", b"nodes: []", b"nodes: [{}]"])
def test_2_a_configuration_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keeper.yml"
    if content is not None:
        path.write_bytes(content)
    from click.testing import CliRunner

    from remediate.cli import main

    result = CliRunner().invoke(main, ["run", "--yes", "--config.file", str(path), "alpha"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}")
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("obstacle", ["file", "garbage", "directory"])
def test_2_a_state_directory_that_cannot_be_used(stage: Stage, obstacle: str) -> None:
    match obstacle:
        case "file":
            stage.state_dir.write_text("a file")
        case "garbage":
            stage.state_dir.mkdir()
            (stage.state_dir / "store.sqlite").write_bytes(b"not a database " * 1000)
        case "directory":
            (stage.state_dir / "store.sqlite").mkdir(parents=True)
    for command in (["run", "--yes", "alpha"], ["plan", "alpha"], ["history"], ["recover"], ["work"]):
        result = stage.cli(*command)
        assert result.exit_code == 2, result.output
        assert f"error: remediation.state_dir: {stage.state_dir} cannot be used" in result.stderr
    stage.assert_untouched()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize(
    ("when", "size", "ends"), [("check", "256k", (1, "undone")), ("read_back", "24m", (0, "updated"))]
)
def test_4_a_state_directory_that_fills_up_while_we_work(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, when: str, size: str, ends: tuple[int, str]
) -> None:
    """It is not known to be as it was: after the swap it is not."""
    filler = stage.state_dir / "filler"

    def fill_up(*_: object) -> None:
        fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while os.write(fd, b"x" * 512):
                pass
        os.close(fd)

    stage.state_dir.mkdir()
    with mounted(stage.state_dir, "-t", "tmpfs", "-o", f"size={size}"):
        with monkeypatch.context() as patch:
            patch.setattr(f"remediate.steps.swap.{when}", fill_up)
            result = stage.cli("run", "--yes", "alpha")
        assert result.exit_code == 4, result.output
        said = result.stderr.splitlines()[-1]
        assert re.match(r"error: remediation.state_dir: .* cannot be used any more: .*(full|disk)", said)
        filler.unlink()
        recovered = stage.cli("recover")
        assert (recovered.exit_code, recovered.stdout.split()[1].rstrip(",:")) == ends
        assert stage.cli("recover").stdout == "nothing to recover\n"
    if ends[0]:
        stage.assert_untouched()
    else:
        stage.assert_updated()


def test_3_refused(stage: Stage) -> None:
    stage.versions.set(url="https://elsewhere.example/{version}.zip")
    result = stage.cli("run", "--yes", "alpha")
    assert result.exit_code == 3
    assert result.stdout.startswith("alpha: refused (foreign_url): the version server names 'https://elsewhere.example")
    stage.assert_untouched()


def test_3_without_a_terminal_nobody_can_say_yes(stage: Stage) -> None:
    result = in_a_pipe(stage, "run", "alpha")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == "error: there is no terminal to ask at; --yes answers for it\n"
    stage.assert_untouched()


def test_3_while_another_run_is_under_way(stage: Stage) -> None:
    with stage.assembly() as assembly, assembly.store.lock():
        for command in (["run", "--yes", "alpha"], ["recover"], ["work"]):
            result = stage.cli(*command)
            assert result.exit_code == 3
            assert result.stderr.endswith("error: another run is in progress on this host\n")
        assert stage.cli("plan", "alpha").exit_code == 0
    stage.assert_untouched()


def test_4_a_person_is_needed(stage: Stage, tmp_path: Path) -> None:
    stage.publish(build.node(NEW, tmp_path / "crashing", misbehave="crash"))
    result = stage.cli("run", "--yes", "--start", "always", "alpha")
    assert result.exit_code == 4
    assert "start_failed" in result.stdout


def test_the_worst_exit_code_of_several_nodes(stage: Stage) -> None:
    stage.add("beta")
    result = stage.cli("run", "--yes", "--start", "never", "alpha", "beta")
    assert result.exit_code == 0, result.output
    assert [line.split(",")[0].split("(")[0] for line in result.stdout.splitlines()] == [
        "alpha: updated",
        "beta: nothing to do ",
    ]


def test_plan_prints_the_steps_that_run_takes(stage: Stage) -> None:
    printed = stage.cli("plan", "alpha")
    assert printed.exit_code == 0
    planned = as_json(stage.cli("plan", "--json", "alpha"))
    steps = [step["step"] for step in planned["steps"]]
    numbered = re.findall(r"^ *\d+\. (.*)$", printed.stdout, re.MULTILINE)
    assert numbered == [step["does"] for step in planned["steps"]]
    assert steps == list(ORDER)
    assert (planned["node"], planned["decision"], planned["reason"]) == ("alpha", "proceed", "below_minimum")
    stage.assert_untouched()
    (report,) = as_json(stage.cli("run", "--yes", "--json", "alpha"))
    journal = [(entry["step"], entry["event"]) for entry in report["run"]["journal"]]
    assert journal == [(step, event) for step in steps for event in ("intent", "done")]


def test_json_is_all_there_is_on_standard_output(stage: Stage) -> None:
    (report,) = as_json(stage.cli("run", "--yes", "--json", "alpha"))
    assert (report["node"], report["decision"], report["target"], report["exit_code"]) == ("alpha", "proceed", NEW, 0)
    run = report["run"]
    assert (run["installed"], run["target"], run["outcome"], run["trigger"]) == (OLD, NEW, "updated", "person")
    assert run["starts"] == {"alpha": {"start": False, "reason": "asked_to_stop"}}
    assert run["started"] < run["finished"]
    (listed,) = as_json(stage.cli("history", "--json"))["runs"]
    assert listed == run == as_json(stage.cli("history", "--json", "--run", str(run["id"])))
    assert as_json(stage.cli("history", "--json", "beta")) == {"runs": [], "decisions": []}
    assert as_json(stage.cli("recover", "--json")) == []
    assert as_json(stage.cli("work", "--json")) == []
    (skipped,) = as_json(stage.cli("run", "--yes", "--json", "alpha"))
    assert (skipped["decision"], skipped["reason"], skipped["run"]) == ("skip", "current", None)


def test_history_and_recover_of_nothing(stage: Stage) -> None:
    assert stage.cli("history").stdout == "no runs yet\n"
    result = stage.cli("recover")
    assert (result.exit_code, result.stdout) == (0, "nothing to recover\n")


def test_work_takes_what_is_in_the_spool(stage: Stage) -> None:
    (stage.spool / "alpha").touch()
    (stage.spool / "beta; rm -rf").touch()
    result = stage.cli("work", "--json")
    assert result.exit_code == 0
    (report,) = as_json(result)
    assert (report["node"], report["run"]["trigger"], report["run"]["outcome"]) == ("alpha", "alert", "updated")
    assert os.listdir(stage.spool) == []
    stage.assert_updated()


@pytest.mark.parametrize(("name", "code"), [("alpha", 0), ("stranger", 1)])
def test_work_that_ends_as_something_comes(stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """A request that comes just then must not wait for RestartSec; what is no request must not start us at once."""

    def too_late(*_: object) -> list[object]:
        (stage.spool / name).touch()
        return []

    monkeypatch.setattr("remediate.worker.work", too_late)
    assert stage.cli("work").exit_code == code
    assert os.listdir(stage.spool) == [name]


def test_work_without_a_spool(stage: Stage) -> None:
    stage.spool.rmdir()
    result = stage.cli("work")
    assert result.exit_code == 1
    assert f"error: remediation.spool: {stage.spool} cannot be used" in result.stderr


def test_a_terminal_asks_and_shows_how_far_it_is(stage: Stage, tmp_path: Path) -> None:
    stage.publish(build.node(NEW, tmp_path / "large", pad=1 << 20))
    stage.host.set(behaviour="slow:700000")
    code, said = on_a_terminal(stage, "run", "--log.level", "error", "alpha", answer="n\n")
    assert code == 3
    assert "Go ahead? [y/N]" in said
    assert "12. prune" in said
    stage.assert_untouched()
    code, said = on_a_terminal(stage, "run", "--log.level", "error", "alpha", answer="y\n")
    assert code == 0, said
    assert "100%" in said
    shares = [int(share) for share in re.findall(r"(\d+)%", said)]
    assert len(set(shares)) > 3, "it moves"
    assert shares == sorted(shares)
    assert "alpha: updated" in said


def test_a_pipe_gets_no_bar(stage: Stage) -> None:
    result = in_a_pipe(stage, "run", "--yes", "--log.level", "error", "alpha")
    assert (result.returncode, result.stderr) == (0, "")
    assert "%" not in result.stdout


def test_logs_name_node_state_versions_and_reason_at_each_step(stage: Stage) -> None:
    result = in_a_pipe(stage, "run", "--yes", "--log.format", "json", "alpha")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    steps = [line for line in lines if line["message"] == "step"]
    assert [line["step"] for line in steps] == list(ORDER)
    for line in steps:
        assert (line["node"], line["service_state"], line["reason"]) == ("alpha", "stopped", "below_minimum")
        assert (line["installed"], line["target"]) == (OLD, NEW)
    assert lines[-1]["outcome"] == Outcome.UPDATED


def test_the_log_of_one_run_by_alert_tells_the_story(stage: Stage) -> None:
    """What happened stands at the beginning of each line, and what is the same in all of them at its end."""
    (stage.spool / "alpha").touch()
    lines = in_a_pipe(stage, "work").stderr.splitlines()
    told = [re.sub(r"^time=\S+ level=info message=", "", line) for line in lines]
    assert re.match(f"decision node=alpha .*reason=below_minimum target={NEW}", told[0])
    for step, line in zip(ORDER, told[1:-1], strict=True):
        assert re.match(rf'step step={step} does="?{step if step not in ("start", "dress") else ""}', line), line
        assert line.endswith(
            f"run=1 node=alpha service_state=stopped reason=below_minimum installed={OLD} target={NEW}"
            " logger=remediate.apply"
        )
    assert told[-1].startswith('"run ended" outcome=updated detail="alpha is left stopped (asked_to_stop)" run=1')


def test_the_log_of_a_failure_says_what_failed(stage: Stage) -> None:
    stage.host.set(behaviour="status:503")
    (stage.spool / "alpha").touch()
    lines = in_a_pipe(stage, "work", "--log.level", "error").stderr.splitlines()
    told = [re.sub(r"^time=\S+ level=error message=", "", line) for line in lines]
    assert len(told) == 2
    assert re.match(r'"step failed" step=fetch detail="\S+: answered 503, expected 200" ', told[0])
    assert told[1].startswith('"run ended" outcome=later detail=')


def test_history_of_nodes_of_one_binary(stage: Stage) -> None:
    stage.add("beta")
    stage.add("gamma", binary=str(stage.root / "elsewhere"))
    (stage.spool / "alpha").touch()
    stage.cli("work")
    for node, count in (("alpha", 1), ("beta", 1), ("gamma", 0)):
        found = as_json(stage.cli("history", node, "--json"))
        assert len(found["runs"]) == count, node
    assert stage.cli("history", "gamma").stdout == "no runs yet\n"
    assert stage.cli("history", "--limit", "1").stdout.splitlines()[1].startswith("1 ")


def test_one_run_in_full(stage: Stage) -> None:
    (stage.spool / "alpha").touch()
    stage.cli("work")
    told = stage.cli("history", "--run", "1").stdout
    steps = re.findall(r"Z  (\w+) +(intent|done)", told)
    assert steps == [(step, event) for step in ORDER for event in ("intent", "done")]
    assert "vouched_by=" in told
    unknown = stage.cli("history", "--run", "7")
    assert (unknown.exit_code, unknown.stderr) == (3, "error: there is no run 7\n")


def test_a_run_that_is_not_finished_is_told_so(stage: Stage) -> None:
    killed(stage, "run", "--yes", "alpha", kill_at=20)
    assert "not finished" in stage.cli("history").stdout
    assert stage.cli("history", "--run", "1").stdout.endswith("  not finished: something is still held\n")
    assert as_json(stage.cli("history", "--json"))["runs"][0]["finished"] is None


@pytest.mark.parametrize("command", [["serve"], ["work"], ["watch"]])
def test_the_configuration_is_checked_and_nothing_done(stage: Stage, command: list[str]) -> None:
    (stage.spool / "alpha").touch()
    stage.add("beta")
    fine = stage.cli(*command, "--config.check")
    assert (fine.exit_code, fine.stdout) == (0, f"{stage.config_file}: can be used; nodes: alpha, beta\n")
    assert not stage.state_dir.exists()
    stage.assert_untouched()
    wrong = {"cool_down": 3, "windows": [{"start": "25:00"}], "never_install": ["x"], "webhook": {"token": "/t"}}
    stage.rules |= wrong
    refused = stage.cli(*command, "--config.check")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) >= 5
    for key in ("cool_down", "windows.0.start", "windows.0.end", "never_install", "webhook.token"):
        assert f"{stage.config_file}: remediation: {key}" in refused.stderr
    for key in wrong:
        del stage.rules[key]
    stage.rules["webhook"] = {"token_file": "/nowhere/token"}
    refused = stage.cli(*command, "--config.check")
    assert (refused.exit_code, "/nowhere/token" in refused.stderr) == (2, True)


def test_help_and_version_need_no_configuration() -> None:
    for arguments in (["--help"], ["--version"], *([name, "--help"] for name in ("run", "plan", "work", "serve"))):
        result = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
