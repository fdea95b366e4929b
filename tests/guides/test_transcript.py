"""The reader of documents notices what is wrong with one."""

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.documents import Block
from tests.e2e.site import wait
from tests.guides import transcript
from tests.guides.transcript import Reader, same


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("NODE   SINCE\nalpha  3d ago", "NODE   SINCE\nalpha  12s ago\n"),
        ("1  2026-11-23 20:56:12Z  alpha", "1    2027-01-02 03:04:05Z  alpha"),
        ("first\n…\nlast", "first\nsomething\nand more\nlast"),
        ("storagenode_linux_amd64.zip", "storagenode_linux_arm64.zip"),
        ("", "\n"),
    ],
)
def test_what_varies_is_the_same(shown: str, found: str) -> None:
    assert same(shown, found)


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("alpha  running", "alpha  stopped"),
        ("alpha runs 1.104.5", "alpha runs 1.104.6"),
        ("deadlocked => 0 @[1.2]", "deadlocked => 1 @[3.4]"),
        ("all", "all, and more"),
        ("first\n…\nlast", "first\nsomething"),
        ("", "something"),
    ],
)
def test_what_does_not_vary_is_not(shown: str, found: str) -> None:
    assert not same(shown, found)


def block(text: str, language: str = "console", runner: str = "reader") -> Block:
    return Block(file=Path("a.md"), line=1, heading="", language=language, runner=runner, text=text)


def test_variables_and_folders_last_and_ports_are_put_in(tmp_path: Path) -> None:
    with Reader(tmp_path, {}, {"9651": "1", "19651": "2"}) as person:
        person.read(block("A=9651,19651\nmkdir b && cd b\ncat > c <<END\n$A\nEND\n", "sh"))
        person.read(block("$ cat c\n9651,19651\n$ pwd\n…/b\n"))
    assert (tmp_path / "b/c").read_text() == "1,2\n"


def test_a_command_that_fails_is_noticed_wherever_it_stands(tmp_path: Path) -> None:
    with Reader(tmp_path, {}, {}) as person, pytest.raises(AssertionError, match="failed ls nowhere"):
        person.read(block("true\nls nowhere\ntrue\n", "sh"))


@pytest.mark.slow
def test_another_answer_is_noticed_and_one_that_comes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(tmp_path, {}, {}) as person:
        with pytest.raises(AssertionError, match="said:\nno"):
            person.read(block("$ echo yes\nyes\n$ echo no\nyes\n"))
        person.read(block("echo >> times\n", "sh"))
        person.read(block("$ echo >> times; wc -l < times\n4\n", runner="reader-wait"))
        monkeypatch.setattr(transcript, "PATIENCE_SECONDS", 0.1)
        with pytest.raises(AssertionError, match="said:\nno"):
            person.read(block("$ echo no\nyes\n", runner="reader-wait"))


def test_what_was_started_ends_with_it(tmp_path: Path) -> None:
    with Reader(tmp_path, {}, {}) as person:
        person.read(block("sleep 1000 > /dev/null &\necho $! > pid\n", "sh"))
    pid = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, 0)
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    wait(gone, "it has ended")


def test_what_does_not_end_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "PATIENCE_SECONDS", 0.5)
    began = time.monotonic()
    with Reader(tmp_path, {}, {}) as person, pytest.raises(TimeoutError, match="sleep 1000"):
        person.read(block("sleep 1000\n", "sh"))
    assert time.monotonic() - began < 100
