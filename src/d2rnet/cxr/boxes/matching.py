"""Which detections hit which truth boxes: tables of boxes and the two rules of matching that the scores rest on.

COCO's rule (Lin et al., ECCV 2014; pycocotools): per image and class, best score first, each detection takes the free truth
box of highest IoU at or above the threshold. PASCAL VOC 2010's rule (Everingham et al., IJCV 2010): each detection stands for
the truth box of highest IoU, free or not; it hits if that IoU is above the threshold and no better one stands for that box.

Shapes: N detections, M truth boxes, R area ranges, T IoU thresholds, n images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.geometry import iou, xywh_to_xyxy, xyxy_to_xywh
from d2rnet.cxr.boxes.records import Record
from d2rnet.errors import DatasetError
from d2rnet.findings.classes import CATEGORY_NAMES

MAX_DETECTIONS = 100  # of an image and class, as in COCO
REFERENCE_SIDE_PX = 640  # longer side of a usual COCO image: areas are compared in an image scaled to it
CHUNK_CELLS = 1 << 22  # of the table (groups, R, T, truth boxes of a group) that one pass holds


@dataclass(frozen=True)
class BoxTable:
    """Boxes of many images, sorted by class, then image, then best score first.

    Attributes:
        rows: (N,) int64, row of the image in the list of records.
        classes: (N,) int64, 0-based.
        boxes_xywh: (N, 4) float64, pixels of the PNG.
        areas: (N,) float64, square pixels of the image scaled to a longer side of 640 px.
        scores: (N,) float64 in [0, 1]; 1 for truth boxes.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class CocoMatches:
    """Outcome of COCO's rule.

    Attributes:
        hit: (R, T, N) bool, the detection took a truth box.
        ignored: (R, T, N) bool, the detection counts neither for nor against: it took a truth box outside the area range, or
            took none and lies outside itself.
        truth_ignored: (R, M) bool, truth boxes outside the area range.
    """

    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth_ignored: NDArray[np.bool_]


def truth_table(records: Sequence[Record]) -> BoxTable:
    """Collect the truth boxes of records."""
    rows = np.repeat(np.arange(len(records)), [len(record.classes) for record in records])
    boxes = np.concatenate([np.zeros((0, 4)), *(record.boxes_xyxy for record in records)])
    classes = np.concatenate([np.zeros(0, np.int64), *(record.classes for record in records)])
    return _table(records, rows, classes, xyxy_to_xywh(boxes), np.ones(len(rows)))


def detection_table(records: Sequence[Record], results: Sequence[dict[str, Any]]) -> BoxTable:
    """Collect COCO results; of an image and class the 100 best scores are kept.

    Raises:
        DatasetError: a result of an image that is not among the records, or a class, score or box that cannot be.
    """
    row_of = {record.image_id: row for row, record in enumerate(records)}
    unknown = sorted({result["image_id"] for result in results} - row_of.keys())
    if unknown:
        raise DatasetError(
            f"detections of {len(unknown)} image(s) that are not scored ({', '.join(map(str, unknown[:10]))}); expected "
            "detections of the images of the truth. Predict on the same COCO json."
        )
    rows = np.array([row_of[result["image_id"]] for result in results], dtype=np.int64)
    classes = np.array([result["category_id"] - 1 for result in results], dtype=np.int64)
    boxes = np.array([result["bbox"] for result in results], dtype=np.float64).reshape(-1, 4)
    scores = np.array([result["score"] for result in results], dtype=np.float64)
    sound = (classes >= 0) & (classes < len(CATEGORY_NAMES)) & (scores >= 0) & (scores <= 1)  # NaN fails both
    wrong = np.flatnonzero(~(sound & np.isfinite(boxes).all(axis=1)))
    if len(wrong):
        raise DatasetError(
            f"detections: {len(wrong)} bad record(s), the first is record {wrong[0] + 1}: {results[wrong[0]]}; expected "
            f"category_id 1 to {len(CATEGORY_NAMES)}, score 0 to 1, bbox x, y, width, height. Mend what wrote them."
        )
    table = _table(records, rows, classes, boxes, scores)
    place = _place_in_group(_group_keys(table, len(records)))
    return _take(table, place < MAX_DETECTIONS)


