"""Augmentation: image, boxes, crops, positions and words stay together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from d2rnet.cxr.boxes.evidence import SIDES
from d2rnet.cxr.report_model.augmentation import Augmentation, Change, mirror_report
from d2rnet.cxr.report_model.crops import square_crop
from d2rnet.cxr.report_model.dataset import ReportDataset, crop_arguments, image_sources
from d2rnet.cxr.report_model.image_cache import DirectImages
from d2rnet.cxr.report_model.settings import AugmentationSettings, D2RNetModelSettings
from d2rnet.report.text.vocabulary import count_vocabulary

REPORT = "Nodule on the left. Middle line."
VOCABULARY = count_vocabulary([REPORT, "Right side."], protocol="r2gen", section="findings", min_token_count=1)
BOX = [20.0, 30.0, 40.0, 10.0]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("Small left effusion.", "Small right effusion."),
        ("LEFT greater than Right; left-sided, right-sided.", "RIGHT greater than Left; right-sided, left-sided."),
        ("Bilateral opacities in both lungs, left/right.", "Bilateral opacities in both lungs, right/left."),
        ("RUL and lll. Shift leftward, rightwards.", "LUL and rll. Shift rightward, leftwards."),
        ("The cleft and the bright, upright leftover.", "The cleft and the bright, upright leftover."),
        ("T7 is normal.", "T7 is normal."),
        ("R lung clear, L > R effusion, r-sided port.", "L lung clear, R > L effusion, l-sided port."),
        ("Rt effusion and lt. basal opacity, R/L.", "Lt effusion and rt. basal opacity, L/R."),
        ("r/o effusion. R/O TB. 2 L of oxygen, 4L. L-spine, L spine, L1, &lt;.",) * 2,
        ("", ""),
    ],
)
def test_mirrored_words(report: str, expected: str) -> None:
    assert mirror_report(report) == expected
    assert mirror_report(expected) == report


@pytest.mark.parametrize("report", ["Right middle lobe opacity.", "RML collapse.", "Lingular opacity.", "Dextrocardia."])
def test_reports_without_a_mirror_image(report: str) -> None:
    assert mirror_report(report) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(), [2, 3, 6, 4]),
        (Change(flip=True), [4, 3, 8, 4]),
        (Change(shift_x=0.2, shift_y=-0.1), [4, 2, 8, 3]),
        (Change(scale=2.0), [-1, 1, 7, 3]),
        (Change(scale=2.0, shift_x=0.1, flip=True), [2, 1, 10, 3]),
    ],
)
def test_boxes_by_hand(change: Change, expected: list[float]) -> None:
    """In a square of 10."""
    found = change.boxes(np.array([[2, 3, 6, 4]], np.float32), 10)
    assert found.dtype == np.float32 and found[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert change.boxes(np.zeros((0, 4), np.float32), 10).shape == (0, 4)


def test_flip_is_exact_and_twice_is_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(np.uint8)
    flip = Change(flip=True)
    assert np.array_equal(flip.pixels(pixels), pixels[:, ::-1])
    assert np.array_equal(Change().pixels(pixels), pixels)
    boxes = np.array([[1, 2, 5, 6]], np.float32)
    assert np.array_equal(flip.boxes(flip.boxes(boxes, 9), 9), boxes)


def test_intensity_by_hand() -> None:
    pixels = np.array([[0, 100], [200, 255]], np.uint8)
    changed = Change(gain=1.1, offset=-0.1).pixels(pixels)
    assert changed.tolist() == [[0, 72], [182, 242]]  # 1.1 (x - 127.5) + 127.5 - 25.5, cut to the range


@pytest.mark.parametrize(
    "change", [Change(scale=1.2, shift_x=0.05, shift_y=-0.1), Change(scale=0.8, flip=True), Change(shift_x=0.1, flip=True)]
)
def test_pixels_move_with_boxes(change: Change) -> None:
    pixels = np.zeros((100, 100), np.uint8)
    pixels[30:60, 20:40] = 255
    rows, columns = np.nonzero(change.pixels(pixels) > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert found == pytest.approx(change.boxes(np.array([[20, 30, 40, 60]], np.float32), 100)[0].tolist(), abs=1)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., ReportDataset]:
    """Makes two studies on one wide image with a bright box; the second names a side that has no mirror image."""
    pixels = np.zeros((80, 160), np.uint8)
    pixels[30:40, 20:60] = np.arange(100, 140)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    entry = {"image_path": ["a.png"], "height": 80, "width": 160, "boxes": [BOX], "scores": [0.5], "labels": ["A"]}
    entries = [entry | {"id": "x", "report": REPORT}, entry | {"id": "y", "report": "Left lingula."}]
    settings = D2RNetModelSettings(lesion_branch="crop", crop_size_px=32)
    return partial(
        ReportDataset,
        entries,
        DirectImages(image_sources(entries, tmp_path), size_px=160),
        vocabulary=VOCABULARY,
        categories=("A",),
        size_px=160,
        max_tokens=20,
        **crop_arguments(entries, tmp_path, settings),
    )


def test_flipped_entry_is_consistent(make_dataset: Callable[..., ReportDataset]) -> None:
    dataset = make_dataset(augmentation=AugmentationSettings(horizontal_flip=True), seed=1)
    plain = dataset[0]
    flips = [dataset.of_epoch(epoch)[0] for epoch in range(8)]
    flipped = [sample for sample in flips if not torch.equal(sample.pixels, plain.pixels)]
    assert 1 <= len(flipped) <= 7
    for sample in flipped:
        assert torch.equal(sample.pixels, plain.pixels.flip(2)) and torch.equal(sample.crops, plain.crops.flip(2))
        side = plain.crops.shape[2]
        assert torch.equal(sample.crop_insides[:, 0], side - plain.crop_insides[:, 2])
        assert torch.equal(sample.crop_insides[:, 2], side - plain.crop_insides[:, 0])
        assert torch.equal(sample.crop_insides[:, [1, 3]], plain.crop_insides[:, [1, 3]])
        assert sample.boxes_xyxy[0].tolist() == pytest.approx([100, 70, 140, 80])
        assert sample.positions[0].tolist() == pytest.approx([0.75, 35 / 80, 0.25, 0.125])
        assert [SIDES[side] for side in (*plain.lesion_sides, *sample.lesion_sides)] == ["right", "left"]
        assert " ".join(VOCABULARY.decode(sample.token_ids.tolist())) == "nodule on the right . middle line ."
    rest = [sample for sample in flips if torch.equal(sample.pixels, plain.pixels)]
    assert all(torch.equal(sample.token_ids, plain.token_ids) for sample in rest)


def test_entry_without_mirror_image_is_never_flipped(make_dataset: Callable[..., ReportDataset]) -> None:
    dataset = make_dataset(augmentation=AugmentationSettings(horizontal_flip=True), seed=1)
    for epoch in range(8):
        changed = dataset.of_epoch(epoch)[1]
        assert torch.equal(changed.pixels, dataset[1].pixels) and torch.equal(changed.token_ids, dataset[1].token_ids)


def test_positions_move_with_the_boxes(make_dataset: Callable[..., ReportDataset]) -> None:
    chosen = AugmentationSettings(max_shift=0.1, max_scale=0.2, max_intensity=0.1)
    dataset = make_dataset(augmentation=chosen, seed=3)
    sample = dataset.of_epoch(2)[0]
    x1, y1, x2, y2 = sample.boxes_xyxy[0].tolist()
    assert (x1, y1) != (20.0, 70.0)
    # The wide image fills the square's width; 40 rows of black lie above it.
    expected = [(x1 + x2) / 2 / 160, ((y1 + y2) / 2 - 40) / 80, (x2 - x1) / 160, (y2 - y1) / 80]
    assert sample.positions[0].tolist() == pytest.approx(expected, abs=1e-5)
    rows, columns = torch.nonzero(sample.pixels[0] > 60, as_tuple=True)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == pytest.approx([x1, y1, x2, y2], abs=1.5)
    assert torch.equal(sample.crops, dataset[0].crops)  # of the original pixels


def test_the_side_of_a_box_is_that_of_the_picture_wherever_it_is_shifted(make_dataset: Callable[..., ReportDataset]) -> None:
    """The box is at 0.25 across."""
    dataset = make_dataset(augmentation=AugmentationSettings(max_shift=0.5), seed=1)
    shifted = [dataset.of_epoch(epoch)[0] for epoch in range(8)]
    assert max(sample.positions[0, 0].item() for sample in shifted) > 0.5
    assert {SIDES[side] for sample in shifted for side in sample.lesion_sides} == {"right"}


def test_draws_are_a_function_of_seed_epoch_and_entry() -> None:
    def draw(index: int = 0, **changes: int) -> Change:
        chosen = AugmentationSettings(max_shift=0.1, max_scale=0.1)
        return Augmentation(chosen, **{"seed": 1, "epoch": 0} | changes).draw(index, may_flip=True)

    assert draw() == draw()
    assert len({draw(), draw(index=1), draw(epoch=1), draw(seed=2)}) == 4
    assert not draw().flip and abs(draw().shift_x) <= 0.1 and abs(draw().scale - 1) <= 0.1 and draw().gain == 1.0


def test_off_is_the_entry_as_it_is(make_dataset: Callable[..., ReportDataset]) -> None:
    dataset = make_dataset(augmentation=AugmentationSettings(), seed=1)
    plain = dataset[0]
    off = dataset.of_epoch(0)
    assert off._drawn is None and torch.equal(off[0].positions, plain.positions)
    pixels = np.zeros((4, 40), np.uint8) + np.arange(100, 140, dtype=np.uint8)
    assert plain.crops.shape == (1, 32, 32) and square_crop(pixels[:, :32], 32, equalise=False)[16].min() >= 100
