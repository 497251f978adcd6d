"""Blocks shared by encoder and decoder: attention that can be fed keys and values, norm, feed-forward, positions.

Source: the layers of R2Gen (Chen et al., EMNLP 2020), from their published description; attention itself as in Vaswani et al.
2017. Written so that a decoder can keep keys and values from step to step.

Shapes: B batch, T queries, L keys, D model width, H heads, Dh = D / H.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Projection = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)
NORM_EPS = 1e-6
LEAST_VARIANCE = 1e-12


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with separate access to keys, values and weights."""

    def __init__(self, d_model: int, num_heads: int, dropout: float = 0.0) -> None:
        """Make the four projections; ``d_model`` is a multiple of ``num_heads``."""
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, Dh)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, L, D) to keys and values, each (B, H, L, Dh)."""
        return self.split_heads(self.key(source)), self.split_heads(self.value(source))

    def packed(self) -> Projection:
        """Join the projections to queries, keys and values: one product where one input gives all three."""
        return pack(self.query, self.key, self.value)

    def forward(
        self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """Attend from ``x`` to keys and values.

        Args:
            x: (B, T, D) queries before projection.
            keys_values: as of :meth:`keys_values`.
            mask: bool, broadcastable to (B, H, T, L), True where a key may be seen; each query must see one.
            causal: query t sees keys 0..t only.

        Returns:
            (B, T, D).
        """
        return self.attend(self.split_heads(self.query(x)), keys_values, mask, causal=causal)

    def attend(
        self, queries: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """Do the rest of :meth:`forward` for queries (B, H, T, Dh); a mask of floats is added to the scores."""
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(queries, *keys_values, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.output(heads.transpose(1, 2).flatten(2))

    def over(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from ``x`` to keys and values of ``source``, where there is no other use for these.

        Few queries need neither: a head's scores q (K s + k) are (q K) s and a constant, which the softmax takes out, and what
        it gives is V times the mean of s, plus v. That is less work where H T is less than D, and nothing of the size of the
        source is kept for the backward pass.

        Args:
            x: (B, T, D) queries before projection.
            source: (B, L, D) before projection.
            mask: bool, broadcastable to (B, H, T, L), True where a place may be seen; each query must see one.

        Returns:
            (B, T, D), as of :meth:`forward`.
        """
        if self.num_heads * x.shape[1] >= x.shape[2]:
            return self(x, self.keys_values(source), mask)
        queries = self.split_heads(self.query(x))  # (B, H, T, Dh)
        key, value = (layer.weight.unflatten(0, (self.num_heads, -1)) for layer in (self.key, self.value))  # (H, Dh, D)
        scores = (queries @ key).flatten(1, 2) @ source.transpose(1, 2) / math.sqrt(queries.shape[3])  # (B, H T, L)
        shares = _softmax(scores.unflatten(1, (self.num_heads, -1)), mask)  # (B, H, T, L)
        shares = F.dropout(shares.to(source.dtype), self.dropout, self.training)
        seen = (shares.flatten(1, 2) @ source).unflatten(1, (self.num_heads, -1))  # (B, H, T, D)
        bias = self.value.bias.unflatten(0, (self.num_heads, 1, -1))  # (H, 1, Dh)
        heads = seen @ value.transpose(1, 2) + bias * shares.sum(dim=3, keepdim=True)  # dropped out, they sum to anything
        return self.output(heads.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return attention weights (B, H, T, L), which sum to 1 over the keys."""
        scores = self.split_heads(self.query(x)) @ keys.transpose(-1, -2) / math.sqrt(keys.shape[-1])
        return _softmax(scores, mask)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Turn scores (B, H, T, L) into shares, in float32 where they are in bfloat16."""
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32 if scores.dtype == torch.bfloat16 else None)


def pack(*layers: nn.Linear) -> Projection:
    """Join linear layers that read the same input into one projection, outputs side by side."""
    return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])


def standardise(x: Tensor) -> Tensor:
    """Subtract the mean and divide by (unbiased standard deviation + 1e-6) along the last dimension, as R2Gen does.

    A constant row gives zeros and a finite gradient: masked tokens are such rows. 16-bit values are standardised in 32 bits.
    """
    full = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    centred = full - full.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / (x.shape[-1] - 1)
    return (centred / (variance.clamp_min(LEAST_VARIANCE).sqrt() + NORM_EPS)).to(x.dtype)


class LayerNorm(nn.Module):
    """R2Gen's layer norm: :func:`standardise`, then scale and shift."""

    def __init__(self, d_model: int) -> None:
        """Start as the plain standardised value."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(d_model))
        self.beta = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.gamma * standardise(x) + self.beta


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, d_model: int, d_ff: int, dropout: float) -> None:
        """Make the block with ``d_ff`` hidden units."""
        super().__init__(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_ff, d_model))


def sinusoidal_positions(start: int, count: int, d_model: int, like: Tensor) -> Tensor:
    """Return (count, D) sine and cosine positions of tokens ``start``, ``start + 1``, ... on the device of ``like``."""
    places = torch.arange(start, start + count, device=like.device, dtype=torch.float32).unsqueeze(1)
    rates = torch.exp(torch.arange(0, d_model, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / d_model))
    angles = places * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)
