"""Pages into pictures with a real Chromium, and what does not fit on them."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.labs.chromium import Chromium
from tests.labs.prometheus import Prometheus, promtool
from tests.pictures import firing
from tests.pictures.board import Look
from tests.pictures.fleet import Fleet
from tests.pictures.story import BEGIN, LENGTH

MISFITS = """
JSON.stringify([...document.querySelectorAll("[data-panel]")].flatMap(panel => {
  const title = panel.dataset.panel, said = [], all = what => [...panel.querySelectorAll(what)];
  for (const e of all(".clip")) if (e.scrollWidth > e.clientWidth) said.push("clipped: " + e.innerText);
  for (const e of all("[data-wide]")) if (+e.dataset.wide > +e.dataset.room + 1)
    said.push("table of " + e.dataset.wide + " px in " + e.dataset.room + " px");
  for (const e of all("[data-size]")) if (+e.dataset.size < 12) said.push("letters of " + e.dataset.size + " px");
  for (const e of all("[data-pitch]")) if (+e.dataset.pitch < 12)
    said.push(e.dataset.lanes + " lanes of " + e.dataset.pitch + " px");
  for (const e of all("[data-legend]")) if (e.scrollHeight > e.clientHeight + 2 || e.scrollWidth > e.clientWidth)
    said.push("legend cut off");
  for (const e of all("[data-empty]")) said.push("no data: " + e.dataset.empty);
  for (const e of all(".body")) if (e.scrollWidth > e.clientWidth + 1) said.push("wider than its panel");
  return said.map(what => [title, what]);
}))
"""
"""What does not fit, or is not there, by panel."""

HEIGHT = """
(() => {
  const boxes = [...document.querySelectorAll(".panel, .row")].map(e => e.getBoundingClientRect());
  const whole = Math.ceil(document.documentElement.offsetHeight);
  const ends = boxes.map(b => b.bottom + 4).filter(y => y < HIGHEST && boxes.every(b => b.top > y || b.bottom < y));
  return whole <= HIGHEST ? whole : Math.ceil(Math.max(...ends)) + 4;
})()
"""
"""As high as the page, or up to the last place at which no panel is cut."""


@contextmanager
def told(nodes: int, every: float) -> Iterator[Prometheus]:
    """Start a Prometheus that knows the story of so many nodes, scraped at such an interval, and what alerts it had."""
    first, second = Prometheus({}), Prometheus({})
    lines = second.folder / "lines"
    Fleet(nodes).write(lines, every)
    load: list[str | Path] = ["tsdb", "create-blocks-from", "openmetrics", lines]
    promtool(*load, second.folder / "data")
    shutil.copytree(second.folder / "data", first.folder / "data")
    with first, lines.open("w") as file:
        file.writelines(firing.samples(first, BEGIN, BEGIN + LENGTH - every, every))
    promtool(*load, second.folder / "data")
    with second:
        yield second


def look(prometheus: Prometheus, every: float, *, chosen: Mapping[str, str], menu: int = 0) -> Look:
    """Look at the whole story, from its end."""
    return Look(prometheus=prometheus, begin=BEGIN, end=BEGIN + LENGTH - every, scraped=every, chosen=chosen, menu=menu)


def shoot(browser: Chromium, page: str, width: int, highest: int = 16000) -> list[tuple[str, str]]:
    """Load a page in a window as high as it is, for `Chromium.screenshot`; return what does not fit, by panel."""
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(page)
        file.flush()
        browser.open(Path(file.name).as_uri(), width=width, dark=True)
    heighten(browser, width, highest)
    found: list[list[str]] = json.loads(browser.evaluate(MISFITS))
    return [(title, what) for title, what in found]


def heighten(browser: Chromium, width: int, highest: int = 16000) -> None:
    """Make the window as high as the page in it, or as what fits of its panels."""
    height = browser.evaluate(HEIGHT.replace("HIGHEST", str(highest)))
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
