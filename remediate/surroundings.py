"""What all nodes of a host share and an update depends on: addresses, folders and the worker's units."""

import os
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import requests

from exporter.config import Config
from exporter.reading import Pending, Reading
from exporter.status import Failure, FailureReason, NodeStatus
from remediate import published
from remediate.diagnosis import Severity
from remediate.files import Directory
from remediate.findings import WORKER, WORKER_PATH, Problem, WorkerUnits
from remediate.rules import Rules, VerifyMode
from remediate.services.errors import ServiceError
from remediate.services.systemd import connected

_REACH_SECONDS = 5.0
Answer = tuple[int, float | None]
"""The status, and how many seconds our clock is ahead of the server's."""


def ask(config: Config, rules: Rules) -> dict[str, Pending[Answer]]:
    """Begin to ask, for nothing but the head of an answer, each address that an update asks."""
    # as an update asks them: the version server never through a proxy
    asked = {"version_server": Reading(partial(_reach, config.version_server, proxies=False)).start(_REACH_SECONDS)}
    for what, url in _addresses(rules).items():
        asked[what] = Reading(partial(_reach, url, proxies=True)).start(_REACH_SECONDS)
    return asked


def _addresses(rules: Rules) -> dict[str, str]:
    """List where an update gets an archive and its digest from, as far as that is known before the version is."""
    addresses = {"releases": rules.releases}
    if rules.verify is not VerifyMode.TLS:
        if rules.sha256sums:
            addresses["sha256sums"] = rules.sha256sums.replace("{version}", "0.0.0")
        if not rules.sha256sums or rules.verify is VerifyMode.PREFER:
            addresses["digests"] = rules.digests
    return addresses


def _reach(url: str, timeout: float, *, proxies: bool) -> Answer | Failure:
    with requests.Session() as session:
        session.trust_env = proxies
        settings: Any = session.merge_environment_settings(url, {}, True, None, None)
        try:
            # not by the session, which would read the body of a redirect, however large
            request = requests.Request("GET", url).prepare()
            with session.get_adapter(url).send(request, timeout=timeout, **settings) as response:
                date, now = response.headers.get("Date"), time.time()
        except (requests.RequestException, ValueError) as error:
            return Failure(FailureReason.UNREACHABLE, _innermost(error))
    try:
        ahead = now - parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, OverflowError):
        ahead = None
    return response.status_code, ahead


def _innermost(error: BaseException) -> str:
    """Say what an error comes from: requests and urllib3 wrap it in much that says nothing."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def unreachable(
    rules: Rules, statuses: Sequence[NodeStatus], answers: Mapping[str, Answer | Failure]
) -> dict[str, Problem]:
    """Say which of the addresses cannot be used now."""
    problems: dict[str, Problem] = {}
    todo = "see that this host may speak to it: name service, firewall, proxy"
    for what, url in _addresses(rules).items():
        match answers.get(what):
            case Failure() as failure:
                problems[what] = (Severity.BLOCKS, f"{url}: cannot be reached: {failure.detail}", todo)
            case (int(status), _) if status >= 500 or status in (403, 429):
                limited = "it limits how often it is asked: wait an hour" if status in (403, 429) else "wait"
                problems[what] = (Severity.BLOCKS, f"{url}: answers {status}", limited)
    allowed = statuses[0].allowed
    if isinstance(allowed, Failure):
        problems["version_server"] = (Severity.BLOCKS, f"the allowed versions are not known, {allowed}", todo)
    return problems


def folders(rules: Rules, *, automatic: bool) -> dict[str, Problem]:
    """Say which of our own folders and files cannot be used.

    Args:
        rules: say where they are.
        automatic: that something starts the worker; who updates by hand needs no spool and no status file.
    """
    problems: dict[str, Problem] = {}
    todo = "systemd-tmpfiles --create storagenode-keeper.conf, or set {} to a folder of the worker's"
    for what, folder, severity in (
        ("spool", rules.spool, Severity.BLOCKS),
        ("status_file", rules.status_file.parent, Severity.ENDANGERS),
    ):
        if problem := _unusable(folder):
            problems[what] = (severity if automatic else Severity.NOTE, problem, todo.format(what))
    status_file = rules.status_file
    if "status_file" not in problems and os.path.lexists(status_file) and published.read(status_file) is None:
        what = f"{status_file}: cannot be used"
        problems["status_file"] = (Severity.ENDANGERS, what, "remove it: the worker writes it anew")
    folder = rules.state_dir
    while not os.path.lexists(folder):  # it is made when it is first needed
        folder = folder.parent
    if problem := _unusable(folder):
        problems["state_dir"] = (Severity.BLOCKS, problem, todo.format("state_dir"))
    return problems


def _unusable(folder: Path) -> str | None:
    try:
        with Directory(folder) as directory:
            if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=directory.fd, effective_ids=True):
                return f"{folder}: may not be read and written by user {os.geteuid()}"
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return None


def worker() -> WorkerUnits | None:
    """Read the worker's units; None where systemd cannot be asked."""
    try:
        with connected() as systemd:
            path, service = systemd.properties(WORKER_PATH, "Unit"), systemd.properties(WORKER, "Service")
    except ServiceError:
        return None
    return WorkerUnits(
        installed=path["LoadState"] == "loaded",
        enabled=path["UnitFileState"],
        active=path["ActiveState"],
        protect_system=service["ProtectSystem"],
        protect_home=service["ProtectHome"],
        read_write=tuple(each.lstrip("-+") for each in service["ReadWritePaths"]),
        read_only=tuple(each.lstrip("-+") for each in (*service["ReadOnlyPaths"], *service["InaccessiblePaths"])),
    )
