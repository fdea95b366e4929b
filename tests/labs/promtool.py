"""A newer promtool than Debian 12's, which tests/labs/prometheus.py fetches there."""

from functools import cache as once
from pathlib import Path

from tests.labs import cached, say
from tests.labs.debian import unpack

_RELEASE = "trixie"
"""What is stable stays: 2.53. The versions of the releases that are not come and go."""


@once
def newer() -> Path:
    """Return its path; raises Unavailable where Debian's packages are not to be had."""
    return cached(f"promtool-{_RELEASE}", _fetch) / "usr/bin/promtool"


def _fetch(folder: Path) -> None:
    say(f"fetching the promtool of Debian's {_RELEASE} (once, 30 MB)")
    unpack(folder, ["promtool"], release=_RELEASE)
