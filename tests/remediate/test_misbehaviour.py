"""The download host misbehaves in every way we know of: what comes of the run, and what it may cost."""

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from remediate.decision import Reason, Trigger
from remediate.journal import Outcome, facts
from remediate.steps import exchange, fetch
from tests.exporter.hostile import server
from tests.remediate.conftest import NEW, TARGET, Stage, peak, wait_until
from tests.simulators import build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]

SIZE_LIMIT = 8 << 20
UNDERWAY = 32 << 20
"""What may be in the buffers of a few sockets when one side stops reading."""
MEMORY = 24 << 20
UNAWARE = ("down", "continue-flood")
"""Do not notice at once that nobody listens any more."""
SECONDS = 3.0
SLACK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a server does, and what has to come of it: an explanation, or what vouches for the archive."""

    does: str
    outcome: Outcome
    says: str


def good(does: str, says: str) -> Case:
    return Case(does=does, outcome=Outcome.UPDATED, says=says)


def later(does: str, says: str) -> Case:
    return Case(does=does, outcome=Outcome.LATER, says=says)


def bad(does: str, says: str) -> Case:
    """I4: only what the version did by itself is remembered."""
    return Case(does=does, outcome=Outcome.BAD_VERSION, says=says)


DOWNLOADS = [
    later("status:403", "answered 403"),
    later("status:404", "answered 404"),
    later("status:429", "answered 429"),
    later("status:500", "answered 500"),
    later("status:204", "answered 204"),
    later("status:206", "answered 206"),
    later("close", "closed connection without response"),
    later("down", "timed out"),
    later("not-http", "SSH-2.0-"),
    later("html", "not a zip archive, it begins with b'<!DOCTYPE html>"),
    later("head-flood", "more than 100 headers"),
    later("continue-flood", "not finished in time"),
    later("redirect-flood", "redirects"),
    later("slow-head:50", "not finished in time"),
    later("slow-head:1", "timed out"),
    later("slow:2000", "not finished in time"),
    later("slow:1", "timed out"),
    later("stall", "broke off: timed out"),
    later("truncate", "broke off: IncompleteRead"),
    later("reset", "broke off: Connection reset"),
    later("endless", f"more than {SIZE_LIMIT} bytes"),
    later(f"announce:{1 << 60}", f"{1 << 60} bytes announced"),
    later(f"announce:{'9' * 5000}", "does not say how long it is"),
    later("announce:-1", "does not say how long it is"),
    later("announce:5000000", "broke off: IncompleteRead"),
    later("no-length", "does not say how long it is"),
    later("chunked-garbage", "broke off"),
    later("chunked-half", "broke off"),
    later("gzip", "not a zip archive, it begins with b'\\x1f\\x8b"),
    later("redirect-elsewhere", "redirected to 'https://downloads.invalid"),
    later("redirect-http", "redirected to 'http://downloads.invalid"),
    later("redirect-loop", "more than 5 redirects"),
    later("redirect:https://objects.githubusercontent.com.example.com/x", "redirected to"),
    later("redirect:https://objects.githubusercontent.com@downloads.invalid/x", "redirected to"),
    later("redirect:http://objects.githubusercontent.com/x", "redirected to"),
    later("redirect:http://127.0.0.1:1/x", "redirected to"),
    later("redirect:file:///etc/passwd", "redirected to 'file:///etc/passwd'"),
    later("redirect:https://[::1", "no address"),
    later("redirect:/\x1b[2J", "answered 404"),
    bad("wrong-length", "wrong digest"),
    bad("announce:1000", "wrong digest"),
    good("chunked", "the release's digest"),
]
DIGESTS = [
    later("status:403", "answered 403"),
    later("status:404", "no such release"),
    later("status:429", "answered 429"),
    later("status:500", "answered 500"),
    later("down", "not finished in time"),
    later("slow-head:50", "not finished in time"),
    later("html", "not a release"),
    later("endless", "more than 1048576 bytes"),
    later("missing", "lists no storagenode_linux"),
    later("malformed", "expected sha256: and 64 hex digits"),
    later("algorithm", "expected sha256: and 64 hex digits"),
    bad("wrong", "wrong digest"),
    bad("other", "wrong digest"),
    good("none", "TLS only, since no digest is published"),
]
SUMS = [
    later("status:429", "answered 429"),
    later("down", "not finished in time"),
    later("missing", "lists no sha256"),
    bad("wrong", "wrong digest"),
    good("status:404", "the release's digest"),
    good("upstream", "the sha256sums file"),
]
CASES = [("behaviour", case) for case in DOWNLOADS]
CASES += [("digests", case) for case in DIGESTS] + [("sums", case) for case in SUMS]


@pytest.mark.parametrize(("what", "case"), CASES, ids=[f"{what}-{case.does[:30]}" for what, case in CASES])
def test_what_comes_of_it(stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str, case: Case) -> None:
    monkeypatch.setattr(fetch, "SIZE_LIMIT", SIZE_LIMIT)
    # Of two limits that run out at about one time, either may be told.
    monkeypatch.setattr(exchange, "_STALL_SECONDS", 0.5 if "timed out" in case.says else 30.0)
    stage.rules |= {"download_timeout": f"{SECONDS:.0f}s", "sha256sums": stage.host.sums if what == "sums" else None}
    stage.host.set(**{what: case.does})
    asked = len(stage.host.requests())
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    peak()
    memory, began = peak(), time.monotonic()
    run = stage.ran(trigger=Trigger.ALERT)
    assert time.monotonic() - began < SECONDS + SLACK_SECONDS
    assert peak() - memory < MEMORY

    assert run.outcome is case.outcome, run.detail
    vouched = [entry.data["vouched_by"] for entry in run.journal if "vouched_by" in entry.data]
    if case.outcome is Outcome.UPDATED:
        assert vouched == [case.says]
        stage.assert_updated()
    else:
        assert not vouched
        assert case.says in run.detail
        assert run.detail.isprintable()
        assert len(run.detail) < 400
        stage.assert_untouched()
    assert not list(stage.state_dir.glob("tmp*"))
    assert not facts(run.journal).held
    with stage.assembly() as assembly:
        assert assembly.store.open_runs() == []
        known = assembly.store.history(stage.binary, ["alpha"]).known_bad
        assert (TARGET in known) is (case.outcome is Outcome.BAD_VERSION)
    # one more may wait for the end of a connection that is no more
    wait_until(lambda: threading.active_count() <= threads + 1 and len(os.listdir("/proc/self/fd")) <= files)
    wait_until(lambda: case.does in UNAWARE or all(request.done for request in stage.host.requests()[asked:]))
    assert sum(request.bytes or 0 for request in stage.host.requests()[asked:]) < SIZE_LIMIT + UNDERWAY


def test_i4_what_went_wrong_on_the_way_is_tried_again_and_a_wrong_digest_is_not(stage: Stage) -> None:
    stage.rules |= {"download_timeout": "1s", "cool_down": "0s"}
    for does in ("truncate", "html"):
        stage.host.set(behaviour=does)
        assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.LATER
    # Archive and digest differ, and only a person can find out which of them it is that lies.
    stage.host.set(behaviour="ok", digests="other")
    assert stage.ran(trigger=Trigger.ALERT).outcome is Outcome.BAD_VERSION
    stage.host.set(digests="ok")
    again = stage.run(trigger=Trigger.ALERT)
    assert (again.decision.reason, again.run) == (Reason.KNOWN_BAD, None)
    assert "wrong digest: the archive has sha256" in str(again)
    assert stage.ran().outcome is Outcome.UPDATED


def test_what_a_server_sends_does_not_get_into_the_log(stage: Stage) -> None:
    with server([b"HTTP/1.1 200 OK\r\n" + b"x" * 5000 + b"\r\nContent-Length: 4\r\n\r\nhtml"]) as (address, _):
        stage.rules["releases"] = f"http://{address}"
        result = stage.cli("run", "--yes", "--log.level", "debug", "alpha")
    assert (result.exit_code, "x" * 100 in result.output) == (1, False)


NOWHERE = {"releases": "https://github.com/storj/storj/releases/download", "digests": "https://api.github.com/tags"}
NOWHERE |= {"verify": "require", "sha256sums": "https://downloads.invalid/v{version}/sha256sums"}


def test_an_archive_brought_along_needs_no_network_at_all(stage: Stage, tmp_path: Path) -> None:
    """In a network without an interface that is up: nothing answers, not even the loopback."""
    archive = Path(shutil.copy(stage.archive, tmp_path / "given.zip"))
    stage.rules |= NOWHERE
    config = yaml.safe_load(stage.write().read_text()) | {"version_server": "https://version.storj.io"}
    stage.config_file.write_text(yaml.safe_dump(config))
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-current-user", "--net"]
    program = [*alone, sys.executable, "-c", "from remediate.cli import main; main()"]
    command = ["run", "--config.file", str(stage.config_file), "--yes", "--artifact", str(archive)]

    def run(sha256: str, *more: str) -> tuple[int, str]:
        done = subprocess.run([*program, *command, "--sha256", sha256, *more, "alpha"], capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    good, zero = build.sha256(archive), "0" * 64
    code, said = run(good)
    assert (code, "allowed_unknown" in said) == (3, True), said
    code, said = run(zero, "--to", NEW)
    assert (code, "wrong digest" in said) == (1, True), said
    stage.assert_untouched()
    began = time.monotonic()
    code, said = run(good, "--to", NEW)
    assert code == 0, said
    assert time.monotonic() - began < 60
    stage.assert_updated()


def test_a_persons_digest_vouches_for_a_download(stage: Stage) -> None:
    stage.rules["verify"] = "require"
    stage.host.set(digests="down")
    good = build.sha256(stage.archive)
    planned = stage.cli("plan", "--sha256", good, "alpha").output
    assert f"verify its sha256 against the given {good}" in planned
    failed = stage.cli("run", "--yes", "--sha256", "0" * 64, "alpha")
    assert (failed.exit_code, "wrong digest" in failed.stdout) == (1, True)
    stage.assert_untouched()
    with stage.assembly() as assembly:
        assert not assembly.store.history(stage.binary, ["alpha"]).known_bad, "perhaps it is his digest that is wrong"
    assert stage.cli("run", "--yes", "--sha256", good.upper(), "alpha").exit_code == 0
    stage.assert_updated()


def test_plan_says_who_is_asked(stage: Stage) -> None:
    release = f"the digest in {stage.host.tags}/v{NEW}"
    listed = f"the list {stage.host.sums.replace('{version}', NEW)}"
    for rules, said in (
        ({"verify": "prefer"}, f"against {release} (prefer)"),
        ({"verify": "prefer", "sha256sums": stage.host.sums}, f"against {listed}, else {release} (prefer)"),
        ({"verify": "require", "sha256sums": stage.host.sums}, f"against {listed} (require)"),
        ({"verify": "tls", "sha256sums": None}, "only TLS vouches"),
    ):
        stage.rules |= rules
        assert said in stage.cli("plan", "alpha").output
