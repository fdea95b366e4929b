"""Make the pictures of the README anew: `python -m tests.pictures`, which takes about a minute and a half."""

import time
from contextlib import ExitStack
from pathlib import Path

from tests.alerts.shipped import ROOT
from tests.labs.chromium import Chromium
from tests.pictures import board, real
from tests.pictures.shots import heighten, look, shoot, told

PICTURES = ROOT / "docs/pictures"
_WIDE, _NARROW = 1400, 1200
_HIGHEST = 1700
_GROWN_SECONDS = 65
"""How long the nodes have to run until `check` has minutes to tell of."""


def main(folder: Path = PICTURES, grown_seconds: float = _GROWN_SECONDS) -> None:
    """Write the four pictures."""
    with ExitStack() as stack:
        site, began = stack.enter_context(real.site()), time.monotonic()
        browser = stack.enter_context(Chromium())
        prometheus = stack.enter_context(told(12, 60))
        for name, chosen in (("fleet", {}), ("node", {"node": "bravo"})):
            page = board.draw(ROOT / f"grafana/storagenode-{name}.json", look(prometheus, 60, chosen=chosen))
            shoot(browser, page, _WIDE, _HIGHEST)
            browser.screenshot(folder / f"{name}.png")
        time.sleep(max(began + grown_seconds - time.monotonic(), 0))
        browser.open(f"{site.url}/", width=_NARROW, dark=False)
        heighten(browser, _NARROW)
        browser.screenshot(folder / "page.png")
        shoot(browser, real.page(site.check()), _NARROW)
        browser.screenshot(folder / "check.png")
    for path in sorted(folder.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
