from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.version import NodeVersion, VersionError, parse_field

PARTS = st.integers(0, 999)
PRE = st.sampled_from(["", "rc", "rc2", "rc.1", "rc.10", "rc-metainfo", "alpha"])
VERSIONS = st.builds(NodeVersion, PARTS, PARTS, PARTS, PRE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.104.5", NodeVersion(1, 104, 5)),
        ("v1.104.5", NodeVersion(1, 104, 5)),
        (" v1.104.5\n", NodeVersion(1, 104, 5)),
        ("1.104", NodeVersion(1, 104, 0)),
        ("1", NodeVersion(1)),
        ("01.002.0003", NodeVersion(1, 2, 3)),
        ("1.149.0+hotfix", NodeVersion(1, 149, 0)),
        ("v1.161.0-rc", NodeVersion(1, 161, 0, "rc")),
        ("v1.104.5-rc-multitenant", NodeVersion(1, 104, 5, "rc-multitenant")),
        ("v0.0.0-20240101-abcdef+dirty", NodeVersion(0, 0, 0, "20240101-abcdef")),
    ],
)
def test_versions_are_read_as_upstream_reads_them(text: str, expected: NodeVersion) -> None:
    assert NodeVersion.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "v",
            "latest",
            "1.2.3.4",
            "1..3",
            "-1.2.3",
            "1.2.3-",
            "1.2.3-a b",
            "vv1.2.3",
            "1.1000.0",
            "٣.1.2",
            "1.2.x",
        ],
        *["1" * 200, "1.2.3-" + "x" * 200, "1.2.3-\x1b[31m", "$(reboot)", "../../etc/passwd", "nan", "1e3", "1.2.3\n4"],
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(VersionError, match="not a version"):
        NodeVersion.parse(text)


def test_versions_are_ordered_as_semver_orders_them() -> None:
    ascending = [
        "0.9.9",
        "1.9.0",
        "1.10.0-alpha",
        "1.10.0-rc",
        "1.10.0-rc.2",
        "1.10.0-rc.10",
        "1.10.0-rc.x",
        "1.10.0-rc2",
        "1.10.0",
        "1.10.1",
        "1.100.0",
        "2.0.0",
    ]
    versions = [NodeVersion.parse(text) for text in ascending]
    for older, newer in pairwise(versions):
        assert older < newer
        assert not newer < older
    assert NodeVersion.parse("1.10.0-9") < NodeVersion.parse("1.10.0-10") < NodeVersion.parse("1.10.0-x")
    assert NodeVersion.parse("1.149.0+hotfix") == NodeVersion.parse("v1.149.0")


@given(VERSIONS)
def test_a_version_survives_being_written(version: NodeVersion) -> None:
    assert NodeVersion.parse(str(version)) == version
    assert hash(NodeVersion.parse(f"v{version}")) == hash(version)


@given(VERSIONS, VERSIONS)
def test_exactly_one_of_less_equal_greater(one: NodeVersion, other: NodeVersion) -> None:
    assert (one < other) + (one == other) + (one > other) == 1


@given(VERSIONS, VERSIONS)
def test_numbers_never_contradict_the_order(one: NodeVersion, other: NodeVersion) -> None:
    if one.number < other.number:
        assert one < other


def test_the_number_of_a_version() -> None:
    assert NodeVersion.parse("1.104.5-rc").number == 1_104_005


@pytest.mark.parametrize("value", [None, 1.5, ["1.2.3"], {"major": 1}])
def test_only_text_is_a_version_field(value: object) -> None:
    with pytest.raises(ValueError, match="expected a version as text"):
        parse_field(value)
