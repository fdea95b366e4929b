"""A node's own settings: its flags, its environment and its config.yaml, which the node's user may write.

So nothing of them says where versions or binaries come from, no file is opened that could block, and an API address
is taken only if it is this host's.
"""

import os
import pwd
import re
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from exporter.commandline import Command
from exporter.identity import NodeIDError, node_id_from_certificates

DEFAULT_API = "127.0.0.1:14002"
_LARGEST_CONFIG_BYTES = 512 * 1024
_LARGEST_IDENTITY_BYTES = 64 * 1024
_LONGEST_LINE = 1024
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
"""What stands for every address of this host, and one of them."""
_VERSION_SERVER = "version.server-address"
_UPDATER_KEYS = frozenset(
    {
        "binary-location",
        "binary-store-dir",
        "log.output",
        "service-name",
        "version.check-interval",
        _VERSION_SERVER,
    }
)
_KEYS = _UPDATER_KEYS | {"console.address", "identity.cert-path", "storage.path"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a node is started: its command, where that is known, and whom and what it runs with."""

    command: Command | None
    user: str = ""
    """Empty for root."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node's settings say, under the keys of our configuration, and for what they do not say, why."""

    values: dict[str, str]
    unseen: dict[str, str]


def settings(launch: Launch, config_dir: Path | None = None) -> Settings:
    """Read what a node's settings say; flags go before the environment, that before config.yaml, as for the node.

    `config_dir` is where config.yaml is, if that is known better than by the flags.
    """
    seen = Settings({}, {})
    home = _storj_home(launch)
    _path(seen, "config_dir", config_dir or _flag(launch, "config-dir") or (home and f"{home}/storagenode"))
    if "config_dir" not in seen.values:
        seen.unseen.update(dict.fromkeys(("api", "identity", "storage"), "the node's config_dir is not known"))
        return seen
    directory = Path(seen.values["config_dir"])
    content = _config(directory / "config.yaml")
    in_file = content if isinstance(content, dict) else {}

    address = _setting(launch, "console.address", in_file)
    if address is None and isinstance(content, str):
        seen.unseen["api"] = f"{DEFAULT_API} is assumed: {content}"
    else:
        _api(seen, address or DEFAULT_API)
    storage = _setting(launch, "storage.path", in_file)
    if storage is None and isinstance(content, str):
        seen.unseen["storage"] = content
    else:
        _path(seen, "storage", storage or directory / "storage")
    identity = _setting(launch, "identity.cert-path", in_file)
    identity_dir = _flag(launch, "identity-dir") or (home and f"{home}/identity/storagenode")
    if identity is None and isinstance(content, str) and _flag(launch, "identity-dir") is None:
        seen.unseen["identity"] = content
    else:
        _path(seen, "identity", identity or (identity_dir and f"{identity_dir}/identity.cert"))
    return seen


def updater_settings(launch: Launch) -> dict[str, str]:
    """Return what an updater is told, under its own keys; what is its default or could not be seen is left out.

    It takes its settings as a node does, and as a rule from that node's config.yaml. This is to be compared and shown,
    and to find what an updater leaves behind, never to find what to run: the node's user may write it.
    """
    directory = _updater_directory(launch)
    content = _config(Path(directory, "config.yaml")) if directory else None
    in_file = content if isinstance(content, dict) else {}
    said = {key: _setting(launch, key, in_file) for key in _UPDATER_KEYS} | {"config-dir": directory}
    return {key: value for key, value in said.items() if value and value.isprintable()}


def updater_unread(launch: Launch) -> str | None:
    """Say why an updater's config.yaml cannot be read, so that what it leaves out need not be the default."""
    directory = _updater_directory(launch)
    if directory is None:
        return "its config_dir is not known"
    content = _config(Path(directory, "config.yaml"))
    return content if isinstance(content, str) else None


def _updater_directory(launch: Launch) -> str | None:
    home = _storj_home(launch)
    return _flag(launch, "config-dir") or (home and f"{home}/storagenode")


def version_server(launch: Launch, config_dir: Path) -> tuple[str | None, str | None]:
    """Return where a node asks for versions, None being its default, and why its config.yaml cannot be read.

    This is to be compared and shown, never to be asked: the node's user may write it.
    """
    content = _config(config_dir / "config.yaml")
    in_file = content if isinstance(content, dict) else {}
    return _setting(launch, _VERSION_SERVER, in_file), None if isinstance(content, dict) else content


def node_id(identity: str) -> str:
    """Compute the node ID from a certificate file.

    Raises:
        NodeIDError: it cannot be read, or is no identity.
    """
    try:
        return node_id_from_certificates(read_regular(identity, _LARGEST_IDENTITY_BYTES).decode("ascii", "replace"))
    except OSError as error:
        raise NodeIDError(f"{identity}: {error.strerror}") from None
    except ValueError as error:  # NodeIDError is one
        raise NodeIDError(f"{identity}: {error}") from None


def _storj_home(launch: Launch) -> str | None:
    """Return where a node keeps everything unless told otherwise (storj/common, fpath.ApplicationDir)."""
    data = launch.environment.get("XDG_DATA_HOME")
    home = launch.environment.get("HOME")
    if not data and not home:
        try:
            home = pwd.getpwnam(launch.user or "root").pw_dir
        except KeyError:
            return None
    return f"{data or f'{home}/.local/share'}/storj"


def _setting(launch: Launch, key: str, in_file: Mapping[str, str]) -> str | None:
    variable = "STORJ_" + re.sub("[.-]", "_", key).upper()
    return _flag(launch, key) or launch.environment.get(variable) or in_file.get(key)


def _flag(launch: Launch, name: str) -> str | None:
    return launch.command.flag(name) if launch.command else None


def _path(seen: Settings, key: str, value: str | Path | None) -> None:
    if value is None:
        seen.unseen[key] = "nothing says where it is"
        return
    text = str(value)
    if text.startswith("/") and text.isprintable() and ".." not in Path(text).parts:
        seen.values[key] = text
    else:
        seen.unseen[key] = f"found {text!r}, expected an absolute path without `..`"


def _api(seen: Settings, address: str) -> None:
    host, _, port = address.rpartition(":")
    host = _ANY.get(host, host)
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        seen.unseen["api"] = f"console.address is {address!r}, expected host:port"
    elif not _is_here(host):
        seen.unseen["api"] = f"console.address is {address!r}, which is not an address of this host"
    else:
        seen.values["api"] = f"{host}:{port}"


def _is_here(host: str) -> bool:
    """Whether an IP address is one of this host's: only those can be bound to."""
    family = socket.AF_INET6 if host.startswith("[") and host.endswith("]") else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            bare = host.strip("[]")
            socket.inet_pton(family, bare)
            probe.bind((bare, 0))
    except OSError:
        return False
    return True


def _config(path: Path) -> dict[str, str] | str:
    """Return the settings of a config.yaml that matter here, or why they cannot be told.

    The node writes them flat, one a line, and only those lines are parsed: the rest may be as large and deep as whoever
    writes it likes.
    """
    found: dict[str, str] = {}
    try:
        lines = {
            line.partition(":")[0].rstrip(): line
            for line in read_regular(path, _LARGEST_CONFIG_BYTES).decode().splitlines()
        }
        for key in _KEYS & lines.keys():
            value = yaml.safe_load(lines[key][:_LONGEST_LINE])[key]
            if isinstance(value, str | int) and value != "":
                found[key] = str(value)
    except OSError as error:
        return f"{path}: {error.strerror}"
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        return f"{path}: {str(error) or type(error).__name__}"
    return found


def read_regular(path: str | Path, limit: int) -> bytes:
    """Read a regular file; whoever may put another kind of file there must not make us wait.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or larger than `limit` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return content
