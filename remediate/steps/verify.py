"""What vouches for an archive: the operator's digest, the release's digest, or only TLS."""

import hmac
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from exporter.sources.http import get
from exporter.status import Failure
from remediate.journal import Outcome
from remediate.rules import VerifyMode
from remediate.steps import StepError

_TIMEOUT = 30.0


class _Asset(BaseModel):
    name: str
    digest: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-fA-F]{64}$")] = None


class _ReleaseAnswer(BaseModel):
    assets: list[_Asset]


def verify(sha256: str, mode: VerifyMode, *, expected: str | None, digest_url: str, asset: str) -> str:
    """Compare an archive's digest, and say what vouches for it.

    Args:
        sha256: of the archive, in hex.
        mode: what the operator demands.
        expected: the operator's own digest, if he gave one; then nothing else is asked.
        digest_url: the release's description, asked by tag.
        asset: name of the archive in that release.

    Raises:
        StepError: a wrong digest (the version is to blame, or whoever gave the digest), or a digest that is demanded
            and cannot be had (later).
    """
    if expected is not None:
        _compare(sha256, expected, "the given sha256", blame=Outcome.FAILED)
        return "the given sha256"
    if mode is VerifyMode.TLS:
        return "TLS only"
    published = _published(digest_url, asset)
    if published is not None:
        _compare(sha256, published, "the release's digest", blame=Outcome.BAD_VERSION)
        return "the release's digest"
    if mode is VerifyMode.REQUIRE:
        raise StepError(Outcome.LATER, f"{digest_url}: no digest is published for {asset}, and one is required")
    return "TLS only, since the release publishes no digest"


def _compare(found: str, expected: str, what: str, *, blame: Outcome) -> None:
    if not hmac.compare_digest(found.lower(), expected.lower()):
        raise StepError(blame, f"wrong digest: the archive has sha256 {found}, {what} is {expected}")


def _published(url: str, asset: str) -> str | None:
    """Ask for the digest; None only where the service answers that there is none."""
    described = get(url, _TIMEOUT)
    if isinstance(described, Failure):
        raise StepError(Outcome.LATER, str(described))
    try:
        answer = _ReleaseAnswer.model_validate_json(described.body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StepError(Outcome.LATER, f"{url}: not a release: {where}: {first['msg']}") from None
    for each in answer.assets:
        if each.name == asset:
            return each.digest.removeprefix("sha256:") if each.digest else None
    raise StepError(Outcome.LATER, f"{url}: the release lists no {asset}")
