import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
import requests

from exporter import web
from exporter.allowed import UpdateState, Verdict
from exporter.check import Level, advice, level, verdict
from exporter.page import page
from exporter.serve import page_route
from exporter.status import Failure, FailureReason, NodeStatus, RunningNode, ServiceState, ServiceStatus
from exporter.version import NodeVersion
from tests.exporter.test_metrics import DARK, DOWN, RUNNING
from tests.serving import serving

NOW = datetime.fromtimestamp(1_794_000_000 + 7300, UTC)
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&amp;\n</style>"
EVERY = [
    RUNNING,
    replace(RUNNING, node="well-behaved", installed=DOWN.installed, verdict=Verdict(UpdateState.WAITING)),
    DOWN,
    replace(DOWN, node="runs-still", service=RUNNING.service, running=RUNNING.running),
    DARK,
    *(
        replace(RUNNING, node=f"node-{state}", service=ServiceStatus(state=state, detail="why", since=1_794_000_000))
        for state in ServiceState
    ),
    replace(RUNNING, node="due", verdict=Verdict(UpdateState.DUE, NodeVersion(1, 106, 0))),
    replace(RUNNING, node="x" * 64, running=Failure(FailureReason.MALFORMED, HOSTILE * 3)),
]
NEEDED = {"table": 1, "thead": 1, "title": 1, "h1": 1, "style": 1}


def many(count: int) -> list[NodeStatus]:
    kinds = [RUNNING] * 17 + [DOWN, DARK, RUNNING]
    return [replace(kinds[number % len(kinds)], node=f"node{number}") for number in range(count)]


class Parsed(HTMLParser):
    """What a browser would make of it: the elements, their attributes, and the text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else data + " "

    def links(self) -> list[str | None]:
        return [attributes["href"] for tag, attributes in self.elements if tag == "a"]


@pytest.fixture(scope="module")
def every() -> Parsed:
    return Parsed(page(EVERY, now=NOW, without=""))


def test_it_says_what_check_says(every: Parsed) -> None:
    for status in EVERY:
        for words in (status.node, status.service.state, verdict(status), *advice(status)):
            assert words in every.text
    assert "1.105.0-rc" in every.text and "1.104.6" in every.text and "1.104.5" in every.text
    assert "2h ago" in every.text


def test_who_needs_nothing_is_told_so() -> None:
    assert isinstance(RUNNING.running, RunningNode)
    installed = replace(RUNNING.running, version=NodeVersion(1, 105, 0, "rc"))
    calm = replace(RUNNING, running=installed)
    assert advice(calm) == []
    assert "Nothing to do." in page([calm], now=NOW, without="")
    assert "Nothing to do." not in page([DOWN], now=NOW, without="")
    stopped = page([replace(calm, service=DOWN.service, running=DOWN.running)], now=NOW, without="")
    assert "Nothing to do." not in stopped and "Its version does not keep it from starting." in stopped


def test_who_needs_a_person_most_comes_first() -> None:
    text = Parsed(page([RUNNING, DARK, DOWN, replace(RUNNING, node="z")], now=NOW, without="")).text
    places = [text.index(f" {name} ") for name in ("down", "dark", "up", "z")]
    assert places == sorted(places)
    assert "1 below the minimum" in text and "1 down, not reached or not known" in text and "2 well" in text


def test_it_links_to_metrics_and_health(every: Parsed) -> None:
    assert every.links()[-2:] == ["metrics", "-/healthy"]
    assert f"metrics?node={RUNNING.node}" in every.links()
    assert len(every.links()) == len(EVERY) + 2


def test_nothing_that_was_read_becomes_markup(every: Parsed) -> None:
    tags = {tag for tag, _ in every.elements}
    assert not tags & {"script", "img", "iframe", "link", "object", "form"}
    assert {tag: [each for each, _ in every.elements].count(tag) for tag in NEEDED} == NEEDED
    assert {name for _, attributes in every.elements for name in attributes} == {
        "charset", "class", "colspan", "content", "data-heading", "href", "lang", "name", "scope",
    }  # fmt: skip
    assert HOSTILE.split("\n")[0] in every.text
    odd = page(
        [replace(RUNNING, node="a\"b<c>&d'e", service=replace(RUNNING.service, detail=HOSTILE))], now=NOW, without=""
    )
    assert "a&quot;b&lt;c&gt;&amp;d&#x27;e" in odd and '<a href="metrics?node=a%22b%3Cc%3E%26d%27e">' in odd


@pytest.mark.parametrize("kind", Level)
def test_every_level_has_a_color_in_both_schemes(kind: Level) -> None:
    assert any(level(status) is kind for status in EVERY)
    assert len(re.findall(rf"--{kind}: #", page([], now=NOW, without=""))) == 2


def test_no_node() -> None:
    text = page([], now=NOW, without="Nothing <found>.")
    assert "<pre>Nothing &lt;found&gt;.</pre>" in text and "<table" not in text


def test_two_hundred_nodes() -> None:
    text = page(many(200), now=NOW, without="")
    assert text.count("<tbody") == 200
    assert len(text) < 200_000


def test_how_it_is_served() -> None:
    seen = iter([[RUNNING], [DOWN]])
    with serving(web.create_app([page_route(lambda: next(seen), "")], web.OPEN)) as url:
        answer = requests.get(f"{url}/", timeout=60)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert answer.headers["Cache-Control"] == "no-store"
        assert "DEADLOCKED" not in answer.text
        assert "DEADLOCKED" in requests.get(f"{url}/", timeout=60).text
