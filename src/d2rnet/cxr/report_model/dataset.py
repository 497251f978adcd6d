"""Entries of annotation.json as tensors.

Reads: annotation.json, radiographs. Writes: nothing (image_cache.py keeps decoded pixels).
Boxes are given twice: in input pixels, for pooling features, and as position in their own original image, for lesion tokens.

Shapes: B entries, V images per entry (padded), S input side, K lesions per entry (padded), c crop side, T token ids (padded).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from d2rnet.cxr.boxes.evidence import SIDES, box_sides
from d2rnet.cxr.images.reader import Reader, read_radiograph
from d2rnet.cxr.report_model.augmentation import Augmentation, Change, mirror_report
from d2rnet.cxr.report_model.context import Context, ContextBatch, EntryContexts, collate_contexts, known_categories
from d2rnet.cxr.report_model.crops import (
    CropCache,
    Crops,
    CropSource,
    DirectCrops,
    grown_boxes,
    inside_of_square,
    pixel_rectangles,
    square_crop,
)
from d2rnet.cxr.report_model.image_cache import Source, letterbox_of
from d2rnet.cxr.report_model.settings import AugmentationSettings, D2RNetModelSettings
from d2rnet.errors import DatasetError
from d2rnet.report.text.vocabulary import PAD_ID, Vocabulary
from d2rnet.training.batches import Ragged, stack_padded

Entry = Mapping[str, Any]
_MIRRORED_SIDES = np.array([0, 2, 1])


class Images(Protocol):
    """Decoded radiographs by row."""

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row`` as (S, S) uint8."""


class ImageCrops(Protocol):
    """Lesion crops by row of their image."""

    def __getitem__(self, row: int) -> Crops:
        """Return the crops of image ``row``, in the order of its boxes."""


@dataclass
class Sample:
    """One entry: V images, K lesions, T token ids.

    Attributes:
        pixels: (V, S, S) uint8.
        boxes_xyxy: (K, 4) float32, input pixels.
        positions: (K, 4) float32: centre x, centre y, width, height as shares of the original image.
        lesion_view: (K,) int64, index of the image that a box is in.
        lesion_sides: (K,) int64, the patient's side that a box is on: 0 none (a lateral image), 1 left, 2 right.
        category_ids: (K,) int64, 1-based place in the model's list of categories.
        scores: (K,) float32 in [0, 1].
        crops: (K, c, c) uint8, full-resolution crops padded to squares; c = 0 where the model takes none.
        crop_insides: (K, 4) int64, what of a square is no padding: first column and row, one past the last ones.
        token_ids: (T,) int64 from ``<bos>`` on.
        entry_number: () int64, the entry's place in its split.
        context: what the entry tells beside images and boxes; None where the model takes none of it.
    """

    pixels: Tensor
    boxes_xyxy: Tensor
    positions: Tensor
    lesion_view: Tensor
    lesion_sides: Tensor
    category_ids: Tensor
    scores: Tensor
    crops: Tensor
    crop_insides: Tensor
    token_ids: Tensor
    entry_number: Tensor
    context: Context | None = None


@dataclass
class ChestBatch:
    """Padded samples; ``view_mask`` (B, V) and ``lesion_mask`` (B, K) are True where there is an image or a lesion.

    The other attributes are those of Sample with a leading B; absent images, lesions and tokens are zero (``<pad>``).
    A context that is not given tells nothing.
    """

    pixels: Tensor
    view_mask: Tensor
    boxes_xyxy: Tensor
    positions: Tensor
    lesion_view: Tensor
    lesion_sides: Tensor
    category_ids: Tensor
    scores: Tensor
    crops: Tensor
    crop_insides: Tensor
    lesion_mask: Tensor
    token_ids: Tensor
    entry_numbers: Tensor
    context: ContextBatch = None  # type: ignore[assignment]  # never None once the batch is made

    def __post_init__(self) -> None:
        if self.context is None:
            self.context = ContextBatch.nothing(self.view_mask)

    def to(self, device: torch.device | str) -> "ChestBatch":
        """Copy to a device."""
        return ChestBatch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})

    def pin_memory(self) -> "ChestBatch":
        """Copy to page-locked memory; a loader calls this, and :meth:`to` a GPU then does not wait."""
        return ChestBatch(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})

    def __len__(self) -> int:
        return len(self.token_ids)


