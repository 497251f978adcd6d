"""Lesion crops: exactly the pixels of the box, squares, the cache, the network on them."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from report_samples import make_batch, make_model

from d2rnet.cxr.report_model import crops
from d2rnet.cxr.report_model.crops import (
    CropCache,
    CropSource,
    DirectCrops,
    grown_boxes,
    inside_of_square,
    kept_sizes,
    pixel_rectangles,
    read_crops,
    square_crop,
)
from d2rnet.cxr.report_model.dataset import ReportDataset, crop_arguments, image_sources
from d2rnet.cxr.report_model.image_cache import DirectImages
from d2rnet.cxr.report_model.lera import LesionEnhancement
from d2rnet.cxr.report_model.lesion_encoder import normalise_crops
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.errors import DatasetError
from d2rnet.report.text.vocabulary import count_vocabulary

VOCABULARY = count_vocabulary(["effusion left."], protocol="r2gen", section="findings", min_token_count=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images whose pixels are all different from their neighbours."""
    for name, (height, width), seed in (("a.png", (60, 90), 1), ("b.png", (40, 50), 2)):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8))
    return tmp_path


def sources(root: Path) -> list[CropSource]:
    boxes = [np.array([[10, 20, 30, 5], [0, 0, 90, 60]], np.float64), np.zeros((0, 4))]
    files = [(root / "a.png", (60, 90)), (root / "b.png", (40, 50))]
    return [CropSource(file, pixel_rectangles(some, file[1])) for file, some in zip(files, boxes, strict=True)]


