"""A farm as docs/many-hosts.md has it: installed by the role, watched by one Prometheus and a pair of Alertmanagers."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from exporter import __version__
from tests.documents import ROOT, blocks
from tests.e2e.site import NEW, OLD, PATH, WEBHOOK, WORKER, wait
from tests.hosts.farm import DOCUMENT, EXPORTER_DOWN, PLACE, Farm, documented, recaps
from tests.hosts.host import DOMAIN, TRACE, UNITS, Host
from tests.hosts.pair import DEADLOCKED, PATIENCE, failures, members, metric, silenced
from tests.labs.rootfs import VENV

pytestmark = [pytest.mark.e2e, pytest.mark.systemd, pytest.mark.prometheus]

SECRETS = {
    "/etc/storagenode-keeper.yml": "storagenode-keeper",
    "/etc/storagenode-keeper/tls.key": "storagenode-keeper",
    "/etc/storagenode-keeper/scrape.token": "storagenode-exporter",
    "/etc/storagenode-keeper.token": "storagenode-remediate",
}
"""By who may read them besides root."""
VERSION = [str(VENV / "bin/storagenode-remediate"), "--version"]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with Farm(tmp_path_factory.mktemp("farm")) as made:
        made.installed = made.follow()
        made.watch()
        yield made


@pytest.fixture(scope="module")
def newer(farm: Farm) -> str:
    """Make the copy of the repository, and its wheel, one of another version, with a unit that has changed."""
    farm.become("99.0.0")
    unit = farm.copy / "packaging/systemd" / WORKER
    unit.write_text(f"{unit.read_text()}# newer\n")
    farm.shell("rm -r dist && python3 -m pip wheel --quiet --no-deps --wheel-dir dist .")
    return "99.0.0"


def test_the_role_installs_what_the_readme_says_and_has_nothing_left_to_do(farm: Farm) -> None:
    umask, *_, left = farm.installed.splitlines()
    assert left == umask, "in the reader's shell"
    checked, done = recaps(farm.installed)
    everywhere = {host.fqdn for host in farm.hosts.values()}
    assert checked.keys() == done.keys() == everywhere
    for host in farm.hosts.values():
        assert done[host.fqdn]["failed"] == checked[host.fqdn]["failed"] == 0
        assert done[host.fqdn]["changed"] > checked[host.fqdn]["changed"] > 0
        for unit in UNITS:
            found = host.container.show(unit, "ActiveState", "UnitFileState", "FragmentPath")
            assert found["UnitFileState"] == "enabled", unit
            assert found["ActiveState"] == "active" or unit == WORKER
            assert host.container.path(found["FragmentPath"]).read_text() == shipped_unit(unit)
        for path, group in SECRETS.items():
            said = host.container.run(["stat", "-c", "%a %U %G", path]).stdout
            assert said == f"640 root {group}\n", path
        config = configuration(host)
        assert [node["name"] for node in config["nodes"]] == [node.name for node in host.nodes]
        assert [node["service"] for node in config["nodes"]] == [f"systemd:{node.unit}" for node in host.nodes]
        assert "config_dir" in config["nodes"][0] or host.name == "host1", "what discover saw as root"

    # One whose nodes are listed, and one whose were discovered, and changed by hand since.
    listed, discovered = list(farm.hosts.values())[:2]
    file = discovered.container.path("/etc/storagenode-keeper.yml")
    text = file.read_text()
    file.write_text(re.sub(" +api: .*\n", "", text))
    assert file.read_text() != text
    pids = listed.pids(), discovered.pids()
    again = farm.play("--limit", f"{listed.fqdn},{discovered.fqdn}")
    assert [(counts["ok"] > 0, counts["changed"]) for counts in again.values()] == [(True, 0)] * 2
    assert (listed.pids(), discovered.pids()) == pids
    file.write_text(text)


def test_nobody_else_could_read_a_secret_even_for_a_moment(farm: Farm) -> None:
    trace = farm.hosts["host1"].container.path(TRACE).read_text()
    for path in SECRETS:
        assert re.search(rf"^os.rename \S+ {path}$", trace, re.MULTILINE), path
        assert set(re.findall(rf"^os.chmod {path} (\w+)$", trace, re.MULTILINE)) == {"0o640"}, path


def test_check_mode_says_what_would_change_and_changes_nothing(farm: Farm) -> None:
    host = farm.hosts["host2"]
    before, pids = host.files(), host.pids()
    other = given(listen="::", address="2001:db8::2", settings={})
    would = farm.play("--check", "--diff", "-vvv", "--limit", host.fqdn, *other)
    # The configuration, the drop-ins, for these a restart of the one and of the other, and what Prometheus is told.
    assert would[host.fqdn]["changed"] == 5, would
    assert (host.files(), host.pids()) == (before, pids)
    assert base64.b64encode(b"# Written by Ansible.\nnodes").decode() not in farm.said
    added = [line.removeprefix("+") for line in farm.said.splitlines() if line.startswith("+")]
    assert [line.split()[-1] for line in added if line.startswith("ExecStart=/")] == ["[::]:19651", "[::]:19652"]
    assert '[{"targets": ["[2001:db8::2]:19651"]}]' in added


def test_the_example_is_what_the_document_shows() -> None:
    assert documented("storagenodes:") == (ROOT / "packaging/ansible/inventory.example.yml").read_text()


def test_each_is_scraped_with_tls_and_token_and_a_webhook_takes_its_own_token_alone(farm: Farm) -> None:
    for job, port in (("storagenode", 19651), ("storagenode-remediate", 19652)):
        for host in farm.hosts.values():
            up = f'up{{job="{job}", instance="{host.fqdn}:{port}"}} == 1'
            farm.prometheus.wait_query(up, PATIENCE)
    for node in (node for host in farm.hosts.values() for node in host.nodes):
        farm.prometheus.wait_query(f'storagenode_up{{node="{node.name}"}} == 1', PATIENCE)
    targets = farm.prometheus.get("/api/v1/targets")["data"]["activeTargets"]
    assert {target["scrapeUrl"].split(":")[0] for target in targets if "storagenode" in target["labels"]["job"]} == {
        "https"
    }
    for host in farm.hosts.values():
        own = host.fqdn
        answers = {token: farm.ask(host, token) for token in [*(each.fqdn for each in farm.hosts.values()), "scrape"]}
        assert answers == {token: 200 if token == own else 401 for token in answers}


def test_who_monitors_may_read_what_is_for_them_and_nobody_else_the_tokens(farm: Farm) -> None:
    files = f"cat {PLACE}/*.token {PLACE}/ca.crt {PLACE}/targets/*.json"
    farm.shell(f"setpriv --reuid=prometheus --regid=prometheus --clear-groups {files}")
    assert set(farm.shell(f"stat -c '%a %U %G' {PLACE}/*.token").splitlines()) == {"640 root prometheus"}
    assert set(farm.shell("stat -c %a /etc/storagenode-keeper-ca/*.key").splitlines()) == {"600"}
    for host in farm.hosts.values():
        # Whose key is taken from a host cannot sign for another one.
        assert "CA:FALSE" in farm.shell(f"openssl x509 -noout -text -in /etc/storagenode-keeper-ca/{host.fqdn}.crt")


def test_people_hear_of_what_no_host_is_told_of(farm: Farm) -> None:
    for name in (*farm.hosts, "host9"):
        labels = f"alertname={DEADLOCKED} remediation=offline-update instance={name}.{DOMAIN}:19651"
        said = farm.shell(f"amtool config routes test --config.file=/etc/prometheus/alertmanager.yml {labels}")
        assert said.splitlines()[-1].split(",") == [name if name in farm.hosts else "people", "people"]


def test_a_pair_that_is_parted_delivers_all_twice_and_each_node_is_updated_once(farm: Farm) -> None:
    members(farm, 2)
    farm.cable("gossip", "down")
    members(farm, 1)
    hosts = [farm.hosts["host1"], farm.hosts["host2"]]
    third = farm.hosts["host3"]
    left = [node.state() for node in third.nodes]
    for host in hosts:
        deadlock(host)
    for host in hosts:
        healed(farm, host)
        accepted = f'storagenode_webhook_alerts_total{{result="accepted", instance="{host.fqdn}:19652"}} >= 4'
        farm.prometheus.wait_query(accepted, PATIENCE)
    for host in hosts:
        updated_once(farm, host)
    for alertmanager in farm.alertmanagers:
        assert metric(alertmanager, "alertmanager_notifications_total", integration="webhook") >= 4
    assert farm.prometheus.query('storagenode_webhook_alerts_total{instance=~"host3.*"} > 0') == []
    assert [node.state() for node in third.nodes] == left
    farm.cable("gossip", "up")
    members(farm, 2)


def test_a_host_that_is_cut_off_is_alerted_on_and_healed_when_it_is_back(farm: Farm) -> None:
    host = farm.hosts["host3"]
    # The alert is known, and not delivered yet, when the cable is pulled.
    silence = silenced(farm, host)
    deadlock(host)
    for node in host.nodes:
        farm.prometheus.wait_alert(DEADLOCKED, node.name, timeout=PATIENCE)
    held = [node.state() for node in host.nodes]
    farm.cable("host3", "down")
    down = f'ALERTS{{alertname="{EXPORTER_DOWN}", alertstate="firing", instance="{host.fqdn}:19651"}}'
    farm.prometheus.wait_query(down, PATIENCE)
    failed = failures(farm)
    farm.alertmanagers[0].request("DELETE", f"/api/v2/silence/{silence}")
    wait(lambda: failures(farm) > failed, "a delivery has failed", PATIENCE)
    assert [node.state() for node in host.nodes] == held
    assert all(node.runs() == [] for node in host.nodes)

    farm.cable("host3", "up")
    healed(farm, host)
    updated_once(farm, host)
    wait(lambda: farm.prometheus.query(down) == [], "the exporter is back", PATIENCE)
    for each in farm.hosts.values():
        assert each.tracebacks() == []


def test_an_upgrade_that_fails_says_so_and_what_ran_runs_again(farm: Farm, request: pytest.FixtureRequest) -> None:
    host = farm.hosts["host1"]
    pids, config, states = host.pids(), configuration(host), [node.state() for node in host.nodes]
    no_wheel = farm.folder / f"storagenode_keeper-{__version__}-py3-none-any.whl"
    no_wheel.write_bytes(b"no wheel")
    failed(farm, host, wheel=str(no_wheel))
    assert host.pids() == pids
    assert host.container.run(["find", "/root", "-name", "*.whl"]).stdout == ""

    # One that can be installed, but not configured.
    newer = request.getfixturevalue("newer")
    failed(farm, host, settings={"refresh": "soon"})
    assert configuration(host) == config
    assert host.container.run(VERSION).stdout.split()[-1] == newer
    assert not set(host.pids()) & set(pids)
    assert [node.state() for node in host.nodes] == states


def test_upgraded_on_one_host_and_the_nodes_do_not_notice(farm: Farm, newer: str) -> None:
    host, other = farm.hosts["host1"], farm.hosts["host2"]
    before = [node.state() for node in host.nodes], [node.runs() for node in host.nodes], configuration(host)
    pids = host.pids()
    # What failed before is done again, and pip does not take for installed what has the same version.
    (module,) = host.container.path(VENV / "lib").glob("*/site-packages/exporter/__init__.py")
    module.write_text(f"{module.read_text()}# not of this wheel\n")
    assert farm.play("--limit", host.fqdn)[host.fqdn]["failed"] == 0
    assert module.read_text() == (farm.copy / "exporter/__init__.py").read_text()
    assert host.container.run(VERSION).stdout.split()[-1] == newer
    assert other.container.run(VERSION).stdout.split()[-1] == __version__
    after = [node.state() for node in host.nodes], [node.runs() for node in host.nodes], configuration(host)
    assert after == before
    assert not set(host.pids()) & set(pids)
    assert host.container.show(PATH, "ActiveState")["ActiveState"] == "active"
    assert host.container.show(WORKER, "NeedDaemonReload") == {"NeedDaemonReload": "no"}
    assert farm.ask(host, host.fqdn) == 200
    info = f'storagenode_exporter_build_info{{instance="{host.fqdn}:19651", version="{newer}"}}'
    farm.prometheus.wait_query(info, PATIENCE)


def test_removed_from_a_host_as_the_document_says(farm: Farm) -> None:
    host = farm.hosts["host1"]
    states = [node.state() for node in host.nodes]
    steps = "".join(block.text for block in (*blocks("hosts-remove", DOCUMENT), *blocks("remove")))
    host.container.run(["sh", "-ec", steps])
    assert [node.state() for node in host.nodes] == states
    left = host.container.run(["find", "/etc", "/opt", "/var", "-name", "*storagenode-keeper*"]).stdout.split()
    left += host.container.run(["find", "/etc", "-name", "storagenode-[er]*"]).stdout.split()
    assert left == []


def shipped_unit(name: str) -> str:
    return (ROOT / "packaging/systemd" / name).read_text()


def configuration(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(host.container.path("/etc/storagenode-keeper.yml").read_text())
    return found


def given(**variables: object) -> tuple[str, str]:
    """Return what gives variables of the role another value."""
    return "--extra-vars", json.dumps({f"storagenode_keeper_{name}": value for name, value in variables.items()})


def failed(farm: Farm, host: Host, **variables: object) -> None:
    """Run the playbook on a host, with what it fails for, and see that the worker was away, and is back."""
    worker = host.container.show(PATH, "ActiveState", "ActiveEnterTimestampMonotonic")
    counts = farm.fail("--limit", host.fqdn, *given(**variables))[host.fqdn]
    assert (counts["failed"], counts["rescued"]) == (1, 1)
    after = host.container.show(PATH, "ActiveState", "ActiveEnterTimestampMonotonic")
    assert after["ActiveState"] == "active" and after != worker


def deadlock(host: Host) -> None:
    """Make a host's nodes too old to start: one tries to, and one was stopped before."""
    first, second = host.nodes
    second.stop()
    host.rise()
    host.container.systemctl("restart", first.unit)
    host.container.wait_state(first.unit, "failed", timeout=60)


