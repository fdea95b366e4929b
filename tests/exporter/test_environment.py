import os
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.environment import parse, variables
from tests.labs.systemd import Container

EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
FILES: dict[bytes, dict[str, str] | None] = {
    b"": {},
    b"A=1\nB = 2 \n  C=3": {"A": "1", "B": "2", "C": "3"},
    b"# A=1\n; A=2\n\t#\n#\nB=1 # no comment\r\nC=": {"B": "1 # no comment", "C": ""},
    b"A='x y'\nB=\"x y\"\nC='a'\"b\"  'c' d 'e'\n": {"A": "x y", "B": "x y", "C": "abcd 'e'"},
    b'A=\'1\n2\'\nB="1\n2"\nC=1\\\n2\nD="1\\\n2"\n': {"A": "1\n2", "B": "1\n2", "C": "12", "D": "12"},
    b'A=\\"x\\ \\y\\ \nB="\\"\\\\\\`\\$\\n"\nC=x \\\n  \nD=$A ${A}': {
        "A": '"x y ',
        "B": '"\\`$\\n',
        "C": "x ",
        "D": "$A ${A}",
    },
    b"A=1\nA=2\nno assignment\nexport B=1\n1C=1\n=x\nA B=1": {"A": "2"},
    b"A='not ended": {"A": "not ended"},
    b'A="not ended\\': {"A": "not ended"},
    b"A=not ended \\": {"A": "not ended "},
    b"A=\xc3\xa9\n# \xff": {"A": "é"},
    b"A=\xff\nA=1": None,
    b"A=1\0": None,
}
"""Files, and what they say; None for what systemd does not take."""


@pytest.mark.parametrize(("content", "expected"), FILES.items(), ids=range(len(FILES)))
def test_files_are_read(content: bytes, expected: dict[str, str] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"zero byte|surrogates not allowed"):
            parse(content)
    else:
        assert parse(content) == expected


@given(st.binary(max_size=100))
def test_nothing_in_one_makes_us_fail(content: bytes) -> None:
    with suppress(ValueError):
        assert all(name.isidentifier() for name in parse(content))


@pytest.mark.parametrize("content", [b" " * 500_000, b'A="' + b"\\" * 500_000, b"A= x" * 120_000, b"#\n" * 250_000])
def test_a_large_one_takes_no_time(content: bytes) -> None:
    began = time.monotonic()
    parse(content)
    assert time.monotonic() - began < 10  # where time goes by the square of the length it is minutes


def test_a_later_file_counts_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("A=1\nB=1")
    (tmp_path / "2.env").write_text("A=2")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "bad").write_bytes(b"A=\0")
    absent, fifo, bad = (str(tmp_path / name) for name in ("absent", "fifo", "bad"))
    assert variables([(f"{tmp_path}/*.env", False)]) == ({"A": "2", "B": "1"}, ())
    assert variables([(f"{tmp_path}/2.env", False), (f"{tmp_path}/1.env", True)])[0]["A"] == "1"
    assert variables([(absent, True), (f"{tmp_path}/*.none", True)]) == ({}, ())
    assert variables([(absent, False), (fifo, True), (bad, True), (f"{tmp_path}/1.env", True)]) == (
        {"A": "1", "B": "1"},
        (f"{absent}: No such file or directory", f"{fifo}: not a regular file", f"{bad}: contains a zero byte"),
    )


LETTERS = ["A", "B", "_", "=", "=", " ", "\t", "\n", "\r", "'", '"', "\\", "#", "$", "`", "x", "1", "é", "A=", "\nB="]


@pytest.mark.systemd
def test_systemd_reads_the_same(container: Container) -> None:
    """Every file above, and some by chance, are given to a real service."""
    chance = random.Random(time.time_ns() if EXHAUSTIVE else 1)
    files = list(FILES)
    while len(files) < (1500 if EXHAUSTIVE else 150):
        text = "".join(chance.choices(LETTERS, k=chance.randint(1, 25)))
        if "#" not in text or "\\" not in text:  # systemd before 254 takes another view of a comment's end
            files.append(text.encode())
    for number, content in enumerate(files):
        container.write(f"/srv/variables/{number}", content)
    run = "systemd-run --quiet --wait --collect --property=EnvironmentFile=/srv/variables/$n"
    run += " --property=StandardOutput=file:/srv/variables/$n.seen env -0"
    loop = f"for n in $(seq 0 {len(files) - 1}); do {run}; done"
    container.run(["sh", "-c", loop], check=False, timeout=600)
    everywhere: set[str] = set()
    for number, content in enumerate(files):
        seen = container.path(f"/srv/variables/{number}.seen")
        if not seen.exists():
            with pytest.raises(ValueError, match=r"zero byte|surrogates"):
                parse(content)
            continue
        given = dict(each.split("=", 1) for each in seen.read_bytes().decode().split("\0")[:-1])
        if not content:
            everywhere = set(given)
        assert {name: value for name, value in given.items() if name not in everywhere} == parse(content), content
