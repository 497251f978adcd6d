"""Headless Chromium, to test, measure and photograph pages; neither writing nor reading one needs it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from d2rnet.errors import ToolError

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 300_000  # of any wait; a busy machine is not an error
REMEDY = "Debian, Ubuntu: apt-get install chromium; pip install playwright (extra 'test' of pyproject.toml)"

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
FURTHER_SIZES = {"tablet": (768, 1024), "zoomed": (320, 256)}  # the latter: 1280 x 1024 at 400 %
# Text on a background of less than 4.5 : 1 (WCAG 2.1, 1.4.3), layers blended; pictures and what is switched off left out.
_LOW_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number).concat(1).slice(0, 4);
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
    if (element.closest('script, option, :disabled, .dim')) continue;
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    const back = layers.reduce((under, top) => over(top, under), [255, 255, 255, 1]);
    const fore = over(parse(getComputedStyle(element).color), back);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${element.className || element.tagName} '${node.data.trim().slice(0, 30)}'`;
    if (ratio < 4.5) found.push(`${name} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a headless browser of Playwright, driving the installed Chromium.

    Raises:
        ToolError: Chromium or Playwright is missing.
    """
    path = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ToolError(f"Playwright is not installed. {REMEDY}.") from error
    if path is None:
        raise ToolError(f"none of {', '.join(NAMES)} is on PATH. {REMEDY}.")
    # Chromium's sandbox refuses to run as root, the usual user of a container
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=TIMEOUT_MS)
        try:
            yield browser
        finally:
            browser.close()


def violations(tab: Any) -> list[str]:
    """Return what axe-core finds wrong with a page, of any severity: its usual rules, size of targets, names of labels."""
    from axe_playwright_python.base import AXE_SCRIPT

    rules = {name: {"enabled": True} for name in ("target-size", "label-content-name-mismatch")}
    tab.evaluate(AXE_SCRIPT)
    found = tab.evaluate("rules => axe.run({ resultTypes: ['violations'], rules })", rules)["violations"]
    return [f"{one['impact']} {one['id']}: {', '.join(str(node['target']) for node in one['nodes'])}" for one in found]


def low_contrast(tab: Any) -> list[str]:
    """Return the texts of a page that are hard to read."""
    return tab.evaluate(_LOW_CONTRAST)
