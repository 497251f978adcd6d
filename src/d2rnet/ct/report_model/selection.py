"""Which of what stage 1 saw becomes visual tokens of the decoder.

Source: the authors' code of arXiv 2603.04878: for each structure its observation and the k patches of greatest attention in
the last layer, then the observations once more. Repaired: a patch that several structures chose stands once. Baselines by the
same code: random patches, all of them, their mean, none.

Shapes: S structures, K observation tokens of each, P patches, k of a structure, D width, L tokens chosen.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2rnet.ct.report_model.settings import CtReportModelSettings

NONE = -1  # where there is no patch, no place or no structure
OBSERVATION, PATCH, MEAN = range(3)  # kinds of tokens
NUM_KINDS = 3


@dataclass
class Features:
    """What is kept of a volume that stage 1 has looked at.

    Attributes:
        observations: (S, K, D) observation tokens.
        top: (S, k) int64, the patches that a structure attends to most, the greatest first; NONE where there are no more.
        top_attention: (S, k) their attention, 0 where there is none.
        mean: (D,) mean of the patches that may be seen.
        patch_mask: (P,) bool, True where a patch may be seen.
        chosen: (S, k) int64, the patches whose vectors are kept: ``top``, or as many at random; NONE where there are no more.
        vectors: (S, k, D) of ``chosen``, 0 where there is none; None where all patches are kept.
        patches: (P, D) all patches; None where ``vectors`` are kept.
    """

    observations: Tensor
    top: Tensor
    top_attention: Tensor
    mean: Tensor
    patch_mask: Tensor
    chosen: Tensor
    vectors: Tensor | None
    patches: Tensor | None


@dataclass
class Selected:
    """L tokens of a volume.

    Attributes:
        vectors: (L, D).
        kinds: (L,) int64, OBSERVATION, PATCH or MEAN.
        structures: (L,) int64 structure that a token belongs to, or NONE.
        places: (L,) int64 patch that a token is, or NONE.
    """

    vectors: Tensor
    kinds: Tensor
    structures: Tensor
    places: Tensor


def top_patches(attention: Tensor, patch_mask: Tensor, most: int) -> Tensor:
    """Return the patches of greatest attention, the greatest first; of equals the first in raster order.

    Args:
        attention: (S, P).
        patch_mask: (P,) bool; others are never chosen.
        most: k.

    Returns:
        (S, k) int64, NONE where fewer may be seen.
    """
    order = attention.masked_fill(~patch_mask, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    return _padded(order[:, : min(most, int(patch_mask.sum()))], most)


def random_patches(patch_mask: Tensor, num_structures: int, most: int, *, name: str, seed: int) -> Tensor:
    """Draw patches, each at most once.

    Args:
        patch_mask: (P,) bool; others are never drawn.
        num_structures: S.
        most: k.
        name: of the volume; with the seed it decides the draw, so that neither shard nor batch does.
        seed: of the draws.

    Returns:
        (S, k) int64, NONE where fewer may be seen.
    """
    digest = hashlib.sha256(name.encode()).digest()[:8]
    generator = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    drawn = torch.from_numpy(generator.permutation(patch_mask.nonzero().flatten().cpu().numpy()))
    drawn = _padded(drawn[None, : num_structures * most], num_structures * most)
    return drawn.reshape(most, num_structures).T.contiguous()  # fewer of each structure are the first ones of the draw


def _padded(indices: Tensor, length: int) -> Tensor:
    """Return (R, length) int64 of (R, n): NONE behind the n."""
    return torch.nn.functional.pad(indices.long(), (0, length - indices.shape[1]), value=NONE)


def chosen_once(chosen: Tensor, attention: Tensor) -> Tensor:
    """Say which choices stay where a patch may be chosen by one structure only: by the one that attends to it most.

    Args:
        chosen: (S, k) patches, NONE where there is none.
        attention: (S, k); of equals the first structure has it.

    Returns:
        (S, k) bool; False at NONE.
    """
    flat = chosen.flatten()
    by_attention = attention.flatten().sort(descending=True, stable=True).indices
    seen: set[int] = {NONE}
    kept = torch.zeros_like(flat, dtype=torch.bool)
    for place in by_attention.tolist():
        patch = int(flat[place])
        kept[place] = patch not in seen
        seen.add(patch)
    return kept.reshape(chosen.shape)


def select(features: Features, settings: CtReportModelSettings) -> Selected:
    """Choose the tokens of a volume.

    Args:
        features: of the volume, that hold what the settings ask for (see :func:`d2rnet.ct.report_model.kept.check_kept`).
        settings: section ``ct.report.model``.

    Returns:
        For each structure its observations and its patches; or all observations and then all patches, or their mean. Behind
        them the observations once more, if they are wanted twice. There is always a token.
    """
    parts = [_observations(features)] if settings.observations else []
    if settings.selection in ("attention", "random"):
        joined = _joined([*parts, _of_structures(features, settings)])
        # Structure by structure, its observations first, as released; the decoder's result does not depend on the order.
        parts = [_reordered(joined, torch.argsort(joined.structures, stable=True))]
    elif settings.selection == "all":
        parts.append(_all_patches(features))
    elif settings.selection == "mean":
        parts.append(_tokens(features.mean[None], MEAN))
    if settings.observations and settings.observations_twice:
        parts.append(_observations(features))
    return _joined(parts)


def _tokens(vectors: Tensor, kind: int, structures: Tensor | None = None, places: Tensor | None = None) -> Selected:
    """Make tokens of (L, D) vectors."""
    nothing = torch.full((len(vectors),), NONE)
    kinds = torch.full_like(nothing, kind)
    return Selected(
        vectors.float(), kinds, nothing if structures is None else structures, nothing if places is None else places
    )


def _observations(features: Features) -> Selected:
    structures, per_structure, _ = features.observations.shape
    owners = torch.arange(structures).repeat_interleave(per_structure)
    return _tokens(features.observations.flatten(0, 1), OBSERVATION, owners)  # (S, K, D) -> (S K, D)


def _all_patches(features: Features) -> Selected:
    assert features.patches is not None
    seen = features.patch_mask.nonzero().flatten()
    return _tokens(features.patches[seen], PATCH, places=seen)


def _of_structures(features: Features, settings: CtReportModelSettings) -> Selected:
    """Return the patches of all structures, structure by structure."""
    count = settings.patches_per_structure
    is_attention = settings.selection == "attention"
    chosen = (features.top if is_attention else features.chosen)[:, :count]  # (S, k)
    attention = features.top_attention[:, :count] if is_attention else torch.zeros(chosen.shape)
    kept = chosen_once(chosen, attention) if settings.duplicates == "once" else chosen != NONE
    owners = torch.arange(len(chosen))[:, None].expand_as(chosen)
    if not is_attention:  # drawn for none of them
        owners = torch.full_like(owners, NONE)
    if features.patches is not None:
        vectors = features.patches[chosen[kept]]  # (L, D)
    else:
        assert features.vectors is not None
        vectors = features.vectors[:, :count][kept]
    return _tokens(vectors, PATCH, owners[kept], chosen[kept])


def _joined(parts: list[Selected]) -> Selected:
    names = ("vectors", "kinds", "structures", "places")
    return Selected(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _reordered(tokens: Selected, order: Tensor) -> Selected:
    return Selected(tokens.vectors[order], tokens.kinds[order], tokens.structures[order], tokens.places[order])
