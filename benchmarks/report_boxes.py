"""Do other pseudo boxes of the same trained detector make better reports? No variant trains the detector anew.

A variant (box_variants.py) is a source of boxes and a filter. Its thresholds are chosen on the training reports of a finished
demo run, its report model is trained on the same entries for the same steps with the run's settings. The demo has some 60
validation reports, too few to choose by, so that variants are compared on the validation split of a second cohort of 600
studies, which this benchmark draws (seed 31). The test split of the run is read with ``--parts test`` alone: once, for the
baseline and what was chosen (--variants).

A finished cell is a small file in --results and is not made again; a stopped one goes on where it was.

Usage: python benchmarks/report_boxes.py --run DIR [--work DIR] [--parts boxes choice test] [--variants ...] [--report]
"""

import argparse
import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from box_variants import (
    BASELINE,
    MIN_REPORTS,
    SOURCES,
    TRUTH,
    VARIANTS,
    Named,
    Reported,
    Result,
    best_scores,
    draw,
    fuse,
    variant_boxes,
)
from numpy.typing import NDArray
from paired_bootstrap import ap50_with_resamples
from report_cells import DETECTOR, RESAMPLES, ROOT, cell_table, f1_of, pair_counts, points, told, trained

from d2rnet.cxr.annotation.build import build_annotation
from d2rnet.cxr.annotation.oracle import oracle_annotation
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector.calibrate import calibrate_classes
from d2rnet.cxr.detector.settings import CalibrationSettings, PredictionSettings
from d2rnet.evaluation.agreement import class_thresholds, micro_f1, pooled_threshold
from d2rnet.evaluation.clinical import named_matrix
from d2rnet.evaluation.resampling import logit_interval, percentile_interval, resample_counts
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_NAMES

RESULTS = Path(__file__).parent / "results" / Path(__file__).stem
PARTS = ("boxes", "choice", "test")
CHOICE_COHORT = {
    "seed": 31,
    "labelled_train_images": 40,
    "labelled_test_images": 10,
    "report_train_studies": 10,
    "report_val_studies": 600,
    "report_test_studies": 10,
}
IMAGES = Path("resources/cxr/unlabelled.json")
REPORTS = Path("resources/cxr/reports.jsonl")
DRAWN = Path("resources/cxr/demo_cohort/truth.jsonl")
LABELLED = Path("resources/cxr/labelled/val.json")
FIXED = (0.5, 0.3, 0.2)
BASELINE_SCORE = FIXED[0]
FEWER = (100, 200, 400)
log = logging.getLogger(__name__)