def image_sources(entries: Sequence[Entry], image_root: Path) -> list[Source]:
    """List the image files of entries with (height, width), entry by entry.

    Raises:
        DatasetError: a path leaves the image root.
    """
    sources: list[Source] = []
    for entry in entries:
        for name, image_hw in zip(entry["image_path"], _sizes_hw(entry), strict=True):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DatasetError(
                    f"entry {entry['id']}: image_path '{name}' leaves the image root; expected a path below it."
                )
            sources.append((image_root / name, image_hw))
    return sources


def crop_arguments(
    entries: Sequence[Entry],
    image_root: Path,
    settings: D2RNetModelSettings,
    *,
    cache: Path | None = None,
    workers: int = 0,
    read: Reader = read_radiograph,
) -> dict[str, Any]:
    """Return what ReportDataset takes for a model of the branch ``crop``; nothing for another branch.

    Args:
        entries: the entries whose images are the rows 0, 1, ...
        image_root: folder that ``image_path`` is relative to.
        settings: section ``cxr.report.model``.
        cache: folder for a cache of crops; None to cut out at each access.
        workers: processes that fill the cache.
        read: what decodes a file without a cache.

    Raises:
        DatasetError: images cannot be read, or are of another size than annotation.json says.
    """
    if settings.lesion_branch != "crop":
        return {}
    rectangles = [
        pixel_rectangles(grown_boxes(entry_boxes[views == view], settings.crop_margin), image_hw)
        for entry in entries
        for entry_boxes, views in [(np.asarray(entry["boxes"], dtype=np.float64).reshape(-1, 4), _views(entry))]
        for view, image_hw in enumerate(_sizes_hw(entry))
    ]
    sources = [CropSource(*pair) for pair in zip(image_sources(entries, image_root), rectangles, strict=True)]
    size_px = settings.crop_size_px
    crops: ImageCrops = (
        DirectCrops(sources, size_px=size_px, read=read)
        if cache is None
        else CropCache(cache, sources, size_px=size_px, workers=workers)
    )
    return {"crops": crops, "crop_size_px": size_px, "equalise_crops": settings.lesion_enhancement == "clahe"}


def _views(entry: Entry) -> NDArray[np.int64]:
    """Index of the image that each box of an entry is in: (K,)."""
    return np.asarray(entry.get("box_image", [0] * len(entry["boxes"])), dtype=np.int64)


def _sizes_hw(entry: Entry) -> list[tuple[int, int]]:
    """Height and width of each image of an entry, pixels."""
    if "heights" in entry:
        return list(zip(entry["heights"], entry["widths"], strict=True))
    return [(entry["height"], entry["width"])]


