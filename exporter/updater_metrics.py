"""The metrics of a node's official updater: one table, as that of the nodes. What is unknown has no number."""

from collections.abc import Callable, Iterator

from exporter.rows import Row, Sample, number
from exporter.status import InstalledVersion, NodeStatus, ServiceState, UpdaterStatus
from exporter.updater import blocked, replaces_stopped
from exporter.updaterlog import UpdaterLog


def _service_state(status: NodeStatus) -> Iterator[Sample]:
    if isinstance(status.updater, UpdaterStatus):
        for state in ServiceState:
            yield (status.node, state), float(status.updater.service.state is state)


def _version_info(status: NodeStatus) -> Iterator[Sample]:
    if isinstance(status.updater, UpdaterStatus) and status.updater.version is not None:
        installed = status.updater.installed
        release = str(installed.release).lower() if isinstance(installed, InstalledVersion) else "unknown"
        yield (status.node, str(status.updater.version), release), 1


def _failures(status: NodeStatus) -> Iterator[Sample]:
    if isinstance(status.updater, UpdaterStatus) and isinstance(status.updater.log, UpdaterLog):
        for kind, count in status.updater.log.failures.items():
            yield (status.node, kind), count


def _blocked(status: NodeStatus) -> Iterator[Sample]:
    for kind, is_so in blocked(status).items():
        yield (status.node, kind), float(is_so)


def _of(read: Callable[[UpdaterStatus], float | None]) -> Callable[[NodeStatus], float | None]:
    return lambda status: read(status.updater) if isinstance(status.updater, UpdaterStatus) else None


def _logged(read: Callable[[UpdaterLog], float | None]) -> Callable[[NodeStatus], float | None]:
    return _of(lambda updater: read(updater.log) if isinstance(updater.log, UpdaterLog) else None)


UPDATER_ROWS: tuple[Row[NodeStatus], ...] = (
    Row(
        "storagenode_updater_service_state",
        "State of the official updater's service, as its service manager says; 1 for the state it is in.",
        ("node", "state"),
        _service_state,
    ),
    Row(
        "storagenode_updater_version_info",
        "Version of the official updater (its binary's `version` command, else what it has logged).",
        ("node", "version", "release"),
        _version_info,
    ),
    Row(
        "storagenode_updater_replaces_stopped",
        "Whether the official updater replaces the binary of a node that does not run, as it does since 1.106.",
        ("node",),
        number(_of(replaces_stopped)),
    ),
    Row(
        "storagenode_updater_last_check_timestamp_seconds",
        "When the official updater last learned which versions are allowed, as it has logged.",
        ("node",),
        number(_logged(lambda log: log.last_check)),
    ),
    Row(
        "storagenode_updater_last_update_timestamp_seconds",
        "When the official updater last replaced the node's binary, as it has logged.",
        ("node",),
        number(_logged(lambda log: log.last_update)),
    ),
    Row(
        "storagenode_updater_last_failure_timestamp_seconds",
        "When the official updater last failed at something, as it has logged.",
        ("node",),
        number(_logged(lambda log: log.last_failure)),
    ),
    Row(
        "storagenode_updater_failures",
        "What the official updater has failed at (check, download, install), as logged since this exporter began.",
        ("node", "kind"),
        _failures,
        "counter",
    ),
    Row(
        "storagenode_updater_blocked",
        "Whether the official updater is blocked until somebody does something: it takes updates of a stopped node back"
        " (not_initialized), has written a version off (last_failed), or stumbles over its own leftover (left_over);"
        " only those that its version is capable of.",
        ("node", "kind"),
        _blocked,
    ),
    Row(
        "storagenode_updater_check_interval_seconds",
        "How often the official updater looks, by its settings, else by its log; not above 0: once, and it ends.",
        ("node",),
        number(_of(lambda updater: updater.interval_seconds)),
    ),
    Row(
        "storagenode_updater_version_server_ours",
        "Whether the official updater asks the version server that this exporter asks.",
        ("node",),
        number(_of(lambda updater: updater.server_is_ours)),
    ),
)
