"""Batches of one training iteration: weak and strong views of labelled and unlabelled images.

Everything random about a batch is drawn from (seed, iteration), so batches do not depend on workers, on what was computed
before or on whether the run was resumed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch.utils.data import DataLoader, Dataset

from d2rnet.detector.augmentation import Geometry, Image, sample_geometry, strong_view
from d2rnet.detector.data import ImageStore, Record, Stream, labelled_weights
from d2rnet.settings import Settings

View = dict[str, Any]


class Batch(NamedTuple):
    """Views of one iteration; ``unlabelled_weak[i]`` and ``unlabelled_strong[i]`` show the same image in the same geometry."""

    labelled: list[View]
    unlabelled_weak: list[View]
    unlabelled_strong: list[View]


class TwoViewMapper:
    """Record -> weak and strong view that share one geometry."""

    def __init__(self, store: ImageStore, model: Settings, training: Settings) -> None:
        """Keep the images and the ``detector.model`` and ``detector.training`` settings."""
        self._store = store
        self._model = model
        self._training = training

    def __call__(self, record: Record, rng: np.random.Generator, *, labelled: bool) -> tuple[View, View]:
        """Make both views of one image; with ``instances`` if ``labelled``.

        Returns:
            Weak and strong view: ``image`` (1, H, W) uint8, ``image_id``, and ``instances`` with ``gt_boxes``, ``gt_classes``.
        """
        image = self._store.get(record)
        geometry = sample_geometry(rng, record.image_hw, self._model, self._training["horizontal_flip"])
        weak = geometry.apply_image(image)
        strong = strong_view(rng, weak, self._training["strong"])
        views = []
        for pixels in (weak, strong):
            view: View = {"image": _to_tensor(pixels), "image_id": record.image_id}
            if labelled:
                view["instances"] = _target(record, geometry)
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
    """Item i is the batch of iteration i."""

    def __init__(
        self, labelled: Sequence[Record], unlabelled: Sequence[Record], store: ImageStore, model: Settings, training: Settings
    ) -> None:
        """Set up both streams; without unlabelled records (or with ``supervised_only``) that stream stays empty."""
        self._labelled = labelled
        self._unlabelled = unlabelled
        self._training = training
        self._mapper = TwoViewMapper(store, model, training)
        seed = training["seed"]
        weights = labelled_weights(
            labelled,
            max_negative_share=training["max_negative_share"],
            repeat_threshold=training["repeat_factor_threshold"],
        )
        self._labelled_stream = Stream(weights, seed=seed, name="labelled")
        self._unlabelled_stream = Stream(np.ones(len(unlabelled)), seed=seed, name="unlabelled") if unlabelled else None

    def __getitem__(self, iteration: int) -> Batch:
        """Build the batch of an iteration, counted from 0."""
        training = self._training
        rng = np.random.default_rng([training["seed"], iteration])
        size = training["labelled_batch"]
        labelled: list[View] = []
        for place in range(size):
            record = self._labelled[self._labelled_stream.item(iteration * size + place)]
            weak, strong = self._mapper(record, rng, labelled=True)
            labelled += [weak, strong] if training["labelled_views"] == "weak_and_strong" else [strong]
        weak_views, strong_views = [], []
        since_burn_in = iteration - training["burn_in_iters"]
        if since_burn_in >= 0 and self._unlabelled_stream is not None:
            size = training["unlabelled_batch"]
            for place in range(size):
                record = self._unlabelled[self._unlabelled_stream.item(since_burn_in * size + place)]
                weak, strong = self._mapper(record, rng, labelled=False)
                weak_views.append(weak)
                strong_views.append(strong)
        return Batch(labelled, weak_views, strong_views)


def batch_loader(dataset: IterationDataset, start: int, stop: int, workers: int) -> DataLoader:
    """Yield the batches of iterations ``start`` to ``stop - 1`` in order; the same with any number of worker processes."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=as_is,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
    )


def as_is(batch: Any) -> Any:
    """Collate nothing: a loader's item already is a batch."""
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
