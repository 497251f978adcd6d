"""What an entry of annotation.json tells beside its images and boxes, as tensors: views, indication, the study before.

Reads and writes nothing. The keys are written by build_annotation where ``cxr.annotation.context`` asks for them; a part that
the model does not take is left empty. Words are numbered by a hash, so that words of indications need no vocabulary, and a
model folder no further file (feature hashing; Weinberger et al., ICML 2009).

Shapes: B entries, V images per entry, I words of an indication, T words of the report before, Q its lesions (all padded).
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2rnet.cxr.images.views import position_of
from d2rnet.cxr.report_model.augmentation import mirror_report
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.errors import DatasetError
from d2rnet.report.text.protocols import clean_report
from d2rnet.training.batches import Ragged, stack_padded

Entry = Mapping[str, Any]
UNKNOWN, PA, AP, LATERAL = range(4)
NUM_VIEWS = 4
MOST_OF_ONE_VIEW = 4  # images of one view that are told apart; further ones count as the last
_VIEW_IDS = {"PA": PA, "AP": AP, "LATERAL": LATERAL}


def view_id(view: str) -> int:
    """Return the number of what :func:`d2rnet.cxr.images.views.position_of` reads from a view's name."""
    return _VIEW_IDS.get(position_of(view), UNKNOWN)


def numbers_of(views: Sequence[int]) -> list[int]:
    """Number the images of each view from 0, in the order of the entry: PA, AP, AP is 0, 0, 1."""
    return [min(list(views[:place]).count(view), MOST_OF_ONE_VIEW - 1) for place, view in enumerate(views)]


def word_ids(text: str, *, protocol: str, buckets: int, most: int) -> list[int]:
    """Number the words of a text by a hash of their small letters, from 1 to ``buckets``; the same on every machine.

    Args:
        text: as written.
        protocol: of the model's text, by which it falls into words.
        buckets: how many numbers there are.
        most: words taken.
    """
    return [1 + zlib.crc32(word.lower().encode()) % buckets for word in clean_report(text, protocol).split()[:most]]


@dataclass
class Context:
    """What one entry tells.

    Attributes:
        views: (V,) int64 view of each image, 0 unknown.
        view_numbers: (V,) int64, how many images of its view stand before it in the entry.
        indication_ids: (I,) int64 of :func:`word_ids`; none where it does not say why.
        has_prior: () bool, whether there is a study before.
        prior_ids: (T,) int64, words of its report.
        prior_positions: (Q, 4) float32 of its lesions: centre x, centre y, width, height as shares of their image.
        prior_category_ids: (Q,) int64, 1-based place in the model's list of categories.
        prior_scores: (Q,) float32 in [0, 1].
    """

    views: Tensor
    view_numbers: Tensor
    indication_ids: Tensor
    has_prior: Tensor
    prior_ids: Tensor
    prior_positions: Tensor
    prior_category_ids: Tensor
    prior_scores: Tensor


