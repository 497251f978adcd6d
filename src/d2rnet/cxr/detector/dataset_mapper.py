"""Batches of one training iteration: weak and strong views of labelled and unlabelled images.

Everything random about an image is drawn from (seed, stream, iteration, place in the batch), so views do not depend on
workers, on what was computed before, on whether the run was resumed or on how a batch is cut.
"""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch.utils.data import DataLoader, Dataset

from d2rnet.cxr.boxes.records import Record
from d2rnet.cxr.detector.augmentation import Geometry, Image, sample_geometry, strong_view
from d2rnet.cxr.detector.grouping import common_hw, deal
from d2rnet.cxr.detector.settings import DetectorModelSettings, DetectorTrainingSettings
from d2rnet.cxr.detector.streams import ImageStore, Stream, labelled_weights
from d2rnet.training.batches import start_loader_process

View = dict[str, Any]
OPEN_FILES = 65536
# The default is spawn in a process that was itself spawned, as those that share a batch are. Spawned loader processes would
# each import torch and detectron2 anew, and copy the images in memory.
LOADER_START = "fork"
LABELLED = 0  # streams, part of the seed of an image
UNLABELLED = 1


class Batch(NamedTuple):
    """Views of one iteration; ``unlabelled_weak[i]`` and ``unlabelled_strong[i]`` show the same image in the same geometry."""

    labelled: list[View]
    unlabelled_weak: list[View]
    unlabelled_strong: list[View]

    def cut(self, count: int) -> "list[Batch]":
        """Cut into equal micro-batches, in order; the number of images of each stream is a multiple of ``count``."""
        parts = []
        for index in range(count):
            pieces = (views[len(views) * index // count : len(views) * (index + 1) // count] for views in self)
            parts.append(Batch(*pieces))
        return parts


@dataclass(frozen=True)
class Draw:
    """One image of an iteration: record, place in the batch, the rest of its random numbers, the geometry drawn first."""

    record: Record
    place: int
    rng: np.random.Generator
    geometry: Geometry


class TwoViewMapper:
    """Record -> weak and strong view that share one geometry."""

    def __init__(self, store: ImageStore, model: DetectorModelSettings, training: DetectorTrainingSettings) -> None:
        """Keep the images and the ``cxr.detector.model`` and ``cxr.detector.training`` settings."""
        self._store = store
        self._model = model
        self._training = training

    def draw(self, record: Record, stream: int, iteration: int, place: int) -> Draw:
        """Draw the geometry of the image at a place of an iteration's batch; reads no pixels."""
        rng = np.random.default_rng([self._training.seed, stream, iteration, place])
        geometry = sample_geometry(rng, record.image_hw, self._model, self._training.horizontal_flip)
        return Draw(record, place, rng, geometry)

    def __call__(self, draw: Draw, *, labelled: bool) -> tuple[View, View]:
        """Make both views of one image; with ``instances`` if ``labelled``.

        Returns:
            Weak and strong view: ``image`` (1, H, W) uint8, ``image_id``, ``place`` in the stream's batch, ``sampling_seed``
            of its anchors and proposals, and ``instances`` with ``gt_boxes``, ``gt_classes``.
        """
        weak = draw.geometry.apply_image(self._store.get(draw.record))
        seeds = draw.rng.integers(2**62, size=2).tolist()
        strong = strong_view(draw.rng, weak, self._training.strong)
        views = []
        for pixels, seed in zip((weak, strong), seeds, strict=True):
            view: View = {"image": _to_tensor(pixels), "image_id": draw.record.image_id, "place": draw.place}
            view["sampling_seed"] = seed
            if labelled:
                view["instances"] = _target(draw.record, draw.geometry)
            views.append(view)
        return views[0], views[1]


def _to_tensor(pixels: Image) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)[None])


def _target(record: Record, geometry: Geometry) -> Instances:
    target = Instances(geometry.image_hw)
    target.gt_boxes = Boxes(torch.from_numpy(geometry.apply_boxes(record.boxes_xyxy, record.image_hw)))
    target.gt_classes = torch.from_numpy(record.classes.copy())
    return target


