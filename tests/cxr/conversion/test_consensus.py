"""Consensus of readers: hand-computed fusions, agreement counts, order independence."""

import itertools

import numpy as np
import pandas as pd
import pytest

from d2rnet.cxr.conversion.consensus import FUSED_COLUMNS, fuse_one_class, fuse_readers
from d2rnet.cxr.sources.box_tables import CORNERS
from d2rnet.cxr.sources.tables import BOX_COLUMNS

IMAGES = pd.DataFrame(
    [("a", 200, 100, 3), ("b", 100, 100, 3), ("c", 100, 100, 0)],
    columns=["source_id", "source_height", "source_width", "n_readers"],
)
METHODS = ("none", "union", "majority", "weighted_boxes_fusion")


def table(*rows):
    """Rows of (image, reader, category, x_min, y_min, x_max, y_max)."""
    return pd.DataFrame([(*row, "t.csv:row 1") for row in rows], columns=list(BOX_COLUMNS)).astype(
        dict.fromkeys(CORNERS, float)
    )


def fuse(boxes, method, *, iou=0.4, min_readers=1):
    fused, counts = fuse_readers(boxes, IMAGES, method=method, iou=iou, min_readers=min_readers)
    assert fused.columns.tolist() == list(FUSED_COLUMNS)
    return [
        tuple(np.round(row, 3) if isinstance(row, float) else row for row in record)
        for record in fused.itertuples(index=False)
    ], counts


TWO_OF_THREE = table(("a", "R1", 4, 10, 20, 50, 100), ("a", "R2", 4, 14, 20, 50, 108), ("a", "R3", 4, 70, 150, 90, 190))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("none", [(10, 20, 50, 100, 2), (14, 20, 50, 108, 2), (70, 150, 90, 190, 1)]),
        ("union", [(10, 20, 50, 108, 2), (70, 150, 90, 190, 1)]),
        ("majority", [(12, 20, 50, 104, 2)]),
        ("weighted_boxes_fusion", [(12, 20, 50, 104, 2), (70, 150, 90, 190, 1)]),
    ],
)
def test_two_readers_agree_and_one_does_not(method, expected):
    fused, _ = fuse(TWO_OF_THREE, method)
    assert fused == [("a", 4, *map(float, box), readers, round(readers / 3, 3)) for *box, readers in expected]


@pytest.mark.parametrize("method", ["none", "union", "weighted_boxes_fusion"])
def test_classes_and_images_are_not_mixed(method):
    boxes = table(("a", "R1", 4, 0, 0, 50, 50), ("a", "R2", 5, 0, 0, 50, 50), ("b", "R3", 4, 0, 0, 50, 50))
    fused, _ = fuse(boxes, method)
    assert [(record[0], record[1], record[6]) for record in fused] == [("a", 4, 1), ("a", 5, 1), ("b", 4, 1)]


@pytest.mark.parametrize("method", METHODS)
def test_a_reader_who_drew_a_lesion_twice_counts_once(method):
    boxes = table(("a", "R1", 4, 10, 10, 50, 50), ("a", "R1", 4, 11, 10, 51, 50), ("a", "R2", 4, 10, 11, 50, 51))
    fused, _ = fuse(boxes, method)
    assert {record[6:] for record in fused} == {(2, 0.667)}


@pytest.mark.parametrize("method", METHODS)
def test_min_readers_drops_and_counts(method):
    fused, counts = fuse(TWO_OF_THREE, method, min_readers=2)
    assert {record[6] for record in fused} == {2}
    assert counts["lesions_below_min_readers"] == 1


def test_a_lesion_without_majority_is_counted():
    _, counts = fuse(TWO_OF_THREE, "majority")
    assert counts == {
        "boxes_in": 3, "boxes_given_as_consensus": 0, "lesions": 2, "lesions_below_min_readers": 0,
        "lesions_without_majority": 1, "boxes_out": 1,
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_given_consensus_stays_as_it_is(method):
    boxes = table(("c", "", 4, 10, 10, 50, 50), ("c", "", 4, 11, 10, 51, 50))
    fused, counts = fuse(boxes, method, min_readers=3)
    assert [record[2:6] for record in fused] == [(10, 10, 50, 50), (11, 10, 51, 50)]
    assert [record[6] for record in fused] == [0, 0]
    assert all(np.isnan(record[7]) for record in fused)
    assert counts["boxes_given_as_consensus"] == 2


@pytest.mark.parametrize("method", METHODS)
def test_no_boxes(method):
    fused, counts = fuse(table().astype({"source_id": str}), method)
    assert fused == []
    assert counts["boxes_out"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_order_of_rows_does_not_matter(method):
    results = {str(fuse(TWO_OF_THREE.iloc[list(order)], method)) for order in itertools.permutations(range(3))}
    assert len(results) == 1


@pytest.mark.parametrize("method", METHODS)
def test_order_of_rows_does_not_matter_where_the_first_box_decides(method):
    # neighbours overlap by IoU 3/7, the outer two by 1/9: which pair becomes one lesion depends on the order of fusion
    chain = table(*(("b", f"R{number}", 4, 4 * number, 0, 4 * number + 10, 10) for number in (1, 2, 3)))
    results = {str(fuse(chain.iloc[list(order)], method)) for order in itertools.permutations(range(3))}
    assert len(results) == 1


def test_share_of_the_readers_of_the_image():
    images = IMAGES.assign(n_readers=[4, 2, 0])
    boxes = table(("a", "R1", 4, 0, 0, 9, 9), ("a", "R2", 4, 0, 0, 9, 9), ("b", "R1", 4, 0, 0, 9, 9))
    fused, _ = fuse_readers(boxes, images, method="weighted_boxes_fusion", iou=0.4, min_readers=1)
    assert fused[["source_id", "readers", "agreement"]].to_numpy().tolist() == [["a", 2, 0.5], ["b", 1, 0.5]]
    fused, counts = fuse_readers(boxes, images, method="majority", iou=0.4, min_readers=1)
    assert fused.empty and counts["lesions_without_majority"] == 2  # half is no majority


def test_overlap_must_exceed_the_threshold():
    boxes = table(("b", "R1", 4, 0, 0, 10, 10), ("b", "R2", 4, 0, 0, 10, 20))  # IoU 0.5
    assert len(fuse(boxes, "weighted_boxes_fusion", iou=0.49)[0]) == 1
    assert len(fuse(boxes, "weighted_boxes_fusion", iou=0.51)[0]) == 2


def test_own_clusters_have_the_means_that_weighted_boxes_fusion_gives():
    rng = np.random.default_rng(0)
    for _ in range(40):
        low = rng.uniform(0, 60, (6, 2)).round()
        boxes = np.concatenate([low, low + rng.uniform(15, 40, (6, 2)).round()], axis=1)
        readers = np.array(["R1", "R1", "R2", "R2", "R3", "R3"], dtype=object)
        whwh = np.full(4, 100.0)
        by_library = fuse_one_class(boxes, readers, whwh, method="weighted_boxes_fusion", iou=0.4)
        by_hand = fuse_one_class(boxes, readers, whwh, method="majority", iou=0.4)
        found, expected = (
            sorted((*lesion.boxes_xyxy[0].round(2), lesion.readers) for lesion in lesions) for lesions in (by_library, by_hand)
        )
        np.testing.assert_allclose(found, expected, atol=0.011)
