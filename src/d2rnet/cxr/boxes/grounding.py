"""Grounding score: does the box that a sentence attends to lie on a true lesion of the class that it names.

Reads: test.jsonl of generate-reports, whose sentences name the box that stands out most in their attention. The caller gives
the truth: boxes of radiologists, or what the demo cohort drew. ``boxes`` are places in the entry's list in annotation.json.

Shapes: K boxes an entry, G true boxes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.geometry import iou, xywh_to_xyxy
from d2rnet.cxr.boxes.true_boxes import TrueBox
from d2rnet.errors import DatasetError
from d2rnet.findings.mentions import named_classes

MIN_IOU = 0.5
Row = tuple[float, float, bool, bool, bool]  # hit, random hit, any box would hit, a box is listed, the class is there


def grounding_score(
    generated: Sequence[Mapping[str, Any]],
    entries: Mapping[str, Mapping[str, Any]],
    truth: Mapping[str, Sequence[TrueBox]],
    *,
    min_iou: float = MIN_IOU,
) -> dict[str, Any]:
    """Score the attended box of every sentence that names a lesion, beside a random box of the same image.

    A sentence names a lesion if a mention of it is present or uncertain. The box that it attends to hits if it overlaps a
    true box of one of the classes that it names. Sentences of entries without any box are counted and enter no rate; an
    unfinished sentence, which attends to none, is a miss.

    Args:
        generated: ``id`` and ``sentences`` (``text``, ``boxes``, ``attended``) of each report.
        entries: id -> entry of annotation.json, with ``boxes`` (xywh).
        truth: id -> true boxes of the image; an id that is missing has no truth and is left out.
        min_iou: least overlap of a hit.

    Returns:
        ``sentences`` (scored), ``sentences_of_entries_without_boxes``, ``entries_without_truth``; ``hit_rate``,
        ``random_hit_rate`` (mean share of the entry's boxes that would hit, the expectation for a box drawn at random)
        and ``ratio`` of the two; ``reachable_rate`` (sentences for which any of the entry's boxes would hit, the ceiling of
        both); ``listed_rate`` (sentences that list a box); and over the ``true_sentences``, whose class truly is in the image,
        ``true_hit_rate``, ``true_random_hit_rate`` and ``true_reachable_rate``. A rate over nothing is None.

    Raises:
        DatasetError: a report's id is not among the entries, or a sentence attends to a box that its entry does not have.
    """
    rows: list[Row] = []
    without_boxes = without_truth = 0
    for report in generated:
        entry = entries.get(report["id"])
        if entry is None:
            raise DatasetError(f"report {report['id']}: not among the entries; give the annotation.json it was written for.")
        if report["id"] not in truth:
            without_truth += 1
            continue
        for sentence in report["sentences"]:
            named = named_classes(sentence["text"])
            if not named:
                continue
            if not entry["boxes"]:
                without_boxes += 1
                continue
            rows.append(_score_sentence(report["id"], sentence, entry["boxes"], named, truth[report["id"]], min_iou))
    return {
        "sentences": len(rows),
        "sentences_of_entries_without_boxes": without_boxes,
        "entries_without_truth": without_truth,
        **_rates(rows),
    }


def _score_sentence(
    name: str,
    sentence: Mapping[str, Any],
    boxes_xywh: Sequence[Sequence[float]],
    named: frozenset[str],
    truth: Sequence[TrueBox],
    min_iou: float,
) -> Row:
    attended = sentence["attended"]
    listed = sentence["boxes"]
    if any(not 0 <= place < len(boxes_xywh) for place in (*listed, *([] if attended is None else [attended]))):
        raise DatasetError(
            f"report {name}: attends to boxes {list(listed)} and {attended}; its entry has {len(boxes_xywh)}. "
            "Use the annotation.json of the run."
        )
    wanted = [box for category, box in truth if category in named]
    hits = _overlaps(boxes_xywh, wanted, min_iou)
    return float(attended is not None and hits[attended]), float(hits.mean()), bool(hits.any()), bool(listed), bool(wanted)


def _overlaps(
    boxes_xywh: Sequence[Sequence[float]], true_xyxy: Sequence[Sequence[float]], min_iou: float
) -> NDArray[np.bool_]:
    """Return (K,) bool: which boxes have an IoU of at least ``min_iou`` with a true box."""
    if not true_xyxy:
        return np.zeros(len(boxes_xywh), dtype=bool)
    boxes = np.asarray(boxes_xywh, dtype=np.float64)
    true = np.asarray(true_xyxy, dtype=np.float64)
    own_areas = boxes[:, 2:].prod(axis=1)
    overlap = iou(xywh_to_xyxy(boxes)[:, None], true[None], a_areas=own_areas[:, None])  # (K, G)
    return overlap.max(axis=1) >= min_iou


def _rates(rows: Sequence[Row]) -> dict[str, Any]:
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    there = table[table[:, 4] == 1]
    hit, drawn, reachable, listed = (_mean(table[:, column]) for column in range(4))
    return {
        "hit_rate": hit,
        "random_hit_rate": drawn,
        "ratio": hit / drawn if hit is not None and drawn else None,
        "reachable_rate": reachable,
        "listed_rate": listed,
        "true_sentences": len(there),
        "true_hit_rate": _mean(there[:, 0]),
        "true_random_hit_rate": _mean(there[:, 1]),
        "true_reachable_rate": _mean(there[:, 2]),
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