def make_choice_cohort(folder: Path) -> None:
    """Draw and convert the second cohort with the workflow itself."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", yaml.safe_dump({"cxr": {"data": {"demo": CHOICE_COHORT}}}))
    command: list[Any] = ["snakemake", "-s", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml"]
    subprocess.run([*command, "--cores", "all", "--quiet", "all", "--until", "convert_unlabelled"], check=True)


def reported(cohort: Path, split: str) -> Reported:
    """Return the images of a split that have a report, with what it names."""
    texts = {
        name: report["report"]
        for report in read_jsonl(cohort / REPORTS)
        if report["split"] == split
        for name in report["images"]
    }
    records = [record for record in load_records(cohort / IMAGES) if record.source_id in texts]
    named = named_matrix([texts[record.source_id] for record in records], uncertain_counts=True)
    return Reported([record.image_id for record in records], named)


def source_boxes(source: str, images: Path, run: Path, kept: Path) -> list[Result]:
    """Return the boxes of a source on the images of a COCO file; what each network draws at each scale is kept in a folder."""
    records = load_records(images)
    settings = PredictionSettings.read(read_json(run / DETECTOR / "run.json")["settings"]["prediction"])
    networks, scales = SOURCES[source]
    drawn = []
    for network in networks:
        for scale in scales:
            path = kept / f"{Path(network).stem}_{scale:g}.json"
            if not path.is_file():
                log.info("%s at %g times the usual size", network, scale)
                boxes = draw(records, run / DETECTOR, network, scale, settings)
                write_json(path, {str(image): found for image, found in boxes.items()}, indent=None)
            drawn.append({int(image): found for image, found in read_json(path).items()})
    return fuse(records, drawn, floor=settings.score_floor)


def compare_boxes(run: Path, work: Path) -> dict[str, Any]:
    """Return AP50 of each source on the labelled validation images, and how well its boxes agree with reports.

    Agreement is the micro F1 of "the image has a box of the class" with "the report names it", on the second cohort, whose
    reports chose nothing.
    """
    folders = {"run": run, "choice": work / "choice"}
    splits = {"training": reported(run, "train"), "validation": reported(run, "val")}
    choice = reported(folders["choice"], "val")
    counts = resample_counts(len(choice.image_ids), samples=RESAMPLES, seed=0)
    labelled = load_records(run / LABELLED)
    cases = sum(len(record.classes) > 0 for record in labelled)
    table: dict[str, Any] = {}
    for source in SOURCES:
        found = {name: source_boxes(source, folder / IMAGES, run, work / "drawn" / name) for name, folder in folders.items()}
        on_labelled = source_boxes(source, run / LABELLED, run, work / "drawn" / "labelled")
        ap50, drawn = ap50_with_resamples(labelled, on_labelled, samples=RESAMPLES, seed=0)
        table[source] = {"ap50": ap50, "ap50_interval": logit_interval(ap50, drawn, cases=cases), "agreement": {}}
        seen = best_scores(found["choice"], choice.image_ids)
        rules: dict[str, Any] = {f"fixed {score:g}": score for score in FIXED}
        rules["classes, precision 0.7 on labelled images"] = calibrated(labelled, on_labelled)
        for name, split in splits.items():
            best = best_scores(found["run"], split.image_ids)
            rules[f"one, {name} reports"] = pooled_threshold(best, split.named)
            rules[f"classes, {name} reports"] = class_thresholds(best, split.named, min_reports=MIN_REPORTS)
        for rule, least in rules.items():
            table[source]["agreement"][rule] = agreement(choice.named, seen >= least, counts)
        training = best_scores(found["run"], splits["training"].image_ids)
        table[source]["thresholds"] = checks(training, splits["training"].named, seen, choice.named)
        for name, variant in VARIANTS.items():
            if variant.source == source and variant.gate:
                kept = variant_boxes(variant, found, splits["training"])["choice"]
                table[source]["agreement"][name] = agreement(choice.named, best_scores(kept, choice.image_ids) > 0, counts)
    return {"images": len(choice.image_ids), "labelled_images": len(labelled), "sources": table}


def checks(training: NDArray[Any], named: Named, seen: NDArray[Any], choice: Named) -> dict[str, float]:
    """Return what thresholds by class are worth: of fewer reports, on images they were not chosen on, and at best.

    Args:
        training: (n, C) best scores of the training images.
        named: (n, C) what their reports name.
        seen: (m, C) best scores of the second cohort.
        choice: (m, C) what its reports name.
    """
    half = np.arange(len(training)) % 2 == 0
    of_half = class_thresholds(training[half], named[half], min_reports=MIN_REPORTS)
    fewer = {number: class_thresholds(training[:number], named[:number], min_reports=MIN_REPORTS) for number in FEWER}
    return {
        **{f"of the first {number} training reports": micro_f1(choice, seen >= least) for number, least in fewer.items()},
        "of the reports that are scored": micro_f1(choice, seen >= class_thresholds(seen, choice, min_reports=MIN_REPORTS)),
        "of every second training report, on the others": micro_f1(named[~half], training[~half] >= of_half),
        "fixed 0.5, on the training reports": micro_f1(named, training >= BASELINE_SCORE),
    }


def calibrated(records: Sequence[Record], results: Sequence[Result]) -> NDArray[np.float64]:
    """Return the (C,) thresholds of ``cxr.annotation.thresholds: calibrated`` as shipped."""
    settings = CalibrationSettings()
    chosen = calibrate_classes(records, results, precision=settings.wanted_precision, min_boxes=settings.min_boxes)
    return np.array([chosen["classes"][name]["threshold"] for name in CATEGORY_NAMES])


def agreement(named: Named, claimed: Named, counts: NDArray[Any]) -> dict[str, Any]:
    """Return micro precision, recall and F1 of what is claimed (n, C), and the 95 % interval of F1 over images."""
    pairs = pair_counts(named, claimed)
    hits, true, said = pairs.sum(axis=0)
    return {
        "f1": f1_of(pairs, np.ones((len(pairs), 1)))[0],
        "interval": percentile_interval(f1_of(pairs, counts)),
        "precision": hits / max(said, 1),
        "recall": hits / max(true, 1),
    }


def annotations(name: str, run: Path, work: Path) -> Path:
    """Make the annotation.json of a variant for both cohorts, if they are missing; return their folder."""
    folder = work / "variants" / name
    cohorts = {"run": run, "choice": work / "choice"}
    if all((folder / cohort / "annotation.json").is_file() for cohort in cohorts):
        return folder
    variant = VARIANTS[name]
    if variant.source == TRUTH:
        base = annotations(BASELINE, run, work)
        for cohort, path in cohorts.items():
            oracle_annotation(annotation=base / cohort / "annotation.json", truth=path / DRAWN, output=folder / cohort)
        return folder
    found = {
        cohort: source_boxes(variant.source, path / IMAGES, run, work / "drawn" / cohort) for cohort, path in cohorts.items()
    }
    for cohort, boxes in variant_boxes(variant, found, reported(run, "train")).items():
        predictions = folder / cohort / "predictions.jsonl"
        write_jsonl(predictions, boxes)
        build_annotation(
            unlabelled=cohorts[cohort] / IMAGES,
            reports=cohorts[cohort] / REPORTS,
            predictions=[predictions],
            output=folder / cohort,
            settings=AnnotationSettings(score_threshold=0.0),
        )
    return folder


def scored(name: str, seed: int, part: str, run: Path, work: Path) -> dict[str, Any]:
    """Train, write and score a variant."""
    boxes = annotations(name, run, work)
    model = trained(boxes, boxes / f"seed_{seed}", run, f"training.seed={seed}")
    detector = sha256_file(run / DETECTOR / "model_final.pth")
    return {"variant": name, "seed": seed, "part": part, "detector": detector, **told(model, boxes, part, run, work)}


def cells_of(results: Path, part: str) -> dict[str, dict[int, dict[str, Any]]]:
    """Return variant -> seed -> finished cell of a part."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(results.glob(f"*_{part}.json")):
        cell = read_json(path)
        found.setdefault(cell["variant"], {})[cell["seed"]] = cell
    return {name: found[name] for name in VARIANTS if name in found}


