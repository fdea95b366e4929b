from pathlib import Path

import pytest

from exporter.commandline import Command, Program, recognize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs, a symbolic link to one, a script, and a folder, in one place."""
    for name in ("storagenode", "storagenode-updater", "storagenode2"):
        (tmp_path / name).write_bytes(b"\x7fELF")
    (tmp_path / "node-b").symlink_to("storagenode")
    (tmp_path / "storagenode.sh").write_text("#!/bin/sh\n")
    (tmp_path / "storagenode-keeper" / "bin").mkdir(parents=True)
    (tmp_path / "storagenode-keeper" / "bin" / "storagenode-remediate").write_bytes(b"\x7fELF")
    (tmp_path / "data" / "storagenode").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("D/storagenode run --config-dir /etc/a", "storagenode"),
        ("D/storagenode --config-dir /etc/a run", "storagenode"),
        ("D/storagenode2 run --config-dir=/etc/a", "storagenode2"),
        ("D/node-b run --config-dir /x --config-dir /etc/a", "node-b"),
        ("D/gone/storagenode run --config-dir /etc/a", "gone/storagenode"),
        ("/usr/bin/nice -n 5 D/storagenode run --config-dir /etc/a", "storagenode"),
        ("/usr/bin/ionice -c 3 /usr/bin/nice D/node-b run --config-dir /etc/a", "node-b"),
    ],
)
def test_a_node_is_recognized(folder: Path, line: str, path: str) -> None:
    command = recognize(line.replace("D/", f"{folder}/").split())
    assert command is not None
    assert command.program is Program.STORAGENODE
    assert command.path == str(folder / path)
    assert command.flag("config-dir") == "/etc/a"
    assert command.flag("identity-dir") is None


def test_an_updater_is_no_node(folder: Path) -> None:
    for words in ("run --binary-location", "--binary-location"):
        line = [f"{folder}/storagenode-updater", *words.split(), f"{folder}/storagenode", "run"]
        command = recognize(line)
        assert command is not None
        assert command.program is Program.UPDATER
        assert command.flag("binary-location") == f"{folder}/storagenode"


@pytest.mark.parametrize(
    "line",
    [
        "D/storagenode version",
        "D/storagenode.sh run",
        "D/storagenode-keeper/bin/storagenode-remediate run --yes node1",
        "/usr/bin/python3 D/storagenode-keeper/bin/storagenode-remediate run",
        "/usr/bin/rsync D/data/storagenode run",
        "/usr/bin/docker run --name storagenode storjlabs/storagenode:latest",
        "/bin/sleep run",
        "",
    ],
)
def test_what_runs_no_node(folder: Path, line: str) -> None:
    assert recognize(line.replace("D/", f"{folder}/").split()) is None


def test_a_program_may_be_given_nothing() -> None:
    assert Command(program=Program.UPDATER, path="/bin/false", arguments=()).flag("service-name") is None
    assert (
        Command(program=Program.UPDATER, path="/bin/false", arguments=("--service-name",)).flag("service-name") is None
    )


def test_a_shells_text_is_not_looked_into(folder: Path) -> None:
    assert recognize(["/bin/sh", "-c", f"{folder}/storagenode run"]) is None
