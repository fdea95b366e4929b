"""Versions of Storj programs: parsing, ordering, and their encoding as a number."""

import re
from dataclasses import dataclass, field
from functools import total_ordering
from typing import Self

_CORE = re.compile(r"\d{1,9}(\.\d{1,9}){0,2}", re.ASCII)
_LARGEST_PART = 999
"""The number encoding gives each part three digits."""


class VersionError(ValueError):
    """A text that is not a version."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class NodeVersion:
    """A version as upstream's `SemVer` reads and orders it (storj/common, version/semver.go).

    A leading `v`, missing parts and leading zeros are accepted; build metadata is dropped, so it plays no part in
    comparisons; a pre-release is older than its release.
    """

    major: int
    minor: int = 0
    patch: int = 0
    pre: str = ""
    _order: tuple[object, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        released = not self.pre
        identifiers = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre.split("."))
        order = (self.major, self.minor, self.patch, released, () if released else identifiers)
        object.__setattr__(self, "_order", order)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a version such as `v1.104.5` or `1.161.0-rc`.

        Raises:
            VersionError: the text is no version, or one of its parts is above 999.
        """
        core, dash, pre = text.strip().removeprefix("v").partition("+")[0].partition("-")
        if len(text) > 100 or not _CORE.fullmatch(core) or (dash and not re.fullmatch(r"[0-9A-Za-z.-]+", pre)):
            raise VersionError(f"not a version: {text[:100]!r}, expected one like 1.104.5")
        parts = [int(part) for part in core.split(".")]
        if max(parts) > _LARGEST_PART:
            raise VersionError(f"not a version: {text[:100]!r}, a part is above {_LARGEST_PART}")
        major, minor, patch = parts + [0] * (3 - len(parts))
        return cls(major, minor, patch, pre)

    @property
    def number(self) -> int:
        """`major * 1e6 + minor * 1e3 + patch`, for graphs; a pre-release has the number of its release."""
        return self.major * 1_000_000 + self.minor * 1_000 + self.patch

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeVersion) and self._order == other._order

    def __lt__(self, other: "NodeVersion") -> bool:
        return self._order < other._order

    def __hash__(self) -> int:
        return hash(self._order)


def parse_field(value: object) -> NodeVersion:
    """Read a version from a document, as a pydantic validator, which reports ValueErrors and nothing else.

    Raises:
        ValueError: not a text, or not a version.
    """
    if not isinstance(value, str):
        raise ValueError("expected a version as text")  # noqa: TRY004
    return NodeVersion.parse(value)
