"""Volumes with what their reports say of each structure, as tensors.

Reads: converted volumes. Shapes: B volumes of Z x Y x X voxels, S structures, T token ids (padded).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2rnet.ct.conversion.store import read_array
from d2rnet.ct.structure_model.settings import StructureTextSettings
from d2rnet.ct.structure_model.text_tower import TextTokens
from d2rnet.ct.structures.table import StructureTable
from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report
from d2rnet.training.batches import Ragged, stack_padded
from d2rnet.training.diverse_queue import text_number


@dataclass
class StructureBatch:
    """Padded entries.

    Attributes:
        values: (B, 1, Z, Y, X) uint8 or int16, as stored.
        token_ids: (B, S, T) int64 of the text tower's tokens; padding alone where a structure has no text.
        known: (B, S) bool, whether there is a text.
        numbers: (B, S) int64, equal for equal texts.
        normal: (B, S) bool, whether the text says that nothing is wrong; not so where it is not judged.
    """

    values: Tensor
    token_ids: Tensor
    known: Tensor
    numbers: Tensor
    normal: Tensor

    def to(self, device: torch.device | str) -> "StructureBatch":
        """Copy to a device."""
        moved = {field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        return StructureBatch(**moved)

    def pin_memory(self) -> "StructureBatch":
        """Copy to page-locked memory; a loader calls this."""
        return StructureBatch(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})

    def __len__(self) -> int:
        return len(self.values)


def structure_texts(entry: Entry, table: StructureTable, missing: str) -> list[str]:
    """Return what an entry's report says of each structure, in the order of the table; "" where nothing is said.

    Args:
        entry: of ct_annotation.json.
        table: the structures.
        missing: ``normal`` gives a structure that is not mentioned the table's normal sentence; ``mask`` leaves "".

    Raises:
        DatasetError: the entry was cut by another table.
    """
    cut: Mapping[str, Any] = entry["structures"]
    if list(cut) != list(table.structures):
        raise DatasetError(
            f"entry {entry['id']}: structures {', '.join(cut)}; expected {', '.join(table.structures)} (table "
            f"'{table.name}'). Build ct_annotation.json again with the same ct.structures.table."
        )
    absent = {name: one.normal if missing == "normal" else "" for name, one in table.structures.items()}
    return [cut[name]["text"] or absent[name] for name in table.structures]


class StructureEntries(Dataset[Any]):
    """Entries of a split; an item is what one volume and its report give a batch.

    Strings are dropped once they are ids: 50,000 reports take some 60 MB.

    Attributes:
        normal: (entries, S) bool, as in a batch.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        folder: Path,
        *,
        tokens: TextTokens,
        table: StructureTable,
        text: StructureTextSettings,
        max_shift: int = 0,
        seed: int = 0,
    ) -> None:
        """Encode the texts.

        Args:
            entries: of ct_annotation.json, at least one, all of one grid.
            folder: folder of convert-ct, which ``volume_path`` is relative to.
            tokens: of the text tower.
            table: the structures.
            text: how texts are read.
            max_shift: most voxels that a volume is moved along each axis, in training.
            seed: of these moves.

        Raises:
            DatasetError: an entry was cut by another table.
        """
        self._folder = folder
        self._paths = [entry["volume_path"] for entry in entries]
        self._num_structures = len(table.structures)
        self._shape = entries[0]["shape_zyx"]
        texts = [structure_texts(entry, table, text.missing) for entry in entries]
        cleaned = [[clean_report(one, text.protocol) for one in row] for row in texts]
        self._token_ids = Ragged(([] if not one else tokens.encode(one) for row in texts for one in row), np.int64)
        self._pad_id = tokens.pad_id
        self._numbers = np.array([[text_number(one) for one in row] for row in cleaned], np.int64)
        self._known = np.array([[bool(one) for one in row] for row in cleaned])
        said = [[entry["structures"][name] for name in table.structures] for entry in entries]
        normal = np.array([[one["abnormal"] is False or not one["text"] for one in row] for row in said])
        self.normal = normal & self._known  # a text of what is not mentioned is the table's normal sentence
        self._max_shift = max_shift
        self._seed = seed
        self._epoch: int | None = None

    def of_epoch(self, epoch: int) -> "StructureEntries":
        """Return the entries as an epoch sees them: moved, by numbers drawn from seed, epoch and place alone."""
        seen = object.__new__(StructureEntries)
        seen.__dict__ |= self.__dict__ | {"_epoch": epoch}
        return seen

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        values = read_array(self._folder / self._paths[place])
        if self._epoch is not None and self._max_shift:
            draw = np.random.default_rng([self._seed, self._epoch, place])
            values = shifted(values, draw.integers(-self._max_shift, self._max_shift + 1, 3).tolist())
        rows = range(place * self._num_structures, (place + 1) * self._num_structures)
        tokens = [torch.from_numpy(self._token_ids[row]) for row in rows]
        return torch.from_numpy(np.array(values)), tokens, self._known[place], self._numbers[place], self.normal[place]

    def collate(self, samples: Sequence[tuple[Any, ...]]) -> StructureBatch:
        """Pad samples to a batch; there may be none."""
        structures = self._num_structures
        if not samples:
            nothing = torch.zeros(0, structures, dtype=torch.bool)
            empty = torch.zeros(0, structures, 1, dtype=torch.long)
            values = torch.zeros(0, 1, *self._shape, dtype=torch.uint8)
            return StructureBatch(values, empty, nothing, empty[..., 0], nothing)
        token_ids, _ = stack_padded([ids for sample in samples for ids in sample[1]], self._pad_id)
        known, numbers, normal = (torch.from_numpy(np.stack([sample[part] for sample in samples])) for part in (2, 3, 4))
        return StructureBatch(
            values=torch.stack([sample[0] for sample in samples]).unsqueeze(1),
            token_ids=token_ids.unflatten(0, (len(samples), structures)),
            known=known,
            numbers=numbers,
            normal=normal,
        )


def shifted(values: np.ndarray, by_zyx: Sequence[int]) -> np.ndarray:
    """Return a volume moved by whole voxels; what comes in is its lowest value, air.

    Args:
        values: (Z, Y, X).
        by_zyx: voxels along each axis, less than its length either way.
    """
    moved = np.full_like(values, values.min())
    taken = tuple(slice(max(0, -by), side - max(0, by)) for by, side in zip(by_zyx, values.shape, strict=True))
    put = tuple(slice(max(0, by), side - max(0, -by)) for by, side in zip(by_zyx, values.shape, strict=True))
    moved[put] = values[taken]
    return moved
