import json
from pathlib import Path
from typing import Any

import pytest

from exporter.allowed import (
    STORAGENODE,
    STORAGENODE_UPDATER,
    DocumentError,
    Process,
    Release,
    UpdateState,
    Verdict,
    judge,
    parse_document,
    rollout_position,
)
from exporter.version import NodeVersion

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream"
SEED_A = "000102030405060708090a0b0c0d0e0ff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
SEED_B = "e2b772d16ecdae8b89200a6ea60b16203e27c7d3e788edf313a467895dfb346b"
SEED_Z = ""
ONE = "129MF8ha7SLjB4XECabmPHXCLoZ1tCvzfNx62fCzw84xSUqLGHJ"
TWO = "12jxn7m3nXRfMmvkKQiocAM2iTKEdKUL56ZWPXeqgeVAoLYM9vK"
THREE = "1ZXTMLjQjZjMrB2LSk3YbyMxuPohfknyHa7Ypc85WkboVDFg4W"
PERCENTAGES = (6, 12, 25, 50, 100)
# Whether the node is a candidate with the cursor at 6, 12, 25, 50 and 100 percent.
VECTORS = [
    (ONE, SEED_A, "07b99bd15644fcbb21f5910f5852d5e060c667059d88dcdbf6ea8ec332963ca4", "YYYYY"),
    (ONE, SEED_B, "558e41fd92d049c23bf21a35484b7374edee6d8b7887f687074b421095567105", "nnnYY"),
    (ONE, SEED_Z, "01e40e116f34eaf4b246d3135c84b1391171da67eadbbc44bab0a519a045bb72", "YYYYY"),
    (TWO, SEED_A, "700f236399698a6239561671c02850b80ec5963d40ba6634c9a06d28274cb271", "nnnYY"),
    (TWO, SEED_B, "150b6bc896aa2cab485866c3032419a8dcc4e5c6737a7fc37070392f5f4f626b", "nYYYY"),
    (TWO, SEED_Z, "c83180f4e3abdca96066b721b8353d8b6d866b5fb04b3f79f3d0998399ddbce8", "nnnnY"),
    (THREE, SEED_A, "ec5de06e469809bbae4728916c3b163fb2376e187df7904b0849151bb297ab19", "nnnnY"),
    (THREE, SEED_B, "8ec4cc6f0f0146dda42485016339e37dd43ea9fad040d0ab0345f06e5a2f126b", "nnnnY"),
    (THREE, SEED_Z, "d116d6ac42d4ba8625b248f2ae8643ad0ec8295434c9d77766e23013aace74c0", "nnnnY"),
]


