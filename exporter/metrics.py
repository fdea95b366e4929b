"""The metrics: the tables that turn what was observed into families. What is unknown has no number."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily

from exporter import __version__
from exporter.allowed import STORAGENODE, AllowedVersions, Process, Release, UpdateState, rollout_position
from exporter.identity import NodeIDError
from exporter.rows import Family, Row, Sample, number
from exporter.status import Clock, Failure, NodeStatus, ServiceState, Source
from exporter.updater_metrics import UPDATER_ROWS
from exporter.version import NodeVersion

_LARGEST_POSITION = 2**256 - 1


def families(statuses: Sequence[NodeStatus]) -> Iterator[Family]:
    """Turn the statuses of all nodes of this host into metric families, in the order of the tables."""
    for row in (*NODE_ROWS, *UPDATER_ROWS):
        yield row.family(statuses)
    documents = [status.allowed for status in statuses if isinstance(status.allowed, AllowedVersions)]
    for document_row in DOCUMENT_ROWS:
        yield document_row.family(documents[:1])
    build = GaugeMetricFamily("storagenode_exporter_build_info", "Version of this exporter.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build


def _service_state(status: NodeStatus) -> Iterator[Sample]:
    for state in ServiceState:
        yield (status.node, status.manager, state), float(status.service.state is state)


def _update_state(status: NodeStatus) -> Iterator[Sample]:
    for state in UpdateState:
        yield (status.node, state), float(status.verdict.state is state)


def _versions(status: NodeStatus) -> Iterator[tuple[str, NodeVersion, str]]:
    if not isinstance(status.installed, Failure):
        yield "installed", status.installed.version, str(status.installed.release).lower()
    if not isinstance(status.running, Failure):
        yield "running", status.running.version, "unknown"  # the API does not say


def _version_info(status: NodeStatus) -> Iterator[Sample]:
    for source, version, release in _versions(status):
        yield (status.node, source, str(version), release), 1


def _version_number(status: NodeStatus) -> Iterator[Sample]:
    for source, version, _ in _versions(status):
        yield (status.node, source), version.number


def _position(status: NodeStatus) -> float | None:
    if isinstance(status.allowed, Failure) or status.node_id is None:
        return None
    try:
        position = rollout_position(status.allowed.processes[STORAGENODE].seed, status.node_id)
    except NodeIDError:
        return None
    return int.from_bytes(position) / _LARGEST_POSITION


def _minor_releases(status: NodeStatus) -> float | None:
    """Count; of a development build nothing, since no minimum keeps it from starting."""
    if isinstance(status.allowed, Failure) or isinstance(status.installed, Failure) or not status.installed.release:
        return None
    minimum, installed = status.allowed.processes[STORAGENODE].minimum.version, status.installed.version
    return installed.minor - minimum.minor if installed.major == minimum.major else None


def _started(status: NodeStatus) -> float | None:
    return None if isinstance(status.running, Failure) else status.running.started


def _deadline(of: Callable[[Clock], float]) -> Callable[[NodeStatus], Iterator[Sample]]:
    def samples(status: NodeStatus) -> Iterator[Sample]:
        if status.clock is not None:
            yield (status.node, status.clock.basis), of(status.clock)

    return samples


def _success(status: NodeStatus) -> Iterator[Sample]:
    for source, failed in {
        Source.VERSION_SERVER: isinstance(status.allowed, Failure),
        Source.NODE_API: isinstance(status.running, Failure),
        Source.BINARY: isinstance(status.installed, Failure),
        Source.SERVICE: status.service.state is ServiceState.UNKNOWN and not status.service.undecided,
    }.items():
        yield (status.node, source), float(not failed)


def _durations(status: NodeStatus) -> Iterator[Sample]:
    for source, seconds in status.durations.items():
        yield (status.node, source), seconds


def _releases(document: AllowedVersions) -> Iterator[tuple[str, str, Release]]:
    for name, process in document.processes.items():
        yield name, "minimum", process.minimum
        yield name, "suggested", process.suggested


def _allowed_info(document: AllowedVersions) -> Iterator[Sample]:
    for process, kind, release in _releases(document):
        yield (process, kind, str(release.version)), 1


def _allowed_number(document: AllowedVersions) -> Iterator[Sample]:
    for process, kind, release in _releases(document):
        yield (process, kind), release.version.number


def _cursor(document: AllowedVersions) -> Iterator[Sample]:
    for name, process in document.processes.items():
        yield (name,), int.from_bytes(process.cursor) / _LARGEST_POSITION


def _consistent(document: AllowedVersions) -> Iterator[Sample]:
    processes: Iterable[Process] = document.processes.values()
    yield (), float(all(process.consistent for process in processes))


_NUMBER_HELP = "as major * 1000000 + minor * 1000 + patch"

NODE_ROWS: tuple[Row[NodeStatus], ...] = (
    Row(
        "storagenode_up",
        "Whether the node API (/api/sno/) answered.",
        ("node",),
        number(lambda status: not isinstance(status.running, Failure)),
    ),
    Row(
        "storagenode_service_state",
        "State of the node's service, as its service manager says; 1 for the state it is in, 0 for all others.",
        ("node", "manager", "state"),
        _service_state,
    ),
    Row(
        "storagenode_service_state_since_timestamp_seconds",
        "When the service came into its state, as its service manager says.",
        ("node",),
        number(lambda status: status.service.since),
    ),
    Row(
        "storagenode_service_last_exit_code",
        "Exit status of the last main process that ended by itself, as the service manager says.",
        ("node",),
        number(lambda status: status.service.exit_code),
    ),
    Row(
        "storagenode_service_restarts",
        "Automatic restarts since the service was last started by hand, as the service manager counts them.",
        ("node",),
        number(lambda status: status.service.restarts),
        "counter",
    ),
    Row(
        "storagenode_version_info",
        "Version installed (the binary's `version` command) and running (`version` of the node API).",
        ("node", "source", "version", "release"),
        _version_info,
    ),
    Row(
        "storagenode_version_number",
        f"Version installed and running, from where storagenode_version_info has them, {_NUMBER_HELP}.",
        ("node", "source"),
        _version_number,
    ),
    Row(
        "storagenode_update_state",
        "How the installed version stands against the allowed ones, by upstream's rule; 1 for the state it is in.",
        ("node", "state"),
        _update_state,
    ),
    Row(
        "storagenode_below_minimum",
        "Whether the installed version is below the minimum that the version server gives.",
        ("node",),
        number(lambda status: status.below_minimum),
    ),
    Row(
        "storagenode_deadlocked",
        "Whether the node is below the minimum and down: it cannot start, and its updater may not replace it.",
        ("node",),
        number(lambda status: status.deadlocked),
    ),
    Row(
        "storagenode_restart_pending",
        "Whether the running version (node API) differs from the installed one (binary).",
        ("node",),
        number(lambda status: status.restart_pending),
    ),
    Row(
        "storagenode_rollout_position_ratio",
        "Where the node stands in the rollout, from its ID and the version server's seed: its turn has come when this"
        " is not above the cursor.",
        ("node",),
        number(_position),
    ),
    Row(
        "storagenode_minor_releases_above_minimum",
        "Minor releases between the minimum and the installed version, if it is a release; negative below the minimum.",
        ("node",),
        number(_minor_releases),
    ),
    Row(
        "storagenode_last_contact_timestamp_seconds",
        "When a satellite last reached the node (`lastPinged` of the node API), remembered while the node is down.",
        ("node",),
        number(lambda status: status.last_contact),
    ),
    Row(
        "storagenode_suspension_timestamp_seconds",
        "When satellites suspend the node if none reaches it before, a young one sooner: 12 days after its last contact"
        " or, as a lower bound, after it was seen to be stopped.",
        ("node", "basis"),
        _deadline(lambda clock: clock.suspended),
    ),
    Row(
        "storagenode_disqualification_timestamp_seconds",
        "From when satellites disqualify the node for good if none reaches it before: 30 days, counted as for"
        " storagenode_suspension_timestamp_seconds.",
        ("node", "basis"),
        _deadline(lambda clock: clock.disqualified),
    ),
    Row(
        "storagenode_started_timestamp_seconds",
        "When the node was started (`startedAt` of the node API).",
        ("node",),
        number(_started),
    ),
    Row(
        "storagenode_source_success",
        "Whether this source of what is known about the node could be read.",
        ("node", "source"),
        _success,
    ),
    Row(
        "storagenode_source_duration_seconds",
        "How long reading this source took.",
        ("node", "source"),
        _durations,
    ),
)

DOCUMENT_ROWS: tuple[Row[AllowedVersions], ...] = (
    Row(
        "storagenode_allowed_version_info",
        "Minimum and suggested version of each program, from the version server; cached for some minutes.",
        ("process", "kind", "version"),
        _allowed_info,
    ),
    Row(
        "storagenode_allowed_version_number",
        f"Minimum and suggested version of each program, from the version server, {_NUMBER_HELP}.",
        ("process", "kind"),
        _allowed_number,
    ),
    Row(
        "storagenode_allowed_versions_consistent",
        "Whether no minimum from the version server is above the suggested version.",
        (),
        _consistent,
    ),
    Row(
        "storagenode_allowed_versions_fetched_timestamp_seconds",
        "When the allowed versions were last fetched from the version server.",
        (),
        lambda document: [((), document.fetched)],
    ),
    Row(
        "storagenode_rollout_cursor_ratio",
        "How far the rollout of the suggested version has come, from the version server.",
        ("process",),
        _cursor,
    ),
)
