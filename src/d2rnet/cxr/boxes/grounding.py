"""Grounding score: does the box of a sentence lie on a true lesion of the class that it names, and on the side that it names.

Two boxes of each sentence are scored side by side: the one that stands out most in its attention, and the first that is linked
to it (evidence.py). Reads: test.jsonl of generate-reports. The caller gives the truth: boxes of radiologists, or what the demo
cohort drew. ``boxes`` are places in the entry's list in annotation.json.

Shapes: K boxes an entry, G true boxes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.evidence import box_sides, linked_boxes, named_side
from d2rnet.cxr.boxes.geometry import iou, xywh_to_xyxy
from d2rnet.cxr.boxes.true_boxes import TrueBox
from d2rnet.errors import DatasetError
from d2rnet.findings.mentions import named_classes

MIN_IOU = 0.5


class Row(NamedTuple):
    """A scored sentence.

    Attributes:
        hit: the box that it attends to lies on a true lesion of a class that it names.
        random_hit: share of the entry's boxes that do.
        reachable: any of them does.
        listed: it lists a box that it attends to.
        is_true: a lesion of a class that it names is in the image.
        linked: it has a linked box.
        linked_hit: the first of them lies on such a lesion.
        sided: it names one side.
        other_side: it does, and the box that it attends to lies on the other. One on a lateral image lies on none.
        linked_other_side: likewise the first linked box.
    """

    hit: bool
    random_hit: float
    reachable: bool
    listed: bool
    is_true: bool
    linked: bool
    linked_hit: bool
    sided: bool
    other_side: bool
    linked_other_side: bool


def grounding_score(
    generated: Sequence[Mapping[str, Any]],
    entries: Mapping[str, Mapping[str, Any]],
    truth: Mapping[str, Sequence[TrueBox]],
    *,
    min_iou: float = MIN_IOU,
) -> dict[str, Any]:
    """Score the attended and the linked box of every sentence that names a lesion, beside a random box of the same image.

    A sentence names a lesion if a mention of it is present or uncertain. A box hits if it overlaps a true box of one of the
    classes that the sentence names. Sentences of entries without any box are counted and enter no rate; a sentence without the
    box in question, such as an unfinished one, is a miss, and no error of side; nor is one on a lateral image, on no side.

    Args:
        generated: ``id`` and ``sentences`` (``text``, ``boxes``, ``attended``, ``linked``) of each report.
        entries: id -> entry of annotation.json.
        truth: id -> true boxes of the image; an id that is missing has no truth and is left out.
        min_iou: least overlap of a hit.

    Returns:
        ``sentences`` (scored), ``sentences_of_entries_without_boxes``, ``entries_without_truth``; ``hit_rate``,
        ``random_hit_rate`` (mean share of the entry's boxes that would hit, the expectation for a box drawn at random)
        and ``ratio`` of the two; ``reachable_rate`` (sentences for which any of the entry's boxes would hit, the ceiling of
        all); ``listed_rate`` (sentences that list a box); ``linked_rate`` (that have a linked box) and ``linked_hit_rate``;
        over the ``true_sentences``, whose class truly is in the image, ``true_hit_rate``, ``true_random_hit_rate``,
        ``true_reachable_rate`` and ``true_linked_hit_rate``; and over the ``side_sentences``, which name one side,
        ``other_side_rate`` and ``linked_other_side_rate`` (the box lies on the other). A rate over nothing is None.

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
            rows.append(_score_sentence(report["id"], sentence, entry, named, truth[report["id"]], min_iou))
    return {
        "sentences": len(rows),
        "sentences_of_entries_without_boxes": without_boxes,
        "entries_without_truth": without_truth,
        **_rates(rows),
    }


def _score_sentence(
    name: str,
    sentence: Mapping[str, Any],
    entry: Mapping[str, Any],
    named: frozenset[str],
    truth: Sequence[TrueBox],
    min_iou: float,
) -> Row:
    attended = sentence["attended"]
    listed = sentence["boxes"]
    linked = linked_boxes(sentence, entry)
    count = len(entry["boxes"])
    if any(not 0 <= place < count for place in (*listed, *linked, *([] if attended is None else [attended]))):
        raise DatasetError(
            f"report {name}: attends to boxes {list(listed)} and {attended}, linked {linked}; its entry has {count}. "
            "Use the annotation.json of the run."
        )
    wanted = [box for category, box in truth if category in named]
    hits = _overlaps(entry["boxes"], wanted, min_iou)
    side = named_side(sentence["text"])
    sides = box_sides(entry)
    return Row(
        hit=attended is not None and bool(hits[attended]),
        random_hit=float(hits.mean()),
        reachable=bool(hits.any()),
        listed=bool(listed),
        is_true=bool(wanted),
        linked=bool(linked),
        linked_hit=bool(linked) and bool(hits[linked[0]]),
        sided=bool(side),
        other_side=bool(side) and attended is not None and sides[attended] not in (side, ""),
        linked_other_side=bool(side) and bool(linked) and sides[linked[0]] not in (side, ""),
    )


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
    true = [row for row in rows if row.is_true]
    sided = [row for row in rows if row.sided]
    hit = _share(rows, "hit")
    drawn = _share(rows, "random_hit")
    return {
        "hit_rate": hit,
        "random_hit_rate": drawn,
        "ratio": hit / drawn if hit is not None and drawn else None,
        "reachable_rate": _share(rows, "reachable"),
        "listed_rate": _share(rows, "listed"),
        "linked_rate": _share(rows, "linked"),
        "linked_hit_rate": _share(rows, "linked_hit"),
        "true_sentences": len(true),
        "true_hit_rate": _share(true, "hit"),
        "true_random_hit_rate": _share(true, "random_hit"),
        "true_reachable_rate": _share(true, "reachable"),
        "true_linked_hit_rate": _share(true, "linked_hit"),
        "side_sentences": len(sided),
        "other_side_rate": _share(sided, "other_side"),
        "linked_other_side_rate": _share(sided, "linked_other_side"),
    }


def _share(rows: Sequence[Row], column: str) -> float | None:
    return float(np.mean([getattr(row, column) for row in rows])) if rows else None
