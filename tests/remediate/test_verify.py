"""What vouches for an archive, in every mode, whatever the operator's list and the release's description answer."""

import hashlib
import json
from collections.abc import Iterator

import pytest

from remediate.journal import Outcome
from remediate.planned import Verify
from remediate.rules import VerifyMode
from remediate.steps import StepError, verify
from tests.exporter.hostile import answer, server
from tests.simulators.build import ASSET
from tests.simulators.download_host import DownloadHost

SHA256 = hashlib.sha256(b"the archive").hexdigest()
LIST, RELEASE = "the sha256sums file", "the release's digest"
VOUCHES, WRONG, NONE, LATER = "vouches", "wrong", "none", "later"
ANYWHERE = dict.fromkeys(["status:403", "status:429", "status:500", "html", "endless", "down", "close"], LATER)
ANYWHERE |= dict.fromkeys(["not-http", "slow-head:20", "head-flood", "redirect-flood", "chunked-garbage"], LATER)
SUMS = {"ok": VOUCHES, "bsd": VOUCHES, "upstream": VOUCHES, "wrong": WRONG, "status:404": NONE, "status:410": NONE}
SUMS |= ANYWHERE | dict.fromkeys(["missing", "twice", "malformed"], LATER)
DIGESTS = {"ok": VOUCHES, "wrong": WRONG, "other": WRONG, "none": NONE}
DIGESTS |= ANYWHERE | dict.fromkeys(["missing", "malformed", "algorithm", "status:404"], LATER)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DownloadHost]:
    folder = tmp_path_factory.mktemp("releases")
    (folder / "1.104.5").mkdir()
    (folder / "1.104.5" / ASSET).write_bytes(b"the archive")
    with DownloadHost(folder) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_TIMEOUT", 0.4)


def asked(host: DownloadHost, mode: VerifyMode, *, sums: bool = True, sha256: str | None = None) -> Verify:
    address = host.sums.replace("{version}", "1.104.5") if sums else None
    return Verify(mode, sha256, address, f"{host.tags}/v1.104.5", ASSET)


def said(step: Verify) -> str:
    """Say what vouches, or how the step fails."""
    try:
        return verify.verify(SHA256, step)
    except StepError as error:
        assert error.detail.isprintable()
        assert len(error.detail) < 400
        return error.outcome


def expected(mode: VerifyMode, sums: str | None, digests: str) -> str:
    if mode is VerifyMode.TLS:
        return "TLS only"
    for name, found in ((LIST, sums), (RELEASE, digests)):
        match found:
            case "vouches":
                return name
            case "wrong":
                return Outcome.BAD_VERSION
            case "later":
                return Outcome.LATER
            case "none" if mode is VerifyMode.REQUIRE:
                return Outcome.LATER
    return "TLS only, since no digest is published"


@pytest.mark.parametrize("mode", VerifyMode)
@pytest.mark.parametrize("sums", [None, "ok", "wrong", "status:404", "missing"])
@pytest.mark.parametrize("digests", ["ok", "wrong", "none", "status:500"])
def test_who_vouches(host: DownloadHost, mode: VerifyMode, sums: str | None, digests: str) -> None:
    before = len(host.requests())
    host.set(sums=sums or "ok", digests=digests)
    wanted = expected(mode, SUMS[sums] if sums else None, DIGESTS[digests])
    assert said(asked(host, mode, sums=sums is not None)) == wanted
    if mode is VerifyMode.TLS:
        assert len(host.requests()) == before, "nobody is asked"


@pytest.mark.parametrize("sums", SUMS)
def test_whatever_the_operators_list_answers(host: DownloadHost, sums: str) -> None:
    host.set(sums=sums, digests="none")
    for mode in (VerifyMode.PREFER, VerifyMode.REQUIRE):
        assert said(asked(host, mode)) == expected(mode, SUMS[sums], NONE), "no way round to a weaker one"


@pytest.mark.parametrize("digests", DIGESTS)
def test_whatever_the_releases_description_answers(host: DownloadHost, digests: str) -> None:
    host.set(digests=digests)
    for mode in (VerifyMode.PREFER, VerifyMode.REQUIRE):
        assert said(asked(host, mode, sums=False)) == expected(mode, None, DIGESTS[digests])


