"""Time verify_inputs of two commits side by side on the same 30,000 JPG files.

Each commit's ``src`` is checked out into a temporary folder. Rounds are interleaved: before, after, after, before, ... so that
other work on the machine meets both alike; the ratios of a pair are told, and their medians. Processor time (one process, so
that all of it is seen) is the one to quote where the machine has other work; wall-clock time is told beside it. The files are
an extra folder beside a small demo cohort: 1024 x 848 px drawings of film-like noise, of which ``--distinct`` are drawn; the
others differ from those by a comment of random length before the pixels and by a serial number behind them, so that sizes are
spread and none is another's copy.

Usage: python benchmarks/verify_inputs.py BEFORE [AFTER] [--images N] [--colour] [--rounds N]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from d2rnet.runs.provenance import hardware

HEIGHT, WIDTH = 1024, 848
MOST_COMMENT_BYTES = 60_000
_RUN = """
import json, sys
from pathlib import Path
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.conversion.verify import verify_inputs
verify_inputs(output=Path(sys.argv[1]), workers=int(sys.argv[2]), settings=DataSettings.read(json.loads(sys.argv[3])))
"""


def write_images(folder: Path, number: int, distinct: int, *, coloured: bool) -> int:
    """Write the JPG files, all of other content, and return their size in bytes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    drawn = []
    for _ in range(min(distinct, number)):
        smooth = cv2.resize(rng.random((12, 10), dtype=np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        grey = (40 + 170 * smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
        file = folder / "drawn.jpg"
        Image.fromarray(grey).convert("RGB" if coloured else "L").save(file, quality=90)
        drawn.append(file.read_bytes())
        file.unlink()
    written = 0
    for index in range(number):
        content = drawn[index % len(drawn)]
        comment = rng.bytes(int(rng.integers(1, MOST_COMMENT_BYTES)))
        header = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment  # a COM segment
        written += (folder / f"{index:06d}.jpg").write_bytes(content[:2] + header + content[2:] + index.to_bytes(8, "big"))
    return written


def check_out(commit: str, folder: Path) -> Path:
    """Put a commit's package below a folder; return what PYTHONPATH needs."""
    packed = subprocess.run(["git", "archive", commit, "src"], check=True, capture_output=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder / "src"


def seconds(source: Path, output: Path, workers: int, settings: dict[str, object]) -> tuple[float, float]:
    """Run verify_inputs of one commit; return seconds of processor time (of the first process) and of the clock."""
    command = [sys.executable, "-c", _RUN, output, str(workers), json.dumps(settings)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(source)}, stderr=subprocess.DEVNULL)
    taken = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, taken


def main() -> None:
    """Parse arguments, write the files once, run both commits in turn, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE", help="commit to compare with")
    parser.add_argument("after", metavar="AFTER", nargs="?", default="HEAD", help="commit to time (default HEAD)")
    parser.add_argument("--images", type=int, default=30_000, metavar="N", help="JPG files (default 30000)")
    parser.add_argument("--distinct", type=int, default=200, metavar="N", help="of them drawn anew (default 200)")
    parser.add_argument("--colour", action="store_true", help="store the greys as colour")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="pairs of runs (default 3)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    arguments = parser.parse_args()
    print(f"{hardware()['processor']}, {hardware()['cores']} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_images(folder / "images", arguments.images, arguments.distinct, coloured=arguments.colour)
        kind = "colour" if arguments.colour else "grey"
        print(f"{arguments.images} JPG files, {kind}, {written / 2**30:.1f} GiB", flush=True)
        cohort = folder / "cohort"
        sizes = {"labelled_train_images": 12, "labelled_test_images": 6, "size_px": 256}
        studies = {"report_train_studies": 12, "report_val_studies": 4, "report_test_studies": 4}
        asked = [sys.executable, "-m", "d2rnet", "make-demo-cohort", "--output", cohort]
        asked += [word for key, value in {**sizes, **studies}.items() for word in ("--set", f"{key}={value}")]
        subprocess.run(asked, check=True, stderr=subprocess.DEVNULL)
        settings = {
            "labelled": {"source": "vindr", "root": str(cohort / "vindr")},
            "reports": {"source": "mimic", "root": str(cohort / "mimic")},
            "extra_unlabelled": [{"source": "folder", "root": str(folder / "images")}],
        }
        commits = {"before": arguments.before, "after": arguments.after}
        sources = {which: check_out(commit, folder / which) for which, commit in commits.items()}
        ratios = []
        for number in range(arguments.rounds + 1):  # the first warms the page cache
            order = ("before", "after") if number % 2 else ("after", "before")
            taken = {which: seconds(sources[which], folder / f"out_{which}", arguments.workers, settings) for which in order}
            pair = list(zip(taken["before"], taken["after"], strict=True))
            told = [f"{before:6.1f} s -> {after:6.1f} s, ratio {after / before:.2f}" for before, after in pair]
            note = " (warm-up, not counted)" if not number else ""
            print(f"processor {told[0]}; clock {told[1]}{note}", flush=True)
            if number:
                ratios.append([after / before for before, after in pair])
        processor, clock = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"median ratios: processor {processor:.2f}, clock {clock:.2f}; {commits['before']} against {commits['after']}")
        found = json.loads((folder / "out_after" / "summary.json").read_text())["extra_unlabelled[0]"]
        print(f"{found['images']} images, {found['unreadable_images']} unreadable, {found['images_of_equal_content']} copies")


if __name__ == "__main__":
    main()
