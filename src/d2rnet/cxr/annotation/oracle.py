"""oracle_annotation: annotation.json with the true lesions in place of the pseudo boxes, the upper bound of any detector.

Reads: annotation.json (one image an entry) and true boxes (truth.jsonl of the demo cohort). Writes: annotation.json, run.json.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.true_boxes import TrueBox, TrueBoxes, read_true_boxes
from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import Entry, load_annotation, write_annotation
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)


def oracle_annotation(*, annotation: Path, truth: Path, output: Path) -> None:
    """Replace the boxes of every entry, and of the study before it, by the true ones, with score 1.

    Args:
        annotation: annotation.json.
        truth: truth.jsonl of make-demo-cohort, or a COCO json of true boxes.
        output: folder for annotation.json and run.json.

    Raises:
        FileNotFoundError: a file is not there.
        DatasetError: an entry has several images, or no line in ``truth``, or its study before has none.
    """
    lesions = read_true_boxes(truth)
    splits = {
        split: [with_true_boxes(entry, lesions, source=annotation, truth=truth) for entry in entries]
        for split, entries in load_annotation(annotation).items()
    }
    write_annotation(output / "annotation.json", splits)
    boxes = sum(len(entry["boxes"]) for entries in splits.values() for entry in entries)
    priors = [entry["prior"] for entries in splits.values() for entry in entries if entry.get("prior")]
    entries = sum(map(len, splits.values()))
    write_run_record(
        output / "run.json",
        command="oracle-annotation",
        settings={},
        inputs={"annotation": annotation, "truth": truth},
        counts={
            "entries": entries,
            "boxes": boxes,
            "priors": len(priors),
            "boxes_of_priors": sum(len(prior["boxes"]) for prior in priors),
        },
    )
    log.info("%d true boxes in %d entries: %s", boxes, entries, output / "annotation.json")


def with_true_boxes(entry: Entry, lesions: TrueBoxes, *, source: Path, truth: Path) -> Entry:
    """Return a copy of an entry with the true boxes of its image, and of that of the study before (xywh, original pixels).

    Raises:
        DatasetError: the entry has several images, or one, or a study before, that ``lesions`` does not know.
    """
    if len(entry["image_path"]) != 1 or entry["id"] not in lesions:
        raise DatasetError(
            f"{source}: entry {entry['id']} has {len(entry['image_path'])} images, and {truth} "
            f"{'knows' if entry['id'] in lesions else 'does not know'} its id; expected one image with a line in that file. "
            "Build the annotation with 'entry: image' from the same demo cohort."
        )
    found = {**entry, **_true_boxes(lesions[entry["id"]])}
    if before := entry.get("prior"):
        if before.get("image_id") not in lesions:
            raise DatasetError(
                f"{source}: entry {entry['id']}: the image of its study before, {before.get('image_id')}, has no line in "
                f"{truth}. Build the annotation again, from the same demo cohort."
            )
        found["prior"] = {**before, **_true_boxes(lesions[before["image_id"]])}
    return found


def _true_boxes(found: Sequence[TrueBox]) -> dict[str, list[Any]]:
    """Return ``boxes``, ``scores`` and ``labels`` of an image."""
    return {
        "boxes": [[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)] for _, (x1, y1, x2, y2) in found],
        "scores": [1.0] * len(found),
        "labels": [name for name, _ in found],
    }
