"""What the node's user, or the file system, can put in our way; and what a new file has to take over."""

import errno
import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from remediate import files
from remediate.files import Directory, dress, real_path, replace
from remediate.journal import Outcome, Run
from remediate.steps import StepError, swap
from tests.remediate.conftest import OLD, Stage
from tests.simulators import build

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
STAGED = ".storagenode.keeper-new"
BACKUP = f".storagenode.keeper-old-{OLD}"
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective


def assert_refused_early(stage: Stage, run: Run, said: str) -> None:
    """Known before anything was fetched."""
    assert run.outcome is Outcome.FAILED, run.detail
    assert said in run.detail
    assert "Errno" not in run.detail
    assert not [entry for entry in run.journal if entry.step == "fetch"]
    assert build.sha256(stage.binary) == build.sha256(stage.old)


@contextmanager
def mounted(folder: Path, *options: str, source: str = "tmpfs") -> Iterator[None]:
    done = subprocess.run(["mount", *options, source, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def attribute(path: Path, letter: str) -> Iterator[None]:
    done = subprocess.run(["chattr", f"+{letter}", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no such attribute on this file system: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{letter}", str(path)], check=True)


@pytest.mark.parametrize("name", [STAGED, BACKUP])
@pytest.mark.parametrize("trap", ["symlink", "dangling", "fifo", "file"])
def test_what_stands_where_our_files_go_is_removed_and_not_followed(stage: Stage, name: str, trap: str) -> None:
    precious = stage.root / "precious"
    precious.write_text("precious")
    match trap:
        case "symlink":
            (stage.folder / name).symlink_to(precious)
        case "dangling":
            (stage.folder / name).symlink_to(stage.root / "nowhere")
        case "fifo":
            os.mkfifo(stage.folder / name)
        case "file":
            (stage.folder / name).write_text("leftover")
    run = stage.ran()
    assert run.outcome is Outcome.UPDATED, run.detail
    stage.assert_updated()
    assert precious.read_text() == "precious"
    assert not (stage.root / "nowhere").exists()


@pytest.mark.parametrize("name", [STAGED, BACKUP])
def test_a_directory_where_our_files_go_is_for_a_person(stage: Stage, name: str) -> None:
    (stage.folder / name).mkdir()
    (stage.folder / name / "precious").touch()
    run = stage.ran()
    assert_refused_early(stage, run, f"{stage.folder / name}: is a directory")
    assert (stage.folder / name / "precious").exists()


def test_a_directory_among_the_backups_keeps_no_update_from_being_done(stage: Stage) -> None:
    (stage.folder / ".storagenode.keeper-old-trap").mkdir()
    (stage.folder / ".storagenode.keeper-old-1.90.0").touch()
    run = stage.ran()
    assert run.outcome is Outcome.UPDATED, run.detail
    assert stage.entries() == [BACKUP, ".storagenode.keeper-old-trap", "storagenode"]


def test_a_staged_file_that_is_replaced_is_not_installed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_it(fd: int, *, like: int) -> None:
        (stage.folder / STAGED).unlink()
        (stage.folder / STAGED).symlink_to("/bin/true")
        dress(fd, like=like)

    monkeypatch.setattr("remediate.steps.swap.dress", replace_it)
    run = stage.ran()
    assert run.outcome is Outcome.FAILED
    assert "is not the file that was probed" in run.detail
    stage.assert_untouched()


def test_a_folder_that_is_replaced_while_we_work_is_left_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = stage.root / "aside"

    def move_away(fd: int, *, like: int) -> None:
        dress(fd, like=like)
        stage.folder.rename(aside)
        stage.folder.mkdir()
        stage.install(stage.old)

    monkeypatch.setattr("remediate.steps.swap.dress", move_away)
    run = stage.ran()
    assert run.outcome is Outcome.ABANDONED, run.detail
    assert "somebody has" in run.detail
    stage.assert_untouched()
    assert os.listdir(aside) == ["storagenode"]
    assert build.sha256(aside / "storagenode") == build.sha256(stage.old)


def test_a_binary_that_is_replaced_while_we_work_is_left_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def update_it(fd: int, *, like: int) -> None:
        dress(fd, like=like)
        stage.install(stage.old)

    monkeypatch.setattr("remediate.steps.swap.dress", update_it)
    run = stage.ran()
    assert run.outcome is Outcome.ABANDONED
    assert "somebody has changed it meanwhile" in run.detail
    assert run.exit_code == 3
    stage.assert_untouched()


@root_only
def test_owner_mode_and_attributes_are_carried_over(stage: Stage) -> None:
    os.chown(stage.binary, 12345, 54321)
    stage.binary.chmod(0o4751)
    attributes = {"user.note": b"ours", "security.capability": CAPABILITY}
    kept = {}
    for name, value in attributes.items():
        with suppress(OSError):  # not every file system has every kind
            os.setxattr(stage.binary, name, value)
            kept[name] = value
    run = stage.ran()
    assert run.outcome is Outcome.UPDATED, run.detail
    status = stage.binary.stat()
    assert (status.st_uid, status.st_gid) == (12345, 54321)
    assert stat.S_IMODE(status.st_mode) == 0o751, "set-user-ID is not for a node"
    assert {name: os.getxattr(stage.binary, name) for name in os.listxattr(stage.binary)} == kept
    assert kept, "this file system has no attributes at all"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_hard_links_are_refused_the_backup_is_a_copy(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("remediate.files.os.link", refuse)
    before = stage.binary.stat()
    run = stage.ran()
    assert run.outcome is Outcome.UPDATED, run.detail
    stage.assert_updated()
    backup = stage.folder / BACKUP
    assert build.sha256(backup) == build.sha256(stage.old)
    assert backup.stat().st_ino != before.st_ino
    assert backup.stat().st_mode == before.st_mode


@root_only
def test_too_little_room_is_known_before_the_download(stage: Stage) -> None:
    with mounted(stage.folder, "-t", "tmpfs", "-o", "size=1m"):
        stage.install(stage.old)
        run = stage.ran()
        assert_refused_early(stage, run, "bytes are free")
        assert stage.entries() == ["storagenode"]


@root_only
def test_no_room_left_while_unpacking(stage: Stage, tmp_path: Path) -> None:
    stage.publish(build.node("1.104.5", tmp_path / "large", pad=4 << 20))
    with mounted(stage.folder, "-t", "tmpfs", "-o", "size=4m"):
        stage.install(stage.old)
        run = stage.ran()
        assert run.outcome is Outcome.FAILED, run.detail
        assert "No space left on device" in run.detail
        assert "Errno" not in run.detail
        stage.assert_untouched()


@root_only
def test_no_room_left_for_the_archive(stage: Stage, tmp_path: Path) -> None:
    stage.publish(build.node("1.104.5", tmp_path / "large", pad=4 << 20))
    stage.state_dir.mkdir()
    with mounted(stage.state_dir, "-t", "tmpfs", "-o", "size=2m"):
        run = stage.ran()
        assert run.outcome is Outcome.FAILED, run.detail
        assert "No space left on device" in run.detail
        assert "Errno" not in run.detail
    stage.assert_untouched()


@root_only
def test_a_read_only_file_system(stage: Stage) -> None:
    with mounted(stage.folder, "--bind", source=str(stage.folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(stage.folder)], check=True)
        assert_refused_early(stage, stage.ran(), "cannot be written: Read-only file system")


@root_only
def test_a_file_system_where_nothing_may_be_run(stage: Stage) -> None:
    with mounted(stage.folder, "--bind", source=str(stage.folder)):
        with Directory(stage.folder) as directory:
            subprocess.run(["mount", "-o", "remount,bind,noexec", str(stage.folder)], check=True)
            assert os.fstatvfs(directory.fd).f_flag & os.ST_NOEXEC
        report = stage.run()
        # What cannot be run cannot even say its version.
        assert report.exit_code == 3
        assert "Permission denied" in str(report)
        stage.assert_untouched()


@root_only
def test_a_folder_that_may_not_be_changed(stage: Stage) -> None:
    with attribute(stage.folder, "i"):
        assert_refused_early(stage, stage.ran(), "cannot be written: Operation not permitted")


@root_only
@pytest.mark.parametrize("letter", ["i", "a"])
def test_a_binary_that_may_not_be_replaced(stage: Stage, letter: str) -> None:
    with attribute(stage.binary, letter):
        assert_refused_early(stage, stage.ran(), "may not be replaced")
        stage.assert_untouched()


def test_replace_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    replace(path, b"one", mode=0o644)
    replace(path, b"two", mode=0o640)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_directory_is_worked_in_by_descriptor(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with Directory(folder) as directory:
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        os.close(directory.create("new", 0o600))
        assert fcntl.fcntl(directory.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.listdir(tmp_path / "moved") == ["new"]
    assert os.listdir(folder) == []


def test_a_directory_that_was_reached_over_a_link_is_not_in_place(tmp_path: Path) -> None:
    """Somebody who owns a folder above puts a link in its place between the look and the opening."""
    for place in ("his", "roots"):
        (tmp_path / place / "bin").mkdir(parents=True)
    with Directory(tmp_path / "his/bin") as directory:
        assert directory.in_place()
    (tmp_path / "his").rename(tmp_path / "away")
    (tmp_path / "his").symlink_to(tmp_path / "roots")
    with Directory(tmp_path / "his/bin") as directory:
        assert not directory.in_place()


@root_only
def test_only_links_of_who_may_write_where_they_lead_are_followed(tmp_path: Path) -> None:
    nobody = 65534
    for place in ("his", "his/below", "roots"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "storagenode").touch()
    for place in ("his", "his/below"):
        os.chown(tmp_path / place, nobody, nobody)
    links = {"to-root": "../roots/storagenode", "to-his": "below/storagenode", "twice": "to-root", "loop": "loop"}
    for name, target in links.items():
        (tmp_path / "his" / name).symlink_to(target)
        os.chown(tmp_path / "his" / name, nobody, nobody, follow_symlinks=False)
    (tmp_path / "roots/link").symlink_to(tmp_path / "his/below/../to-his")
    assert real_path(tmp_path / "his/to-his") == tmp_path / "his/below/storagenode"
    assert real_path(tmp_path / "roots/link") == tmp_path / "his/below/storagenode"
    for name in ("to-root", "twice", "loop"):
        with pytest.raises(OSError) as refused:
            real_path(tmp_path / "his" / name)
        assert str(refused.value.filename).startswith(str(tmp_path / "his"))
    os.chown(tmp_path / "his/to-root", 0, 0, follow_symlinks=False)
    assert real_path(tmp_path / "his/to-root") == tmp_path / "roots/storagenode"


@root_only
def test_a_link_of_the_nodes_user_to_a_binary_of_roots_is_not_for_us(stage: Stage) -> None:
    link = stage.root / "his/storagenode"
    link.parent.mkdir()
    link.symlink_to(stage.binary)
    stage.nodes[0]["binary"] = str(link)
    assert stage.ran().outcome is Outcome.UPDATED, "a link of root's"
    stage.binary.with_name(BACKUP).unlink()
    stage.install(stage.old)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    run = stage.ran()
    assert (run.outcome, run.exit_code) == (Outcome.ABANDONED, 3)
    assert f"{link}: is a link of user 65534" in run.detail
    stage.assert_untouched()


def test_nothing_but_a_regular_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    with Directory(tmp_path) as directory:
        for name in ("fifo", "link", "folder", "nothing"):
            with pytest.raises(OSError):
                directory.open(name)
        with pytest.raises(FileExistsError):
            directory.create("link", 0o600)
        assert directory.stat("nothing") is None
        assert directory.remove("link") is True
        assert directory.remove("link") is False
    with pytest.raises(OSError):
        Directory(tmp_path / "link")


def test_a_copy_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_COPY_CHUNK", 1000)
    content = os.urandom(4321)
    (tmp_path / "a").write_bytes(content)
    with Directory(tmp_path) as directory:
        directory._copy("a", "b")
    assert (tmp_path / "b").read_bytes() == content


@root_only
def test_a_file_put_in_the_binarys_place_lends_nothing_to_the_new_one(tmp_path: Path) -> None:
    """Its folder's owner does that between two looks of ours."""
    (tmp_path / "storagenode").write_bytes(b"old")
    with Directory(tmp_path) as directory:
        old = swap.inode(directory, "storagenode")
        assert old is not None
        staged = directory.create("new", 0o755)
        (tmp_path / "other").write_bytes(b"another's")
        os.chown(tmp_path / "other", 4242, 4242)
        (tmp_path / "other").rename(tmp_path / "storagenode")
        with pytest.raises(StepError, match="somebody has changed it") as refused:
            swap.dress_like(directory, "storagenode", old, staged)
        assert refused.value.outcome is Outcome.ABANDONED
        assert os.fstat(staged).st_uid == os.geteuid()
        os.close(staged)
