"""Which of the updaters on this host may replace the binary of a node."""

import os
from collections.abc import Iterable

from exporter.commandline import Program
from exporter.nodefiles import updater_settings
from exporter.units import Unit, runs


def updaters_of(units: Iterable[Unit], *, binary: str, config_dir: str | None, unit: str | None) -> list[Unit]:
    """Return the updaters of a node's binary; first that of the node itself, by config_dir or name of its unit.

    An updater that does not say where the binary is, as a path, is that of the node whose config_dir it shares.
    """
    target, directory = os.path.realpath(binary), config_dir and os.path.realpath(config_dir)

    def closeness(updater: Unit) -> int:
        said = updater_settings(updater.launch)
        location, theirs, service = map(said.get, ("binary-location", "config-dir", "service-name"))
        same_node = theirs is not None and os.path.realpath(theirs) == directory
        if location is not None and location.startswith("/"):
            if os.path.realpath(location) != target:
                return 0
        elif not same_node:
            return 0
        return 1 + 2 * same_node + (service is not None and f"{service}.service" == unit)

    ranked = [(closeness(each), each) for each in units if runs(each, Program.UPDATER)]
    return [each for rank, each in sorted(ranked, key=lambda pair: -pair[0]) if rank]
