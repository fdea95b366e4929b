"""What `doctor` has found, as text, JSON and exit code. Pure."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

_SCHEMA = {"use_attribute_docstrings": True, "extra": "forbid"}


class Severity(StrEnum):
    """What a finding means for an update."""

    BLOCKS = "blocks"
    """An update, or asking for one, would fail now."""
    ENDANGERS = "endangers"
    """An update may succeed, but not all that should come before or after it."""
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found, and what to do about it."""

    __pydantic_config__ = _SCHEMA

    node: str | None
    """Null for what concerns the host, and so all nodes."""
    severity: Severity
    check: str
    """What was looked at: one word, for programs."""
    what: str
    todo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What `doctor --json` prints (docs/doctor.schema.json)."""

    __pydantic_config__ = _SCHEMA

    nodes: tuple[str, ...]
    """The nodes that were looked at."""
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 if anything would block or endanger an update, else 0."""
        return int(any(finding.severity is not Severity.NOTE for finding in self.findings))

    def as_json(self) -> dict[str, Any]:
        """Describe it in plain types."""
        return asdict(self)

    def __str__(self) -> str:
        lines = []
        for name in (*self.nodes, None):
            lines.append("the host" if name is None else name)
            found = [finding for finding in self.findings if finding.node == name]
            for finding in found:
                lines += [f"  {finding.severity:<9}  {finding.what}", f"             Do: {finding.todo}"]
            if not found:
                lines.append("  fine")
        return "\n".join(lines)
