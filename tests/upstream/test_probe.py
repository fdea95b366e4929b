"""The real programs, asked for their version as we ask: confined, and without a word to anybody."""

import json

import pytest

from tests.labs.upstream import DEFECTIVE, FIXED, programs
from tests.upstream.conftest import OUR_PROGRAMS, World

pytestmark = [pytest.mark.upstream, pytest.mark.systemd, pytest.mark.prometheus]

CONFINED = """
import json, os, sys
from pathlib import Path
from exporter.version import NodeVersion
from remediate.rules import Rules
from remediate.steps.probe import executor, probe
execute = executor([Path("/etc/alpha")], Rules())
def listening(binary, arguments, timeout):
    done = execute(binary, arguments, timeout)
    print(json.dumps([arguments, done.exit_code, done.stdout.decode(), done.stderr.decode()]))
    return done
probe(os.open(sys.argv[1], os.O_RDONLY), NodeVersion.parse(sys.argv[2]), listening)
"""
"""Probe a program, and tell how it was asked and what it said."""


@pytest.mark.parametrize("version", [DEFECTIVE, FIXED])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_real_nodes_tell_their_version_in_the_transient_unit(world: World, version: str, mode: int) -> None:
    binary = f"/srv/{version}"
    world.container.put(programs(version)["storagenode"], binary)
    world.container.path(binary).chmod(mode)
    said = world.container.run([OUR_PROGRAMS / "python", "-c", CONFINED, binary, version]).stdout
    arguments, code, stdout, stderr = json.loads(said)
    assert (code, f"Version: {version}\n" in stdout) == (0, True)
    assert "tracing" not in stderr

    traced = ["strace", "--follow-forks", "--trace=network", binary]
    silent = world.container.run([*traced, *arguments]).stderr
    assert "connect(" not in silent
    assert "AF_NETLINK" not in silent
    told = world.container.run([*traced, "version"]).stderr
    assert "AF_NETLINK" in told, "plainly asked, it looks for an address to trace itself under, and may connect"


def test_nothing_is_left_of_a_probe(world: World) -> None:
    units = world.container.systemctl("list-units", "--all", "--plain", "--no-legend", "storagenode-keeper-probe-*")
    assert units == ""