@pytest.mark.parametrize("mode", VerifyMode)
def test_a_persons_own_digest_counts_alone(host: DownloadHost, mode: VerifyMode) -> None:
    before = len(host.requests())
    host.set(sums="wrong", digests="wrong")
    assert said(asked(host, mode, sha256=SHA256.upper())) == "the given sha256"
    assert said(asked(host, mode, sha256="0" * 64)) is Outcome.FAILED
    assert len(host.requests()) == before, "nobody is asked"


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (f"{SHA256}  {ASSET}", True),
        (f"{SHA256} *{ASSET}\r", True),
        (f"{SHA256} {ASSET}", True),
        (f"{SHA256.upper()}  ./{ASSET}", True),
        (f"SHA256 ({ASSET}) = {SHA256}", True),
        (f"SHA256 (./{ASSET}) = {SHA256}", True),
        (f"# of today\n\n{SHA256}  {ASSET}\n{SHA256}  {ASSET}", True),
        (f"\ufeff{SHA256}  {ASSET}", False),
        (f"{SHA256}{ASSET}", False),
        (f"{SHA256}0  {ASSET}", False),
        (f"{SHA256}  x{ASSET}", False),
        (f"{SHA256}  {ASSET}.sig", False),
        (f"{SHA256}  ../{ASSET}", False),
        (f"{SHA256}  /tmp/{ASSET}", False),
        (f"{SHA256}  {ASSET.replace('.', 'x')}", False),
        (f"{SHA256}  {ASSET.upper()}", False),
        (f"{SHA256}  {ASSET} {ASSET}", False),
        (f"MD5 ({ASSET}) = {SHA256}", False),
        (f"x SHA256 ({ASSET}) = {SHA256}", False),
        (f"SHA256 ({ASSET}) = {SHA256}0", False),
        (f"SHA256 ({ASSET}) = {SHA256}\n{'0' * 64}  {ASSET}", False),
        (f"{SHA256}\n{ASSET}", False),
        ("", False),
    ],
)
def test_a_line_of_the_list(line: str, good: bool) -> None:
    with server([answer(line.encode() + b"\n\xff\n", content_type="text/plain")]) as (address, _):
        url = f"http://{address}/sha256sums"
        assert said(Verify(VerifyMode.PREFER, None, url, "http://127.0.0.1:1", ASSET)) == (LIST if good else "later")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "not a release"),
        (b"[" * 50_000, "not a release"),
        (b'{"assets": {}}', "not a release: assets"),
        (b'{"assets": [{"name": 7}]}', "not a release: assets.0.name"),
        (b'{"assets": [{"name": "%b", "digest": "sha256:\xc3\xa9"}]}' % ASSET.encode(), "the digest of"),
        (b'{"assets": [{"name": "%b", "digest": ""}]}' % ASSET.encode(), "the digest of"),
        (b'{"assets": [{"name": "x", "digest": "sha512:0"}]}', "lists no"),
        (b" " * (1 << 20) + b"{}", "more than 1048576 bytes"),
    ],
)
def test_a_description_that_is_none(body: bytes, what: str) -> None:
    with server([answer(body)]) as (address, _), pytest.raises(StepError, match=what) as error:
        verify.verify(SHA256, Verify(VerifyMode.PREFER, None, None, f"http://{address}/v1.104.5", ASSET))
    assert error.value.outcome is Outcome.LATER


def test_other_assets_may_have_whatever_digests() -> None:
    assets = [{"name": "x", "digest": "sha512:0"}, {"name": ASSET, "digest": f"sha256:{SHA256}"}]
    with server([answer(json.dumps({"assets": assets}).encode())]) as (address, _):
        assert said(Verify(VerifyMode.REQUIRE, None, None, f"http://{address}/v1", ASSET)) == RELEASE


def test_no_digest_comes_from_another_host() -> None:
    with server([answer(f"{SHA256}  {ASSET}\n".encode())]) as (address, _):
        moved = f"HTTP/1.1 302 Found\r\nLocation: http://{address}/\r\nContent-Length: 0\r\n\r\n".encode()
        with server([moved]) as (elsewhere, _):
            step = Verify(VerifyMode.PREFER, None, f"http://{elsewhere}/", "http://127.0.0.1:1", ASSET)
            assert said(step) == "later"
