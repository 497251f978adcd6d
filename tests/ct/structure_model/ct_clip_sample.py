"""State dicts with exactly the names and shapes of CT-CLIP's, of any size, random or without values (meta).

Names and shapes follow ibrahimethemhamamci/CT-CLIP's modules: CTCLIP(image_encoder=CTViT, text_encoder=BertModel).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """Sizes of a CT-CLIP; the defaults are those of the first release (CT_CLIP_zeroshot.pt)."""

    width: int = 512
    patch_zyx: tuple[int, int, int] = (15, 30, 30)
    depth: int = 4
    heads: int = 8
    codes: int = 8192
    text_width: int = 768
    text_layers: int = 12
    words: int = 30522
    positions: int = 512
    latent: int = 512
    flattened: int = 2_097_152  # 16 x 16 x 16 x 512


V1 = Sizes()
V2 = Sizes(patch_zyx=(10, 20, 20), flattened=294_912)
SMALL = Sizes(
    width=24, patch_zyx=(2, 4, 4), depth=2, heads=2, codes=7, text_width=12, text_layers=1, words=20, latent=6, flattened=96
)


def ct_clip_state(sizes: Sizes, *, seed: int = 0, device: str = "cpu") -> dict[str, Tensor]:
    """Return the state dict; buffers that are constant in CT-CLIP are constant here."""
    generator = None if device == "meta" else torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        return torch.empty(shape, device=device) if generator is None else torch.randn(shape, generator=generator) * 0.3

    state = {f"visual_transformer.{name}": tensor for name, tensor in visual_state(sizes, values).items()}
    state |= {f"text_transformer.{name}": tensor for name, tensor in text_state(sizes, values, device).items()}
    state["to_text_latent.weight"] = values(sizes.latent, sizes.text_width)
    state["to_visual_latent.weight"] = values(sizes.latent, sizes.flattened)
    state["to_text_latent_extra.weight"] = values(sizes.latent, sizes.text_width)
    state["to_visual_latent_extra.weight"] = values(sizes.latent, sizes.flattened)
    state["temperature"] = torch.ones((), device=device)
    return state


def visual_state(sizes: Sizes, values) -> dict[str, Tensor]:
    width = sizes.width
    pz, py, px = sizes.patch_zyx
    state = {}
    for name, voxels in (("to_patch_emb_first_frame", py * px), ("to_patch_emb", pz * py * px)):
        state[f"{name}.1.weight"] = values(voxels)
        state[f"{name}.1.bias"] = values(voxels)
        state[f"{name}.2.weight"] = values(width, voxels)
        state[f"{name}.2.bias"] = values(width)
        state[f"{name}.3.weight"] = values(width)
        state[f"{name}.3.bias"] = values(width)
    for name, entering, leaving in (("0.0", 2, width), ("1.0", width, width), ("2", width, sizes.heads)):
        state[f"spatial_rel_pos_bias.net.{name}.weight"] = values(leaving, entering)
        state[f"spatial_rel_pos_bias.net.{name}.bias"] = values(leaving)
    for stack in ("enc_spatial", "enc_temporal", "dec_spatial", "dec_temporal"):
        for layer in range(sizes.depth):
            for name, tensor in layer_state(sizes, values).items():
                state[f"{stack}_transformer.layers.{layer}.{name}"] = tensor
        state[f"{stack}_transformer.norm_out.gamma"] = values(width)
        state[f"{stack}_transformer.norm_out.beta"] = zeros_like(values(width))
    state["vq._codebook.initted"] = zeros_like(values(1))
    state["vq._codebook.cluster_size"] = values(1, sizes.codes)
    state["vq._codebook.embed"] = values(1, sizes.codes, width)
    for name, voxels in (("to_pixels_first_frame", py * px), ("to_pixels", pz * py * px)):
        state[f"{name}.0.weight"] = values(voxels, width)
        state[f"{name}.0.bias"] = values(voxels)
    return state


def layer_state(sizes: Sizes, values) -> dict[str, Tensor]:
    width = sizes.width
    inner = sizes.heads * 32
    hidden = int(4 * (2 / 3) * width)
    return {
        "0.dsconv.weight": values(width, 1, 3, 3, 3),
        "0.dsconv.bias": values(width),
        "1.norm.gamma": values(width),
        "1.norm.beta": zeros_like(values(width)),
        "1.context_norm.gamma": values(width),
        "1.context_norm.beta": zeros_like(values(width)),
        "1.null_kv": values(sizes.heads, 0, 32),
        "1.to_q.weight": values(inner, width),
        "1.to_kv.weight": values(2 * inner, width),
        "1.q_scale": values(32),
        "1.k_scale": values(32),
        "1.to_out.weight": values(width, inner),
        "3.0.weight": values(width),
        "3.0.bias": values(width),
        "3.1.weight": values(2 * hidden, width),
        "3.4.weight": values(width, hidden),
    }


def text_state(sizes: Sizes, values, device: str) -> dict[str, Tensor]:
    width = sizes.text_width
    state = {
        "embeddings.position_ids": torch.arange(sizes.positions, device=device)[None],
        "embeddings.word_embeddings.weight": values(sizes.words, width),
        "embeddings.position_embeddings.weight": values(sizes.positions, width),
        "embeddings.token_type_embeddings.weight": values(2, width),
        "embeddings.LayerNorm.weight": values(width),
        "embeddings.LayerNorm.bias": values(width),
        "pooler.dense.weight": values(width, width),
        "pooler.dense.bias": values(width),
    }
    parts = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (4 * width, width),
        "output.dense": (width, 4 * width),
    }
    for layer in range(sizes.text_layers):
        for part, shape in parts.items():
            state[f"encoder.layer.{layer}.{part}.weight"] = values(*shape)
            state[f"encoder.layer.{layer}.{part}.bias"] = values(shape[0])
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            state[f"encoder.layer.{layer}.{norm}.weight"] = values(width)
            state[f"encoder.layer.{layer}.{norm}.bias"] = values(width)
    return state


def zeros_like(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor)
