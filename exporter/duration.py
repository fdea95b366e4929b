"""Durations as Go writes them."""

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float | None:
    """Read a duration such as `1h30m0s`; None for what is none."""
    found = re.fullmatch(r"([-+]?)((?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|0)", duration)
    if found is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", found[2])
    return sum(float(number) * _UNITS[unit] for number, unit in parts) * (-1 if found[1] == "-" else 1)
