"""Headless Chromium, to test, measure and photograph a gallery; neither writing nor reading one needs it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from d2rnet.errors import ToolError

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 300_000  # of any wait; a busy machine is not an error
REMEDY = "Debian, Ubuntu: apt-get install chromium; pip install playwright (extra 'test' of pyproject.toml)"


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
