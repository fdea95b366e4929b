import logging
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from prometheus_client import CollectorRegistry

from exporter import listening, web
from exporter.access import Access, access
from exporter.config import ConfigError, WebConfig
from tests.exporter.certificates import Authority, Pair
from tests.serving import Stopwatch, connect, serving, slow_clients

pytestmark = pytest.mark.slow


class Site:
    """A server's certificate with its authority, and the authority of its clients."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "authority")
        self.clients = Authority(folder, "clients")
        self.server = self.authority.sign("server")
        self.client = self.clients.sign("client", server=False)

    def access(self, *, client_ca: Path | None = None) -> Access:
        server = self.server
        files = {"tls_cert_file": server.certificate, "tls_key_file": server.key, "client_ca_file": client_ca}
        return access(WebConfig.model_validate(files))

    @contextmanager
    def serving(self, *, client_ca: Path | None = None) -> Iterator[str]:
        admitted = self.access(client_ca=client_ca)
        routes = [web.metrics_route(lambda timeout, nodes: CollectorRegistry()), *web.health_routes()]
        with serving(web.create_app(routes, admitted), admitted) as url:
            assert url.startswith("https://")
            yield url

    def get(self, url: str, client: Pair | None = None, *, authority: Authority | None = None) -> int:
        """Scrape on a connection of its own."""
        verify = str((authority or self.authority).certificate)
        answer = requests.get(f"{url}/metrics", verify=verify, cert=client.files if client else None, timeout=60)
        return answer.status_code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def url(site: Site) -> Iterator[str]:
    with site.serving() as address:
        yield address


@pytest.fixture
def own_site(tmp_path: Path) -> Site:
    return Site(tmp_path)


REFUSED = (requests.exceptions.SSLError, requests.exceptions.ConnectionError)


def test_tls_without_client_certificates(site: Site, url: str) -> None:
    assert site.get(url) == 200
    assert site.get(url, site.client) == 200
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        site.get(url, authority=site.clients)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url.replace("https", "http"), timeout=60)
    assert not site.access().known_only


def test_only_clients_with_a_certificate_of_the_client_ca(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "exporter.tls")
    clients = site.clients
    expired = clients.sign("expired", server=False, valid=timedelta(days=-1))
    for_servers = clients.sign("for-servers", server=True)
    with site.serving(client_ca=clients.certificate) as url:
        assert site.get(url, site.client) == 200
        for refused in (None, site.server, expired, for_servers):
            with pytest.raises(REFUSED):
                site.get(url, refused)
        assert caplog.messages == ["TLS handshake failed"] * 4
        for record, reason in zip(
            caplog.records, ("did not return a", "self-signed", "expired", "purpose"), strict=True
        ):
            assert reason in record.__dict__["error"]
        with pytest.raises(REFUSED):  # health too: who has no certificate does not come as far as a path
            requests.get(f"{url}/-/healthy", verify=str(site.authority.certificate), timeout=60)
        assert site.get(url, site.client) == 200
    assert site.access(client_ca=clients.certificate).known_only


@pytest.mark.parametrize(
    ("version", "accepted"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_tls_versions(site: Site, url: str, version: ssl.TLSVersion, accepted: bool) -> None:
    context = ssl.create_default_context(cafile=site.authority.certificate)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else OpenSSL itself does not offer 1.1
    context.minimum_version = context.maximum_version = version
    with connect(url) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                assert client.version() == version.name.replace("_", ".")
                assert accepted
        except ssl.SSLEOFError:  # asyncio closes without a word
            assert not accepted


def test_a_certificate_is_changed_while_running(
    own_site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = own_site
    (tmp_path / "others").mkdir()
    others = Authority(tmp_path / "others", "others")
    renewed = others.sign("server")
    with caplog.at_level(logging.INFO, "exporter.reloaded"), site.serving() as url, requests.Session() as session:
        before = str(site.authority.certificate)
        assert session.get(f"{url}/metrics", verify=before, timeout=60).ok
        shutil.copy(renewed.certificate, site.server.certificate)
        for _ in range(3):  # half of a change: the key is still the old one, and so is what is served
            assert site.get(url) == 200
        renewed.key.replace(site.server.key)
        assert site.get(url, authority=others) == 200
        with pytest.raises(requests.exceptions.SSLError):
            site.get(url)
        assert session.get(
            f"{url}/metrics", verify=before, timeout=60
        ).ok  # its connection has outlived the certificate
        site.server.key.unlink()
        assert [site.get(url, authority=others) for _ in range(3)] == [200] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]
    mismatch, _, missing = (record.__dict__.get("error", "") for record in caplog.records)
    assert mismatch.startswith(f"{site.server.key}: found another key than that of {site.server.certificate}")
    assert missing.startswith(f"{site.server.key}: cannot be read: No such file or directory")


def test_a_client_ca_is_changed_while_running(own_site: Site, tmp_path: Path) -> None:
    site = own_site
    (tmp_path / "others").mkdir()
    others = Authority(tmp_path / "others", "others")
    other = others.sign("client", server=False)
    with site.serving(client_ca=site.clients.certificate) as url:
        assert site.get(url, site.client) == 200
        with pytest.raises(REFUSED):
            site.get(url, other)
        both = site.clients.certificate.read_bytes() + others.certificate.read_bytes()
        site.clients.certificate.write_bytes(both)
        assert [site.get(url, each) for each in (site.client, other)] == [200, 200]
        others.certificate.replace(site.clients.certificate)  # the first is forgotten
        assert site.get(url, other) == 200
        with pytest.raises(REFUSED):
            site.get(url, site.client)


def test_files_that_cannot_be_used(own_site: Site, tmp_path: Path) -> None:
    site = own_site
    encrypted = site.authority.sign("encrypted", password=b"secret")
    empty, none = tmp_path / "empty", tmp_path / "none"
    empty.touch(0o600)
    certificate, key = site.server.certificate, site.server.key
    for given, problem in {
        (
            none,
            key,
            None,
        ): f"{none}: cannot be read: No such file or directory, expected a certificate in PEM (tls_cert",
        (
            certificate,
            none,
            None,
        ): f"{none}: cannot be read: No such file or directory, expected its private key in PEM",
        (
            certificate,
            key,
            none,
        ): f"{none}: cannot be read: No such file or directory, expected the certificates of who",
        (tmp_path, key, None): f"{tmp_path}: cannot be read: Is a directory, expected a certificate in PEM",
        (empty, key, None): f"{empty}: cannot be used: NO_CERTIFICATE_OR_CRL_FOUND, expected a certificate in PEM",
        (key, key, None): f"{key}: cannot be used: NO_CERTIFICATE_OR_CRL_FOUND, expected a certificate in PEM",
        (certificate, empty, None): f"{empty}: cannot be used: ",
        (certificate, certificate, None): f"{certificate}: cannot be used: ",
        (certificate, site.client.key, None): f"{site.client.key}: found another key than that of {certificate}",
        (encrypted.certificate, encrypted.key, None): f"{encrypted.key}: found an encrypted key, expected its private",
        (
            certificate,
            key,
            empty,
        ): f"{empty}: cannot be used: NO_CERTIFICATE_OR_CRL_FOUND, expected the certificates of",
    }.items():
        files = dict(zip(("tls_cert_file", "tls_key_file", "client_ca_file"), given, strict=True))
        with pytest.raises(ConfigError, match="^" + re.escape(problem)):
            access(WebConfig.model_validate(files))


def test_a_key_everybody_may_read_is_warned_of(own_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    own_site.access()
    assert caplog.messages == []
    own_site.server.key.chmod(0o644)
    own_site.access()
    assert caplog.messages == ["secret file is readable by everybody"]


def hello() -> bytes:
    """Return the first message of a TLS handshake."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("begin", [b"", hello()[:100], hello()], ids=["nothing", "half a hello", "a hello"])