def report(results: Path) -> str:
    """Lay out what is there in Markdown."""
    lines = []
    if (results / "boxes.json").is_file():
        boxes = read_json(results / "boxes.json")
        lines += [
            f"Boxes: AP50 on {boxes['labelled_images']} labelled validation images; F1 with {boxes['images']} reports.",
            "",
        ]
        rows = [
            [source, points(found["ap50"], found["ap50_interval"]), rule, points(one["f1"], one["interval"])]
            + [f"{100 * one[key]:.1f}" for key in ("precision", "recall")]
            for source, found in boxes["sources"].items()
            for rule, one in found["agreement"].items()
        ]
        lines += markdown_table(["source", "AP50", "filter", "F1", "precision", "recall"], rows)
        rows = [
            [source, what, points(f1, None)]
            for source, found in boxes["sources"].items()
            for what, f1 in found["thresholds"].items()
        ]
        lines += ["", *markdown_table(["source", "thresholds", "F1"], rows)]
    for part in PARTS[1:]:
        cells = cells_of(results, part)
        if BASELINE not in cells:
            continue
        lines += cell_table(cells, part, BASELINE)
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    parser.add_argument("--work", type=Path, default=Path("report_boxes"), help="folder to work in")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished cells' files")
    parser.add_argument("--parts", nargs="+", default=["boxes", "choice"], choices=PARTS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--report", action="store_true", help="make nothing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run, work = args.run.resolve(), args.work.resolve()
    if not args.report:
        if not (work / "choice" / REPORTS).is_file():
            make_choice_cohort(work / "choice")
        if "boxes" in args.parts and not (args.results / "boxes.json").is_file():
            write_json(args.results / "boxes.json", compare_boxes(run, work))
        for part in [part for part in args.parts if part != "boxes"]:
            for seed in args.seeds:
                for name in args.variants:
                    path = args.results / f"{name}_seed_{seed}_{part}.json"
                    if not path.is_file():
                        write_json(path, scored(name, seed, part, run, work), indent=None)
    print(report(args.results))


if __name__ == "__main__":
    main()