class IterationDataset(Dataset):
    """Item i is the batch of iteration i, or one process's equal share of it."""

    def __init__(
        self,
        labelled: Sequence[Record],
        unlabelled: Sequence[Record],
        store: ImageStore,
        model: DetectorModelSettings,
        training: DetectorTrainingSettings,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Set up both streams; without unlabelled records (or with ``supervised_only``) that stream stays empty.

        Args:
            labelled: records with boxes.
            unlabelled: records whose boxes are not looked at.
            store: reads the images of both.
            model: ``cxr.detector.model`` settings.
            training: ``cxr.detector.training`` settings; batch sizes are those of all processes together.
            rank: which share, 0 to ``processes`` - 1.
            processes: number of shares.
        """
        self._labelled = labelled
        self._unlabelled = unlabelled
        self._training = training
        self._rank = rank
        self._processes = processes
        self._mapper = TwoViewMapper(store, model, training)
        seed = training.seed
        weights = labelled_weights(
            labelled,
            max_negative_share=training.max_negative_share,
            repeat_threshold=training.repeat_factor_threshold,
        )
        self._labelled_stream = Stream(weights, seed=seed, name="labelled")
        self._unlabelled_stream = Stream(np.ones(len(unlabelled)), seed=seed, name="unlabelled") if unlabelled else None

    def __getitem__(self, iteration: int) -> Batch:
        """Build the batch of an iteration, counted from 0.

        With ``padding: iteration`` every view also has ``batch_hw``: the size in pixels that holds all images of the
        iteration. The network pads to it, so that neither anchors nor features depend on which of the images go through it
        together.
        """
        draws = self._draws(iteration)
        labelled_draws, unlabelled_draws = map(self._share, draws)
        labelled: list[View] = []
        for draw in labelled_draws:
            weak, strong = self._mapper(draw, labelled=True)
            labelled += [weak, strong] if self._training.labelled_views == "weak_and_strong" else [strong]
        pairs = [self._mapper(draw, labelled=False) for draw in unlabelled_draws]
        batch = Batch(labelled, [weak for weak, _ in pairs], [strong for _, strong in pairs])
        if self._training.padding == "iteration":
            batch_hw = common_hw([draw.geometry.image_hw for stream in draws for draw in stream])
            for view in (*batch.labelled, *batch.unlabelled_weak, *batch.unlabelled_strong):
                view["batch_hw"] = batch_hw
        return batch

    def _share(self, draws: list[Draw]) -> list[Draw]:
        """This process's images of a stream, micro-batch after micro-batch."""
        if not draws:
            return []
        sizes = [draw.geometry.image_hw for draw in draws]
        dealt = deal(sizes, processes=self._processes, steps=self._training.accumulation_steps)
        return [draws[index] for index in dealt[self._rank]]

    def _draws(self, iteration: int) -> tuple[list[Draw], list[Draw]]:
        """Records and geometries of the labelled and, after burn-in, unlabelled images of an iteration."""
        training = self._training
        mapper = self._mapper
        size = training.labelled_batch
        labelled = [
            mapper.draw(self._labelled[self._labelled_stream.item(iteration * size + place)], LABELLED, iteration, place)
            for place in range(size)
        ]
        since_burn_in = iteration - training.burn_in_iters
        if since_burn_in < 0 or self._unlabelled_stream is None:
            return labelled, []
        size = training.unlabelled_batch
        unlabelled = [
            mapper.draw(
                self._unlabelled[self._unlabelled_stream.item(since_burn_in * size + place)], UNLABELLED, iteration, place
            )
            for place in range(size)
        ]
        return labelled, unlabelled


def batch_loader(dataset: IterationDataset, start: int, stop: int, workers: int) -> DataLoader:
    """Yield the batches of iterations ``start`` to ``stop - 1`` in order; the same with any number of worker processes."""
    if workers:
        _allow_open_files()
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=as_is,
        worker_init_fn=start_loader_process,
        multiprocessing_context=LOADER_START if workers else None,
        prefetch_factor=4 if workers else None,
    )


def as_is(batch: Any) -> Any:
    """Collate nothing: a loader's item already is a batch."""
    return batch


def _allow_open_files() -> None:
    """Raise the soft limit, 1024 as a rule: each tensor on its way from a worker is an open file, a batch of 64 images 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
