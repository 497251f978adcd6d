"""Photograph gallery and single readings of a finished demo run for the documentation, in headless Chromium.

python docs/screenshots.py --run . --output docs/images

Of radiographs ('make demo') gallery-desktop.png, gallery-dark.png, gallery-phone.png and gallery-compare.png (this run beside
its retrieval baseline); reading-page.png, reading-phone.png and reading-overlay.png of 'd2rnet read' on one radiograph. Of
chest CTs ('make demo-ct') reading-ct.png and reading-ct-phone.png of one of them, and gallery-ct.png. What the run does not
have stays as it is. Only the synthetic cohorts: pictures of patients do not belong in documentation.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from d2rnet.cxr.boxes.evidence import linked_boxes
from d2rnet.files.atomic import atomic_path
from d2rnet.files.documents import read_jsonl
from d2rnet.report.annotation_file import load_annotation

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "gallery"))

from headless_browser import TIMEOUT_MS, chromium

LEVEL_STEP = 5  # grey levels, less than one sees; noise of radiographs would make pictures of 400 kB
COHORTS = {"make demo": "resources/cxr/demo_cohort/cohort.json", "make demo-ct": "resources/ct/demo_cohort/cohort.json"}
GALLERIES = {"make demo": "results/cxr/render_gallery/index.html", "make demo-ct": "results/ct/render_ct_gallery/index.html"}
DESKTOP, PHONE, READING = {"width": 1440, "height": 900}, {"width": 390, "height": 844}, {"width": 1200, "height": 760}
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
    missing = {
        demo: needed for demo in GALLERIES for needed in (COHORTS[demo], GALLERIES[demo]) if not (run / needed).is_file()
    }
    for demo, needed in missing.items():
        print(f"{run / needed}: no such file; the pictures that need a finished '{demo}' stay as they are", file=sys.stderr)
    if len(missing) == len(GALLERIES):
        sys.exit("no picture was taken; name the working directory of a finished demo (--run)")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for demo, take in (("make demo", photograph_cxr), ("make demo-ct", photograph_ct)):
            if demo not in missing:
                take(browser, run / GALLERIES[demo], run, Path(folder), arguments.output)


def photograph_cxr(browser: Any, page: Path, run: Path, folder: Path, output: Path) -> None:
    """Take the pictures of a run on radiographs: its gallery, its comparison with a baseline, and one reading."""
    photograph(browser, page, output / "gallery-desktop.png", DESKTOP, "light")
    photograph(browser, page, output / "gallery-dark.png", DESKTOP, "dark")
    photograph(browser, page, output / "gallery-phone.png", PHONE, "light")
    photograph(browser, compare(run, folder), output / "gallery-compare.png", DESKTOP, "light")
    reading = read(run, folder)
    photograph_reading(browser, reading, output / "reading-page.png", READING, "light")
    photograph_reading(browser, reading, output / "reading-phone.png", PHONE, "dark")
    with Image.open(reading.with_suffix(".png")) as overlay:
        save(overlay.resize((900, round(overlay.height * 900 / overlay.width))), output / "reading-overlay.png")


def compare(run: Path, folder: Path) -> Path:
    """Compare the run with its retrieval baseline, by paths that say nothing of this machine; return the page."""
    command = [
        sys.executable, "-m", "d2rnet", "compare", "results/cxr/evaluate_reports", "results/cxr/retrieve_reports/test.jsonl",
        "--set", "meteor=false", "--output", str(folder),
    ]  # fmt: skip
    subprocess.run(command, cwd=run, check=True, stdout=subprocess.DEVNULL)
    return folder / "gallery" / "index.html"


def read(run: Path, folder: Path) -> Path:
    """Read a radiograph whose sentences have boxes of three classes, of these the best report; return the page."""
    entries = {entry["id"]: entry for entry in load_annotation(run / "results/cxr/build_annotation/annotation.json")["test"]}
    reports = read_jsonl(run / "results/cxr/generate_reports/test.jsonl")
    boxes = {
        line["id"]: {box for sentence in line["sentences"] for box in linked_boxes(sentence, entries[line["id"]])}
        for line in reports
    }
    rouge = {line["id"]: line["rouge_l"] for line in read_jsonl(run / "results/cxr/evaluate_reports/per_report.jsonl")}
    best = max(entries, key=lambda name: (min(3, len({entries[name]["labels"][box] for box in boxes[name]})), rouge[name]))
    image = folder / "chest.jpg"
    shutil.copyfile(run / "resources/cxr/demo_cohort/mimic" / entries[best]["image_path"][0], image)
    command = [sys.executable, "-m", "d2rnet", "read", str(image), "--output", str(folder / "readings"), "--device", "cpu"]
    subprocess.run(command, cwd=run, check=True, stdout=subprocess.DEVNULL)
    return folder / "readings" / "chest.html"


def photograph_ct(browser: Any, gallery: Path, run: Path, folder: Path, output: Path) -> None:
    """Take the pictures of a CT run: its gallery, and the page of one scan with the attention of a sentence."""
    photograph(browser, gallery, output / "gallery-ct.png", DESKTOP, "light")
    page = read_ct(run, folder)
    for viewport, scheme, name in ((DESKTOP, "light", "reading-ct.png"), (PHONE, "dark", "reading-ct-phone.png")):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        tab = context.new_page()
        tab.set_default_timeout(TIMEOUT_MS)
        tab.goto(page.as_uri())
        tab.wait_for_selector("body.ready")
        tab.locator("li button").first.click()
        save(Image.open(io.BytesIO(tab.screenshot(full_page=viewport is PHONE))), output / name)
        context.close()


def read_ct(run: Path, folder: Path) -> Path:
    """Read the scan whose report is best of those that speak of most structures; return the page."""
    reports = read_jsonl(run / "results/ct/generate_ct_reports/test.jsonl")
    told = {line["id"]: {name for sentence in line["sentences"] for name in sentence["structures"]} for line in reports}
    rouge = {line["id"]: line["rouge_l"] for line in read_jsonl(run / "results/ct/evaluate_ct_reports/per_report.jsonl")}
    best = max(rouge, key=lambda name: (min(5, len(told[name])), rouge[name]))
    (scan,) = (run / "resources/ct/demo_cohort/ct_rate").rglob(f"{best}.nii.gz")
    command = [sys.executable, "-m", "d2rnet", "read", str(scan), "--output", str(folder / "ct"), "--device", "cpu"]
    subprocess.run(command, cwd=run, check=True, stdout=subprocess.DEVNULL)
    return folder / "ct" / f"{best}.html"


def photograph_reading(browser: Any, page: Path, target: Path, viewport: dict[str, int], scheme: str) -> None:
    """Take one picture of the page of a reading, with the boxes of the first sentence that has any lit."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    tab = context.new_page()
    tab.set_default_timeout(TIMEOUT_MS)
    tab.goto(page.as_uri())
    tab.locator('#sentences li[data-boxes]:not([data-boxes=""])').first.hover()
    save(Image.open(io.BytesIO(tab.screenshot(full_page=viewport is PHONE))), target)
    context.close()


def photograph(browser: Any, page: Path, target: Path, viewport: dict[str, int], scheme: str) -> None:
    """Take one picture of a page, with the boxes of a sentence lit on a desktop."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    tab = context.new_page()
    tab.set_default_timeout(TIMEOUT_MS)
    tab.goto(page.as_uri())
    name = tab.evaluate(PICK)
    tab.wait_for_function("name => view.record && view.record.i === name", arg=name)
    tab.eval_on_selector(".frame img", "image => image.decode()")
    if viewport is DESKTOP and tab.evaluate("HAS_BOXES"):
        tab.locator(".text.generated .sentence.has-box").first.hover()
    save(Image.open(io.BytesIO(tab.screenshot())), target)
    context.close()


def save(picture: Image.Image, target: Path) -> None:
    """Write a picture with fewer grey levels, as a small PNG."""
    with atomic_path(target) as temporary:
        picture.convert("RGB").point(lambda level: round(level / LEVEL_STEP) * LEVEL_STEP).save(temporary, optimize=True)


if __name__ == "__main__":
    main()
