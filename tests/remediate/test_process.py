"""A bare process as it is started and stopped."""

import os
import pwd
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.config import NodeConfig
from exporter.services import process as reading
from exporter.status import ServiceState
from remediate.services import process
from remediate.services.errors import NoServiceError, ServiceError
from tests.remediate.conftest import Stage
from tests.simulators.node import Node


def node(stage: Stage, **service: Any) -> NodeConfig:
    settings = stage.nodes[0]
    known = {**settings["service"]["process"], **service}
    return NodeConfig.model_validate({**settings, "service": {"process": known}})


@pytest.fixture
def alpha(stage: Stage) -> NodeConfig:
    stage.versions.set(minimum="1.0.0")
    return node(stage)


def state(config: NodeConfig) -> ServiceState:
    return reading.reader(config).read(5).state


def test_a_node_is_started_once_and_stopped(stage: Stage, alpha: NodeConfig) -> None:
    control = process.control(alpha)
    control.start()
    pid = stage.pid()
    assert state(alpha) is ServiceState.RUNNING
    assert os.getsid(pid) == pid, "it outlives us and our terminal"
    assert Path(f"/proc/{pid}/environ").read_bytes() == f"PATH={os.defpath}\0".encode()
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    control.start()
    assert stage.pid() == pid, "it runs already"
    control.stop()
    assert state(alpha) is ServiceState.STOPPED
    control.stop()


def test_one_that_somebody_else_started_is_stopped_by_its_program(stage: Stage, alpha: NodeConfig) -> None:
    with Node(stage.binary, stage.root / "alpha") as started:
        started.api(stage.nodes[0]["api"])
        process.control(alpha).stop()
        assert started.process.wait(60) == 0


def test_another_nodes_process_of_the_same_binary_is_not_stopped(stage: Stage, alpha: NodeConfig) -> None:
    stage.add("beta")
    with Node(stage.binary, stage.root / "beta") as other:
        other.api(stage.nodes[1]["api"])
        (stage.root / "alpha.pid").write_text(f"{other.process.pid}\n")
        process.control(alpha).stop()
        assert other.process.poll() is None


def test_a_stop_that_takes_too_long_is_said(stage: Stage, alpha: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_STOP_SECONDS", 0.3)
    with Node(stage.binary, stage.root / "alpha") as started:
        started.api(stage.nodes[0]["api"])
        started.process.send_signal(signal.SIGSTOP)
        with pytest.raises(ServiceError, match=f"process {started.process.pid} has not ended within"):
            process.control(alpha).stop()
        assert started.process.poll() is None, "never killed"


def test_one_that_ends_by_itself_as_it_is_told_to_is_stopped(
    stage: Stage, alpha: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = process.control(alpha)
    control.start()
    real = os.kill

    def late(pid: int, number: int) -> None:
        real(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        real(pid, number)

    monkeypatch.setattr("remediate.services.process.os.kill", late)
    control.stop()
    assert state(alpha) is ServiceState.STOPPED


@pytest.mark.parametrize(
    ("service", "kind", "said"),
    [
        ({"start": None}, NoServiceError, "no start command is configured"),
        ({"start": ["/nowhere/storagenode", "run"]}, ServiceError, "/nowhere/storagenode could not be started"),
        ({"start": ["/etc/passwd"]}, ServiceError, "could not be started: .*Permission denied"),
    ],
)
def test_what_cannot_be_started(stage: Stage, service: dict[str, Any], kind: type[ServiceError], said: str) -> None:
    with pytest.raises(kind, match=said):
        process.control(node(stage, **service)).start()


def test_a_pid_file_that_is_a_link_is_not_followed(stage: Stage, alpha: NodeConfig) -> None:
    precious = stage.root / "precious"
    precious.write_text("precious")
    (stage.root / "alpha.pid").symlink_to(precious)
    with pytest.raises(ServiceError, match="could not be started"):
        process.control(alpha).start()
    assert precious.read_text() == "precious"
    assert state(alpha) is ServiceState.STOPPED, "nothing was started that could not be written down"


def test_a_pid_file_that_has_another_name_is_not_written(stage: Stage, alpha: NodeConfig) -> None:
    precious = stage.root / "precious"
    precious.write_text("precious")
    (stage.root / "alpha.pid").hardlink_to(precious)
    with pytest.raises(ServiceError, match="has another name"):
        process.control(alpha).start()
    assert precious.read_text() == "precious"
    assert state(alpha) is ServiceState.STOPPED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
def test_a_folder_for_the_pid_file_that_is_somebody_elses_link_is_not_followed(stage: Stage) -> None:
    (stage.root / "precious").mkdir()
    (stage.root / "run").symlink_to(stage.root / "precious")
    os.lchown(stage.root / "run", 12345, 12345)
    with pytest.raises(ServiceError, match="is a link of user 12345"):
        process.control(node(stage, pid_file=stage.root / "run/alpha.pid")).start()
    assert not any((stage.root / "precious").iterdir())


def test_a_shorter_number_leaves_nothing_of_a_longer_one(stage: Stage, alpha: NodeConfig) -> None:
    (stage.root / "alpha.pid").write_text("4194303999\n")
    process.control(alpha).start()
    assert Path(f"/proc/{stage.pid()}").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_it_is_started_as_its_user(stage: Stage) -> None:
    stage.versions.set(minimum="1.0.0")
    account = pwd.getpwnam("nobody")
    for folder in (stage.root, *stage.root.parents):
        if stat.S_IMODE(folder.stat().st_mode) & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o001)
    config = node(stage, user="nobody")
    process.control(config).start()
    time.sleep(0.1)
    status = Path(f"/proc/{stage.pid()}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    assert lines["Uid"].split() == [str(account.pw_uid)] * 4
    assert lines["Gid"].split() == [str(account.pw_gid)] * 4
    process.control(config).stop()
