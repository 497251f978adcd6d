"""Batches of one epoch, the processes that load them, and ragged lists in flat arrays."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

LENGTH_WINDOW = 8  # batches, at most, whose entries are sorted by length together
# Longer than the step in flight and its checkpoint should take.
SECONDS_AFTER_STOP = 60


class Ragged:
    """Rows of different lengths, end to end in one array.

    Loader processes get a copy of the dataset at each epoch. As lists of 270,000 entries it took 2 GB and 10 s a process.
    """

    def __init__(self, rows: Iterable[Sequence[Any]], dtype: type[np.generic], *, item_shape: tuple[int, ...] = ()) -> None:
        """Copy the rows; an item of a row has ``item_shape``."""
        parts = [np.asarray(row, dtype=dtype).reshape(-1, *item_shape) for row in rows]
        self._values = np.concatenate([np.zeros((0, *item_shape), dtype=dtype), *parts])
        self._bounds = np.cumsum([0, *map(len, parts)])

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Return a copy of row ``row``: (length, *item_shape)."""
        return self._values[self._bounds[row] : self._bounds[row + 1]].copy()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row: (rows,)."""
        return np.diff(self._bounds)


def stack_padded(tensors: Sequence[Tensor], value: int = 0) -> tuple[Tensor, Tensor]:
    """Stack tensors of different first dimension; return (B, N, ...) and a (B, N) mask of what is real."""
    longest = max(len(tensor) for tensor in tensors)
    padded = tensors[0].new_full((len(tensors), longest, *tensors[0].shape[1:]), value)
    mask = torch.zeros(len(tensors), longest, dtype=torch.bool)
    for index, tensor in enumerate(tensors):
        padded[index, : len(tensor)] = tensor
        mask[index, : len(tensor)] = True
    return padded, mask


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Cut a batch into successive parts, as equal as can be; with fewer entries than parts the last ones are empty.

    Args:
        batch: a dataclass of tensors whose first dimension is the entry.
        parts: how many.
    """
    bounds = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(len(batch)), parts))]).tolist()
    names = [field.name for field in fields(batch)]
    return [type(batch)(**{name: getattr(batch, name)[first:last] for name in names}) for first, last in pairwise(bounds)]


class EpochBatches(Sampler[list[int]]):
    """Shuffled batches of one epoch, a function of seed and epoch alone, from any batch of it on.

    Where several processes share each batch, they get successive parts of it, as equal as can be; the last batch of an
    epoch, which may be short, can leave a process without any entry.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        first_batch: int = 0,
        rank: int = 0,
        processes: int = 1,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        """Order ``count`` entries for an epoch.

        Args:
            count: number of entries.
            batch_size: entries per batch, of all processes together.
            seed: of the run.
            epoch: from 0.
            first_batch: so many batches are left out (already trained on).
            rank: this process, from 0.
            processes: processes that share each batch.
            lengths: of the entries: those of a batch are alike in length, so that little is padded; None: as it comes.
        """
        rng = np.random.default_rng([seed, epoch])
        batches = _cut(rng.permutation(count), batch_size)
        if lengths is not None:
            batches = _grouped(batches, batch_size, lengths, rng)
        parts = [np.array_split(batch, processes)[rank] for batch in batches[first_batch:]]
        self._batches: list[list[int]] = [part.tolist() for part in parts]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def _cut(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _grouped(
    batches: list[NDArray[np.int64]], size: int, lengths: NDArray[np.int64], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut shuffled batches anew, from entries sorted by length within windows of a few batches.

    A window is a quarter of an epoch at the most, or the same entries would meet in each. A short last batch stays as drawn,
    or it would be of the longest.
    """
    whole = [batch for batch in batches if len(batch) == size]
    window = max(1, min(LENGTH_WINDOW, len(whole) // 4))
    cut: list[NDArray[np.int64]] = []
    for first in range(0, len(whole), window):
        entries = np.concatenate(whole[first : first + window])
        cut += _cut(entries[np.argsort(lengths[entries], kind="stable")], size)
    # Batches would go from short to long in each window, and so would the parts of a batch that processes get.
    shuffled = [rng.permutation(cut[place]) for place in rng.permutation(len(cut))]
    return shuffled + batches[len(whole) :]


def start_loader_process(_: int) -> None:
    """Compute on one thread, and outlive a stop signal that a scheduler sends to all processes of a job.

    The training process stops after the step in flight, for which it needs its batch, and then ends its workers.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_STOP))
