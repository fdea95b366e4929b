"""The exporter's page in a real browser; what it looks like is left in tests/artefacts/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import web
from exporter.access import Access
from exporter.serve import page_route
from exporter.status import NodeStatus
from tests.exporter.test_page import EVERY, many
from tests.labs.chromium import Chromium
from tests.serving import serving

ARTEFACTS = Path(__file__).parents[1] / "artefacts"
LOOKED_FOR = "No node was found.\n" + "looked for: a long line of what was looked for and where it was not found. " * 4
BROKEN_WORDS = """
[...document.querySelectorAll("td.level, th")].filter(e => e.innerText.split(" ").some(word => {
  const range = document.createRange(), start = e.firstChild.data.indexOf(word);
  range.setStart(e.firstChild, start); range.setEnd(e.firstChild, start + word.length);
  return word.length < 16 && range.getClientRects().length > 1; })).length
"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SMALLEST_CONTRAST = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => { for (; element; element = element.parentElement) {
    const color = rgb(getComputedStyle(element).backgroundColor); if (color[3]) return color; }
    return [255, 255, 255]; };
  return Math.min(...[...document.body.querySelectorAll("*")].filter(e => e.innerText).map(e => {
    const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
})()
"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000, 1400])
@pytest.mark.parametrize(("name", "statuses"), [("every", EVERY), ("many", many(200)), ("none", [])])
def test_a_person_can_read_it(browser: Chromium, name: str, statuses: list[NodeStatus], width: int, dark: bool) -> None:
    app = web.create_app([page_route(lambda: statuses, LOOKED_FOR)], web.OPEN)
    with serving(app) as url:
        browser.open(f"{url}/", width=width, dark=dark)
        ARTEFACTS.mkdir(exist_ok=True)
        browser.screenshot(ARTEFACTS / f"page-{name}-{width}-{'dark' if dark else 'light'}.png")
        assert browser.evaluate(OVERFLOW) <= 0
        assert browser.evaluate(BROKEN_WORDS) == 0
        assert browser.evaluate(SMALLEST_CONTRAST) >= 4.5
        background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 3 * 64) == dark
        assert browser.evaluate("document.querySelectorAll('tbody').length") == len(statuses)
        text = browser.evaluate("document.body.innerText")
        assert all(status.node in text for status in statuses)


def test_it_loads_and_runs_nothing(browser: Chromium) -> None:
    with serving(web.create_app([page_route(lambda: EVERY, "")], web.OPEN)) as url:
        browser.open(f"{url}/", width=1400, dark=False)
        asked = [
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        logged = [
            event for event in browser.events if event.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled")
        ]
        hosts = [address for address in asked if not address.startswith(url)]
        assert (hosts, set(asked) - {f"{url}/", f"{url}/favicon.ico"}) == ([], set())
        assert not [entry for entry in logged if "favicon" not in str(entry)], logged
        assert browser.evaluate("window.hacked") is None


def test_a_browser_shows_the_token_as_a_password(browser: Chromium) -> None:
    token = "correct-horse-battery"
    with serving(web.create_app([page_route(lambda: EVERY, "")], Access(token=lambda: token))) as url:
        browser.open(url.replace("//", f"//me:{token}@") + "/", width=1400, dark=False)
        assert browser.evaluate('document.querySelectorAll("td.level").length') == len(EVERY)
