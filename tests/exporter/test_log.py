import json
import logging
from collections.abc import Iterator

import pytest

from exporter.log import Format, Level, setup


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_logfmt(capsys: pytest.CaptureFixture[str]) -> None:
    setup(Level.INFO, Format.LOGFMT)
    logging.getLogger("a.b").info(
        "swapped it",
        extra={"node": "n1", "to": "1.104.5", "why": 'said "no"\nand = left', "ok": True, "none": None, "é": "é\x1b["},
    )
    line = logged(capsys)
    time, _, rest = line.partition(" ")
    assert time.startswith("time=20")
    assert time.endswith("+00:00")
    assert rest == (
        'level=info message="swapped it" node=n1 to=1.104.5 why="said \\"no\\"\\nand = left" ok=true none=""'
        ' é="é\\u001b[" logger=a.b\n'
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    setup(Level.DEBUG, Format.JSON)
    try:
        raise ValueError("so it is")
    except ValueError:
        logging.getLogger("a").exception("failed", extra={"count": 3, "path": object})
    fields = json.loads(logged(capsys))
    assert (fields["level"], fields["logger"], fields["message"], fields["count"]) == ("error", "a", "failed", 3)
    assert "ValueError: so it is" in fields["exception"]


@pytest.mark.parametrize("level", Level)
def test_the_level(level: Level, capsys: pytest.CaptureFixture[str]) -> None:
    setup(level, Format.LOGFMT)
    for one in Level:
        logging.log(logging.getLevelName(one.upper()), "said", extra={"at": one})
    order = list(Level)
    said = [line.partition(" at=")[2].partition(" ")[0] for line in logged(capsys).splitlines()]
    assert said == order[order.index(level) :]


def test_a_second_setup_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    setup(Level.INFO, Format.LOGFMT)
    setup(Level.INFO, Format.JSON)
    logging.info("once")
    assert json.loads(logged(capsys))["message"] == "once"
