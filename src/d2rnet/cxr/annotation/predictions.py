"""Pseudo boxes from JSON lines, a COCO result each: check, filter by score.

Frames: a results file is in pixels of the converted PNG, as unlabelled.json says (height, width).
Shapes: N boxes, n images.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.annotation.confidence_filter import ConfidenceFilter
from d2rnet.cxr.annotation.inputs import ImageTable, check_complete
from d2rnet.cxr.boxes.geometry import has_area, xywh_to_xyxy
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_NAMES

OUTSIDE_TOLERANCE_PX = 1.0
REMEDY = "Run 'd2rnet predict-boxes' again for this shard."


@dataclass(frozen=True)
class PseudoBoxes:
    """N pseudo boxes, best score first within an image.

    Attributes:
        rows: (N,) int64, row of the image in the ImageTable, ascending.
        category_ids: (N,) int64, 1..22.
        scores: (N,) float64 in [0, 1].
        boxes_xyxy: (N, 4) float64, pixels of the PNG or, after scaling, of the original.
    """

    rows: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[Any]) -> "PseudoBoxes":
        """Return the boxes at these indices, or where this mask is true."""
        return PseudoBoxes(self.rows[which], self.category_ids[which], self.scores[which], self.boxes_xyxy[which])


def read_predictions(
    paths: Sequence[Path],
    images: ImageTable,
    confidence: ConfidenceFilter,
    *,
    problems: Problems,
) -> tuple[PseudoBoxes, dict[str, Any]]:
    """Read the shards of predict_boxes and keep the boxes that pass the confidence filter.

    Args:
        paths: files of predict_boxes; an image's boxes are all in one of them.
        images: the images they were predicted on.
        confidence: least score of each class.
        problems: grows by images in two shards, unknown images and classes, scores outside [0, 1], and boxes that are not
            finite, are empty, or lie outside the PNG by more than 1 px (the sign of another coordinate frame).

    Returns:
        The boxes, clipped to the PNG, and counts: predicted, duplicates, by class below threshold, images predicted on.
    """
    shard_of_image = np.full(len(images.ids), -1, dtype=np.int64)
    kept: list[PseudoBoxes] = []
    below = np.zeros(len(CATEGORY_NAMES) + 1, dtype=np.int64)
    predicted = duplicates = 0
    for shard, path in enumerate(paths):
        boxes = _read_shard(path, images, problems)
        predicted += len(boxes)
        present = np.unique(boxes.rows)
        for row in present[shard_of_image[present] >= 0]:
            problems.add(
                "image_in_two_shards",
                file=path,
                record=f"image {images.records[row]['source_id']}",
                got=f"boxes here and in {paths[shard_of_image[row]]}",
                expected="each image in one shard",
                remedy="Give each shard once; remove shards of an earlier number of shards.",
            )
        shard_of_image[present] = shard
        unique = _without_duplicates(boxes)
        duplicates += len(boxes) - len(unique)
        passes = confidence.passes(unique.category_ids, unique.scores)
        below += np.bincount(unique.category_ids[~passes], minlength=len(below))
        kept.append(unique.take(passes))
    counts = {
        "predicted": predicted,
        "duplicates": duplicates,
        "below_threshold": int(below.sum()),
        "below_threshold_by_class": by_class(below),
        "images_with_predictions": int((shard_of_image >= 0).sum()),
    }
    return _sorted_by_image(_concatenate(kept)), counts


def confident_boxes(
    results: Iterable[dict[str, Any]], images: ImageTable, confidence: ConfidenceFilter, *, source: Path
) -> PseudoBoxes:
    """Check COCO results that are already in memory and keep the boxes that pass the confidence filter.

    Args:
        results: ``image_id, category_id, bbox`` (xywh, PNG pixels), ``score``.
        images: the images that they were predicted on.
        confidence: least score of each class.
        source: named in errors.

    Returns:
        The boxes, clipped to the PNG, sorted by image and score.

    Raises:
        DatasetError: what :func:`read_predictions` notes as problems.
    """
    problems = Problems()
    found, _ = _to_boxes(source, results, images, problems)
    problems.raise_if_any()
    boxes = _without_duplicates(found)
    return boxes.take(confidence.passes(boxes.category_ids, boxes.scores))


def by_class(counts: NDArray[np.int64]) -> dict[str, int]:
    """Turn (23,) counts by category id into class name -> count, without zeros."""
    return {name: int(counts[index]) for index, name in enumerate(CATEGORY_NAMES, start=1) if counts[index]}


def _read_shard(path: Path, images: ImageTable, problems: Problems) -> PseudoBoxes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the boxes of one shard. {REMEDY}")
    with path.open("rb") as stream:
        is_list = stream.read(1) == b"["
    if is_list:
        raise DatasetError(
            f"{path}: is a JSON list; expected JSON lines, a COCO result each, such as predictions.jsonl of predict-boxes. "
            "Give that file, or write the results of another program line by line."
        )
    boxes, found = _to_boxes(path, read_jsonl(path), images, problems)
    check_complete(path, found)
    return boxes


def _to_boxes(
    path: Path, results: Iterable[dict[str, Any]], images: ImageTable, problems: Problems
) -> tuple[PseudoBoxes, int]:
    """Turn COCO results into arrays and note what is wrong with them; return the sound ones, and the number of all."""
    image_ids = array("q")
    category_ids = array("q")
    scores = array("d")
    boxes = array("d")
    for number, record in enumerate(results, start=1):
        try:
            image_ids.append(record["image_id"])
            category_ids.append(record["category_id"])
            scores.append(record["score"])
            x, y, width, height = record["bbox"]
            boxes.extend((x, y, width, height))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f"{path}: record {number} is {repr(record)[:300]} ({error}); expected image_id and category_id (whole "
                f"numbers), score, bbox [x, y, width, height]. {REMEDY}"
            ) from error
    ids = np.frombuffer(image_ids, dtype=np.int64) if image_ids else np.empty(0, np.int64)
    order = np.argsort(images.ids, kind="stable")
    places = np.searchsorted(images.ids, ids, sorter=order)
    rows = order[np.minimum(places, len(order) - 1)] if len(order) else np.zeros(len(ids), np.int64)
    known = images.ids[rows] == ids if len(order) else np.zeros(len(ids), bool)
    read = PseudoBoxes(
        rows,
        np.array(category_ids, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        xywh_to_xyxy(np.array(boxes, dtype=np.float64)),
    )
    return _checked(path, read, ids, known, images, problems), len(ids)


def _checked(
    path: Path, read: PseudoBoxes, ids: NDArray[np.int64], known: NDArray[np.bool_], images: ImageTable, problems: Problems
) -> PseudoBoxes:
    """Note what is wrong with a shard's records; return the sound ones clipped to their PNG."""
    limits = np.zeros((len(read), 4))
    limits[known] = images.hw[read.rows[known]][:, [1, 0, 1, 0]]  # (N, 4): width, height, width, height
    corners = read.boxes_xyxy
    finite = np.isfinite(corners).all(axis=1)
    with np.errstate(invalid="ignore"):
        inside = ((corners >= -OUTSIDE_TOLERANCE_PX) & (corners <= limits + OUTSIDE_TOLERANCE_PX)).all(axis=1)
        positive = has_area(corners)
        score_ok = (read.scores >= 0) & (read.scores <= 1)  # NaN fails both
    class_ok = (read.category_ids >= 1) & (read.category_ids <= len(CATEGORY_NAMES))
    checks = [
        ("unknown_image", ~known, ids, "an image id of unlabelled.json"),
        ("unknown_class", ~class_ok, read.category_ids, f"a category id 1..{len(CATEGORY_NAMES)}"),
        ("bad_score", ~score_ok, read.scores, "a score in [0, 1]"),
        ("bad_box", ~(finite & positive), corners, "finite corners x1 y1 x2 y2, width and height above 0"),
        (
            "box_outside_image",
            known & finite & positive & ~inside,
            corners,
            "corners within the converted PNG (1 px tolerance)",
        ),
    ]
    sound = np.ones(len(read), dtype=bool)
    for kind, wrong, values, expected in checks:
        sound &= ~wrong
        for index in np.flatnonzero(wrong):
            problems.add(
                kind, file=path, record=f"record {index + 1}", got=values[index].tolist(), expected=expected, remedy=REMEDY
            )
    clipped = np.clip(corners, 0.0, limits)
    return PseudoBoxes(read.rows, read.category_ids, read.scores, clipped).take(sound)


def _concatenate(parts: list[PseudoBoxes]) -> PseudoBoxes:
    return PseudoBoxes(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.category_ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.boxes_xyxy for part in parts]),
    )


def _sorted_by_image(boxes: PseudoBoxes) -> PseudoBoxes:
    """Sort by image, then best score first; ties by class and corners, so that the order of the files does not matter."""
    corners = boxes.boxes_xyxy
    keys = (*(corners[:, index] for index in (3, 2, 1, 0)), boxes.category_ids, -boxes.scores, boxes.rows)
    return boxes.take(np.lexsort(keys))


def _without_duplicates(boxes: PseudoBoxes) -> PseudoBoxes:
    """Drop records that repeat image, class, score and box exactly."""
    ordered = _sorted_by_image(boxes)
    first = np.ones(len(ordered), dtype=bool)
    repeats = np.ones(max(len(ordered) - 1, 0), dtype=bool)
    for values in (ordered.rows, ordered.category_ids, ordered.scores, *ordered.boxes_xyxy.T):
        repeats &= values[1:] == values[:-1]
    first[1:] = ~repeats
    return ordered.take(first)
