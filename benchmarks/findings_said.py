"""Do reports say more of what is there if findings start from the scores of boxes, and if the search minds what is unsaid?

Arms differ in one training setting (``cxr.report.model.finding_scores``) and in two of writing (``beam_size``,
``unsaid_weight``). Report models are trained with the run's settings on boxes of 0.2 and more of a finished demo run
(report_boxes.py), and compared on the validation split of that benchmark's second cohort, 613 reports. The test split of the
run is read with ``--parts test`` alone, for what was chosen.

A finished cell is a small file in --results and is not made again; a stopped one goes on where it was.

Usage: python benchmarks/findings_said.py --run DIR [--work DIR] [--parts choice test] [--arms ...] [--seeds ...] [--report]
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from report_boxes import REPORTS, annotations, make_choice_cohort
from report_cells import cell_table, told, trained

from d2rnet.files.documents import read_json, write_json

RESULTS = Path(__file__).parent / "results" / Path(__file__).stem
BOXES = "teacher_0.2"
BASELINE = "before"


class Arm(NamedTuple):
    """Whether findings start from scores, beams, and nats for each unsaid finding."""

    scores: bool
    beams: int
    unsaid: float


ARMS = {
    BASELINE: Arm(scores=False, beams=3, unsaid=0.0),
    "scores": Arm(scores=True, beams=3, unsaid=0.0),
    "beams": Arm(scores=True, beams=6, unsaid=0.0),
    "unsaid_3_beams": Arm(scores=True, beams=3, unsaid=4.0),
    "unsaid_no_scores": Arm(scores=False, beams=6, unsaid=4.0),
    "default": Arm(scores=True, beams=6, unsaid=4.0),
}


def scored(name: str, seed: int, part: str, run: Path, work: Path) -> dict[str, Any]:
    """Train a report model, write its reports on a part, and score them; what is there is not made again."""
    arm = ARMS[name]
    boxes = annotations(BOXES, run, work)
    cell = work / "findings" / f"{'scores' if arm.scores else 'no_scores'}_seed_{seed}"
    model = trained(boxes, cell, run, f"training.seed={seed}", f"model.finding_scores={str(arm.scores).lower()}")
    writing = (f"beam_size={arm.beams}", f"unsaid_weight={arm.unsaid}")
    return {"arm": name, "seed": seed, "part": part, **told(model, boxes, part, run, work, *writing, name=f"_{name}")}


def report(results: Path, parts: list[str]) -> str:
    """Lay out what is there in Markdown."""
    lines: list[str] = []
    for part in parts:
        cells: dict[str, dict[int, Mapping[str, Any]]] = {}
        for path in sorted(results.glob(f"*_{part}.json")):
            found = read_json(path)
            cells.setdefault(found["arm"], {})[found["seed"]] = found
        if BASELINE not in cells:
            continue
        lines += cell_table({name: cells[name] for name in ARMS if name in cells}, part, BASELINE)
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    parser.add_argument("--work", type=Path, default=Path("report_boxes"), help="folder to work in")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished cells' files")
    parser.add_argument("--parts", nargs="+", default=["choice"], choices=["choice", "test"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--report", action="store_true", help="make nothing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run, work = args.run.resolve(), args.work.resolve()
    if not args.report:
        if not (work / "choice" / REPORTS).is_file():
            make_choice_cohort(work / "choice")
        for seed in args.seeds:
            for part in args.parts:
                for name in args.arms:
                    path = args.results / f"{name}_seed_{seed}_{part}.json"
                    if not path.is_file():
                        write_json(path, scored(name, seed, part, run, work), indent=None)
    print(report(args.results, args.parts))


if __name__ == "__main__":
    main()
