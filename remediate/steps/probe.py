"""Running a binary for its version with the least rights at hand, whoever wrote it."""

import errno
import os
import pwd
import secrets
import stat
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from exporter.config import Config, ConfigError
from exporter.sources.binary import Completed, Execute, parse_version_output, run_directly
from exporter.version import NodeVersion
from remediate.journal import Outcome
from remediate.rules import Rules
from remediate.services.errors import ServiceError
from remediate.services.systemd import connected
from remediate.steps import StepError

_BOOTED_WITH_SYSTEMD = Path("/run/systemd/system")
_OUTPUT_LIMIT = 64 << 10
_PROBE_SECONDS = 20.0
_LARGEST_COPY = 512 << 20
"""Ten times a release. A file may be a hole of terabytes, which costs its owner nothing, and a copy all our memory."""
_MOST_PROCESSES = 64
_NEEDED = frozenset({"bin", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "sbin", "usr", "dev", "proc", "sys"})
"""What a program that is linked to its host's libraries needs of `/`."""
_PROTECTED = frozenset({"home", "root", "tmp"})
"""What other settings of the unit take away."""
_LINKER_CACHE = "/etc/ld.so.cache"
_FLAGS = ("version", "--tracing.enabled=false", "--metrics.addr=")


def hidden(config: Config) -> list[Path]:
    """List what no binary may see while it is run for its version: the nodes' data and identities."""
    return [path for node in config.nodes for path in (node.config_dir, node.identity, node.storage) if path]


def executor(hidden: Sequence[Path], rules: Rules) -> Execute:
    """Choose how binaries are run: confined by systemd, else by a user without rights; as ourselves if we are not root.

    Args:
        hidden: what must not be seen while one runs: the nodes' data and identities.
        rules: names the user.

    Raises:
        ConfigError: there is no such user.
    """
    if os.geteuid() != 0:
        return run_directly
    if _BOOTED_WITH_SYSTEMD.is_dir():
        return partial(_run_for_strangers, partial(_run_confined, hidden))
    try:
        user = pwd.getpwnam(rules.probe_user)
    except KeyError:
        raise ConfigError(f"remediation.probe_user: there is no user {rules.probe_user!r} on this host") from None
    return partial(_run_for_strangers, partial(run_directly, user=user))


def probe(binary: int, target: NodeVersion, execute: Execute) -> None:
    """Demand of an open binary that it is a release build of the target.

    Raises:
        StepError: it is not, or does not say (the version is to blame), or it could not be run at all (this host is).
    """
    try:
        completed = execute(binary, _FLAGS, _PROBE_SECONDS)
        version, release = parse_version_output(completed.stdout)
    except TimeoutError:
        raise _bad(f"the new binary did not print its version within {_PROBE_SECONDS:.0f} s") from None
    except ValueError as error:
        raise _bad(f"the new binary does not say its version: {error}") from None
    except (OSError, ServiceError) as error:
        raise StepError(Outcome.FAILED, f"the new binary could not be run: {error}") from None
    if completed.exit_code != 0:
        raise _bad(f"the new binary ended with exit code {completed.exit_code} when asked for its version")
    if version != target:
        raise _bad(f"the new binary is {version}, expected {target}")
    if not release:
        raise _bad("the new binary is a development build, expected a release")


def _bad(detail: str) -> StepError:
    return StepError(Outcome.BAD_VERSION, detail)


def _run_for_strangers(execute: Execute, binary: int, arguments: Sequence[str], timeout: float) -> Completed:
    """Run a file as a user who is not its owner; of one that only its owner may run, a copy in memory."""
    status = os.fstat(binary)
    if status.st_mode & stat.S_IXOTH:
        return execute(binary, arguments, timeout)
    if status.st_size > _LARGEST_COPY:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    copy = os.memfd_create("storagenode")
    try:
        done = 0
        while sent := os.sendfile(copy, binary, done, status.st_size - done):
            done += sent
        return execute(copy, arguments, timeout)
    finally:
        os.close(copy)


def _run_confined(hidden: Sequence[Path], binary: int, arguments: Sequence[str], timeout: float) -> Completed:
    """Run the open file in a transient unit: its descriptor, and two files to write to, are all it gets of the host.

    Execution goes through standard input, so that what runs is what was opened, wherever its name leads by now.
    """
    unit = f"storagenode-keeper-probe-{secrets.token_hex(8)}.service"
    stdout, stderr = os.memfd_create("stdout"), os.memfd_create("stderr")
    started = time.monotonic()
    try:
        with connected() as systemd:
            properties = _properties((binary, stdout, stderr), arguments, hidden, timeout)
            result = systemd.job("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", properties, [])
        if result != "done" and time.monotonic() - started >= timeout:
            raise TimeoutError
        said = [os.pread(fd, _OUTPUT_LIMIT, 0) for fd in (stdout, stderr)]
        return Completed(0 if result == "done" else 1, *said)
    except ServiceError as error:
        raise OSError(errno.EIO, str(error)) from None
    finally:
        os.close(stdout)
        os.close(stderr)


def _properties(
    files: tuple[int, int, int], arguments: Sequence[str], hidden: Sequence[Path], timeout: float
) -> list[tuple[str, tuple[str, Any]]]:
    standard_input, stdout, stderr = files
    usec = int(timeout * 1e6)
    return [
        ("Description", ("s", "Asks a storage node binary for its version")),
        ("Type", ("s", "oneshot")),
        ("ExecStart", ("a(sasb)", [("/proc/self/fd/0", ["storagenode", *arguments], False)])),
        ("StandardInputFileDescriptor", ("h", standard_input)),
        ("StandardOutputFileDescriptor", ("h", stdout)),
        ("StandardErrorFileDescriptor", ("h", stderr)),
        ("TimeoutStartUSec", ("t", usec)),
        ("TimeoutStopUSec", ("t", 1_000_000)),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("DynamicUser", ("b", True)),
        ("ProtectSystem", ("s", "strict")),
        ("ProtectHome", ("s", "yes")),
        ("ProtectProc", ("s", "invisible")),
        ("ProtectKernelTunables", ("b", True)),
        ("ProtectControlGroups", ("b", True)),
        ("PrivateDevices", ("b", True)),
        ("PrivateNetwork", ("b", True)),
        ("PrivateTmp", ("b", True)),
        ("RestrictAddressFamilies", ("(bas)", (True, []))),
        ("RestrictNamespaces", ("t", 0)),
        ("NoNewPrivileges", ("b", True)),
        ("CapabilityBoundingSet", ("t", 0)),
        ("TemporaryFileSystem", ("a(ss)", [(folder, "ro") for folder in _needless_folders()])),
        ("BindReadOnlyPaths", ("a(ssbt)", [(_LINKER_CACHE, _LINKER_CACHE, True, 0)])),
        ("InaccessiblePaths", ("as", [f"-{path}" for path in hidden])),
        ("LimitFSIZE", ("t", _OUTPUT_LIMIT)),
        ("MemoryMax", ("t", 1 << 30)),
        ("TasksMax", ("t", _MOST_PROCESSES)),
        ("LimitNPROC", ("t", _MOST_PROCESSES)),  # the same, where there is no controller for it
    ]


def _needless_folders() -> list[str]:
    """List what to empty for the program: a node's data may lie anywhere, and be open to everybody.

    `TemporaryFileSystem=/` does not do it: with `ProtectSystem=strict` the host's root stays (seen with systemd 252).
    """
    with os.scandir("/") as entries:
        folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    return [f"/{name}" for name in sorted(folders - _NEEDED - _PROTECTED)]
