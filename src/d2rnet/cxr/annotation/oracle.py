"""oracle_annotation: annotation.json with the true lesions in place of the pseudo boxes, the upper bound of any detector.

Reads: annotation.json (one image an entry) and true boxes (truth.jsonl of the demo cohort). Writes: annotation.json, run.json.
"""

import logging
from pathlib import Path

from d2rnet.cxr.boxes.true_boxes import TrueBoxes, read_true_boxes
from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import Entry, load_annotation, write_annotation
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)


def oracle_annotation(*, annotation: Path, truth: Path, output: Path) -> None:
    """Replace the boxes of every entry by the true ones, with score 1.

    Args:
        annotation: annotation.json.
        truth: truth.jsonl of make-demo-cohort, or a COCO json of true boxes.
        output: folder for annotation.json and run.json.

    Raises:
        FileNotFoundError: a file is not there.
        DatasetError: an entry has several images, or no line in ``truth``.
    """
    lesions = read_true_boxes(truth)
    splits = {
        split: [with_true_boxes(entry, lesions, source=annotation, truth=truth) for entry in entries]
        for split, entries in load_annotation(annotation).items()
    }
    write_annotation(output / "annotation.json", splits)
    boxes = sum(len(entry["boxes"]) for entries in splits.values() for entry in entries)
    entries = sum(map(len, splits.values()))
    write_run_record(
        output / "run.json",
        command="oracle-annotation",
        settings={},
        inputs={"annotation": annotation, "truth": truth},
        counts={"entries": entries, "boxes": boxes},
    )
    log.info("%d true boxes in %d entries: %s", boxes, entries, output / "annotation.json")


def with_true_boxes(entry: Entry, lesions: TrueBoxes, *, source: Path, truth: Path) -> Entry:
    """Return a copy of an entry with the true boxes of its image (xywh, original pixels).

    Raises:
        DatasetError: the entry has several images, or none that ``lesions`` knows.
    """
    if len(entry["image_path"]) != 1 or entry["id"] not in lesions:
        raise DatasetError(
            f"{source}: entry {entry['id']} has {len(entry['image_path'])} images, and {truth} "
            f"{'knows' if entry['id'] in lesions else 'does not know'} its id; expected one image with a line in that file. "
            "Build the annotation with 'entry: image' from the same demo cohort."
        )
    found = lesions[entry["id"]]
    return {
        **entry,
        "boxes": [[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)] for _, (x1, y1, x2, y2) in found],
        "scores": [1.0] * len(found),
        "labels": [name for name, _ in found],
    }
