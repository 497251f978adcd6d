"""Photograph the gallery of a finished demo run for the documentation, in headless Chromium.

python docs/screenshots.py --run . --output docs/images

Writes gallery-desktop.png, gallery-dark.png, gallery-phone.png and gallery-compare.png (this run beside its retrieval
baseline). Only the synthetic cohort: pictures of patients do not belong in documentation.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from d2rnet.gallery.browser import TIMEOUT_MS, chromium
from d2rnet.io import atomic_path

LEVEL_STEP = 5  # grey levels, less than one sees; noise of radiographs would make pictures of 400 kB
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
# a study that shows most: as many kinds of error as there are, one sentence lit
PICK = """() => {
  const kinds = (study) => ERRORS.filter((error) => errorCount(study, error)).length + (bitCount(INDEX.named[study]) > 3);
  const best = INDEX.id.map((_, study) => study).sort((a, b) => kinds(b) - kinds(a) || a - b)[0];
  show(best);
  return INDEX.id[best];
}"""


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    parser.add_argument("--output", type=Path, default=Path("docs/images"), help="folder of the pictures")
    arguments = parser.parse_args()
    run = arguments.run.resolve()
    page = run / "results" / "render_gallery" / "index.html"
    for needed in (run / "resources" / "demo_cohort" / "cohort.json", page):
        if not needed.is_file():
            sys.exit(f"{needed}: no such file; expected a finished run of the demo cohort ('make demo')")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        photograph(browser, page, arguments.output / "gallery-desktop.png", DESKTOP, "light")
        photograph(browser, page, arguments.output / "gallery-dark.png", DESKTOP, "dark")
        photograph(browser, page, arguments.output / "gallery-phone.png", PHONE, "light")
        compared = compare(run, Path(folder))
        photograph(browser, compared, arguments.output / "gallery-compare.png", DESKTOP, "light")


def compare(run: Path, folder: Path) -> Path:
    """Compare the run with its retrieval baseline, by paths that say nothing of this machine; return the page."""
    command = [
        sys.executable, "-m", "d2rnet", "compare", "results/evaluate_reports", "results/retrieve_reports/test.jsonl",
        "--set", "meteor=false", "--output", str(folder),
    ]  # fmt: skip
    subprocess.run(command, cwd=run, check=True, stdout=subprocess.DEVNULL)
    return folder / "gallery" / "index.html"


def photograph(browser: Any, page: Path, target: Path, viewport: dict[str, int], scheme: str) -> None:
    """Take one picture of a page, with the boxes of a sentence lit on a desktop."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    tab = context.new_page()
    tab.set_default_timeout(TIMEOUT_MS)
    tab.goto(page.as_uri())
    name = tab.evaluate(PICK)
    tab.wait_for_function("name => view.record && view.record.i === name", arg=name)
    tab.eval_on_selector(".frame img", "image => image.decode()")
    if viewport is DESKTOP:
        tab.locator(".text.generated .sentence.has-box").first.hover()
    with atomic_path(target) as temporary:
        tab.screenshot(path=temporary)
        with Image.open(temporary) as picture:
            coarse = picture.convert("RGB").point(lambda level: round(level / LEVEL_STEP) * LEVEL_STEP)
        coarse.save(temporary, optimize=True)
    context.close()


if __name__ == "__main__":
    main()
