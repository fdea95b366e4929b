from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import load
from exporter.discover import Discovery, Found
from exporter.draft import draft

NODE = {"name": "n1", "service": "systemd:storagenode.service", "binary": "/usr/bin/storagenode"}


def test_a_draft_is_a_configuration(tmp_path: Path) -> None:
    config = NODE | {"api": "127.0.0.1:14002", "storage": "/mnt/with: a # space"}
    remarks = {"node_id": "/id/identity.cert: Permission denied", "updater_service": "not shown: there is none"}
    other = {"name": "1_0", "service": {"process": {"start": ["/b", "run", "- x: y"], "user": "on"}}, "binary": "/b"}
    found = Discovery(
        nodes=(Found(config=config, remarks=remarks), Found(config=other, remarks={})), remarks=("why\n  not",)
    )
    text = draft(found, seen_as="root on host", is_root=False)
    assert text.splitlines()[:4] == [
        "# The storage nodes found on this host, as seen by root on host.",
        "# As root more can be seen: what only the nodes' own users may read is missing here.",
        "# why not",
        "# Each name has to be unique across all your hosts.",
    ]
    assert "    # node_id: /id/identity.cert: Permission denied\n" in text
    assert yaml.safe_load(text)["nodes"] == [config, other]
    (tmp_path / "keeper.yml").write_text(text)
    assert [node.name for node in load(tmp_path / "keeper.yml").nodes] == ["n1", "1_0"]


@given(st.text(), st.text())
def test_no_remark_becomes_configuration(remark: str, name: str) -> None:
    remarks = {"node_id": remark, "binary": remark, "api": f"\nnodes: {remark}\u2028nodes: []\x85x: y"}
    found = Discovery(nodes=(Found(config=NODE, remarks=remarks),), remarks=(remark, name))
    text = draft(found, seen_as=name, is_root=True)
    assert yaml.safe_load(text) == {"nodes": [NODE]}
