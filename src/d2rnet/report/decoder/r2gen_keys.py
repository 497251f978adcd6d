"""Parameter names of R2Gen's decoder and what they are called here.

R2Gen keeps its encoder, decoder, relational memory and embedding under ``encoder_decoder.model``, the word scores under
``encoder_decoder.logit`` and the projection of patch features under ``encoder_decoder.att_embed``; so does D2R-Net's released
code. Names and shapes are facts about the files that users have; no code of R2Gen is used.

Shapes: D model width, F feed-forward width, M memory slots, W words with padding, P width of the patch features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from d2rnet.errors import CheckpointError
from d2rnet.report.decoder.attention import sinusoidal_positions
from d2rnet.report.decoder.memory_transformer import NORMS_PER_LAYER

PARALLEL = "module."
DECODER = "encoder_decoder."
IMAGE_NETWORK = "visual_extractor."
POSITIONS = "model.tgt_embed.1.pe"
POSITION_TOLERANCE = 1e-3
SHOWN_KEYS = 12
PROJECTIONS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class R2GenShape:
    """Sizes of an R2Gen decoder, read from the shapes of its tensors."""

    patch_width: int
    d_model: int
    d_ff: int
    num_layers: int
    memory_slots: int
    num_tokens: int  # vocabulary and the one id for padding, start and end


def decoder_part(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the decoder's tensors without prefix; those of R2Gen's image network are left out.

    Args:
        state_dict: of the decoder alone or of the whole model, saved with or without DataParallel.
    """
    plain = {key.removeprefix(PARALLEL): value for key, value in state_dict.items()}
    return {key.removeprefix(DECODER): value for key, value in plain.items() if not key.startswith(IMAGE_NETWORK)}


def infer_shape(state: Mapping[str, Tensor]) -> R2GenShape:
    """Read the sizes.

    Args:
        state: of :func:`decoder_part`.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or is no matrix.
    """
    telling = {
        "words": "model.tgt_embed.0.lut.weight",
        "patches": "att_embed.0.weight",
        "feed-forward": "model.decoder.layers.0.feed_forward.w_1.weight",
        "memory": "model.decoder.layers.0.sublayer.0.norm.mlp_gamma.0.weight",
    }
    missing = [key for key in telling.values() if key not in state]
    if missing:
        raise CheckpointError(
            f"state dict: no R2Gen decoder in it: lacks {', '.join(missing)}; it has {_shown(sorted(state))}. "
            f"Expected the keys of R2Gen's model, with or without the prefix '{DECODER}'."
        )
    flat = [f"{key} {tuple(state[key].shape)}" for key in telling.values() if state[key].ndim != 2]
    if flat:
        raise CheckpointError(f"state dict: expected matrices, got {', '.join(flat)}. Export the state dict again.")
    sizes = {what: tuple(state[key].shape) for what, key in telling.items()}
    num_tokens, d_model = sizes["words"]
    layers = {key.split(".")[3] for key in state if key.startswith("model.decoder.layers.")}
    return R2GenShape(
        patch_width=sizes["patches"][1],
        d_model=d_model,
        d_ff=sizes["feed-forward"][0],
        num_layers=len(layers),
        memory_slots=sizes["memory"][1] // d_model,
        num_tokens=num_tokens,
    )