def test_whole_pixels_of_a_box(root: Path) -> None:
    found = read_crops(sources(root)[0], 128)
    pixels = cv2.imread(str(root / "a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found[0], pixels[20:25, 10:40]) and np.array_equal(found[1], pixels)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 30, 5), (10, 20, 40, 25)),
        ((9.6, 20.4, 29.9, 5.2), (10, 20, 40, 26)),
        ((9.9999, 20.0001, 30.0002, 4.9999), (10, 20, 40, 25)),  # rounding of an earlier scaling
        ((-0.8, -0.4, 5, 5), (0, 0, 4, 5)),
        ((85, 55, 5.9, 5.6), (85, 55, 90, 60)),
        ((3.2, 4.2, 0.1, 0.1), (3, 4, 4, 5)),  # never without a pixel
        ((89.9, 59.9, 0.05, 0.05), (89, 59, 90, 60)),
    ],
)
def test_rectangles_by_hand(box: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert pixel_rectangles(np.array([box]), (60, 90)).tolist() == [list(expected)]
    assert pixel_rectangles(np.zeros((0, 4)), (60, 90)).shape == (0, 4)


def test_boxes_grow_about_their_centres() -> None:
    boxes = np.array([[10.0, 20.0, 30.0, 8.0], [1.0, 2.0, 0.3, 0.7]])
    assert grown_boxes(boxes, 1.25).tolist()[0] == [6.25, 19.0, 37.5, 10.0]
    assert np.array_equal(grown_boxes(boxes, 1.0), boxes) and grown_boxes(np.zeros((0, 4)), 1.25).shape == (0, 4)


def test_crops_have_the_margin_of_the_settings(root: Path) -> None:
    entry = {"id": "e", "image_path": ["a.png"], "report": "", "height": 60, "width": 90, "boxes": [[10, 20, 40, 20]]}
    pixels = cv2.imread(str(root / "a.png"), cv2.IMREAD_UNCHANGED)
    for margin, expected in ((1.0, pixels[20:40, 10:50]), (1.25, pixels[18:42, 5:55]), (4.0, pixels)):
        settings = D2RNetModelSettings(lesion_branch="crop", crop_size_px=96, crop_margin=margin)
        assert np.array_equal(crop_arguments([entry], root, settings)["crops"][0][0], expected)


def test_large_crops_shrink_to_the_side_and_small_ones_stay(root: Path) -> None:
    rectangles = np.array([[0, 0, 90, 60], [0, 0, 30, 5], [0, 0, 90, 1]])
    assert kept_sizes(rectangles, 32).tolist() == [[21, 32], [5, 30], [1, 32]]
    assert kept_sizes(np.zeros((0, 4), np.int64), 32).shape == (0, 2)
    found = read_crops(sources(root)[0], 32)
    assert [crop.shape for crop in found] == [(5, 30), (21, 32)]


def test_square_by_hand() -> None:
    square = square_crop(np.full((2, 4), 7, np.uint8), 4, equalise=False)
    assert square.tolist() == [[0] * 4, [7] * 4, [7] * 4, [0] * 4]
    assert square_crop(np.full((1, 2), 9, np.uint8), 8, equalise=False)[:, 0].tolist() == [0, 0, 9, 9, 9, 9, 0, 0]
    ramp = np.tile(np.arange(100, 132, dtype=np.uint8), (32, 1))
    assert np.ptp(square_crop(ramp, 32, equalise=True)) > 2 * np.ptp(ramp)
    assert np.array_equal(square_crop(ramp, 32, equalise=False), ramp)


@pytest.mark.parametrize(("crop_hw", "expected"), [((2, 4), (0, 1, 4, 3)), ((5, 2), (1, 0, 3, 4)), ((3, 3), (0, 0, 4, 4))])
def test_inside_of_a_square_is_where_its_pixels_are(crop_hw: tuple[int, int], expected: tuple[int, int, int, int]) -> None:
    assert inside_of_square(crop_hw, 4) == expected
    left, top, right, bottom = inside_of_square(crop_hw, 9)
    found = square_crop(np.full(crop_hw, 7, np.uint8), 9, equalise=False)
    assert (found[top:bottom, left:right] == 7).all() and found.sum() == 7 * (right - left) * (bottom - top)


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_equals_direct_cutting_and_is_used_again(root: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    cache = CropCache(root / "cache", sources(root), size_px=32, workers=workers)
    direct = DirectCrops(sources(root), size_px=32)
    for row in range(2):
        assert len(cache[row]) == len(direct[row]) == (2, 0)[row]
        assert all(np.array_equal(one, other) for one, other in zip(cache[row], direct[row], strict=True))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("cut out again")

    monkeypatch.setattr(crops, "read_radiograph", fail)
    again = CropCache(root / "cache", sources(root), size_px=32, workers=0)
    loaded = pickle.loads(pickle.dumps(again))
    assert np.array_equal(loaded[0][1], cache[0][1])


def test_changed_boxes_are_cut_out_again(root: Path) -> None:
    CropCache(root / "cache", sources(root), size_px=32, workers=0)
    moved = sources(root)
    moved[0] = CropSource(moved[0].image, moved[0].rectangles + np.array([[1], [0]]))
    found = CropCache(root / "cache", moved, size_px=32, workers=0)[0][0]
    assert np.array_equal(found, cv2.imread(str(root / "a.png"), cv2.IMREAD_UNCHANGED)[21:26, 11:41])


def test_crops_of_a_lost_file_are_cut_out_again(root: Path) -> None:
    before = CropCache(root / "cache", sources(root), size_px=32, workers=0)[0][1].copy()
    next((root / "cache").rglob("crops.u8")).unlink()
    assert before.max() > 0
    assert np.array_equal(CropCache(root / "cache", sources(root), size_px=32, workers=0)[0][1], before)


def test_image_without_boxes_is_never_read(root: Path) -> None:
    (root / "b.png").unlink()
    assert list(CropCache(root / "cache", sources(root), size_px=32, workers=0)[1]) == []


def test_bad_files_are_named(root: Path) -> None:
    (root / "a.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"1 problem\(s\)[\s\S]*a\.png"):
        CropCache(root / "cache", sources(root), size_px=32, workers=0)
    cv2.imwrite(str(root / "a.png"), np.zeros((61, 90), np.uint8))
    with pytest.raises(DatasetError, match="got height x width 61 x 90; expected 60 x 90"):
        read_crops(sources(root)[0], 32)


def test_crops_of_an_entry_follow_its_boxes(root: Path) -> None:
    """Boxes of two images in mixed order; the images' rows begin at 1."""
    entries = [
        {
            "id": "x",
            "image_path": ["b.png"],
            "report": "left.",
            "height": 40,
            "width": 50,
            "boxes": [],
            "scores": [],
            "labels": [],
        },
        {
            "id": "y",
            "image_path": ["a.png", "b.png"],
            "report": "left.",
            "height": 60,
            "width": 90,
            "heights": [60, 40],
            "widths": [90, 50],
            "box_image": [1, 0, 1],
            "boxes": [[1.0, 2.0, 3.0, 3.0], [5.0, 6.0, 4.0, 4.0], [7.0, 8.0, 2, 2]],
            "scores": [0.5] * 3,
            "labels": ["A"] * 3,
        },
    ]
    settings = D2RNetModelSettings(lesion_branch="crop", crop_size_px=32)
    arguments = crop_arguments(entries, root, settings)
    dataset = ReportDataset(
        entries,
        DirectImages(image_sources(entries, root), size_px=32),
        vocabulary=VOCABULARY,
        categories=("A",),
        size_px=32,
        max_tokens=9,
        **arguments,
    )
    assert dataset[0].crops.shape == (0, 32, 32)
    pixels = {name: cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED) for name in ("a.png", "b.png")}
    parts = [pixels["b.png"][2:5, 1:4], pixels["a.png"][6:10, 5:9], pixels["b.png"][8:10, 7:9]]
    expected = np.stack([square_crop(part, 32, equalise=False) for part in parts])
    assert np.array_equal(dataset[1].crops.numpy(), expected)
    assert crop_arguments(entries, root, D2RNetModelSettings()) == {}


def test_normalised_crops() -> None:
    pixels = torch.randint(0, 256, (2, 16, 16), dtype=torch.uint8)
    pixels[1] = 80
    found = normalise_crops(pixels)
    assert found.shape == (2, 1, 16, 16)
    assert float(found[0].mean()) == pytest.approx(0, abs=1e-5) and float(found[0].std(correction=0)) == pytest.approx(1)
    assert found[1].abs().max() < 1e-4  # even, not blown up
    faint = torch.zeros(1, 16, 16, dtype=torch.uint8)
    faint[0, :8] = 1
    assert float(normalise_crops(faint).max()) == pytest.approx(0.5 / 255 / 0.01, rel=1e-4)
    assert normalise_crops(pixels[:0]).shape == (0, 1, 16, 16)


def test_crops_normalised_inside_their_box_by_hand() -> None:
    """Grey levels 0, 51, 102, 255 of a box of two by two: mean 102, deviation 95.4; the black padding does not count."""
    pixels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    pixels[0, 1:3, 1:3] = torch.tensor([[0, 51], [102, 255]])
    pixels[1] = torch.randint(0, 256, (4, 4))
    found = normalise_crops(pixels, torch.tensor([[1, 1, 3, 3], [0, 0, 4, 4]]))
    deviation = ((102**2 + 51**2 + 153**2) / 4) ** 0.5
    assert found[0, 0, 1:3, 1:3].flatten().tolist() == pytest.approx([-102 / deviation, -51 / deviation, 0, 153 / deviation])
    assert found[0].count_nonzero() == 3
    assert torch.allclose(found[1], normalise_crops(pixels)[1], atol=1e-5)  # all of it is inside
    wide = normalise_crops(pixels[:1], torch.tensor([[0, 1, 4, 3]]))
    assert wide[0, 0, 0].count_nonzero() == 0 and wide[0, 0, 1, 0] < 0  # columns first, then rows
    assert normalise_crops(pixels[:0], torch.zeros(0, 4, dtype=torch.long)).shape == (0, 1, 4, 4)


def test_statistics_of_the_box_leave_the_padding_out() -> None:
    batch = make_batch(lesions=(2, 1))
    batch.crop_insides = torch.tensor([0, 8, 32, 24]) * batch.lesion_mask.unsqueeze(2)
    for statistics, same in (("box", True), ("square", False)):
        model = make_model(lesion_branch="crop", crop_size_px=32, crop_width=2, crop_statistics=statistics)
        batch.crops[:, :, :8] = 0
        before = model(batch)
        batch.crops[:, :, :8] = 200
        assert torch.allclose(model(batch), before, atol=1e-6) is same


def test_a_shifted_gate_leaves_no_branch_of_lera_silent() -> None:
    """Of 40 blocks of random weights some have a branch that gives nothing, and that no gradient can wake."""
    silent = {"clamped": 0, "shifted": 0}
    crops = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    for gate in silent:
        for seed in range(40):
            torch.manual_seed(seed)
            for branch in LesionEnhancement(3, 0.0, gate=gate).patches:
                branch(crops).square().sum().backward()
                silent[gate] += not branch.narrow.weight.grad.any()
    assert silent["clamped"] >= 5 and silent["shifted"] == 0


def test_lera_keeps_shape_and_is_what_its_parts_make() -> None:
    torch.manual_seed(3)
    block = LesionEnhancement(3, dropout=0.0).eval()
    x = torch.randn(2, 3, 16, 24)
    assert block(x).shape == x.shape and block(x).min() >= 0 and block(x[:0]).shape == (0, 3, 16, 24)
    with torch.no_grad():
        for branch in (*block.patches, *block.chain):
            for parameter in branch.parameters():
                parameter.zero_()
        block.skip.weight.copy_(torch.eye(3)[:, :, None, None])
        block.skip.bias.zero_()
        block.channel_attention.weight.zero_()
        block.spatial_attention.weight.zero_()
    # Only the identity is left, times two sigmoids of zero.
    assert torch.allclose(block(x), (x / 4 / (1 + 1e-5) ** 0.5).relu(), atol=1e-5)


def test_every_part_of_lera_matters() -> None:
    torch.manual_seed(3)
    block = LesionEnhancement(3, dropout=0.0).eval()
    x = torch.randn(1, 3, 16, 16)
    whole = block(x)
    for name, parameter in block.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.rand_like(parameter))
            changed = block(x)
            parameter.copy_(kept)
        assert not torch.allclose(changed, whole, atol=1e-6), name


def crop_model(**changes):
    return make_model(lesion_branch="crop", crop_size_px=32, crop_width=2, **changes)


@pytest.mark.parametrize("enhancement", ["none", "lera"])
def test_crop_branch_sees_the_crops_that_are_there_and_nothing_else(enhancement: str) -> None:
    model = crop_model(lesion_enhancement=enhancement)
    batch = make_batch()
    changed = make_batch()
    padding = ~changed.lesion_mask
    changed.crops[padding] = 200
    changed.boxes_xyxy[:] = torch.tensor([0.0, 0.0, 32.0, 32.0])  # of no use to this branch
    assert torch.equal(model(batch), model(changed))
    changed.crops[0, 0] = changed.crops[0, 0].flip(0)
    assert not torch.allclose(model(batch)[0], model(changed)[0], atol=1e-6)
    assert torch.equal(model(batch)[1:], model(changed)[1:])


def test_crop_branch_computes_no_absent_box(monkeypatch: pytest.MonkeyPatch) -> None:
    model = crop_model()
    seen = []
    model.lesion_encoder.features.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model(make_batch(lesions=(2, 0, 3)))
    model(make_batch(lesions=(0, 0)))
    model(make_batch(lesions=(50, 1)))
    assert seen == [5, 51]


def test_crop_branch_box_order_and_company_do_not_matter() -> None:
    model = crop_model()
    batch = make_batch(lesions=(3,))
    turned = make_batch(lesions=(3,))
    for name in ("boxes_xyxy", "positions", "category_ids", "scores", "lesion_view", "crops"):
        setattr(turned, name, getattr(turned, name).flip(1))
    assert torch.allclose(model(batch), model(turned), atol=1e-5)
    together = make_batch(lesions=(2, 3))
    single = make_batch(lesions=(2, 3))
    for name in single.__dataclass_fields__:
        setattr(single, name, getattr(single, name)[:1])
    assert torch.allclose(model(single)[0], model(together)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("switch", "field"), [("lesion_class", "category_ids"), ("lesion_score", "scores"), ("lesion_position", "positions")]
)
def test_what_a_token_carries_can_be_switched_off(switch: str, field: str) -> None:
    model = crop_model(**{switch: False})
    batch = make_batch()
    changed = make_batch()
    setattr(
        changed, field, torch.where(changed.lesion_mask, 1, 0) if field == "category_ids" else getattr(changed, field) * 0.5
    )
    assert torch.equal(model(batch), model(changed))
    whole = crop_model()
    assert not torch.equal(whole(batch), whole(changed))


def test_hidden_classes_are_hidden_in_training_alone() -> None:
    batch = make_batch(lesions=(3, 2))
    other = make_batch(lesions=(3, 2))
    other.category_ids = (other.category_ids + 1) * other.lesion_mask
    model = make_model(lesion_class_dropout=1.0, dropout=0.0).train()
    assert torch.equal(model.look(batch).lesions, model.look(other).lesions)
    model.eval()
    assert not torch.allclose(model.look(batch).lesions, model.look(other).lesions, atol=1e-2)
    torch.manual_seed(0)
    ids = torch.arange(1, 2001)
    shown = make_model(lesion_class_dropout=0.3).train().lesion_encoder._shown_classes(ids)
    assert ((shown == ids) | (shown == 0)).all() and int((shown == 0).sum()) == pytest.approx(600, abs=60)


def test_channels_double() -> None:
    convolutions = crop_model().lesion_encoder.features.convolutions
    assert [block[0].out_channels for block in convolutions] == [2, 4, 8, 16, 32]
    assert [block[0].stride[0] for block in convolutions] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize("enhancement", ["none", "lera"])
def test_chunks_of_crops_train_as_all_at_once_do(enhancement: str) -> None:
    """Dropout of LERA included: what it leaves out does not depend on the chunks."""
    batch = make_batch(lesions=(4, 0, 3))
    trained = {}
    for chunk in (0, 2, 3, 7):
        model = crop_model(
            lesion_enhancement=enhancement, crop_chunk=chunk, crop_statistics="box", lera_gate="shifted"
        ).train()
        torch.manual_seed(5)
        lesions = model.look(batch).lesions
        (lesions * torch.arange(16)).sum().backward()
        trained[chunk] = model.lesion_encoder, lesions
    expected, tokens = trained[0]
    assert torch.equal(trained[7][1], tokens)  # no more than a chunk: the same path
    for chunk in (2, 3):
        found, own = trained[chunk]
        assert not torch.equal(own, tokens) or enhancement == "none"
        torch.testing.assert_close(own, tokens, rtol=1e-4, atol=1e-4)
        largest = max(float(parameter.grad.abs().max()) for parameter in expected.features.parameters())
        for (name, one), other in zip(found.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=2e-3, atol=2e-4 * largest, msg=name)
        for one, other in zip(found.buffers(), expected.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_more_crops_than_a_chunk_are_looked_at_together() -> None:
    model = crop_model(crop_chunk=3)
    seen = []
    model.lesion_encoder.features.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model(make_batch(lesions=(3, 0)))
    model(make_batch(lesions=(4, 1)))
    assert seen == [3, 3, 2]
    seen.clear()
    model.train()(make_batch(lesions=(4, 1)))
    assert seen == [3, 2] * 6  # as far as each of five norms, and to the end
