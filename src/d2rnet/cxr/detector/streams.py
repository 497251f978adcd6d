"""COCO json -> checked image records, images in memory, and the order in which training sees them.

The order is a pure function of (seed, stream, position), so that a resumed run sees what an uninterrupted one would have seen.

Reads: COCO files of convert-labelled and convert-unlabelled, 8-bit one-channel PNG beside them.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.records import Record, read_image
from d2rnet.errors import DatasetError
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)


class ImageStore:
    """Images by record; decoded ones stay in memory if all of them fit."""

    def __init__(self, streams: Sequence[Sequence[Record]], cache_mb: int) -> None:
        """Decode and keep all images if they need at most ``cache_mb`` MiB, else decode at each use."""
        # One record at a time: 377,110 of them at once are 0.4 GB.
        needed = sum(math.prod(record.image_hw) for record in chain.from_iterable(streams)) / 2**20
        self._images: dict[Path, NDArray[Any]] = {}
        if needed <= cache_mb:
            total = sum(map(len, streams))
            for record in track(chain.from_iterable(streams), total=total, what="read training images"):
                self._images[record.path] = read_image(record)
        else:
            log.info("images need %.0f MiB, cache_images_mb is %d: decoding at each use", needed, cache_mb)

    def get(self, record: Record) -> NDArray[Any]:
        """Return an image as (H, W) uint8, not to be written to."""
        cached = self._images.get(record.path)
        return read_image(record) if cached is None else cached


class Stream:
    """An endless, seeded order of items: each epoch draws n of n items in proportion to their weights.

    The draw is systematic: with equal weights each item comes exactly once an epoch.
    """

    def __init__(self, weights: NDArray[np.float64], *, seed: int, name: str) -> None:
        """Keep the weights (n,), all >= 0 and not all 0, and what decides the order."""
        self._weights = weights / weights.sum()
        self._key = [seed, *name.encode()]
        self._epoch = lru_cache(maxsize=2)(self._draw)

    def item(self, position: int) -> int:
        """Index of the item at a position of the endless order."""
        epoch, place = divmod(position, len(self._weights))
        return int(self._epoch(epoch)[place])

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([*self._key, epoch])
        order = rng.permutation(len(self._weights))
        count = len(order)
        edges = np.cumsum(self._weights[order]) * count
        picked = np.searchsorted(edges, np.arange(count) + rng.random()).clip(max=count - 1)
        return rng.permutation(order[picked])


def labelled_weights(records: Sequence[Record], *, max_negative_share: float, repeat_threshold: float) -> NDArray[np.float64]:
    """Sampling weights of labelled images.

    Args:
        records: labelled images.
        max_negative_share: greatest share of images without boxes among those drawn; 0 leaves them out, 1 keeps all.
        repeat_threshold: images of a class in fewer than this share of the positive images are drawn more often, by
            sqrt(threshold / share), after LVIS (arXiv 1908.03195); 0 is off.

    Raises:
        DatasetError: nothing is left to train on.
    """
    positive = np.array([len(record.classes) > 0 for record in records])
    if not positive.any():
        raise DatasetError("train-detector: none of the labelled training images has a box; expected at least one.")
    weights = np.ones(len(records))
    if repeat_threshold > 0:
        images_of = Counter(category for record in records for category in set(record.classes.tolist()))
        factor = {c: max(1.0, (repeat_threshold * positive.sum() / n) ** 0.5) for c, n in images_of.items()}
        weights[positive] = [max(factor[c] for c in record.classes.tolist()) for record in records if len(record.classes)]
    negatives = len(records) - int(positive.sum())
    if negatives and max_negative_share < 1:
        greatest = weights[positive].sum() * max_negative_share / (1 - max_negative_share)
        weights[~positive] *= min(1.0, greatest / negatives)
    return weights
