"""The configuration: one YAML file for both programs, validated before anything is done with it."""

import os
import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from exporter import DEFAULT_CONFIG
from exporter.identity import NodeIDError, node_id_bytes
from exporter.nodefiles import DEFAULT_API

DEFAULT_PATH = Path(DEFAULT_CONFIG)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
T = TypeVar("T")


class ConfigError(Exception):
    """A configuration that cannot be used; the text names the file, the key, what was found and what was expected."""


def _duration(value: object) -> object:
    """Read a duration as Prometheus writes them, `1h30m`; a bare number is refused for want of a unit."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"(\d+(ms|[smhdw]))+", value):
        raise ValueError("expected a duration such as 30s, 5m or 1h30m")
    parts = re.findall(r"(\d+)(ms|[smhdw])", value)
    try:
        return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError("expected a shorter duration") from None


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("expected an absolute path without `..`")
    return path


def _web_address(url: str) -> str:
    """Accept https, and plain http to this very machine."""
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("expected an address such as https://version.storj.io")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ValueError("expected https (plain http is taken only to this machine)")
    return url.rstrip("/")


def _node_id(text: str) -> str:
    try:
        node_id_bytes(text)
    except NodeIDError as error:
        raise ValueError(str(error)) from None
    return text


Duration = Annotated[timedelta, BeforeValidator(_duration)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
WebAddress = Annotated[str, AfterValidator(_web_address)]


class Part(BaseModel):
    """A part of the configuration: unknown keys are errors, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SystemdService(Part):
    """A node that systemd starts and stops."""

    manager: Literal["systemd"] = "systemd"
    unit: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_.\\@-]{1,240}\.service$")]


class ProcessService(Part):
    """A node that is a bare process, started by an argument list."""

    manager: Literal["process"] = "process"
    pid_file: AbsolutePath | None = None
    start: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    user: str | None = None


class NodeConfig(Part):
    """One storage node on this host."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]
    service: Annotated[SystemdService | ProcessService, Field(discriminator="manager")]
    binary: AbsolutePath
    api: str | None = DEFAULT_API
    """None where that is assumed and would be another node's as well: what answers there need not be this one."""
    config_dir: AbsolutePath | None = None
    identity: AbsolutePath | None = None
    node_id: Annotated[str, AfterValidator(_node_id)] | None = None
    storage: AbsolutePath | None = None
    updater_service: SystemdService | None = None

    @field_validator("service", "updater_service", mode="before")
    @classmethod
    def _service(cls, value: object) -> object:
        """Read `systemd:storagenode.service`, `process`, or `process:` with its settings."""
        if value == "process":
            return {"manager": "process"}
        if isinstance(value, str):
            manager, _, unit = value.partition(":")
            if manager == "systemd" and unit:
                return {"manager": manager, "unit": unit}
        elif isinstance(value, dict) and set(value) == {"process"} and isinstance(value["process"], dict):
            return {"manager": "process", **value["process"]}
        elif isinstance(value, Part):
            return value
        raise ValueError("expected systemd:UNIT.service, process, or process: with pid_file, start and user")

    @field_validator("api")
    @classmethod
    def _api(cls, value: str | None) -> str | None:
        host, _, port = (value or "").rpartition(":")
        if not re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+", host) or not port.isdecimal() or int(port) > 65535:
            raise ValueError("expected host:port, such as 127.0.0.1:14002")
        return value


class WebConfig(Part):
    """How a program may be reached over HTTP."""

    token_file: AbsolutePath | None = None
    """Holds the bearer token every request must carry."""
    tls_cert_file: AbsolutePath | None = None
    """The certificate to serve TLS with, and what is between it and its root; PEM."""
    tls_key_file: AbsolutePath | None = None
    client_ca_file: AbsolutePath | None = None
    """Who signs the certificate that every client must show."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("found one of tls_cert_file and tls_key_file, expected both or neither")
        if self.client_ca_file and not self.tls_cert_file:
            raise ValueError("found client_ca_file alone, expected tls_cert_file and tls_key_file with it")
        return self


class Config(Part):
    """The whole file; `remediation` is read by the remediation alone."""

    version: Literal[1] = 1
    """Of the file's format; one that this program does not know is refused."""
    nodes: tuple[NodeConfig, ...]
    version_server: WebAddress = "https://version.storj.io"
    refresh: Duration = timedelta(minutes=5)
    allowed_versions_max_age: Duration = timedelta(hours=24)
    state_dir: AbsolutePath = Path("/var/lib/storagenode-exporter")
    web: WebConfig = WebConfig()
    remediation: Mapping[str, Any] = {}

    @field_validator("nodes")
    @classmethod
    def _one_api_each(cls, nodes: tuple[NodeConfig, ...]) -> tuple[NodeConfig, ...]:
        if [node.api for node in nodes].count(DEFAULT_API) < 2:
            return nodes
        assumed = [node.name for node in nodes if "api" not in node.model_fields_set]
        return tuple(node.model_copy(update={"api": None}) if node.name in assumed else node for node in nodes)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [node.name for node in self.nodes]
        if not names:
            raise ValueError("nodes: empty, expected at least one node")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"nodes: the name {name!r} is given to {names.count(name)} nodes, expected one each")
        return self

    def node(self, name: str) -> NodeConfig | None:
        """Find a node by its name."""
        return next((node for node in self.nodes if node.name == name), None)

    def sharing(self, binary: Path) -> tuple[NodeConfig, ...]:
        """Find the nodes whose binary is this file, given by its real path."""
        return tuple(node for node in self.nodes if os.path.realpath(node.binary) == str(binary))

    def chosen(self, names: Collection[str], *, source: Path) -> tuple[NodeConfig, ...]:
        """Take the nodes of these names, or all when none is named.

        Raises:
            ConfigError: there is no node of one of the names; `source` is where they would have to be.
        """
        for name in names:
            if self.node(name) is None:
                known = ", ".join(node.name for node in self.nodes)
                raise ConfigError(f"{source}: nodes: there is no {name!r}, expected one of: {known}")
        return tuple(node for node in self.nodes if node.name in names or not names)


def validate(kind: type[T], value: object, *, source: str) -> T:
    """Check a value against a part of the configuration.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_explain(dict(problem))}" for problem in error.errors())) from None


def load(path: Path) -> Config:
    """Read the configuration file.

    Raises:
        ConfigError: unreadable, not YAML, or not a valid configuration.
    """
    return validate(Config, read(path), source=str(path))


def read(path: Path) -> dict[str, Any]:
    """Read the keys and values of the configuration file, unchecked.

    Raises:
        ConfigError: unreadable, or not YAML.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: found {type(content).__name__}, expected keys and values such as `nodes:`")
    return content


def _explain(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if problem["type"] == "missing":
        return f"{where}: missing"
    found = "" if isinstance(problem["input"], dict) else f", found {str(problem['input'])[:100]!r}"
    return f"{where + ': ' if where else ''}{message}{found}"
