"""What vouches for an archive: the operator's digest, his list of digests, the release's digest, or only TLS."""

import hmac
import re

from pydantic import BaseModel, ValidationError

from remediate.journal import Outcome
from remediate.planned import Verify
from remediate.rules import VerifyMode
from remediate.steps import StepError
from remediate.steps.exchange import ask, later

_TIMEOUT = 30.0
_SIZE_LIMIT = 1 << 20
_OK = 200
_NOT_THERE = (404, 410)
_SHA256 = "[0-9a-fA-F]{64}"


class _Asset(BaseModel):
    name: str
    digest: str | None = None


class _ReleaseAnswer(BaseModel):
    assets: list[_Asset]


def verify(sha256: str, asked: Verify) -> str:
    """Compare an archive's digest, and say what vouches for it.

    Args:
        sha256: of the archive, in hex.
        asked: a person's own digest, if he gave one, and then nothing else counts; else whom to ask.

    Raises:
        StepError: a wrong digest (the version is to blame, or the person who gave the digest), or a digest that is
            demanded and cannot be had (later).
    """
    if asked.sha256 is not None:
        _compare(sha256, asked.sha256, "the given sha256", blame=Outcome.FAILED)
        return "the given sha256"
    if asked.mode is VerifyMode.TLS:
        return "TLS only"
    sources = (
        ("the sha256sums file", asked.sums_url, _listed),
        ("the release's digest", asked.digest_url, _published),
    )
    for name, url, digest in sources:
        if url is None:
            continue
        if (found := digest(url, asked.asset)) is not None:
            # Whether the archive or the digest is wrong, nobody here can tell: it is for a person to find out.
            _compare(sha256, found, name, blame=Outcome.BAD_VERSION)
            return name
        if asked.mode is VerifyMode.REQUIRE:
            raise later(f"{url}: no digest is published for {asked.asset}, and one is required")
    return "TLS only, since no digest is published"


def _compare(found: str, expected: str, what: str, *, blame: Outcome) -> None:
    if not hmac.compare_digest(found.lower(), expected.lower()):
        raise StepError(blame, f"wrong digest: the archive has sha256 {found}, {what} is {expected}")


def _listed(url: str, asset: str) -> str | None:
    """Ask for the operator's list; None where there is none. A list that lacks the asset does not vouch for it."""
    body = _document(url)
    if body is None:
        return None
    name = rf"(?:\./)?{re.escape(asset)}"
    line = rf"^(?:({_SHA256})[ \t]+\*?{name}|SHA256 \({name}\) = ({_SHA256}))[ \t\r]*$"
    found = {(gnu or bsd).lower() for gnu, bsd in re.findall(line, body.decode(errors="replace"), re.MULTILINE)}
    if len(found) != 1:
        raise later(f"{url}: lists {len(found) or 'no'} sha256 of {asset}, expected one")
    return str(found.pop())


def _published(url: str, asset: str) -> str | None:
    """Ask for the release's digest; None only where its description says that there is none."""
    body = _document(url)
    if body is None:
        raise later(f"{url}: answered that there is no such release")
    try:
        answer = _ReleaseAnswer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise later(f"{url}: not a release: {where}: {first['msg']}") from None
    for each in answer.assets:
        if each.name == asset:
            if each.digest is not None and not re.fullmatch(f"sha256:{_SHA256}", each.digest):
                raise later(f"{url}: the digest of {asset} is {each.digest[:80]!r}, expected sha256: and 64 hex digits")
            return each.digest and each.digest.removeprefix("sha256:")
    raise later(f"{url}: the release lists no {asset}")


def _document(url: str) -> bytes | None:
    """Get a small document; None where the server answers that there is none."""
    with ask(url, _TIMEOUT) as answer:
        if answer.status in _NOT_THERE:
            return None
        if answer.status != _OK:
            raise later(f"{answer.url}: answered {answer.status}, expected {_OK}")
        body = bytearray()
        for part in answer.parts:
            body += part
            if len(body) > _SIZE_LIMIT:
                raise later(f"{answer.url}: more than {_SIZE_LIMIT} bytes")
        return bytes(body)
