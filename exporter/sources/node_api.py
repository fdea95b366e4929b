"""What the running node says of itself over its own API."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from exporter.sources.http import get
from exporter.status import Failure, FailureReason, RunningNode
from exporter.version import NodeVersion, parse_field


class _Answer(BaseModel):
    """The fields of `/api/sno/` that matter here (storj/storj, storagenode/console/service.go, Dashboard)."""

    model_config = ConfigDict(frozen=True, strict=True, arbitrary_types_allowed=True)

    node_id: Annotated[str, Field(alias="nodeID", max_length=100)]
    version: Annotated[NodeVersion, BeforeValidator(parse_field)]
    allowed_version: Annotated[NodeVersion, Field(alias="allowedVersion"), BeforeValidator(parse_field)]
    started: Annotated[AwareDatetime, Field(alias="startedAt")]
    last_contact: Annotated[AwareDatetime, Field(alias="lastPinged")]


def read(address: str | None, timeout: float) -> RunningNode | Failure:
    """Ask the node API at `host:port`, within `timeout` seconds in all; where that is not known, nobody is asked.

    Unknown paths of that server are answered with 200 and a web page, so the content type is part of the answer.
    """
    if address is None:
        reason = "its address is not known, and with several nodes none is assumed: set `api`"
        return Failure(FailureReason.NOT_FOUND, reason)
    url = f"http://{address}/api/sno/"
    answer = get(url, timeout)
    if isinstance(answer, Failure):
        return answer
    if answer.content_type != "application/json":
        return Failure(FailureReason.MALFORMED, f"{url}: found {answer.content_type[:100]}, expected application/json")
    try:
        node = _Answer.model_validate_json(answer.body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        return Failure(FailureReason.MALFORMED, f"{url}: {where}: {first['msg']}")
    return RunningNode(
        version=node.version,
        node_id=node.node_id,
        allowed_version=None if node.allowed_version == NodeVersion(0) else node.allowed_version,
        started=_seconds(node.started),
        last_contact=_seconds(node.last_contact),
    )


def _seconds(time: datetime) -> float | None:
    """Convert to Unix seconds; Go's zero time, the year 1, stands for never."""
    return None if time.year <= 1 else time.timestamp()
