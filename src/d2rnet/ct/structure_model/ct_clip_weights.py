"""Weights of CT-CLIP by path, for the factorised Vision Transformer and for the text tower.

``CT_CLIP_zeroshot.pt`` (first release, patches of 15 x 30 x 30 voxels) is what the code released with arXiv 2603.04878 starts
from, without a check; ``CT-CLIP_v2.pt`` has patches of 10 x 20 x 20. The file holds the whole of CT-CLIP, 8.6 GB of it in two
projections that nothing here needs: it is mapped, not read.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from d2rnet.ct.structure_model.encoder_weights import WeightReport, load_weights
from d2rnet.ct.structure_model.factorised_vit import FactorisedViT
from d2rnet.errors import CheckpointError
from d2rnet.files.torch_files import load_torch
from d2rnet.report.decoder.r2gen_weights import state_dict_of

VISUAL = "visual_transformer."
TEXT = "text_transformer."
TEXT_PROJECTION = "to_text_latent.weight"
V2_PATCH = (10, 20, 20)

UNUSED = (
    (r"text_transformer\.", "the text tower"),
    (r"mlm\.|visual_ssl\.", "a loss of CT-CLIP's training"),
    (r"to_(text|visual)_latent(_extra)?\.|temperature$", "projections and temperature of CT-CLIP's contrast"),
    (r"visual_transformer\.vq\.", "the code book behind the tokens"),
    (r"visual_transformer\.(dec_\w+_transformer|to_pixels\w*)\.", "the reconstruction of the volume"),
    (r"visual_transformer\.to_patch_emb_first_frame\.", "patches of a single slice"),
    (r"visual_transformer\.(discr|vgg)\.", "a loss of the reconstruction"),
    (r"visual_transformer\.enc_\w+\.(layers\.\d+\.1\.norm|norm_out)\.beta$", "shifts of norms, always zero"),
    (
        r"visual_transformer\.enc_\w+\.layers\.\d+\.1\.context_norm\.(gamma|beta)$",
        "norms of cross-attention, which there is none of",
    ),
    (r"visual_transformer\.enc_\w+\.layers\.\d+\.1\.null_kv$", "empty"),
)
UNUSED_BY_TEXT = (
    (r"text_transformer\.embeddings\.\w+_ids$", "counters, which transformers makes itself"),
    (r"visual_transformer\.", "the image encoder"),
    (r"mlm\.|visual_ssl\.", "a loss of CT-CLIP's training"),
    (r"to_visual_latent(_extra)?\.|to_text_latent_extra\.|temperature$", "projections and temperature of CT-CLIP's contrast"),
)
# Parts of a network here -> those of CT-CLIP, below visual_transformer.
_PARTS = {
    "patches.norm_voxels": "to_patch_emb.1",
    "patches.project": "to_patch_emb.2",
    "patches.norm": "to_patch_emb.3",
    "offset_bias.layers.0": "spatial_rel_pos_bias.net.0.0",
    "offset_bias.layers.1": "spatial_rel_pos_bias.net.1.0",
    "offset_bias.layers.2": "spatial_rel_pos_bias.net.2",
}
_STACKS = {"in_plane": "enc_spatial_transformer", "along_z": "enc_temporal_transformer"}
_NORMS = {"norm_in_plane.weight": "enc_spatial_transformer", "norm.weight": "enc_temporal_transformer"}
_LAYER = {
    "neighbours.weight": "0.dsconv.weight",
    "neighbours.bias": "0.dsconv.bias",
    "attention.norm.weight": "1.norm.gamma",
    "attention.query.weight": "1.to_q.weight",
    "attention.key_value.weight": "1.to_kv.weight",
    "attention.query_scale": "1.q_scale",
    "attention.key_scale": "1.k_scale",
    "attention.out.weight": "1.to_out.weight",
    "feed_forward.norm.weight": "3.0.weight",
    "feed_forward.norm.bias": "3.0.bias",
    "feed_forward.up.weight": "3.1.weight",
    "feed_forward.down.weight": "3.4.weight",
}


def ct_clip_name(own: str) -> str:
    """Return the name in CT-CLIP's state dict of a tensor of ``FactorisedViT``."""
    stack, _, rest = own.partition(".")
    if own in _NORMS:
        return f"{VISUAL}{_NORMS[own]}.norm_out.gamma"
    if stack in _STACKS:
        layer, _, part = rest.partition(".")
        return f"{VISUAL}{_STACKS[stack]}.layers.{layer}.{_LAYER[part]}"
    part, _, kind = own.rpartition(".")
    return f"{VISUAL}{_PARTS[part]}.{kind}"