def _table(
    records: Sequence[Record],
    rows: NDArray[np.int64],
    classes: NDArray[np.int64],
    boxes_xywh: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> BoxTable:
    longer = np.array([max(record.image_hw) for record in records], dtype=np.float64)
    scale = REFERENCE_SIDE_PX / longer[rows]
    areas = boxes_xywh[:, 2:].prod(axis=1) * scale**2
    return _take(BoxTable(rows, classes, boxes_xywh, areas, scores), np.lexsort((-scores, rows, classes)))


def _take(table: BoxTable, which: NDArray[Any]) -> BoxTable:
    return BoxTable(table.rows[which], table.classes[which], table.boxes_xywh[which], table.areas[which], table.scores[which])


def _group_keys(table: BoxTable, images: int) -> NDArray[np.int64]:
    """One ascending number for each pair of class and image."""
    return table.classes * images + table.rows


def _place_in_group(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each item within its run of equal keys, from 0."""
    return np.arange(len(keys)) - np.searchsorted(keys, keys)


@dataclass(frozen=True)
class _Pairs:
    """Each detection with each truth box of its image and class: indices of both, and their IoU (P,)."""

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def _overlaps(truth: BoxTable, found: BoxTable) -> _Pairs:
    images = 1 + int(max(truth.rows.max(initial=0), found.rows.max(initial=0)))
    truth_keys = _group_keys(truth, images)
    found_keys = _group_keys(found, images)
    first = np.searchsorted(truth_keys, found_keys)
    sizes = np.searchsorted(truth_keys, found_keys, side="right") - first
    of_found = np.repeat(np.arange(len(found)), sizes)
    starts = np.cumsum(sizes) - sizes
    of_truth = np.arange(len(of_found)) + np.repeat(first - starts, sizes)
    ours = found.boxes_xywh[of_found]
    theirs = truth.boxes_xywh[of_truth]
    overlap = iou(
        xywh_to_xyxy(ours),
        xywh_to_xyxy(theirs),
        a_areas=ours[:, 2:].prod(axis=1),
        b_areas=theirs[:, 2:].prod(axis=1),
    )
    return _Pairs(of_found, of_truth, overlap)


def match_coco(
    truth: BoxTable, found: BoxTable, iou_thresholds: Sequence[float], area_ranges: Sequence[tuple[float, float]]
) -> CocoMatches:
    """Match by COCO's rule, for all IoU thresholds and area ranges at once.

    Args:
        truth: M truth boxes.
        found: N detections.
        iou_thresholds: T least IoUs.
        area_ranges: R pairs of least and greatest area, both inclusive. Truth boxes outside are taken only if none inside is
            free.
    """
    limits = np.array(area_ranges, dtype=np.float64)[:, :, None]  # (R, 2, 1)
    truth_ignored = (truth.areas < limits[:, 0]) | (truth.areas > limits[:, 1])
    outside = (found.areas < limits[:, 0]) | (found.areas > limits[:, 1])
    hit = np.zeros((len(area_ranges), len(iou_thresholds), len(found)), dtype=bool)
    ignored = np.broadcast_to(outside[:, None], hit.shape).copy()
    least = np.minimum(iou_thresholds, 1 - 1e-10)
    pairs = _overlaps(truth, found)
    near = pairs.iou >= least.min()
    pairs = _Pairs(pairs.found[near], pairs.truth[near], pairs.iou[near])
    for part, found_of_part in _chunks(pairs, truth, found, hit.shape[0] * hit.shape[1]):
        taken, took_ignored = _match_chunk(part, truth_ignored, least)
        hit[:, :, found_of_part] = taken
        ignored[:, :, found_of_part] = np.where(taken, took_ignored, ignored[:, :, found_of_part])
    return CocoMatches(hit, ignored, truth_ignored)


@dataclass(frozen=True)
class _Chunk:
    """Groups (image and class) of similar size: D detections in A groups of at most G truth boxes.

    Attributes:
        group: (D,) number of the detection's group.
        place: (D,) place of the detection among those of its group, best score first.
        iou: (D, G), -1 where there is no truth box or the IoU is below every threshold.
        truth: (A, G) index of the truth box, 0 where there is none.
    """

    group: NDArray[np.int64]
    place: NDArray[np.int64]
    iou: NDArray[np.float64]
    truth: NDArray[np.int64]


def _chunks(pairs: _Pairs, truth: BoxTable, found: BoxTable, cells: int) -> Iterator[tuple[_Chunk, NDArray[np.int64]]]:
    """Cut the pairs into chunks of whole groups, small groups first; yield each with the indices of its detections.

    A chunk's groups have equally many truth boxes, so that its table (detections, truth boxes of a group) has no padding.

    Args:
        pairs: P pairs that may match.
        truth: sorted by group, so that a group's truth boxes lie side by side.
        found: N detections.
        cells: area ranges times IoU thresholds, for each of which matching needs its own table.
    """
    images = 1 + int(max(truth.rows.max(initial=0), found.rows.max(initial=0)))
    truth_keys = _group_keys(truth, images)
    pair_keys = truth_keys[pairs.truth]  # (P,)
    groups, group_of_pair = np.unique(pair_keys, return_inverse=True)  # only groups with a pair matter
    first = np.searchsorted(truth_keys, groups)  # where the truth boxes of each group begin
    sizes = np.searchsorted(truth_keys, groups, side="right") - first  # and how many there are, near a detection or not
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        step = max(1, CHUNK_CELLS // (cells * int(size)))
        for start in range(0, len(same), step):
            chosen = same[start : start + step]
            local = np.full(len(groups), -1)  # number of a group within the chunk; -1: in another one
            local[chosen] = np.arange(len(chosen))
            mine = np.flatnonzero(local[group_of_pair] >= 0)  # the chunk's pairs
            # Detections are sorted by group and score, so ascending indices keep the best of each group first.
            found_of_part, row = np.unique(pairs.found[mine], return_inverse=True)  # (D,), and the row in it of each pair
            group = np.empty(len(found_of_part), dtype=np.int64)
            group[row] = local[group_of_pair[mine]]  # written once per pair, always the same for a detection
            overlap = np.full((len(found_of_part), int(size)), -1.0)  # (D, G)
            column = pairs.truth[mine] - first[chosen][group[row]]  # place of the truth box among those of its group
            overlap[row, column] = pairs.iou[mine]
            members = first[chosen][:, None] + np.arange(int(size))  # (A, G)
            yield _Chunk(group, _place_in_group(group), overlap, members), found_of_part


def _match_chunk(
    part: _Chunk, truth_ignored: NDArray[np.bool_], least: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match the detections of a chunk in rounds: the best of every group at once, then the second best, and so on.

    Returns:
        (R, T, D) whether the detection took a truth box, and whether that box is ignored.
    """
    ignored = truth_ignored[:, part.truth].transpose(1, 0, 2)[:, :, None]  # (A, R, 1, G)
    groups, ranges, _, size = ignored.shape
    free = np.ones((groups, ranges, len(least), size), dtype=bool)
    taken = np.zeros((ranges, len(least), len(part.group)), dtype=bool)
    took_ignored = np.zeros_like(taken)
    for place in range(int(part.place.max()) + 1):
        now = np.flatnonzero(part.place == place)  # (d,) at most one detection of each group
        group = part.group[now]
        iou = part.iou[now][:, None, None]  # (d, 1, 1, G)
        possible = free[group] & (iou >= least[:, None])  # (d, R, T, G)
        # A box inside the area range goes before any outside; of equal IoUs the last one is taken, as pycocotools does.
        value = np.where(possible, iou + 2.0 * ~ignored[group], -1.0)
        best = size - 1 - value[..., ::-1].argmax(axis=-1)  # (d, R, T)
        won = np.take_along_axis(value, best[..., None], axis=-1)[..., 0] >= 0
        item, area, threshold = np.nonzero(won)
        chosen = best[won]
        free[group[item], area, threshold, chosen] = False
        taken[area, threshold, now[item]] = True
        took_ignored[area, threshold, now[item]] = ignored[group[item], area, 0, chosen]
    return taken, took_ignored


def match_voc(truth: BoxTable, found: BoxTable, iou_threshold: float) -> NDArray[np.bool_]:
    """Match by PASCAL VOC 2010's rule.

    Args:
        truth: M truth boxes.
        found: N detections.
        iou_threshold: IoU that a hit must exceed.

    Returns:
        (N,) bool, whether the detection is a hit; every other one is a false positive.
    """
    pairs = _overlaps(truth, found)
    order = np.lexsort((-pairs.iou, pairs.found))  # of equal IoUs the first truth box
    detections, first = np.unique(pairs.found[order], return_index=True)
    best = order[first]
    above = pairs.iou[best] > iou_threshold
    _, claim = np.unique(pairs.truth[best[above]], return_index=True)  # detections ascend: better scores come first
    hit = np.zeros(len(found), dtype=bool)
    hit[detections[above][claim]] = True
    return hit