class ReportDataset(Dataset[Sample]):
    """Entries of one or more splits, in order; ``token_ids`` are their reports'."""

    def __init__(
        self,
        entries: Sequence[Entry],
        images: Images,
        *,
        vocabulary: Vocabulary,
        categories: Sequence[str],
        size_px: int,
        max_tokens: int,
        first_row: int = 0,
        crops: ImageCrops | None = None,
        crop_size_px: int = 0,
        equalise_crops: bool = False,
        context: EntryContexts | None = None,
        augmentation: AugmentationSettings | None = None,
        seed: int = 0,
    ) -> None:
        """Take entries and their images.

        Args:
            entries: entries of annotation.json.
            images: decoded images; rows follow ``image_sources(entries, ...)``.
            vocabulary: token <-> id.
            categories: class names in the order of the model's class ids 1, 2, ...
            size_px: side of the square input.
            max_tokens: reports are cut to so many tokens.
            first_row: row of the first entry's first image.
            crops: lesion crops, rows as of ``images``; None where the model takes none.
            crop_size_px: side of a crop.
            equalise_crops: apply CLAHE to crops.
            context: what the entries tell beside images and boxes; None where the model takes none of it.
            augmentation: what :meth:`of_epoch` changes; None for nothing.
            seed: of its draws.

        Raises:
            DatasetError: a box has a class that the model does not know.
        """
        category_ids = known_categories((label for entry in entries for label in entry["labels"]), categories)
        self._images = images
        self.size_px = size_px
        self._count = len(entries)
        self._context = context
        self._crops = crops
        self.crop_size_px = crop_size_px
        self._equalise_crops = equalise_crops
        self._rows = np.cumsum([first_row, *(len(entry["image_path"]) for entry in entries)])
        self._sizes_hw = Ragged((_sizes_hw(entry) for entry in entries), np.int64, item_shape=(2,))
        self._boxes_xywh = Ragged((entry["boxes"] for entry in entries), np.float32, item_shape=(4,))
        self._views = Ragged((_views(entry).tolist() for entry in entries), np.int64)
        self._sides = Ragged(([SIDES.index(side) for side in box_sides(entry)] for entry in entries), np.int64)
        self._labels = Ragged(([category_ids[label] for label in entry["labels"]] for entry in entries), np.int64)
        self._scores = Ragged((entry["scores"] for entry in entries), np.float32)
        reports = (vocabulary.encode(entry["report"], max_tokens=max_tokens) for entry in entries)
        self.token_ids = Ragged(reports, np.int32)
        self._augmentation = augmentation
        self._seed = seed
        self._drawn: Augmentation | None = None
        flips = augmentation is not None and augmentation.horizontal_flip
        mirrored = (mirror_report(entry["report"]) if flips else None for entry in entries)
        # A report that has no mirror image keeps an empty row.
        self._mirrored_ids = Ragged(
            ([] if report is None else vocabulary.encode(report, max_tokens=max_tokens) for report in mirrored), np.int32
        )

    def of_epoch(self, epoch: int) -> "ReportDataset":
        """Return the entries as an epoch sees them, changed at random; images and texts are shared."""
        changed = copy.copy(self)
        if self._augmentation is not None:
            drawn = Augmentation(self._augmentation, seed=self._seed, epoch=epoch)
            changed._drawn = drawn if drawn.changes_anything else None
        return changed

    def collate(self, samples: Sequence[Sample]) -> ChestBatch:
        """Pad samples to a batch."""
        return collate(samples, size_px=self.size_px, crop_size_px=self.crop_size_px)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        """Return entry ``index``."""
        rows = range(self._rows[index], self._rows[index + 1])
        boxes_xywh = self._boxes_xywh[index]  # (K, 4)
        views = self._views[index]  # (K,)
        sizes = self._sizes_hw[index]  # (V, 2)
        pixels = np.stack([self._images[row] for row in rows])
        boxes_xyxy = self._input_boxes(boxes_xywh, views, sizes)
        positions = _positions(boxes_xywh, sizes[views])
        crops, insides = self._square_crops(rows, views)  # (K, c, c), (K, 4)
        token_ids = self.token_ids[index]
        change = Change()
        if self._drawn is not None:
            mirrored_ids = self._mirrored_ids[index]
            may_flip = len(mirrored_ids) > 0 and (self._context is None or self._context.may_flip(index))
            change = self._drawn.draw(index, may_flip=may_flip)
            pixels = np.stack([change.pixels(image) for image in pixels])
            boxes_xyxy = change.boxes(boxes_xyxy, self.size_px)
            positions = self._moved(positions, change, sizes[views])
            if change.flip:
                crops = np.ascontiguousarray(crops[:, :, ::-1])
                insides[:, [0, 2]] = self.crop_size_px - insides[:, [2, 0]]
                token_ids = mirrored_ids
        return Sample(
            pixels=torch.from_numpy(pixels),
            boxes_xyxy=torch.from_numpy(boxes_xyxy),
            positions=torch.from_numpy(positions),
            lesion_view=torch.from_numpy(views),
            lesion_sides=torch.from_numpy(_MIRRORED_SIDES[self._sides[index]] if change.flip else self._sides[index]),
            category_ids=torch.from_numpy(self._labels[index]),
            scores=torch.from_numpy(self._scores[index]),
            crops=torch.from_numpy(crops),
            crop_insides=torch.from_numpy(insides),
            token_ids=torch.from_numpy(token_ids).long(),
            entry_number=torch.tensor(index),
            context=None if self._context is None else self._context.of(index, flip=change.flip),
        )

    def _input_boxes(self, boxes_xywh: NDArray[np.float32], views: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.float32]:
        boxes_xyxy = np.zeros_like(boxes_xywh)
        for view, (height, width) in enumerate(sizes.tolist()):
            boxes_xyxy[views == view] = letterbox_of((height, width), self.size_px).boxes(boxes_xywh[views == view])
        return boxes_xyxy

    def _square_crops(self, rows: range, views: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Crops of an entry in the order of its boxes, (K, c, c), and what of each is no padding, (K, 4)."""
        side = self.crop_size_px
        squares = np.zeros((len(views), side, side), dtype=np.uint8)
        insides = np.zeros((len(views), 4), dtype=np.int64)
        if self._crops is not None:
            for view, row in enumerate(rows):
                for place, crop in zip(np.flatnonzero(views == view), self._crops[row], strict=True):
                    squares[place] = square_crop(crop, side, equalise=self._equalise_crops)
                    insides[place] = inside_of_square(crop.shape, side)
        return squares, insides

    def _moved(self, positions: NDArray[np.float32], change: Change, sizes_hw: NDArray[Any]) -> NDArray[np.float32]:
        """Move positions (K, 4) as ``change`` moves boxes of the square input, which holds each image in its middle."""
        share = sizes_hw[:, ::-1] / sizes_hw.max(axis=1, keepdims=True)  # (K, 2): width and height as shares of the side
        centres = (positions[:, :2] - 0.5) * share + 0.5
        matrix = change.matrix(1.0)
        moved = ((centres @ matrix[:, :2].T + matrix[:, 2]) - 0.5) / share + 0.5
        return np.concatenate([moved, positions[:, 2:] * change.scale], axis=1).astype(np.float32)


def _positions(boxes_xywh: NDArray[np.float32], sizes_hw: NDArray[Any]) -> NDArray[np.float32]:
    """Turn xywh boxes into centre x, centre y, width, height as shares of their image."""
    sizes_wh = sizes_hw[:, ::-1].reshape(-1, 2)
    centres = boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2
    return np.concatenate([centres / sizes_wh, boxes_xywh[:, 2:] / sizes_wh], axis=1).astype(np.float32)


def collate(samples: Sequence[Sample], *, size_px: int = 0, crop_size_px: int = 0) -> ChestBatch:
    """Pad samples to one batch.

    Args:
        samples: may be none, where several processes share fewer entries than there are processes.
        size_px: side of an image, for a batch of no samples.
        crop_size_px: side of a crop, for a batch of no samples.
    """
    if not samples:
        return _no_samples(size_px, crop_size_px)
    views, view_mask = stack_padded([sample.pixels for sample in samples])
    boxes, lesion_mask = stack_padded([sample.boxes_xyxy for sample in samples])
    contexts = [sample.context for sample in samples if sample.context is not None]
    return ChestBatch(
        pixels=views,
        view_mask=view_mask,
        boxes_xyxy=boxes,
        positions=stack_padded([sample.positions for sample in samples])[0],
        lesion_view=stack_padded([sample.lesion_view for sample in samples])[0],
        lesion_sides=stack_padded([sample.lesion_sides for sample in samples])[0],
        category_ids=stack_padded([sample.category_ids for sample in samples])[0],
        scores=stack_padded([sample.scores for sample in samples])[0],
        crops=stack_padded([sample.crops for sample in samples])[0],
        crop_insides=stack_padded([sample.crop_insides for sample in samples])[0],
        lesion_mask=lesion_mask,
        token_ids=stack_padded([sample.token_ids for sample in samples], value=PAD_ID)[0],
        entry_numbers=torch.stack([sample.entry_number for sample in samples]),
        context=collate_contexts(contexts) if contexts else ContextBatch.nothing(view_mask),
    )


def _no_samples(size_px: int, crop_size_px: int) -> ChestBatch:
    return ChestBatch(
        pixels=torch.zeros(0, 1, size_px, size_px, dtype=torch.uint8),
        view_mask=torch.zeros(0, 1, dtype=torch.bool),
        boxes_xyxy=torch.zeros(0, 0, 4),
        positions=torch.zeros(0, 0, 4),
        lesion_view=torch.zeros(0, 0, dtype=torch.long),
        lesion_sides=torch.zeros(0, 0, dtype=torch.long),
        category_ids=torch.zeros(0, 0, dtype=torch.long),
        scores=torch.zeros(0, 0),
        crops=torch.zeros(0, 0, crop_size_px, crop_size_px, dtype=torch.uint8),
        crop_insides=torch.zeros(0, 0, 4, dtype=torch.long),
        lesion_mask=torch.zeros(0, 0, dtype=torch.bool),
        token_ids=torch.zeros(0, 2, dtype=torch.long),
        entry_numbers=torch.zeros(0, dtype=torch.long),
    )