def healed(farm: Farm, host: Host) -> None:
    """Wait until the nodes of a host are updated, the one that tried is started, and nobody alerts."""
    first, second = host.nodes
    try:
        wait(lambda: first.version() == NEW, f"{first.name} runs {NEW}", PATIENCE)
        wait(lambda: second.installed() == NEW, f"{second.name} is updated", PATIENCE)
    except TimeoutError as error:
        error.add_note(host.container.journal(WORKER)[-3000:])
        error.add_note(host.container.journal(WEBHOOK)[-3000:])
        error.add_note(farm.alertmanagers[0].log()[-3000:])
        raise
    for node in (first, second):
        farm.prometheus.wait_alert(DEADLOCKED, node.name, "inactive", timeout=PATIENCE)


def updated_once(farm: Farm, host: Host) -> None:
    """Each node of a host has had one run, whatever was asked for; the one that was stopped still is."""
    spool = host.container.path("/var/spool/storagenode-keeper")
    wait(lambda: not any(spool.iterdir()), "no request waits", PATIENCE)
    host.container.wait_state(WORKER, "inactive", timeout=PATIENCE)
    for node in host.nodes:
        (run,) = node.runs()
        assert (run["outcome"], run["trigger"], run["installed"], run["target"]) == ("updated", "alert", OLD, NEW)
        names = {path.name for path in host.container.path(node.binary.parent).iterdir()}
        assert names == {"storagenode", f".storagenode.keeper-old-{OLD}"}
    assert host.archives_sent() == len(host.nodes)
    assert [node.state().active for node in host.nodes] == ["active", "inactive"]
