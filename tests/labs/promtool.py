"""Newer promtools than Debian 12's, which tests/labs/prometheus.py fetches there."""

from functools import cache as once
from pathlib import Path

from tests.labs import cached, say
from tests.labs.debian import unpack

RELEASES = ("trixie", "forky")
"""Of Debian: with Prometheus 2.53, which is stable and stays, and with 3, the newest that it has."""


@once
def of(release: str) -> Path:
    """Return the path of a release's; raises Unavailable where Debian's packages are not to be had."""

    def fetch(folder: Path) -> None:
        say(f"fetching the promtool of Debian's {release} (once, 30 MB)")
        unpack(folder, ["promtool"], release=release)

    return cached(f"promtool-{release}", fetch) / "usr/bin/promtool"
