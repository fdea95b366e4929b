from collections.abc import Mapping
from pathlib import Path

import pytest

from exporter.commandline import Command, Program
from exporter.nodefiles import Launch
from exporter.units import Unit
from exporter.updaters import updaters_of


def unit(
    name: str, *arguments: str, program: Program = Program.UPDATER, environment: Mapping[str, str] | None = None
) -> Unit:
    command = Command(program=program, path=f"/usr/bin/{program}", arguments=("run", *arguments))
    launch = Launch(command=command, environment={"HOME": "/home/none", **(environment or {})})
    return Unit(name=name, launch=launch, words=(), directory="/", main_pid=0, unread=())


@pytest.mark.parametrize(
    ("arguments", "environment", "found", "by_binary"),
    [
        (["--binary-location", "B"], {}, True, True),
        (["--binary-location", "L"], {}, True, True),
        (["--binary-location", "/other"], {}, False, False),
        ([], {"STORJ_BINARY_LOCATION": "B"}, True, True),
        (["--config-dir", "D"], {}, True, False),
        (["--config-dir", "D", "--binary-location", "storagenode"], {}, True, False),
        (["--config-dir", "D", "--binary-location", "/other"], {}, False, False),
        (["--config-dir", "/none", "--binary-location", "storagenode"], {}, False, False),
        ([], {"XDG_DATA_HOME": "H"}, True, False),
        ([], {}, False, False),
    ],
)
def test_an_updater_is_known_by_its_binary_or_else_by_its_directory(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], found: bool, by_binary: bool
) -> None:
    directory = tmp_path / "data" / "storj" / "storagenode"
    directory.mkdir(parents=True)
    binary, link = tmp_path / "storagenode", tmp_path / "link"
    link.symlink_to(binary)
    places = {"B": str(binary), "L": str(link), "D": f"{directory}/", "H": str(tmp_path / "data")}
    words = [places.get(word, word) for word in arguments]
    given = {name: places.get(word, word) for name, word in environment.items()}
    updater = unit("u.service", *words, environment=given)
    node = unit("n.service", *words, program=Program.STORAGENODE)
    seen = updaters_of([node, updater], binary=str(binary), config_dir=str(directory), unit="n.service")
    assert [each.name for each in seen] == (["u.service"] if found else [])
    # Nothing is shared with a node whose directory is not known.
    seen = updaters_of([updater], binary=str(binary), config_dir=None, unit=None)
    assert bool(seen) == by_binary


def test_of_several_a_nodes_own_is_first() -> None:
    location = ("--binary-location", "/b")
    units = [
        unit("1.service", *location),
        unit("2.service", *location, "--service-name", "n"),
        unit("3.service", *location, "--config-dir", "/d"),
        unit("4.service", *location, "--config-dir", "/d", "--service-name", "n"),
    ]
    seen = updaters_of(units, binary="/b", config_dir="/d", unit="n.service")
    assert [each.name for each in seen] == ["4.service", "3.service", "2.service", "1.service"]
    seen = updaters_of(units, binary="/b", config_dir=None, unit=None)
    assert [each.name for each in seen] == ["1.service", "2.service", "3.service", "4.service"]
