"""Geometry of images and boxes, several images an entry, the cache of decoded images."""

import ctypes
import dataclasses
import errno
import json
import multiprocessing
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from d2rnet.cxr.report_model import image_cache
from d2rnet.cxr.report_model.dataset import ReportDataset, collate, image_sources
from d2rnet.cxr.report_model.image_cache import DirectImages, ImageCache, Source, letterbox_of, read_input
from d2rnet.errors import DatasetError
from d2rnet.report.text.vocabulary import PAD_ID, count_vocabulary
from d2rnet.runs import array_cache
from d2rnet.training.batches import EpochBatches

VOCABULARY = count_vocabulary(["effusion left."], protocol="r2gen", section="findings", min_token_count=1)


def make_dataset(entries: list[dict], root: Path, *, size_px: int = 32) -> ReportDataset:
    images = DirectImages(image_sources(entries, root), size_px=size_px)
    return ReportDataset(entries, images, vocabulary=VOCABULARY, categories=("A", "B"), size_px=size_px, max_tokens=9)


def make_entry(**changes) -> dict:
    entry = {
        "id": "e",
        "image_path": ["wide.png"],
        "report": "Effusion left.",
        "height": 50,
        "width": 100,
        "boxes": [[10.0, 20.0, 30.0, 5.0]],
        "scores": [0.5],
        "labels": ["B"],
    }
    return entry | changes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A wide image with one white rectangle and a tall black one."""
    wide = np.zeros((50, 100), np.uint8)
    wide[20:25, 10:40] = 255
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    cv2.imwrite(str(tmp_path / "tall.png"), np.zeros((80, 40), np.uint8))
    return tmp_path


def test_letterbox_by_hand() -> None:
    box = letterbox_of((50, 100), 32)
    assert (box.scale, box.top, box.left) == (0.32, 8, 0)
    found = box.boxes(np.array([[10, 20, 30, 5]], np.float32))
    assert found[0].tolist() == pytest.approx([3.2, 14.4, 12.8, 16.0], abs=1e-5)
    assert letterbox_of((80, 40), 32).left == 8
    assert letterbox_of((3, 4000), 32).boxes(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_box_and_pixels_move_together(root: Path) -> None:
    sample = make_dataset([make_entry()], root, size_px=200)[0]
    x1, y1, x2, y2 = sample.boxes_xyxy[0].round().int().tolist()
    rows, columns = torch.nonzero(sample.pixels[0] > 127, as_tuple=True)
    assert [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1] == [x1, y1, x2, y2]


def test_positions_are_shares_of_the_original_image(root: Path) -> None:
    sample = make_dataset([make_entry()], root)[0]
    assert sample.positions[0].tolist() == pytest.approx([0.25, 0.45, 0.3, 0.1])
    assert sample.category_ids.tolist() == [2] and sample.scores.tolist() == [0.5]


def test_two_images_and_collation(root: Path) -> None:
    two = make_entry(
        id="two",
        image_path=["wide.png", "tall.png"],
        heights=[50, 80],
        widths=[100, 40],
        box_image=[1, 0],
        boxes=[[0.0, 40.0, 20.0, 40.0], [10.0, 20.0, 30.0, 5.0]],
        scores=[0.9, 0.8],
        labels=["A", "B"],
    )
    none = make_entry(id="none", boxes=[], scores=[], labels=[], report="Left.")
    dataset = make_dataset([none, two], root)
    assert dataset[1].boxes_xyxy.tolist()[0] == pytest.approx([8.0, 16.0, 16.0, 32.0])
    assert dataset[1].positions.tolist()[0] == pytest.approx([0.25, 0.75, 0.5, 0.5])
    batch = collate([dataset[0], dataset[1]])
    assert batch.view_mask.tolist() == [[True, False], [True, True]]
    assert batch.lesion_mask.tolist() == [[False, False], [True, True]]
    assert batch.lesion_view.tolist() == [[0, 0], [1, 0]]
    assert batch.lesion_sides.tolist() == [[0, 0], [2, 2]]
    told = make_dataset([two | {"views": ["PA", "LATERAL"]}], root)[0]
    assert told.lesion_sides.tolist() == [0, 2]  # the first box is in the lateral image
    assert batch.token_ids[0, -1] == PAD_ID and len(batch) == 2
    assert torch.equal(batch.pixels[1, 0], batch.pixels[0, 0]) and batch.pixels[0, 1].max() == 0


def test_every_tensor_of_a_batch_is_pinned(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader pins what it knows and leaves the rest in silence; without a GPU, pinning is replaced by adding 1."""
    batch = collate([make_dataset([make_entry()], root)[0]])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.to(torch.float32) + 1)
    pinned = pin_memory(batch)
    own = {field.name: (getattr(pinned, field.name), getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    told_pinned, told = own.pop("context")
    own |= {field.name: (getattr(told_pinned, field.name), getattr(told, field.name)) for field in dataclasses.fields(told)}
    for name, (found, before) in own.items():
        assert torch.equal(found, before.to(torch.float32) + 1), name


def test_batch_without_any_box(root: Path) -> None:
    none = make_entry(boxes=[], scores=[], labels=[])
    batch = collate([make_dataset([none], root)[0]])
    assert batch.boxes_xyxy.shape == (1, 0, 4) and batch.lesion_mask.shape == (1, 0)


def test_unknown_class_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="class C, which the model does not know; it knows A, B"):
        make_dataset([make_entry(labels=["C"])], root)


@pytest.mark.parametrize("name", ["../wide.png", "/etc/wide.png"])
def test_path_that_leaves_the_root_is_refused(root: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="leaves the image root"):
        image_sources([make_entry(image_path=[name])], root)


def test_image_of_another_size_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="got height x width 50 x 100; expected 60 x 100"):
        read_input(root / "wide.png", (60, 100), 32)


