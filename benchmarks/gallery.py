"""Weight of a gallery and how fast a browser shows it: galleries of many studies, made of those of a finished demo run.

Studies are repeated under other ids until there are as many as wanted. Each page is opened in a fresh browser (headless
Chromium, from the file, caches of the disk warm). *Interactive*: filters, list and keyboard work. *First image*: the first
radiograph is decoded. *Next study*: from the key to its decoded radiograph. *Scroll*: one screen of the list, to the second
frame after it (33 ms at least). *Longest task*: what keeps the browser from answering while the page loads. Usage:
``python benchmarks/gallery.py --run . [--studies 1000 5000 11000]``.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from d2rnet.gallery.build import read_metrics, write_gallery
from d2rnet.gallery.pictures import radiograph_pictures
from d2rnet.gallery.render import head_of_page, read_studies
from d2rnet.gallery.settings import PageSettings
from d2rnet.gallery.studies import Study
from d2rnet.runs.provenance import code_version, hardware

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "gallery"))

from headless_browser import TIMEOUT_MS, chromium

VIEWPORT = {"width": 1440, "height": 900}
FIRST_IMAGE = """async () => {
  while (!document.querySelector('.frame img')) await new Promise(requestAnimationFrame);
  await document.querySelector('.frame img').decode();
  return performance.now();
}"""
NEXT_STUDY = """async () => {
  const start = performance.now();
  step(1);
  const name = INDEX.id[current];
  while (!view.record || view.record.i !== name) await new Promise(requestAnimationFrame);
  await document.querySelector('.frame img').decode();
  return performance.now() - start;
}"""
RELIST = "() => { const start = performance.now(); relist(); return performance.now() - start; }"
SCROLL = """async () => {
  const list = byId('list');
  const times = [];
  for (let screen = 1; screen <= 20; screen += 1) {
    const start = performance.now();
    list.scrollTop = screen * list.clientHeight;
    await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[10];
}"""
LONGEST_TASK = """() => new Promise((found) => {
  const seen = (list) => found(Math.max(0, ...list.getEntries().map((task) => task.duration)));
  new PerformanceObserver(seen).observe({ type: 'longtask', buffered: true });
  setTimeout(() => found(0), 500);
})"""


def main() -> None:
    """Measure each size and print one line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    parser.add_argument("--studies", type=int, nargs="+", default=[1000, 5000], help="sizes of the galleries")
    parser.add_argument("--repetitions", type=int, default=5, help="times each page is opened")
    arguments = parser.parse_args()
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; commit {code_version()['commit']}")
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.studies:
            page = Path(folder) / str(count)
            built = build(arguments.run, page, count)
            opened = measure(page / "index.html", arguments.repetitions)
            print(json.dumps({"studies": count, **built, **opened}), flush=True)


def build(run: Path, output: Path, count: int) -> dict[str, Any]:
    """Write a gallery of ``count`` studies; return the time it took and its size."""
    results = run / "results" / "cxr"
    cohort = run / "resources" / "cxr" / "demo_cohort"
    inputs = {
        "generated": results / "generate_reports" / "test.jsonl",
        "annotation": results / "build_annotation" / "annotation.json",
        "per_report": results / "evaluate_reports" / "per_report.jsonl",
        "true_boxes": cohort / "truth.jsonl",
    }
    start = time.perf_counter()
    known, _ = read_studies(inputs)
    metrics = read_metrics(results / "evaluate_reports" / "metrics.json")
    shown = repeated(known, count)
    settings = PageSettings(max_megabytes=1e6)
    write_gallery(
        shown,
        radiograph_pictures([study.entry for study in shown], cohort / "mimic", settings, workers=1),
        output=output,
        meta=head_of_page(metrics, missing=0),
        known=count,
        how="",
        settings=settings,
    )
    seconds = time.perf_counter() - start
    return {"write_seconds": round(seconds, 1), "page_mb": round((output / "index.html").stat().st_size / 1e6, 1)}


def repeated(studies: list[Study], count: int) -> list[Study]:
    """Return ``count`` studies, those given over and over under other ids."""
    return [
        dataclasses.replace(study, name=f"{study.name}-{number}", study_id=f"{study.study_id}-{number}")
        for number, study in enumerate(islice(cycle(studies), count))
    ]


def measure(page: Path, repetitions: int) -> dict[str, float]:
    """Open a page again and again; return medians in milliseconds."""
    rows: dict[str, list[float]] = {}
    for _ in range(repetitions):
        with chromium() as browser:
            tab = browser.new_page(viewport=VIEWPORT)
            tab.set_default_timeout(TIMEOUT_MS)
            tab.goto(page.absolute().as_uri())
            found = {
                "interactive_ms": tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"),
                "first_image_ms": tab.evaluate(FIRST_IMAGE),
                "next_study_ms": statistics.median(tab.evaluate(NEXT_STUDY) for _ in range(10)),
                "filter_and_sort_ms": tab.evaluate(RELIST),
                "scroll_ms": tab.evaluate(SCROLL),
                "longest_task_ms": tab.evaluate(LONGEST_TASK),
            }
            for name, value in found.items():
                rows.setdefault(name, []).append(value)
    return {name: round(statistics.median(values), 1) for name, values in rows.items()}


if __name__ == "__main__":
    main()
