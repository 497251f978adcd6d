"""The benchmark of other pseudo boxes: fusion, gates, levelled scores, and its comparisons."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from d2rnet.cxr.boxes.records import Record

CLASSES = 22


@pytest.fixture(scope="module")
def boxes() -> ModuleType:
    return importlib.import_module("box_variants")


@pytest.fixture(scope="module")
def cells() -> ModuleType:
    return importlib.import_module("report_cells")


def box(image: int, category: int, score: float, bbox: tuple[float, ...] = (10, 10, 20, 20)) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), "score": score}


def record(image: int) -> Record:
    none = np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.int64)
    return Record(image, f"image_{image}", "val", Path("image.png"), (100, 200), *none)


def test_a_fused_box_has_the_mean_score_of_its_sources(boxes: ModuleType) -> None:
    drawn = [{1: [box(1, 3, 0.8), box(1, 5, 0.6)], 2: []}, {1: [box(1, 3, 0.4)], 2: [box(2, 3, 0.08)]}]
    fused = boxes.fuse([record(1), record(2)], drawn, floor=0.05)
    assert [(one["image_id"], one["category_id"], one["score"]) for one in fused] == [(1, 3, 0.6), (1, 5, 0.3)]
    assert fused[0]["bbox"] == pytest.approx([10, 10, 20, 20], abs=0.02)
    assert boxes.fuse([record(1)], drawn[:1], floor=0.7) == drawn[0][1]  # one source is left as it is


def test_the_gate_empties_images_without_a_sure_box(boxes: ModuleType) -> None:
    results = [box(1, 1, 0.9), box(1, 2, 0.55), box(2, 1, 0.6), box(3, 2, 0.52), box(3, 3, 0.3)]
    named = np.zeros((3, CLASSES), dtype=bool)
    named[0, :2] = True
    half = boxes.fixed(0.5)
    gate = boxes.gate_of(results, half, [1, 2, 3], named)
    assert gate == 0.9
    assert boxes.Filter(half.least, gate).kept(results) == results[:2]
    assert half.kept(results) == results[:4]


def test_levelled_scores_put_each_threshold_at_a_half(boxes: ModuleType) -> None:
    least = np.full(CLASSES, 0.5)
    least[0], least[1] = 0.2, 1.0
    moved = boxes.levelled([box(1, 1, 0.2), box(1, 1, 0.1), box(1, 1, 0.6), box(1, 2, 0.99), box(1, 3, 0.7)], least)
    assert [one["score"] for one in moved] == [0.5, 0.25, 0.75, 0.5, 0.7]


def test_thresholds_are_chosen_on_the_training_reports_alone(boxes: ModuleType) -> None:
    training = boxes.Reported([1, 2], np.zeros((2, CLASSES), dtype=bool))
    training.named[0, 0] = True
    sources = {"run": [box(1, 1, 0.4), box(2, 1, 0.3)], "choice": [box(7, 1, 0.35), box(8, 1, 0.45)]}
    kept = boxes.variant_boxes(boxes.Variant("teacher", "classes"), sources, training)
    assert kept == {"run": [box(1, 1, 0.4)], "choice": [box(8, 1, 0.45)]}
    assert boxes.variant_boxes(boxes.Variant("teacher", "fixed", 0.35), sources, training)["choice"] == sources["choice"]


def test_variants_are_compared_on_the_seeds_of_both(cells: ModuleType) -> None:
    def cell(hits: list[int]) -> dict[str, Any]:
        return {"studies": ["a", "a", "b"], "pairs": {"lesions": [[hit, 2, 2] for hit in hits]}}

    ours = {1: cell([2, 2, 2]), 2: cell([1, 1, 1]), 3: cell([0, 0, 0])}
    theirs = {1: cell([1, 1, 1]), 2: cell([1, 1, 1])}
    value, interval = cells.difference(ours, theirs, "lesions")
    assert value == pytest.approx(0.25) and interval == [0.25, 0.25]
    assert cells.mean_f1(ours, "lesions")[0] == pytest.approx(0.5)