def translate(state: Mapping[str, Tensor], shape: R2GenShape, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and join R2Gen's tensors to the state dict of R2GenDecoder, in float32.

    Args:
        state: of :func:`decoder_part`.
        shape: of :func:`infer_shape`.
        own: state dict of an R2GenDecoder of this shape; only its shapes are looked at.

    Raises:
        CheckpointError: missing or unexpected keys or other shapes, all listed; or another position table than R2Gen's.
    """
    names = dict(_plain_names(shape.num_layers))
    norms = [f"model.decoder.layers.{n}.sublayer.{k}.norm" for n in range(shape.num_layers) for k in range(NORMS_PER_LAYER)]
    expected = {theirs: tuple(own[ours].shape) for theirs, ours in names.items()}
    expected |= {f"{norm}.{part}": size for norm in norms for part, size in _norm_shapes(shape).items()}
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys() - {POSITIONS})
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {size}"
        for key, size in expected.items()
        if key in state and tuple(state[key].shape) != size
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"state dict: not R2Gen's decoder of {shape.num_layers} layers and width {shape.d_model}. "
            f"Missing {len(missing)}: {_shown(missing)}; unexpected {len(unexpected)}: {_shown(unexpected)}; of another "
            f"shape {len(misshapen)}: {_shown(misshapen)}. Give the decoder alone: the keys that begin with '{DECODER}'."
        )
    _check_positions(state, shape)
    translated = {ours: state[theirs] for theirs, ours in names.items()} | _conditioned_norms(state, norms)
    return {name: tensor.float() for name, tensor in translated.items()}


def _linear(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for part in ("weight", "bias"):
        yield f"{theirs}.{part}", f"{ours}.{part}"


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(PROJECTIONS):
        yield from _linear(f"{theirs}.linears.{number}", f"{ours}.{name}")


def _layer(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Feed-forward block; ours is a Sequential of linear, ReLU, dropout, linear."""
    yield from _linear(f"{theirs}.feed_forward.w_1", f"{ours}.feed_forward.0")
    yield from _linear(f"{theirs}.feed_forward.w_2", f"{ours}.feed_forward.3")


def _plain_names(num_layers: int) -> Iterator[tuple[str, str]]:
    """Yield R2Gen's and our name of every tensor that is the same in both."""
    yield from _linear("att_embed.0", "patch_embedding.0")
    yield "model.tgt_embed.0.lut.weight", "transformer.embedding.weight"
    yield from _linear("logit", "transformer.logits")
    for stack in ("encoder", "decoder"):
        for part in ("gamma", "beta"):
            yield f"model.{stack}.norm.{part}", f"transformer.{stack}_norm.{part}"
    for number in range(num_layers):
        theirs = f"model.encoder.layers.{number}"
        ours = f"transformer.encoder.{number}"
        yield from _attention(f"{theirs}.self_attn", f"{ours}.attention")
        yield from _layer(theirs, ours)
        for norm in (0, 1):
            for part in ("gamma", "beta"):
                yield f"{theirs}.sublayer.{norm}.norm.{part}", f"{ours}.norms.{norm}.{part}"
        theirs = f"model.decoder.layers.{number}"
        ours = f"transformer.decoder.{number}"
        yield from _attention(f"{theirs}.self_attn", f"{ours}.self_attention")
        yield from _attention(f"{theirs}.src_attn", f"{ours}.cross_attention")
        yield from _layer(theirs, ours)
    yield from _attention("model.rm.attn", "transformer.relational_memory.attention")
    for theirs, ours in {"mlp.0": "mlp.0", "mlp.2": "mlp.2", "W": "token_gates", "U": "memory_gates"}.items():
        yield from _linear(f"model.rm.{theirs}", f"transformer.relational_memory.{ours}")


def _norm_shapes(shape: R2GenShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a memory-conditioned norm."""
    width = shape.d_model
    shapes: dict[str, tuple[int, ...]] = {"gamma": (width,), "beta": (width,)}
    for network in ("mlp_gamma", "mlp_beta"):
        shapes |= {f"{network}.0.weight": (width, shape.memory_slots * width), f"{network}.0.bias": (width,)}
        shapes |= {f"{network}.2.weight": (width, width), f"{network}.2.bias": (width,)}
    return shapes


def _conditioned_norms(state: Mapping[str, Tensor], norms: list[str]) -> dict[str, Tensor]:
    """Join the norms of all decoder layers; networks in the order norm 0 gamma, norm 0 beta, norm 1 gamma, ..."""
    networks = [f"{norm}.{network}" for norm in norms for network in ("mlp_gamma", "mlp_beta")]
    ours = "transformer.conditioned_norms"
    return {
        f"{ours}.gamma": torch.stack([state[f"{norm}.gamma"] for norm in norms]),
        f"{ours}.beta": torch.stack([state[f"{norm}.beta"] for norm in norms]),
        f"{ours}.hidden.weight": torch.cat([state[f"{network}.0.weight"] for network in networks]),
        f"{ours}.hidden.bias": torch.cat([state[f"{network}.0.bias"] for network in networks]),
        f"{ours}.weight": torch.stack([state[f"{network}.2.weight"].T for network in networks]),
        f"{ours}.bias": torch.stack([state[f"{network}.2.bias"].unsqueeze(0) for network in networks]),
    }


def _check_positions(state: Mapping[str, Tensor], shape: R2GenShape) -> None:
    """Refuse a stored position table that is not the sinusoidal one, which is computed here."""
    if POSITIONS not in state:
        return
    table = state[POSITIONS].float().reshape(-1, shape.d_model)
    difference = float((table - sinusoidal_positions(0, len(table), shape.d_model, like=table)).abs().max())
    if difference > POSITION_TOLERANCE:
        raise CheckpointError(
            f"state dict: {POSITIONS} differs from sinusoidal positions by {difference:.3g}; expected R2Gen's table. "
            "A model with other positions cannot be imported."
        )


def _shown(keys: list[str]) -> str:
    """List the first keys and say how many more there are."""
    rest = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "") if keys else "none"
