"""The version server's document, and upstream's rule for who updates to what. Pure."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from exporter.identity import NodeIDError, node_id_bytes
from exporter.version import NodeVersion, parse_field

STORAGENODE = "storagenode"
STORAGENODE_UPDATER = "storagenode-updater"


class UpdateState(StrEnum):
    """How the installed version stands against the allowed ones."""

    CURRENT = "current"
    WAITING = "waiting"
    """A newer version exists; the rollout has not reached this node."""
    DUE = "due"
    """A newer version exists, and the rollout has reached this node."""
    BELOW_MINIMUM = "below_minimum"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An update state with its target, or with the reason why it is unknown."""

    state: UpdateState
    target: NodeVersion | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A version and the URL template the document gives for it (may be empty)."""

    version: NodeVersion
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The allowed versions of one program."""

    minimum: Release
    suggested: Release
    seed: bytes
    cursor: bytes

    @property
    def consistent(self) -> bool:
        """Whether the minimum is not above the suggested version."""
        return self.minimum.version <= self.suggested.version


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedVersions:
    """The parsed document and when it was fetched, in Unix seconds."""

    processes: Mapping[str, Process]
    fetched: float


class DocumentError(ValueError):
    """A document that is not AllowedVersions."""


def rollout_position(seed: bytes, node_id: str) -> bytes:
    """Compute where a node stands in a rollout: it is a candidate when this is not above the cursor.

    Raises:
        NodeIDError: the text is not a node ID.
    """
    return hmac.digest(seed, node_id_bytes(node_id), "sha256")


def judge(installed: NodeVersion, process: Process, node_id: str | None) -> Verdict:
    """Apply upstream's update rule, in upstream's order (storj/common, version/version.go, ShouldUpdateVersion).

    The minimum is compared after the suggested version, and the target of a node below the minimum is the minimum.
    """
    if installed >= process.suggested.version:
        return Verdict(UpdateState.CURRENT)
    if installed < process.minimum.version:
        return Verdict(UpdateState.BELOW_MINIMUM, process.minimum.version)
    if node_id is None:
        return Verdict(UpdateState.UNKNOWN, reason="the rollout is computed from the node ID, which is not known")
    try:
        candidate = rollout_position(process.seed, node_id) <= process.cursor
    except NodeIDError as error:
        return Verdict(UpdateState.UNKNOWN, reason=str(error))
    return Verdict(UpdateState.DUE, process.suggested.version) if candidate else Verdict(UpdateState.WAITING)


def parse_document(body: bytes, *, fetched: float) -> AllowedVersions:
    """Read the version server's answer; unknown keys and the legacy top-level fields are ignored.

    Only the two programs this project handles have to make sense: upstream's own servers publish placeholders for
    others.

    Raises:
        DocumentError: not JSON, not the expected shape, or a version that does not parse; names the field.
    """
    try:
        document = _Document.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise DocumentError(f"{where}: {first['msg']}, found {str(first.get('input'))[:80]!r}") from None
    found = {STORAGENODE: document.processes.storagenode, STORAGENODE_UPDATER: document.processes.updater}
    processes = {
        name: Process(
            minimum=Release(version=process.minimum.version, url=process.minimum.url),
            suggested=Release(version=process.suggested.version, url=process.suggested.url),
            seed=process.rollout.seed,
            cursor=process.rollout.cursor,
        )
        for name, process in found.items()
        if process is not None
    }
    return AllowedVersions(processes=processes, fetched=fetched)


def _bytes32(value: object) -> bytes:
    """Decode as upstream does: empty is 32 zero bytes, shorter hex is aligned left."""
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError("expected at most 64 hex digits")
    return bytes.fromhex(value).ljust(32, b"\0")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)


class _Release(_Strict):
    version: Annotated[NodeVersion, BeforeValidator(parse_field)]
    url: str = ""


class _Rollout(_Strict):
    seed: Annotated[bytes, BeforeValidator(_bytes32)] = bytes(32)
    cursor: Annotated[bytes, BeforeValidator(_bytes32)] = bytes(32)


class _Process(_Strict):
    minimum: _Release
    suggested: _Release
    rollout: _Rollout = _Rollout()


class _Processes(_Strict):
    storagenode: _Process
    updater: Annotated[_Process | None, Field(alias=STORAGENODE_UPDATER)] = None


class _Document(_Strict):
    processes: _Processes
