"""Both programs as they are started, with all that may be asked of a client, reached from elsewhere than loopback."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from click import Group
from click.testing import CliRunner

from exporter.cli import main as exporter_main
from remediate.cli import main as remediate_main
from tests.bench.measure import resident_mib
from tests.exporter.certificates import Authority, Pair
from tests.labs.network import HOST
from tests.labs.prometheus import Prometheus
from tests.serving import slow_clients

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
TOKEN = "correct-horse-battery"
CERTIFICATE = ("tls_cert_file", "tls_key_file")
EVERYTHING = (*CERTIFICATE, "client_ca_file", "token_file")
PROGRAMS = {
    "exporter": "from exporter.cli import main; main()",
    "remediate": "from remediate.cli import main; main()",
}


class Site:
    """A configuration with certificates and a token, the same for both programs."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "authority")
        self.clients = Authority(folder, "clients")
        self.server = self.authority.sign("server")
        self.client = self.clients.sign("client", server=False)
        self.token = folder / "token"
        self.token.touch(0o600)
        self.token.write_text(TOKEN)
        (folder / "spool").mkdir()
        self.folder = folder

    def configure(self, program: str, *keys: str) -> Path:
        files = {
            "token_file": self.token,
            "tls_cert_file": self.server.certificate,
            "tls_key_file": self.server.key,
            "client_ca_file": self.clients.certificate,
        }
        web = {key: str(files[key]) for key in keys}
        node = {"name": "n1", "service": "process", "binary": str(self.folder / "none"), "api": "127.0.0.1:1"}
        spool = {"spool": str(self.folder / "spool"), "status_file": str(self.folder / "status.json")}
        config = self.folder / "keeper.yml"
        config.write_text(
            json.dumps(
                {
                    "nodes": [node],
                    "version_server": "http://127.0.0.1:1",
                    "state_dir": str(self.folder / "state"),
                    "web": web if program == "exporter" else {},
                    "remediation": {**spool, "webhook": web if program == "remediate" else {}},
                }
            )
        )
        return config

    @contextmanager
    def serving(self, program: str, listen: str, *keys: str) -> Iterator[int]:
        """Serve, and yield the port."""
        options = [
            "--config.file",
            str(self.configure(program, *keys)),
            "--web.listen-address",
            listen,
            "--log.format",
            "json",
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAMS[program], "serve", *options],
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert process.stderr is not None
        try:
            line: dict[str, Any] = json.loads(process.stderr.readline())
            assert line["message"] == "listening", line
            assert line["tls"] is ("tls_cert_file" in keys)
            self.resident_mib = partial(resident_mib, process.pid)
            yield int(line["address"].rpartition(":")[2])
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    def get(self, port: int, client: Pair | None, token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with requests.Session() as session:
            answer = session.get(
                f"https://127.0.0.1:{port}/metrics",
                verify=str(self.authority.certificate),
                cert=client.files if client else None,
                headers=headers,
                timeout=60,
            )
        return answer.status_code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_everything_at_once(site: Site, program: str) -> None:
    with site.serving(program, "0.0.0.0:0", *EVERYTHING) as port:
        assert site.get(port, site.client, TOKEN) == 200
        assert site.get(port, site.client, None) == 401
        assert site.get(port, site.client, TOKEN + "x") == 401
        with pytest.raises(requests.exceptions.ConnectionError):
            site.get(port, None, TOKEN)
        with pytest.raises(requests.exceptions.ConnectionError):
            site.get(port, site.server, TOKEN)
        before = site.resident_mib()
        assert before < 50
        with slow_clients(f"127.0.0.1:{port}", 200, b""):
            assert site.get(port, site.client, TOKEN) == 200
            assert site.resident_mib() < before + 25


ONE_OF_TWO = "found one of tls_cert_file and tls_key_file, expected both or neither"


@pytest.mark.parametrize(
    ("program", "keys", "problem"),
    [
        (exporter_main, (), "listen address 0.0.0.0:0: found no token, expected a `token_file` or a `client_ca_file`"),
        (remediate_main, (), "listen address 0.0.0.0:0: found no token, expected a `token_file` or a `client_ca_file`"),
        (
            exporter_main,
            CERTIFICATE,
            "listen address 0.0.0.0:0: found TLS that lets anybody in, expected a `token_file`",
        ),
        (remediate_main, CERTIFICATE, "listen address 0.0.0.0:0: found TLS that lets anybody in, expected a `token_"),
        (exporter_main, ("tls_cert_file",), f"{{config}}: web: {ONE_OF_TWO}"),
        (remediate_main, ("tls_key_file",), f"{{config}}: remediation: webhook: {ONE_OF_TWO}"),
    ],
)
def test_what_is_refused(site: Site, program: Group, keys: tuple[str, ...], problem: str) -> None:
    config = site.configure("exporter" if program is exporter_main else "remediate", *keys)
    arguments = ["serve", "--config.file", str(config), "--web.listen-address", "0.0.0.0:0"]
    done = CliRunner().invoke(program, arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {problem.format(config=config)}")


@pytest.mark.prometheus
def test_prometheus_scrapes_one_node_with_its_certificate(site: Site) -> None:
    port = HOST.free_port()
    scrape = {
        "scheme": "https",
        "params": {"node": ["n1"]},
        "authorization": {"credentials_file": str(site.token)},
        "tls_config": {
            "ca_file": str(site.authority.certificate),
            "cert_file": str(site.client.certificate),
            "key_file": str(site.client.key),
        },
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }
    with Prometheus({"exporter": scrape}) as prometheus, site.serving("exporter", f"127.0.0.1:{port}", *EVERYTHING):
        assert prometheus.wait_query('up{job="exporter"} == 1')
        assert prometheus.wait_query('storagenode_service_state{node="n1", state="stopped"}')
        # A certificate and the token are changed under both of them: once the token is, the old one is refused.
        site.clients.sign("client", server=False)
        renewed = site.folder / "renewed"
        renewed.touch(0o600)
        renewed.write_text(f"{TOKEN}-renewed")
        renewed.replace(site.token)
        (scrapes,) = prometheus.query('count_over_time(up{job="exporter"}[5m])')
        enough = int(scrapes["value"][1]) + 3
        assert prometheus.wait_query(f'count_over_time(up{{job="exporter"}}[5m]) >= {enough}')
        assert prometheus.query('up{job="exporter"} == 1')