def load_ct_clip(encoder: FactorisedViT, path: Path, patch_zyx: tuple[int, int, int]) -> WeightReport:
    """Put CT-CLIP's weights into an encoder.

    Args:
        encoder: made for ``patch_zyx``.
        path: CT-CLIP's state dict, whole or that of its image encoder (with or without ``visual_transformer.``).
        patch_zyx: voxels of a patch.

    Raises:
        CheckpointError: unreadable, code in it, of other patches (which second-release files have) or sizes, a tensor missing
            or unknown, a norm with a shift.
    """
    state = _visual_state(path)
    found = patch_of(state)
    if found is not None and found != patch_zyx:
        raise CheckpointError(_other_patches(path, found, patch_zyx))
    names = {own: ct_clip_name(own) for own in encoder.state_dict()}
    shifted = [
        name
        for name, tensor in state.items()
        if re.search(r"\.enc_.*(\.1\.norm|norm_out)\.beta$", name) and bool(tensor.any())
    ]
    if shifted:
        raise CheckpointError(f"{path}: {shifted[0]} is not zero, as in CT-CLIP it always is; the file is of another network.")
    return load_weights(encoder, state, names, UNUSED, path)


def patch_of(state: Mapping[str, Tensor]) -> tuple[int, int, int] | None:
    """Return the voxels of a patch as the file's shapes tell them, or None where they do not.

    Args:
        state: with CT-CLIP's names. Single slices have an embedding of their own, unused, which tells the side of a patch.
    """
    whole = state.get(f"{VISUAL}to_patch_emb.1.weight")
    slices = state.get(f"{VISUAL}to_patch_emb_first_frame.1.weight")
    if whole is None or slices is None or not slices.numel():
        return None
    side = math.isqrt(slices.numel())
    return whole.numel() // slices.numel(), side, side


def _other_patches(path: Path, found: tuple[int, int, int], wanted: tuple[int, int, int]) -> str:
    file, settings = (" x ".join(map(str, patch)) for patch in (found, wanted))
    what = "a file of CT-CLIP's second release (v2)" if found == V2_PATCH else "CT-CLIP"
    return (
        f"{path}: is {what}, with patches of {file} voxels; ct.structure_model.model.encoder.patch_zyx is {settings}. Give "
        f"CT_CLIP_zeroshot.pt of the first release (15 x 30 x 30), or set patch_zyx to the file's."
    )


def _visual_state(path: Path) -> dict[str, Tensor]:
    state = state_dict_of(load_torch(path, mapped=True), path)
    if not any(name.startswith(VISUAL) for name in state):
        if not any(name.startswith("to_patch_emb.") for name in state):
            raise CheckpointError(
                f"{path}: is no state dict of CT-CLIP: no name begins with {VISUAL} or to_patch_emb. Got "
                f"{', '.join(sorted(state)[:3]) or 'no tensor'}."
            )
        state = {VISUAL + name: tensor for name, tensor in state.items()}
    return state


class CtClipText(nn.Module):
    """CT-CLIP's text tower: a BERT, and the projection of its first token to the space of the contrast, without a bias."""

    def __init__(self, bert: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.bert = bert
        self.projection = projection


def ct_clip_text_name(own: str) -> str:
    """Return the name in CT-CLIP's state dict of a tensor of ``CtClipText``."""
    part, _, rest = own.partition(".")
    return f"{TEXT}{rest}" if part == "bert" else TEXT_PROJECTION


def load_ct_clip_text(bert: nn.Module, path: Path) -> tuple[CtClipText, WeightReport]:
    """Put CT-CLIP's text tower into a BERT, in every tensor.

    Args:
        bert: of transformers (``embeddings.``, ``encoder.layer.0.``, ``pooler.``), of width W.
        path: CT-CLIP's state dict, whole, of either release.

    Returns:
        The BERT with the projection (W to E), frozen, in evaluation mode; and what was taken and left out.

    Raises:
        CheckpointError: unreadable, no text tower in it, of other sizes, a tensor missing or unknown.
    """
    state = state_dict_of(load_torch(path, mapped=True), path)
    words = state.get(f"{TEXT}embeddings.word_embeddings.weight")
    projection = state.get(TEXT_PROJECTION)
    if words is None or projection is None:
        lacking = TEXT_PROJECTION if words is not None else f"{TEXT}embeddings.word_embeddings.weight"
        raise CheckpointError(
            f"{path}: has no text tower of CT-CLIP: {lacking} is missing. Give the whole file, as published."
        )
    if projection.ndim != 2 or projection.shape[1] != words.shape[1]:
        raise CheckpointError(
            f"{path}: {TEXT_PROJECTION} is {tuple(projection.shape)}; expected (width, {words.shape[1]}), as the BERT is wide."
        )
    tower = CtClipText(bert, nn.Linear(projection.shape[1], projection.shape[0], bias=False))
    names = {own: ct_clip_text_name(own) for own in tower.state_dict()}
    report = load_weights(tower, state, names, UNUSED_BY_TEXT, path)
    return tower.eval().requires_grad_(False), report