def test_two_hundred_slow_handshakes_cost_nothing(site: Site, begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 600)
    with site.serving(client_ca=site.clients.certificate) as url, slow_clients(url, 200, begin):
        assert site.get(url, site.client) == 200


def test_two_hundred_connections_that_stay_cost_nothing(site: Site, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 600)
    context = ssl.create_default_context(cafile=site.authority.certificate)
    with ExitStack() as stack:
        for _ in range(200):
            client = context.wrap_socket(stack.enter_context(connect(url)), server_hostname="127.0.0.1")
            stack.enter_context(client).sendall(b"GET /metrics HT")
        assert site.get(url) == 200


def test_who_does_not_end_the_handshake_or_sends_no_request_is_let_go(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 2)
    context = ssl.create_default_context(cafile=site.authority.certificate)
    with site.serving() as url, ExitStack() as stack:
        clients: list[socket.socket] = [stack.enter_context(connect(url)) for _ in range(3)]
        clients[1].sendall(hello()[:100])
        clients[2] = context.wrap_socket(clients[2], server_hostname="127.0.0.1")
        watch = Stopwatch()
        assert [client.recv(1) for client in clients] == [b""] * 3
        assert watch.seconds > 0.1


def test_it_stops_at_once_whoever_is_still_connected(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_REQUEST_HEAD_SECONDS", 100)
    context = ssl.create_default_context(cafile=site.authority.certificate)
    with ExitStack() as stack:
        with site.serving() as url:
            for begin in (b"", hello()[:100]):
                stack.enter_context(connect(url)).sendall(begin)
            for begin in (b"", b"GET /metrics HT"):
                client = context.wrap_socket(stack.enter_context(connect(url)), server_hostname="127.0.0.1")
                stack.enter_context(client).sendall(begin)
            time.sleep(0.1)
            watch = Stopwatch()
        assert watch.seconds < 60
        assert caplog.messages == []


def test_a_client_that_vanishes_in_the_middle_is_forgotten(
    site: Site, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    for begin in (b"GET / HTTP/1.1\r\n\r\n", hello()[:100], hello()):
        with connect(url) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # reset, not closed
            client.sendall(begin)
    assert site.get(url) == 200
    assert caplog.messages == []