def cursor_at(percent: float) -> str:
    """Compute the cursor as upstream does, its alignment to the left included."""
    number = (2**256 - 1) // 1_000_000 * int(percent * 10_000)
    return "ff" * 32 if percent >= 100 else number.to_bytes((number.bit_length() + 7) // 8).hex()


def document(
    *, minimum: str = "1.104.5", suggested: str = "1.110.3", seed: str = "", cursor: str = ""
) -> dict[str, Any]:
    process = {
        "minimum": {"version": minimum, "url": ""},
        "suggested": {"version": suggested, "url": "https://example.org/v{version}"},
        "rollout": {"seed": seed, "cursor": cursor},
    }
    return {"processes": {"storagenode": process}}


def process(**fields: str) -> Process:
    return parse_document(json.dumps(document(**fields)).encode(), fetched=1.0).processes[STORAGENODE]


@pytest.mark.parametrize(("node_id", "seed", "position", "candidate"), VECTORS)
def test_the_rollout_reaches_a_node_when_upstream_says(node_id: str, seed: str, position: str, candidate: str) -> None:
    assert rollout_position(process(seed=seed).seed, node_id).hex() == position
    for percent, expected in zip(PERCENTAGES, candidate, strict=True):
        state = judge(NodeVersion(1, 105), process(seed=seed, cursor=cursor_at(percent)), node_id).state
        assert state is (UpdateState.DUE if expected == "Y" else UpdateState.WAITING)


def test_a_cursor_at_the_nodes_position_has_reached_it() -> None:
    position = VECTORS[0][2]
    below = f"{int(position, 16) - 1:064x}"
    for cursor, expected in {position: UpdateState.DUE, below: UpdateState.WAITING, "": UpdateState.WAITING}.items():
        assert judge(NodeVersion(1, 105), process(seed=SEED_A, cursor=cursor), ONE).state is expected


@pytest.mark.parametrize("percent", [0.3, 0.39])
def test_a_cursor_is_obeyed_as_served(percent: float) -> None:
    # Upstream writes small percentages with 31 bytes, which then count 256 times as much.
    assert len(bytes.fromhex(cursor_at(percent))) == 31
    assert process(cursor=cursor_at(percent)).cursor == bytes.fromhex(cursor_at(percent)) + b"\0"


def test_the_rule_is_upstreams_in_upstreams_order() -> None:
    for installed, fields, expected in [
        ("1.110.3", {}, Verdict(UpdateState.CURRENT)),
        ("1.200.0", {}, Verdict(UpdateState.CURRENT)),
        ("1.104.4", {}, Verdict(UpdateState.BELOW_MINIMUM, NodeVersion(1, 104, 5))),
        ("1.104.5-rc", {}, Verdict(UpdateState.BELOW_MINIMUM, NodeVersion(1, 104, 5))),
        ("1.104.5", {"cursor": "ff" * 32}, Verdict(UpdateState.DUE, NodeVersion(1, 110, 3))),
        ("1.104.5", {}, Verdict(UpdateState.WAITING)),
        # Below a minimum above what is suggested, upstream calls the node up to date.
        ("1.100.0", {"minimum": "1.120.0", "suggested": "1.99.0"}, Verdict(UpdateState.CURRENT)),
    ]:
        assert judge(NodeVersion.parse(installed), process(**fields), ONE) == expected


@pytest.mark.parametrize("node_id", [None, "nonsense"])
def test_without_a_node_id_only_the_rollout_is_unknown(node_id: str | None) -> None:
    assert judge(NodeVersion(1, 105), process(), node_id).state is UpdateState.UNKNOWN
    assert judge(NodeVersion(1, 105), process(), node_id).reason
    assert judge(NodeVersion(1, 1), process(), node_id).state is UpdateState.BELOW_MINIMUM
    assert judge(NodeVersion(1, 111), process(), node_id).state is UpdateState.CURRENT


def test_the_document_of_a_real_version_server() -> None:
    allowed = parse_document((UPSTREAM / "1.162.3" / "version_document.json").read_bytes(), fetched=5.0)
    assert allowed.fetched == 5.0
    node = allowed.processes[STORAGENODE]
    assert node.minimum == Release(
        version=NodeVersion(1, 162, 3), url="http://127.0.0.1:9000/storagenode_{os}_{arch}.zip"
    )
    assert (node.seed.hex(), node.cursor.hex()) == (SEED_A, "ff" * 32)
    assert node.consistent
    assert allowed.processes[STORAGENODE_UPDATER].minimum.version == NodeVersion(1)
    assert not process(minimum="2.0.0").consistent


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "document"),
        (b"<!doctype html>", "document"),
        (b"\xff\xfe", "document"),
        (b"null", "document"),
        (b"[]", "document"),
        (b'{"processes": null}', "processes"),
        (b'{"processes": {}}', r"processes\.storagenode"),
        (b'{"Storagenode": {"major": 1, "minor": 24, "patch": 0}}', "processes"),
        (json.dumps(document(minimum="latest")).encode(), r"minimum\.version.*'latest'"),
        (json.dumps(document(suggested="")).encode(), r"suggested\.version"),
        (json.dumps(document(seed="xx")).encode(), r"rollout\.seed"),
        (json.dumps(document(cursor="ff" * 33)).encode(), r"rollout\.cursor.*64 hex digits"),
        (json.dumps(document()).replace('"1.104.5"', "1.104").encode(), r"minimum\.version.*as text"),
        (json.dumps(document()).replace('"1.104.5"', "NaN").encode(), r"minimum\.version"),
        (b"[" * 100_000, "document"),
    ],
)
def test_a_document_that_is_none_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem) as error:
        parse_document(body, fetched=0)
    assert len(str(error.value)) < 400


def test_placeholders_for_other_programs_are_no_matter() -> None:
    with_others = document()
    with_others["processes"]["gateway"] = {"minimum": {"version": "latest"}}
    assert parse_document(json.dumps(with_others).encode(), fetched=0).processes.keys() == {STORAGENODE}
