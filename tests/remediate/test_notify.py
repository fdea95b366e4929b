"""`notify`: who is told what, by a real program, and how often; and the shipped one that mails, to a real server."""

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from exporter.commandline import Program
from remediate import notify
from remediate.decision import Reason, Request, Trigger
from remediate.journal import Outcome
from remediate.store import Store
from tests import schemas
from tests.labs.network import HOST
from tests.remediate.acting import DAY, HOUR, Clock, acting, ask
from tests.remediate.conftest import NEW, OLD, Stage
from tests.remediate.test_invariants import program as killed
from tests.simulators import build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]

PROGRAM = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
text = sys.stdin.read()
print("it prints a line")
with (folder / "calls").open("a") as calls:
    calls.write("x")
if (folder / "hang").exists():
    time.sleep(60)
if (folder / "fail").exists():
    sys.exit(3)
(folder / f"{len(list(folder.glob('*.json'))):03}.json").write_text(text)
"""
MAIL = Path(__file__).parents[2] / "packaging/notify-mail.py"


class Told:
    """What the program was told, the oldest first."""

    def __init__(self, stage: Stage) -> None:
        self.folder = stage.root / "told"
        self.folder.mkdir()
        stage.rules["notify"] = [sys.executable, "-c", PROGRAM, str(self.folder)]

    @property
    def reports(self) -> list[Any]:
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.json"))]

    @property
    def reasons(self) -> list[str]:
        return [report["reason"] for report in self.reports]

    @property
    def outcomes(self) -> list[str | None]:
        return [report["run"]["outcome"] for report in self.reports]


@pytest.fixture
def told(stage: Stage) -> Told:
    return Told(stage)


def test_a_run_is_told_once(stage: Stage, told: Told, capfd: pytest.CaptureFixture[str]) -> None:
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.WATCH)
    stage.recover()
    (report,) = told.reports
    assert (report["node"], report["decision"], report["target"], report["exit_code"]) == ("alpha", "proceed", NEW, 0)
    assert (report["run"]["outcome"], report["run"]["trigger"], report["run"]["id"]) == ("updated", "alert", 1)
    assert report["run"]["journal"][-1]["step"] == "prune"
    assert report["text"].startswith(f"alpha: updated, {OLD} -> {NEW} (alert, below_minimum)")
    assert capfd.readouterr().out == "", "what it prints does not mix with --json"


def test_it_is_as_described(stage: Stage, told: Told) -> None:
    assert schemas.path("notification").read_text() == schemas.schema("notification"), "run: python -m tests.schemas"
    stage.run(trigger=Trigger.ALERT)
    stage.install(stage.old)
    stage.versions.set(url="https://elsewhere.example/{version}.zip")
    stage.run(trigger=Trigger.ALERT)
    described = schemas.PRINTED["notification"]
    for report in told.reports:
        assert json.loads(described.dump_json(described.validate_python(report))) == report
    assert [report["run"] is None for report in told.reports] == [False, True]


def test_what_a_person_does_is_no_news(stage: Stage, told: Told) -> None:
    stage.run(trigger=Trigger.PERSON)
    stage.run(trigger=Trigger.PERSON, to="1.0.0")
    assert told.reports == []


def test_what_is_not_anybodys_business_is_no_news(stage: Stage, told: Told) -> None:
    stage.cli("pause")
    stage.run(trigger=Trigger.ALERT)
    stage.cli("resume")
    stage.rules["windows"] = [{"start": "00:00", "end": "00:01", "time_zone": "UTC"}]
    clock = Clock(now=1_790_000_000.0 - 1_790_000_000.0 % DAY + HOUR)
    assert ask(stage, clock).decision.reason is Reason.OUTSIDE_WINDOWS
    assert told.reports == []


def test_a_refusal_is_told_once_until_it_changes(stage: Stage, told: Told) -> None:
    stage.versions.set(url="https://elsewhere.example/{version}.zip")
    for _ in range(3):
        stage.run(trigger=Trigger.ALERT)
    stage.versions.set(url="", minimum="1.105.0", suggested=NEW)
    for _ in range(3):
        stage.run(trigger=Trigger.WATCH)
    assert told.reasons == [Reason.FOREIGN_URL, Reason.INCONSISTENT_SERVER]
    stage.versions.set(minimum=NEW)
    stage.run(trigger=Trigger.ALERT)
    assert told.reasons[2:] == [Reason.BELOW_MINIMUM]
    stage.install(stage.old)
    stage.versions.set(minimum="1.105.0", suggested=NEW)
    stage.run(trigger=Trigger.ALERT)
    assert told.reasons[3:] == [Reason.INCONSISTENT_SERVER], "it is a new one, since there was a run"


def test_a_refusal_in_other_words_is_the_same(stage: Stage, told: Told) -> None:
    details = set()
    for behaviour in ("status:500", "html", "empty", "close"):
        stage.versions.set(behaviour=behaviour)
        details.add(stage.run(trigger=Trigger.ALERT).decision.detail)
    assert len(details) == 4
    assert told.reasons == [Reason.ALLOWED_UNKNOWN]


def test_another_version_that_is_refused_is_another_refusal(stage: Stage, told: Told) -> None:
    stage.rules["never_install"] = [">=1.104"]
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    stage.versions.set(minimum="1.104.6", suggested="1.104.6")
    stage.run(trigger=Trigger.ALERT)
    assert [NEW in told.reports[0]["detail"], "1.104.6" in told.reports[1]["detail"]] == [True, True]
    assert len(told.reports) == 2


def test_a_refusal_is_over_when_the_node_is_well(stage: Stage, told: Told) -> None:
    stage.versions.set(minimum="1.105.0", suggested=NEW)
    stage.run(trigger=Trigger.ALERT)
    stage.versions.set(minimum="1.0.0", suggested=OLD)
    assert stage.run(trigger=Trigger.ALERT).decision.reason is Reason.CURRENT
    stage.versions.set(minimum="1.105.0", suggested=NEW)
    stage.run(trigger=Trigger.ALERT)
    assert told.reasons == [Reason.INCONSISTENT_SERVER] * 2


def test_a_dry_run_is_told_once(stage: Stage, told: Told) -> None:
    stage.rules["dry_run"] = True
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.WATCH)
    (report,) = told.reports
    assert (report["decision"], report["reason"], report["run"]) == ("skip", Reason.DRY_RUN, None)
    assert f"{NEW} would be installed" in report["detail"]


@pytest.mark.parametrize("how", ["fail", "hang", "missing"])
def test_a_program_that_does_not_work_harms_nothing_and_is_tried_again(
    stage: Stage, told: Told, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notify, "_TIME_LIMIT", 0.5 if how == "hang" else 30)
    working = stage.rules["notify"]
    if how == "missing":
        stage.rules["notify"] = ["/nowhere/notify"]
    else:
        (told.folder / how).touch()
    began = time.monotonic()
    report = stage.run(trigger=Trigger.ALERT)
    assert time.monotonic() - began < 30
    assert report.run is not None
    assert report.run.outcome is Outcome.UPDATED
    (record,) = (record for record in caplog.records if record.message == "notification failed")
    said = {"fail": "exit status 3", "hang": "did not end within 0.5 s", "missing": "No such file or directory"}
    assert record.__dict__["problem"] == said[how]
    assert told.reports == []
    stage.rules["notify"] = working
    monkeypatch.setattr(notify, "_TIME_LIMIT", 30)
    (told.folder / how).unlink(missing_ok=True)
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    assert told.outcomes == ["updated"]


def test_a_refusal_that_could_not_be_told_is_told_the_next_time(stage: Stage, told: Told) -> None:
    stage.versions.set(minimum="1.105.0", suggested=NEW)
    (told.folder / "fail").touch()
    stage.run(trigger=Trigger.ALERT)
    (told.folder / "fail").unlink()
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    assert told.reasons == [Reason.INCONSISTENT_SERVER]


@pytest.mark.parametrize(("later", "count"), [(DAY - HOUR, 1), (DAY + HOUR, 0)])
def test_news_grows_old(stage: Stage, told: Told, later: float, count: int) -> None:
    clock = Clock(now=time.time() - later)
    (told.folder / "fail").touch()
    with acting(stage, clock) as remediation:
        assert remediation.run(Request(node="alpha", trigger=Trigger.ALERT)).run is not None
    (told.folder / "fail").unlink()
    stage.recover()
    assert len(told.reports) == count


def test_what_was_interrupted_is_told_when_it_is_recovered(stage: Stage, told: Told) -> None:
    (stage.spool / "alpha").touch()
    killed(stage, "work", kill_at=20)
    assert told.reports == []
    assert stage.cli("work").exit_code == 0
    stage.cli("recover")
    assert told.outcomes == ["undone", "updated"]


def test_what_a_person_has_interrupted_is_no_news(stage: Stage, told: Told) -> None:
    killed(stage, "run", "--yes", "alpha", kill_at=20)
    stage.recover()
    assert told.reports == []


def test_what_stays_held_is_told_once_and_its_end_as_well(stage: Stage, told: Told) -> None:
    (stage.spool / "alpha").touch()
    killed(stage, "work", kill_at=20)
    away = stage.folder.rename(stage.root / "away")
    for _ in range(3):
        stage.recover()
        assert told.outcomes == [None]
    stage.run(trigger=Trigger.ALERT)
    (report,) = told.reports
    assert (report["exit_code"], report["run"]["outcome"]) == (4, None)
    away.rename(stage.folder)
    stage.recover()
    assert told.outcomes == [None, "undone"]


def test_every_node_of_a_binary_hears_of_its_own(stage: Stage, told: Told) -> None:
    stage.add("beta")
    stage.versions.set(minimum="1.105.0", suggested=NEW)
    for node in ("alpha", "beta", "alpha", "beta"):
        stage.run(node=node, trigger=Trigger.ALERT)
    assert [report["node"] for report in told.reports] == ["alpha", "beta"]


def test_resume_and_a_failure_again_is_news(stage: Stage, told: Told) -> None:
    build.bad_archive(build.BadArchive.NOT_ELF, stage.new, stage.archive)
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    stage.cli("resume", "alpha")
    stage.run(trigger=Trigger.ALERT)
    stage.run(trigger=Trigger.ALERT)
    wanted = [Reason.BELOW_MINIMUM, Reason.KNOWN_BAD]
    assert told.reasons == [*wanted, *wanted]
    with closing(Store(stage.state_dir)) as store:
        assert len(store.runs()) == 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mail", "remediation: notify"),
        ([], "remediation: notify"),
        ([1], "remediation: notify"),
    ],
)
def test_what_is_no_program(stage: Stage, value: object, said: str) -> None:
    stage.rules["notify"] = value
    result = stage.cli("work")
    assert (result.exit_code, said in result.stderr) == (2, True)


@pytest.fixture
def mailbox(tmp_path: Path) -> Any:
    """A real SMTP server on this host, which keeps what it gets."""
    box = Mailbox(tmp_path / "mail")
    controller = Controller(box, hostname="127.0.0.1", port=0)
    # The controller tries the port it was told, so it is told a free one.
    controller.port = HOST.free_port()
    controller.start()
    yield controller, box.mailbox
    controller.stop()


def test_the_shipped_program_mails_a_run(stage: Stage, mailbox: Any) -> None:
    controller, box = mailbox
    server = f"127.0.0.1:{controller.port}"
    stage.rules["notify"] = [sys.executable, str(MAIL), "--server", server, "me@example.org", "you@example.org"]
    stage.run(trigger=Trigger.ALERT)
    (mail,) = box
    assert (mail["To"], mail["X-RcptTo"]) == ("me@example.org, you@example.org",) * 2
    assert mail["Subject"].startswith("alpha on ")
    assert mail["Subject"].endswith(": updated")
    text = mail.get_payload(decode=True).decode()
    assert text.startswith(f"alpha: updated, {OLD} -> {NEW} (alert, below_minimum)")
    assert [line.split()[2] for line in text.splitlines() if "Z  " in line][-1] == "prune"
    assert text.endswith("More: storagenode-remediate history --run 1\n")


def test_the_shipped_program_mails_a_refusal(stage: Stage, mailbox: Any) -> None:
    controller, box = mailbox
    stage.rules["notify"] = [sys.executable, str(MAIL), "--server", f"127.0.0.1:{controller.port}", "me@example.org"]
    stage.versions.set(url="https://elsewhere.example/\nSubject: no\r\n{version}\x1b[1m.zip")
    stage.run(trigger=Trigger.ALERT)
    (mail,) = box
    assert mail["Subject"].startswith("PLEASE LOOK: alpha on ")
    assert mail["Subject"].endswith(": refuse, foreign_url")
    text = mail.get_payload(decode=True).decode()
    assert text.startswith("alpha: refused (foreign_url): ")
    assert "\x1b" not in text


def test_what_is_said_of_an_updater_is_not_said_of_its_node(stage: Stage, mailbox: Any) -> None:
    controller, box = mailbox
    stage.rules["notify"] = [sys.executable, str(MAIL), "--server", f"127.0.0.1:{controller.port}", "me@example.org"]
    for _ in range(2):
        stage.run(trigger=Trigger.ALERT, program=Program.UPDATER)
        stage.run(trigger=Trigger.ALERT)
    refused, updated = sorted(box, key=lambda mail: str(mail["Subject"]))
    assert refused["Subject"].startswith("PLEASE LOOK: alpha's updater on ")
    assert refused["Subject"].endswith(": refuse, no_updater")
    assert updated["Subject"].startswith("alpha on ")


def test_the_shipped_program_lets_nothing_into_a_mail_that_does_not_print(mailbox: Any) -> None:
    controller, box = mailbox
    report = {
        "node": "alpha",
        "program": "storagenode",
        "text": "it\x1b[1m says\n.\nRCPT",
        "decision": "refuse",
        "reason": "a\r\nBcc: x@example.org",
    }
    subprocess.run(
        [sys.executable, str(MAIL), "--server", f"127.0.0.1:{controller.port}", "me@example.org"],
        input=json.dumps(report | {"exit_code": 3, "run": None}),
        text=True,
        check=True,
    )
    (mail,) = box
    assert mail["Bcc"] is None
    assert mail["Subject"].endswith(": refuse, a  Bcc: x@example.org")
    assert mail.get_payload(decode=True).decode().splitlines()[0] == "it [1m says . RCPT"


def test_the_shipped_program_says_when_it_could_not_mail(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.rules["notify"] = [sys.executable, str(MAIL), "--server", f"127.0.0.1:{HOST.free_port()}", "me@example.org"]
    stage.run(trigger=Trigger.ALERT)
    (record,) = (record for record in caplog.records if record.message == "notification failed")
    assert record.__dict__["problem"] == "exit status 1"
    usage = subprocess.run([sys.executable, str(MAIL)], capture_output=True, text=True, check=False)
    assert (usage.returncode, "RECIPIENT" in usage.stderr) == (2, True)


def test_a_program_that_does_not_work_is_tried_once_at_a_time(stage: Stage, told: Told) -> None:
    stage.host.set(behaviour="status:503")
    (told.folder / "fail").touch()
    for _ in range(3):
        stage.run(trigger=Trigger.ALERT)
    assert (told.folder / "calls").read_text() == "xxx"
    (told.folder / "fail").unlink()
    stage.recover()
    assert [report["run"]["id"] for report in told.reports] == [1, 2, 3]


def test_two_who_have_the_same_news_tell_it_once(stage: Stage, told: Told) -> None:
    """A watch beside a worker: the second comes while the first is still telling."""
    (told.folder / "fail").touch()
    stage.run(trigger=Trigger.ALERT)
    (told.folder / "fail").unlink()
    stage.rules["notify"][2] = "import time; time.sleep(0.5)\n" + PROGRAM
    command = [sys.executable, "-c", "from remediate.cli import main; main()", "recover"]
    command += ["--config.file", str(stage.write())]
    with subprocess.Popen(command) as first:
        while (second := subprocess.run(command, check=False).returncode) == 3:
            pass  # they have met at the lock, before either tells
        assert second == 0
        assert first.wait(60) in (0, 3)
    assert told.outcomes == ["updated"]
