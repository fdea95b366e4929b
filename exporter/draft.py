"""What was discovered, as a configuration file with remarks on what could not be seen."""

from collections.abc import Iterator
from typing import Any

import yaml

from exporter.discover import Discovery, Found

_KEYS = ("name", "service", "binary", "config_dir", "api", "identity", "node_id", "storage", "updater_service")
_LONGEST_REMARK = 300


def draft(discovery: Discovery, *, seen_as: str, is_root: bool) -> str:
    """Write a configuration that works as it is; what is missing from it is a remark, and why.

    `seen_as` names who looked, and where.
    """
    lines = [f"# The storage nodes found on this host, as seen by {_remark(seen_as)}."]
    if not is_root:
        lines.append("# As root more can be seen: what only the nodes' own users may read is missing here.")
    lines += [f"# {_remark(remark)}" for remark in discovery.remarks]
    lines += ["# Each name has to be unique across all your hosts.", "nodes:"]
    for node in discovery.nodes:
        lines += _node(node)
    return "\n".join(lines) + "\n"


def _node(node: Found) -> Iterator[str]:
    prefix = "  - "
    for key in _KEYS:
        remark = node.remarks.get(key)
        if key in node.config:
            beside = f"  # {_remark(remark)}" if remark else ""
            yield f"{prefix}{key}: {_scalar(node.config[key])}{beside}"
            prefix = "    "
        elif remark:
            yield f"    # {key}: {_remark(remark)}"


def _scalar(value: Any) -> str:
    """Write a value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _remark(text: str) -> str:
    """Make a text that others may have had a hand in a comment that nothing can break out of."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line[:_LONGEST_REMARK]
