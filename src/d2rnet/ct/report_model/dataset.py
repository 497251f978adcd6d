"""Entries of ct_annotation.json as tensors: the tokens selected of their features, and their reports.

Shapes: B volumes, L visual tokens (padded), D width of stage 1, S structures, k patches of each, T token ids (padded).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2rnet.ct.report_model.features import FeatureFacts, feature_path, read_features
from d2rnet.ct.report_model.kept import check_kept
from d2rnet.ct.report_model.selection import NONE, Features, Selected, select
from d2rnet.ct.report_model.settings import CtReportModelSettings
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import PAD_ID
from d2rnet.training.batches import Ragged, stack_padded


class FeatureSource(Protocol):
    """Features of volumes by their place in a list."""

    def __getitem__(self, row: int) -> Features:
        """Return the features of volume ``row``."""


class StoredFeatures:
    """Features that extract-ct-features has kept."""

    def __init__(self, entries: Sequence[Entry], folder: Path, facts: FeatureFacts) -> None:
        """Take the volumes of entries; files are read when they are asked for."""
        self._paths = [feature_path(folder, facts.key, entry["volume_path"]) for entry in entries]
        self._facts = facts

    def __getitem__(self, row: int) -> Features:
        """Read the features of volume ``row``.

        Raises:
            FileNotFoundError: there is no such file.
            DatasetError: it is damaged, or of another extraction.
        """
        return read_features(self._paths[row], self._facts)


@dataclass
class Sample:
    """One entry.

    Attributes:
        selected: L tokens.
        top: (S, k) patches that each structure attends to most, NONE where there are no more.
        top_attention: (S, k).
        token_ids: (T,) int64 from ``<bos>`` on.
        entry_number: () int64, the entry's place in its split.
    """

    selected: Selected
    top: Tensor
    top_attention: Tensor
    token_ids: Tensor
    entry_number: Tensor


@dataclass
class CtBatch:
    """Padded samples.

    Attributes:
        vectors: (B, L, D), 0 where there is no token.
        kinds: (B, L) int64 of d2rnet.ct.report_model.selection.
        structures: (B, L) int64, NONE for tokens of no structure and where there is no token; likewise
        places: (B, L) int64.
        mask: (B, L) bool, True where there is a token.
        top: (B, S, k) int64.
        top_attention: (B, S, k).
        token_ids: (B, T) int64.
        entry_numbers: (B,) int64.
    """

    vectors: Tensor
    kinds: Tensor
    structures: Tensor
    places: Tensor
    mask: Tensor
    top: Tensor
    top_attention: Tensor
    token_ids: Tensor
    entry_numbers: Tensor

    def to(self, device: torch.device | str) -> "CtBatch":
        """Copy to a device."""
        return CtBatch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})

    def pin_memory(self) -> "CtBatch":
        """Copy to page-locked memory; a loader calls this, and :meth:`to` a GPU then does not wait."""
        return CtBatch(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})

    def __len__(self) -> int:
        return len(self.token_ids)


class CtReportDataset(Dataset[Sample]):
    """Entries of a split, in order, ``token_ids`` their reports'; no epoch changes them."""

    def __init__(
        self,
        entries: Sequence[Entry],
        features: FeatureSource,
        *,
        facts: FeatureFacts,
        settings: CtReportModelSettings,
        vocabulary: ReportTokens,
        max_tokens: int,
    ) -> None:
        """Take entries and their features.

        Args:
            entries: entries of ct_annotation.json.
            features: of their volumes, in the same order.
            facts: of the features.
            settings: section ``ct.report.model``.
            vocabulary: token <-> id.
            max_tokens: reports are cut to so many tokens.

        Raises:
            ConfigError: the features do not hold what the settings ask for.
        """
        check_kept(settings, facts)
        self._features = features
        self._facts = facts
        self._settings = settings
        self._count = len(entries)
        reports = (vocabulary.encode(entry["report"], max_tokens=max_tokens) for entry in entries)
        self.token_ids = Ragged(reports, np.int32)

    def of_epoch(self, epoch: int) -> "CtReportDataset":
        """Return the entries."""
        return self

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        """Return entry ``index``."""
        features = self._features[index]
        return Sample(
            selected=select(features, self._settings),
            top=features.top,
            top_attention=features.top_attention,
            token_ids=torch.from_numpy(self.token_ids[index]).long(),
            entry_number=torch.tensor(index),
        )

    def collate(self, samples: Sequence[Sample]) -> CtBatch:
        """Pad samples to a batch; there may be none, where several processes share fewer entries than there are processes."""
        if not samples:
            return self._no_samples()
        vectors, mask = stack_padded([sample.selected.vectors for sample in samples])
        return CtBatch(
            vectors=vectors,
            kinds=stack_padded([sample.selected.kinds for sample in samples])[0],
            structures=stack_padded([sample.selected.structures for sample in samples], value=NONE)[0],
            places=stack_padded([sample.selected.places for sample in samples], value=NONE)[0],
            mask=mask,
            top=torch.stack([sample.top for sample in samples]),
            top_attention=torch.stack([sample.top_attention for sample in samples]),
            token_ids=stack_padded([sample.token_ids for sample in samples], value=PAD_ID)[0],
            entry_numbers=torch.stack([sample.entry_number for sample in samples]),
        )

    def _no_samples(self) -> CtBatch:
        of_structures = (0, len(self._facts.structures), self._facts.most_per_structure)
        none = torch.zeros(0, 1, dtype=torch.long)
        return CtBatch(
            vectors=torch.zeros(0, 1, self._facts.width),
            kinds=none,
            structures=none,
            places=none,
            mask=none.bool(),
            top=torch.zeros(of_structures, dtype=torch.long),
            top_attention=torch.zeros(of_structures),
            token_ids=torch.zeros(0, 2, dtype=torch.long),
            entry_numbers=torch.zeros(0, dtype=torch.long),
        )
