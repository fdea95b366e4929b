"""Make the pictures of the README anew: `python -m tests.pictures`, which takes about a minute and a half."""

import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.grafana.boards import FLEET, NODE, ROOT
from tests.labs.chromium import Chromium
from tests.pictures import board, real
from tests.pictures.told import told

PICTURES = ROOT / "docs/pictures"
_WIDE, _NARROW = 1400, 1200
_HIGHEST = 1700
_GROWN_SECONDS = 65
"""How long the nodes have to run until `check` has minutes to tell of."""
MISFITS = """
JSON.stringify([...document.querySelectorAll("[data-panel]")].flatMap(panel => [
  [".clip", e => e.scrollWidth > e.clientWidth, e => "clipped: " + e.innerText],
  ["[data-wide]", e => +e.dataset.wide > +e.dataset.room + 1, e => "table of " + e.dataset.wide + " px"],
  ["[data-size]", e => +e.dataset.size < 12, e => `letters of ${e.dataset.size} px`],
  ["[data-pitch]", e => +e.dataset.pitch < 12, e => `${e.dataset.lanes} lanes of ${e.dataset.pitch} px`],
  ["[data-legend]", e => e.scrollHeight > e.clientHeight + 2 || e.scrollWidth > e.clientWidth, e => "legend cut off"],
  ["[data-empty]", e => true, e => "no data: " + e.dataset.empty],
  [".body", e => e.scrollWidth > e.clientWidth + 1, e => "wider than its panel"],
].flatMap(([what, wrong, said]) =>
  [...panel.querySelectorAll(what)].filter(wrong).map(e => [panel.dataset.panel, said(e)]))))
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


def main(folder: Path = PICTURES, grown_seconds: float = _GROWN_SECONDS) -> None:
    """Write the four pictures."""
    with ExitStack() as stack:
        site, began = stack.enter_context(real.site()), time.monotonic()
        browser = stack.enter_context(Chromium())
        look = stack.enter_context(told(12, 60))
        for name, path, node in (("fleet", FLEET, None), ("node", NODE, "bravo")):
            shoot(browser, board.draw(path, replace(look, node=node)), _WIDE, _HIGHEST)
            browser.screenshot(folder / f"{name}.png")
        time.sleep(max(began + grown_seconds - time.monotonic(), 0))
        browser.open(f"{site.url}/", width=_NARROW, dark=False)
        heighten(browser, _NARROW)
        browser.screenshot(folder / "page.png")
        shoot(browser, real.page(site.check()), _NARROW)
        browser.screenshot(folder / "check.png")
    for path in sorted(folder.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def shoot(browser: Chromium, page: str, width: int, highest: int = 16000) -> list[list[str]]:
    """Load a page in a window as high as it is, for `Chromium.screenshot`; return what does not fit, by panel."""
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(page)
        file.flush()
        browser.open(Path(file.name).as_uri(), width=width, dark=True)
    heighten(browser, width, highest)
    misfits: list[list[str]] = json.loads(browser.evaluate(MISFITS))
    return misfits


def heighten(browser: Chromium, width: int, highest: int = 16000) -> None:
    """Make the window as high as the page in it, or as what fits of its panels."""
    height = browser.evaluate(HEIGHT.replace("HIGHEST", str(highest)))
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


if __name__ == "__main__":
    main()
