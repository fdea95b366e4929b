"""Which files are taken for traces of our stopping an updater, by the names that upstream's gives to its files."""

import json
from pathlib import Path

import pytest

from tests.upstream.conftest import OUR_PROGRAMS, World

pytestmark = [pytest.mark.upstream, pytest.mark.systemd, pytest.mark.prometheus]

HOLD = """
import json, sys
from pathlib import Path
from remediate.steps.hold import hold, release, survey
unit, binary, *meanwhile = sys.argv[1:]
held = survey((unit,), Path(binary))
hold(held, Path(binary), ())
for name in meanwhile:
    Path(name).write_text('{"Failure": "signal: terminated"}')
print(json.dumps(release(held, Path(binary), ())))
"""
"""Hold an updater, write files as if it had done so on its way out, and release it."""


def undone(world: World, *meanwhile: str) -> list[str]:
    container = world.container
    unit = "/srv/node-updater --service-name=node --binary-store-dir /srv/store"
    container.unit("idle-updater.service", f"[Service]\nExecStart={unit}\nWorkingDirectory=/srv\n", enable=False)
    container.write("/srv/node-updater", "#!/bin/sh\nexec sleep 1000\n", mode=0o755)
    container.write("/srv/store/last-failed-update.storagenode.json", '{"Failure": "signal: terminated"}')
    container.systemctl("restart", "idle-updater.service")
    argv: list[str | Path] = [OUR_PROGRAMS / "python", "-c", HOLD, "idle-updater.service", "/srv/node", *meanwhile]
    removed: list[str] = json.loads(container.run(argv).stdout)
    assert container.show("idle-updater.service")["ActiveState"] == "active"
    container.systemctl("stop", "idle-updater.service")
    assert all(container.path(name).exists() == (name not in removed) for name in meanwhile)
    return removed


def test_what_blocks_an_updater_is_undone_and_its_backup_is_not(world: World) -> None:
    world.container.write("/srv/node", "", mode=0o755)
    blocks = ["/srv/node.1.162.3", "/srv/store/last-failed-update.node.json"]
    keeps = ["/srv/node.old.v1.104.5", "/srv/store/last-failed-update.other.json"]
    assert sorted(undone(world, *blocks, *keeps)) == blocks


def test_nothing_is_undone_where_the_binary_is_gone(world: World) -> None:
    world.container.path("/srv/node").unlink(missing_ok=True)
    assert undone(world, "/srv/node.1.162.4", "/srv/node.old.v1.104.5") == []