@dataclass
class ContextBatch:
    """Padded contexts: the attributes are those of Context with a leading B; 0 is no word, and no lesion's category."""

    views: Tensor
    view_numbers: Tensor
    indication_ids: Tensor
    has_prior: Tensor
    prior_ids: Tensor
    prior_positions: Tensor
    prior_category_ids: Tensor
    prior_scores: Tensor

    @classmethod
    def nothing(cls, view_mask: Tensor) -> "ContextBatch":
        """Return what entries tell that tell nothing, for a mask (B, V) of images."""
        unknown = torch.zeros_like(view_mask, dtype=torch.long)
        none = unknown[:, :0]
        return cls(
            views=unknown,
            view_numbers=unknown,
            indication_ids=none,
            has_prior=view_mask.new_zeros(len(view_mask)),
            prior_ids=none,
            prior_positions=none.float().unsqueeze(-1).expand(-1, -1, 4),
            prior_category_ids=none,
            prior_scores=none.float(),
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "ContextBatch":
        """Copy to a device."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ContextBatch":
        """Copy to page-locked memory."""
        return self._changed(Tensor.pin_memory)

    def __getitem__(self, rows: Any) -> "ContextBatch":
        """Return some of the entries."""
        return self._changed(lambda tensor: tensor[rows])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "ContextBatch":
        return ContextBatch(**{field.name: change(getattr(self, field.name)) for field in fields(self)})


def collate_contexts(contexts: Sequence[Context]) -> ContextBatch:
    """Pad the contexts of at least one entry."""
    padded = {
        field.name: stack_padded([getattr(context, field.name) for context in contexts])[0]
        for field in fields(Context)
        if field.name != "has_prior"
    }
    return ContextBatch(**padded, has_prior=torch.stack([context.has_prior for context in contexts]))


def check_context(entries: Sequence[Entry], settings: D2RNetModelSettings, *, source: Path) -> None:
    """Refuse entries without the keys that a model takes, which it would read as "unknown" in silence.

    Args:
        entries: of annotation.json.
        settings: section ``cxr.report.model``.
        source: annotation.json, for the message.

    Raises:
        DatasetError: names the first entry, the key and the setting that brings it.
    """
    wanted = {"views": settings.view_embedding, "indication": settings.indication, "prior": settings.prior}
    for key in (key for key, is_wanted in wanted.items() if is_wanted):
        lacking = [entry["id"] for entry in entries if key not in entry]
        if lacking:
            raise DatasetError(
                f"{source}: {len(lacking)} of {len(entries)} entries, such as {lacking[0]}, have no key '{key}', which the "
                f"report model takes. Add '{key}' to cxr.annotation.context and build the annotation again."
            )


class EntryContexts:
    """The contexts of a data set's entries, as a model takes them."""

    def __init__(
        self,
        entries: Sequence[Entry],
        settings: D2RNetModelSettings,
        *,
        protocol: str,
        categories: Sequence[str],
        flips: bool = False,
    ) -> None:
        """Read the keys of the entries; a key that is absent, or that the model does not take, tells nothing.

        Args:
            entries: of annotation.json.
            settings: section ``cxr.report.model``.
            protocol: of the model's text.
            categories: class names in the order of the model's class ids 1, 2, ...
            flips: whether entries are mirrored in training.

        Raises:
            DatasetError: a box of a study before has a class that the model does not know.
        """
        self._views = Ragged((_view_ids(entry) if settings.view_embedding else _unknown(entry) for entry in entries), np.int64)
        indications = [str(entry.get("indication", "")) if settings.indication else "" for entry in entries]
        priors = [(entry.get("prior") if settings.prior else None) or {} for entry in entries]
        reports = [str(prior.get("report", "")) for prior in priors]
        self._has_prior = np.array([bool(prior) for prior in priors], dtype=bool)
        self._lesions = _Lesions(priors, categories)

        def ids(texts: Iterable[str]) -> Ragged:
            rules = {"buckets": settings.context_buckets, "most": settings.context_words}
            return Ragged((word_ids(text, protocol=protocol, **rules) for text in texts), np.int32)

        self._words = (ids(indications), ids(reports))
        mirrored = [
            (mirror_report(why), mirror_report(report)) for why, report in zip(indications, reports, strict=True) if flips
        ]
        # A text that has no mirror image: the entry is never flipped.
        self._may_flip = np.array([None not in pair for pair in mirrored], dtype=bool)
        self._mirrored_words = (ids(why or "" for why, _ in mirrored), ids(report or "" for _, report in mirrored))

    def may_flip(self, index: int) -> bool:
        """Whether the texts of entry ``index`` have a mirror image."""
        return bool(self._may_flip[index])

    def of(self, index: int, *, flip: bool = False) -> Context:
        """Return the context of entry ``index``, or that of its mirror image."""
        views = self._views[index]
        indication, report = (words[index] for words in (self._mirrored_words if flip else self._words))
        positions = self._lesions.positions[index]
        if flip:
            positions[:, 0] = 1 - positions[:, 0]
        return Context(
            views=torch.from_numpy(views),
            view_numbers=torch.tensor(numbers_of(views.tolist())),
            indication_ids=torch.from_numpy(indication).long(),
            has_prior=torch.tensor(bool(self._has_prior[index])),
            prior_ids=torch.from_numpy(report).long(),
            prior_positions=torch.from_numpy(positions),
            prior_category_ids=torch.from_numpy(self._lesions.category_ids[index]),
            prior_scores=torch.from_numpy(self._lesions.scores[index]),
        )


class _Lesions:
    """Lesions of the studies before, a row an entry."""

    def __init__(self, priors: Sequence[Mapping[str, Any]], categories: Sequence[str]) -> None:
        ids = known_categories((label for prior in priors for label in prior.get("labels", ())), categories)
        self.positions = Ragged((_positions(prior) for prior in priors), np.float32, item_shape=(4,))
        self.category_ids = Ragged(([ids[label] for label in prior.get("labels", ())] for prior in priors), np.int64)
        self.scores = Ragged((prior.get("scores", ()) for prior in priors), np.float32)


def known_categories(labels: Iterable[str], categories: Sequence[str]) -> dict[str, int]:
    """Return class name -> class id, from 1, of the classes that a model knows.

    Raises:
        DatasetError: a label is none of them.
    """
    unknown = set(labels) - set(categories)
    if unknown:
        raise DatasetError(
            f"annotation.json: boxes of class {', '.join(sorted(unknown))}, which the model does not know; it knows "
            f"{', '.join(categories)}. Train the model on boxes of the same class table."
        )
    return {name: number for number, name in enumerate(categories, start=1)}


def _positions(prior: Mapping[str, Any]) -> list[list[float]]:
    """Turn the xywh boxes of a study before into centre x, centre y, width, height as shares of their image: (Q, 4)."""
    boxes = np.asarray(prior.get("boxes", ()), dtype=np.float64).reshape(-1, 4)
    size_wh = np.array([prior.get("width", 1), prior.get("height", 1)], dtype=np.float64)
    shares: NDArray[np.float64] = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1) / np.tile(size_wh, 2)
    return shares.tolist()


def _unknown(entry: Entry) -> list[int]:
    return [UNKNOWN] * len(entry["image_path"])


def _view_ids(entry: Entry) -> list[int]:
    return [view_id(view) for view in entry["views"]] if "views" in entry else _unknown(entry)
