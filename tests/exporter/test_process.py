import os
import pwd
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from exporter.config import NodeConfig, ProcessService
from exporter.services import process
from exporter.services.process import ProcessReader
from exporter.status import ServiceState
from tests.exporter.process_cases import CASES, HIDDEN, Case
from tests.labs import require_root

ME = pwd.getpwuid(os.getuid()).pw_name
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A program of our own that waits for ever when told to run, whatever else it is told."""
    source = tmp_path / "node.c"
    source.write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    path = tmp_path / "storagenode"
    subprocess.run(["cc", "-o", path, source], check=True)
    return path


def look(
    binary: Path, *, pid_file: Path | None = None, user: str | None = ME, config_dir: Path | None = None
) -> object:
    status = reader(binary, pid_file=pid_file, user=user, config_dir=config_dir).read(60)
    assert (status.pid is None) == (status.state is not ServiceState.RUNNING)
    return status.state if status.pid is None else status.pid


def reader(
    binary: Path, *, pid_file: Path | None = None, user: str | None = ME, config_dir: Path | None = None
) -> ProcessReader:
    service = ProcessService(pid_file=pid_file, user=user)
    return ProcessReader(NodeConfig(name="n1", service=service, binary=binary, config_dir=config_dir), service)


@contextmanager
def started(binary: Path, *arguments: str) -> Iterator[int]:
    running = subprocess.Popen([binary, *(arguments or ["run"])])
    try:
        yield running.pid
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_called_what(case: Case, binary: Path, tmp_path: Path) -> None:
    with case.done(tmp_path):
        assert reader(binary, pid_file=tmp_path / "pid").read(60).state is case.state


def test_a_process_of_the_binary_is_the_node(binary: Path, tmp_path: Path) -> None:
    assert look(binary) is ServiceState.STOPPED
    with started(binary) as pid:
        assert look(binary) == pid
        status = reader(binary).read(60)
        assert status.since == pytest.approx(time.time(), abs=60)
        # By whatever name it was started.
        (tmp_path / "link").symlink_to(binary)
        assert look(tmp_path / "link") == pid
        other = tmp_path / "copy"
        shutil.copy(binary, other)
        assert look(other) is ServiceState.STOPPED
    assert look(binary) is ServiceState.STOPPED


def test_a_dead_process_nobody_has_waited_for_does_not_run(binary: Path) -> None:
    with started(binary) as pid:
        os.kill(pid, 9)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert look(binary) is ServiceState.STOPPED


def test_another_command_of_the_binary_is_not_the_node(binary: Path) -> None:
    with started(binary, "version", "--config-dir", "/tmp/x"):
        assert look(binary) is ServiceState.STOPPED


def test_a_process_whose_file_was_replaced_still_runs(binary: Path, tmp_path: Path) -> None:
    with started(binary) as pid:
        os.link(binary, tmp_path / "backup")
        shutil.copy(binary, tmp_path / "new")
        (tmp_path / "new").rename(binary)
        assert look(binary) == pid
        binary.unlink()
        assert look(binary) == pid


def test_nodes_that_share_a_binary_are_told_apart(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "linked").symlink_to("one")
    with started(binary, "run", "--config-dir", f"{tmp_path}/one/") as one:
        assert look(binary, config_dir=tmp_path / "one") == one
        assert look(binary, config_dir=tmp_path / "linked") == one
        assert look(binary, config_dir=tmp_path / "two") is ServiceState.STOPPED
        with started(binary, "run", f"--config-dir={tmp_path}/two") as two:
            assert look(binary, config_dir=tmp_path / "two") == two
            assert look(binary, config_dir=tmp_path / "one") == one


def test_the_pid_file_names_the_node_among_several(binary: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with started(binary) as one, started(binary) as two:
        for pid in (one, two):
            pid_file.write_text(f"{pid}\n")
            assert look(binary, pid_file=pid_file) == pid
        pid_file.unlink()
        assert look(binary, pid_file=pid_file) in (one, two)


@pytest.mark.parametrize("content", ["", "nonsense", "-1", "0", "99999999", "ourselves", "1" * 5000])
def test_a_pid_file_that_names_another_process_is_no_proof(binary: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()) if content == "ourselves" else content)
    assert look(binary, pid_file=tmp_path / "pid") is ServiceState.STOPPED
    with started(binary) as pid:
        assert look(binary, pid_file=tmp_path / "pid") == pid


def test_a_pid_file_that_cannot_be_read_is_unknown(binary: Path, tmp_path: Path) -> None:
    status = reader(binary, pid_file=tmp_path).read(60)
    assert status.state is ServiceState.UNKNOWN
    assert f"{tmp_path}: Is a directory" in status.detail


def test_a_process_that_is_just_being_executed_runs(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program is known before its arguments are: whoever has started it may look in between."""
    folder = tmp_path / "proc" / "77"
    folder.mkdir(parents=True)
    (folder / "exe").symlink_to(binary)
    (folder / "stat").write_text("77 (storagenode) S" + " 0" * 20)
    (tmp_path / "proc/stat").write_text("btime 1\n")
    (folder / "cmdline").touch()
    monkeypatch.setattr(process, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(process, "_EXEC_TRIES", 6000)
    later = Timer(0.05, (folder / "cmdline").write_bytes, [b"storagenode\0run\0"])
    later.start()
    assert reader(binary).read(60).state is ServiceState.RUNNING
    later.join()


def test_a_missing_binary_does_not_run(tmp_path: Path) -> None:
    assert look(tmp_path / "none") is ServiceState.STOPPED


def test_a_user_that_does_not_exist_is_unknown(binary: Path) -> None:
    status = reader(binary, user="nobody-of-this-name").read(60)
    assert status.state is ServiceState.UNKNOWN
    assert "nobody-of-this-name" in status.detail


OTHERS = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from tests.exporter.test_process import reader
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    status = reader(Path(sys.argv[1]), user=sys.argv[2] or None).read(60)
    print(status.state, status.detail)
    """
)


def as_nobody(binary: Path, command: str, user: str, *, mount: str = ":") -> str:
    """Look as another user who may not see into the process, on a host of its own where pid 2 is the node."""
    require_root()
    for folder in binary.parents[: len(binary.parents) - 2]:
        folder.chmod(0o755)
    begun = 'until [ "/proc/$!/exe" -ef "$0" ]; do :; done'
    script = f'{mount}; "$0" {command} & {begun}; "$@"; status=$?; kill $!; exit $status'
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    look = [sys.executable, "-c", OTHERS, str(binary), user]
    done = subprocess.run(
        [*namespaces, "sh", "-c", script, binary, *look], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_process_we_may_not_look_into_is_unknown_if_it_may_be_the_node(binary: Path) -> None:
    assert as_nobody(binary, "run", "root").startswith(f"{HIDDEN[0][1]} process 2 may be the node")
    assert as_nobody(binary, "run", "").startswith("unknown process 2 may be the node")
    # Not if the node is known to run as somebody else, nor if it is another command.
    assert as_nobody(binary, "run", "nobody").startswith("stopped ")
    assert as_nobody(binary, "version", "root").startswith("stopped ")


def test_where_proc_hides_others_the_node_is_unknown(binary: Path) -> None:
    hidden = as_nobody(binary, "run", "root", mount="mount -o remount,hidepid=2 /proc")
    assert hidden.startswith(f"{HIDDEN[1][1]} /proc hides the processes of others")
