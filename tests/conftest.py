"""What every test may use: the repository's root, one finished tiny run, and where the optional real samples are."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from headless_browser import FURTHER_SIZES, SIZES, TIMEOUT_MS, chromium, find_chromium

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_RUNS = ("run", "finished_run", "trained", "cluster")  # fixtures of a session that take half a minute and more


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes (pytest-xdist), one gets all tests of a file, and all files that share a finished run."""
    places = [item.nodeid.partition("::")[0] for item in items]
    groups = {
        place: shared
        for item, place in zip(items, places, strict=True)
        for shared in SHARED_RUNS
        if shared in getattr(item, "fixturenames", ())
    }
    for item, place in zip(items, places, strict=True):
        item.add_marker(pytest.mark.xdist_group(groups.get(place, place)))


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """A command that a test, or a run it shares, runs in this process sets the level of the log; each test begins without."""
    logger = logging.getLogger("d2rnet")
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def run(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished tiny run on two cores; tests add to it and change nothing in it."""
    directory = tmp_path_factory.mktemp("tiny run")  # a space in the path: every command must quote
    command = [sys.executable, "-m", "snakemake", "-s", repository / "Snakefile", "-d", directory, "--cores", "2"]
    places = [place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != Path(sys.executable).parent]
    done = subprocess.run(
        [*command, "--configfile", repository / "workflow" / "presets" / "cxr" / "tiny.yaml"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": os.pathsep.join(places)},  # the environment is not activated
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return directory


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real radiographs that is not part of the project; skips where it is absent."""
    folder = Path(os.environ.get("D2RNET_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("real samples are not on this machine (set D2RNET_SHARED to their folder)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser; skips where there is none."""
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra 'test')")
    if not find_chromium():
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with chromium() as running:
        yield running


@pytest.fixture
def open_file(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page at a size and colour scheme; at the end there is no error, no warning and no other file asked for."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def opened(page: Path, size: str = "desktop", *, address: str = "", **options: Any) -> Any:
        width, height = (SIZES | FURTHER_SIZES)[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(TIMEOUT_MS)
        tab.on("console", lambda message: complaints.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        address = page.as_uri() + address
        allowed = (page.as_uri(), "data:")
        tab.on("request", lambda request: request.url.startswith(allowed) or complaints.append(request.url))
        tab.goto(address)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