def fill_slowly(folder: Path, count: int, start: Any, *, dies: bool) -> None:
    """Fill a cache in a process of its own, as a training does; one that dies does so in the middle."""
    original = image_cache.read_input

    def slow(path: Path, *size: Any) -> np.ndarray:
        with (folder / "decoded.txt").open("a") as file:
            file.write(f"{path.name}\n")
        if dies and path.name == f"{count // 2}.png":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        return original(path, *size)

    image_cache.read_input, array_cache.FLUSH_EVERY = slow, 2
    start.wait()
    if not dies:
        time.sleep(0.1)  # the one that dies comes first
    images = ImageCache(folder / "cache", many_sources(folder, count), size_px=32, workers=0)
    np.save(folder / f"{os.getpid()}.npy", np.stack([images[row] for row in range(count)]))


def many_sources(folder: Path, count: int) -> list[Source]:
    return [(folder / f"{row}.png", (32, 20)) for row in range(count)]


@pytest.mark.parametrize(("locks", "dies"), [(True, False), (True, True), (False, False)])
def test_two_processes_that_fill_a_cache_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool, dies: bool
) -> None:
    """The second waits, and goes on where the first was killed; without locks both write the same."""
    count = 12
    for row, (path, _) in enumerate(many_sources(tmp_path, count)):
        cv2.imwrite(str(path), np.random.default_rng(row).integers(1, 255, (32, 20), dtype=np.uint8))
    if not locks:
        monkeypatch.setattr(image_cache, "hold_lock", lambda *_, **__: nullcontext())
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    both = [context.Process(target=fill_slowly, args=(tmp_path, count, start), kwargs={"dies": d}) for d in (dies, False)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [-signal.SIGKILL if dies else 0, 0]
    direct = DirectImages(many_sources(tmp_path, count), size_px=32)
    seen = [np.load(file) for file in tmp_path.glob("*.npy")]
    assert len(seen) == 2 - dies and all(np.array_equal(images[row], direct[row]) for images in seen for row in range(count))
    decoded = (tmp_path / "decoded.txt").read_text().split()
    if locks:  # but for what the killed one had not put on disk yet, and the one that it died at
        assert count + dies <= len(decoded) <= count + 2 * dies


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_equals_direct_decoding_and_is_used_again(root: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    sources = [(root / "wide.png", (50, 100)), (root / "tall.png", (80, 40))]
    first = ImageCache(root / "cache", sources, size_px=32, workers=workers)
    direct = DirectImages(sources, size_px=32)
    assert all(np.array_equal(first[row], direct[row]) for row in range(2))

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_cache, "read_input", fail)
    again = ImageCache(root / "cache", sources, size_px=32, workers=0)
    assert np.array_equal(again[1], first[1])


def test_pickled_cache_holds_no_pixels(root: Path) -> None:
    cache = ImageCache(root / "cache", [(root / "wide.png", (50, 100))], size_px=256, workers=0)
    expected = cache[0].copy()
    text = pickle.dumps(cache)
    assert len(text) < 1000
    assert np.array_equal(pickle.loads(text)[0], expected)


def test_a_killed_filling_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [(root / "wide.png", (50, 100)), (root / "tall.png", (80, 40))]
    original = image_cache.read_input
    decoded = []

    def killed(path: Path, *size: object) -> np.ndarray:
        if path.name == "tall.png" and not decoded:
            raise KeyboardInterrupt
        return original(path, *size)

    monkeypatch.setattr(array_cache, "FLUSH_EVERY", 1)
    monkeypatch.setattr(image_cache, "read_input", killed)
    with pytest.raises(KeyboardInterrupt):
        ImageCache(root / "cache", sources, size_px=32, workers=0)
    monkeypatch.setattr(image_cache, "read_input", lambda path, *size: decoded.append(path.name) or original(path, *size))
    cache = ImageCache(root / "cache", sources, size_px=32, workers=0)
    assert decoded == ["tall.png"]
    assert cache[0].max() == 255


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_rows_of_a_lost_file_are_not_done(root: Path, damage: str) -> None:
    """The large file of the two, deleted to make room, came back as zeros: black images, and all of them done."""
    sources = [(root / "wide.png", (50, 100))]
    before = ImageCache(root / "cache", sources, size_px=32, workers=0)[0].copy()
    (pixels,) = (root / "cache").rglob("pixels.u8")
    if damage == "deleted":
        pixels.unlink()
    else:
        pixels.write_bytes(pixels.read_bytes()[:100])
    after = ImageCache(root / "cache", sources, size_px=32, workers=0)[0]
    assert before.max() == 255 and np.array_equal(after, before)


def test_full_disk_is_an_error_before_anything_is_decoded(root: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # stands for the disk: no file grows past it
    try:
        with pytest.raises(OSError, match="too large"):
            ImageCache(root / "cache", [(root / "wide.png", (50, 100))], size_px=32, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((root / "cache").rglob("*.u8")) == []


def _no_reserving(*_: object) -> int:
    ctypes.set_errno(errno.EOPNOTSUPP)
    return -1


@pytest.mark.parametrize("system", [{}, {"fallocate": _no_reserving}], ids=["not Linux", "network file system"])
def test_file_system_that_cannot_reserve_gets_zeros(
    root: Path, monkeypatch: pytest.MonkeyPatch, system: dict[str, Callable[..., int]]
) -> None:
    sources = [(root / "wide.png", (50, 100))]
    expected = ImageCache(root / "reserved", sources, size_px=32, workers=0)[0].copy()
    monkeypatch.setattr(array_cache.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(**system))
    monkeypatch.setattr(array_cache, "ZEROS_BYTES", 1000)  # the last piece is shorter
    assert np.array_equal(ImageCache(root / "written", sources, size_px=32, workers=0)[0], expected)
    (pixels,) = (root / "written").rglob("pixels.u8")
    assert pixels.stat().st_size == 32 * 32 and pixels.stat().st_blocks > 0


def test_changed_file_is_decoded_again(root: Path) -> None:
    sources = [(root / "wide.png", (50, 100))]
    before = ImageCache(root / "cache", sources, size_px=32, workers=0)[0].copy()
    cv2.imwrite(str(root / "wide.png"), np.full((50, 100), 90, np.uint8))
    after = ImageCache(root / "cache", sources, size_px=32, workers=0)[0]
    assert before.max() > 200 and after.max() == 90


def test_unreadable_images_are_all_named(root: Path) -> None:
    (root / "empty.png").touch()
    sources = [(root / "empty.png", (50, 100)), (root / "wide.png", (50, 100)), (root / "gone.png", (50, 100))]
    with pytest.raises(DatasetError, match=r"2 problem\(s\)") as caught:
        ImageCache(root / "cache", sources, size_px=32, workers=0)
    assert "empty.png" in str(caught.value) and "gone.png" in str(caught.value)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(**changes: int) -> list[list[int]]:
        return list(EpochBatches(10, **{"batch_size": 4, "seed": 1, "epoch": 0} | changes))

    assert sorted(index for batch in order() for index in batch) == list(range(10))
    assert order() == order() and order() != order(epoch=1) and order() != order(seed=2)
    assert order(first_batch=1) == order()[1:]
    assert [len(batch) for batch in order()] == [4, 4, 2]


def test_batches_of_like_length_pad_little_and_come_in_random_order() -> None:
    count, size = 1000, 16
    lengths = np.random.default_rng(0).integers(20, 100, count)

    def order(**changes: int) -> list[list[int]]:
        options = {"batch_size": size, "seed": 1, "epoch": 0} | changes
        return list(EpochBatches(count, **options, lengths=lengths))

    def places(batches: list[list[int]]) -> int:
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    grouped = order()
    assert sorted(index for batch in grouped for index in batch) == list(range(count)) and len(grouped) == 63
    assert order() == grouped != order(epoch=1) and order(first_batch=5) == grouped[5:]
    plain = places(list(EpochBatches(count, batch_size=size, seed=1, epoch=0)))
    assert plain > 1.5 * lengths.sum() and places(grouped) < 1.1 * lengths.sum()
    longest = np.array([lengths[batch].max() for batch in grouped])
    assert 0.35 < (np.diff(longest) > 0).mean() < 0.65, "short and long batches follow each other by chance"
    orders = [np.corrcoef(np.arange(size), lengths[batch])[0, 1] for batch in grouped if len(batch) == size]
    assert abs(np.mean(orders)) < 0.15, "and so do the entries of a batch, which processes share"
    short = [order(epoch=epoch)[-1] for epoch in range(100)]
    assert {len(batch) for batch in short} == {8} and abs(np.mean([lengths[batch].mean() for batch in short]) - 59.5) < 4
    parts = [order(rank=rank, processes=2) for rank in (0, 1)]
    assert [one + other for one, other in zip(*parts, strict=True)] == grouped
    few = [list(EpochBatches(64, batch_size=8, seed=1, epoch=epoch, lengths=lengths)) for epoch in range(20)]
    assert len({frozenset(batch) for batches in few for batch in batches}) > 100, "other entries meet in each epoch"
    assert list(EpochBatches(0, batch_size=4, seed=1, epoch=0, lengths=lengths[:0])) == []


def test_annotation_of_the_fixture_is_valid(cohort: Path) -> None:
    content = json.loads((cohort / "annotation.json").read_text())
    assert {split: len(entries) for split, entries in content.items()} == {"train": 5, "val": 2, "test": 5}
