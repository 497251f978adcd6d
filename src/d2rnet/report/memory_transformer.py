"""Memory-driven Transformer: visual tokens in, next-token logits out, for whole reports or one token at a time.

Source: R2Gen (Chen et al., EMNLP 2020), from its published description: pre-norm residual blocks, a final norm on both stacks,
embeddings times sqrt(D), sinusoidal positions for words and none for visual tokens. It takes visual tokens with a mask and
knows nothing of grids or image dimensions.

Shapes: B sequences, L visual tokens, T report tokens, D model width, W vocabulary size, M memory slots, G beams a source.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from d2rnet.report.attention import FeedForward, LayerNorm, MultiHeadAttention, sinusoidal_positions
from d2rnet.report.relational_memory import MemoryConditionedNorms, RelationalMemory, conditioned_norm

NORMS_PER_LAYER = 3


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each in a pre-norm residual block."""

    def __init__(self, d_model: int, d_ff: int, num_heads: int, dropout: float) -> None:
        """Make the layer."""
        super().__init__()
        self.attention = MultiHeadAttention(d_model, num_heads, dropout)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norms = nn.ModuleList([LayerNorm(d_model), LayerNorm(d_model)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) with mask (B, 1, 1, L) -> (B, L, D)."""
        normed = self.norms[0](x)
        x = x + self.dropout(self.attention(normed, self.attention.keys_values(normed), mask))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the visual tokens, feed-forward; all norms conditioned by the memory."""

    def __init__(self, d_model: int, d_ff: int, num_heads: int, dropout: float) -> None:
        """Make the layer; its norms live in MemoryConditionedNorms."""
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, num_heads, dropout)
        self.cross_attention = MultiHeadAttention(d_model, num_heads, dropout)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.dropout = nn.Dropout(dropout)


@dataclass
class DecoderState:
    """What one decoding step hands to the next; R rows are B sources times G beams, rows of a source adjacent.

    Attributes:
        memory: (R, M, D) relational memory.
        keys_values: for each layer, keys and values of the tokens so far, each (R, H, t, Dh).
        cross: for each layer, keys and values of the visual tokens, each (B, H, L, Dh): beams share them.
        cross_mask: (B, 1, 1, L) bool.
        length: t, tokens taken in so far.
    """

    memory: Tensor
    keys_values: list[tuple[Tensor, Tensor]]
    cross: list[tuple[Tensor, Tensor]]
    cross_mask: Tensor
    length: int = 0

    def reorder(self, rows: Tensor) -> None:
        """Make row r continue what row ``rows[r]`` was; rows stay with their source."""
        self.memory = self.memory[rows]
        self.keys_values = [(keys[rows], values[rows]) for keys, values in self.keys_values]


class MemoryTransformer(nn.Module):
    """Encoder over visual tokens and memory-driven decoder over report tokens."""

    def __init__(
        self,
        *,
        num_tokens: int,
        d_model: int,
        d_ff: int,
        num_heads: int,
        num_layers: int,
        dropout: float,
        memory_slots: int,
        memory_heads: int,
    ) -> None:
        """Make both stacks; see section ``report.model`` of the configuration."""
        super().__init__()
        self.d_model, self.num_heads = d_model, num_heads
        self.encoder = nn.ModuleList(EncoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers))
        self.encoder_norm = LayerNorm(d_model)
        self.decoder = nn.ModuleList(DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers))
        self.decoder_norm = LayerNorm(d_model)
        self.conditioned_norms = MemoryConditionedNorms(NORMS_PER_LAYER * num_layers, d_model, memory_slots)
        self.relational_memory = RelationalMemory(d_model, memory_slots, memory_heads)
        self.embedding = nn.Embedding(num_tokens, d_model)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(d_model, num_tokens)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def decoder_layers(self) -> Sequence[DecoderLayer]:
        """Layers of the decoder, first to last."""
        return cast("Sequence[DecoderLayer]", self.decoder)

    def encode(self, visual_tokens: Tensor, mask: Tensor) -> Tensor:
        """Mix visual tokens.

        Args:
            visual_tokens: (B, L, D).
            mask: (B, L) bool, True where there is a token; at least one a row.

        Returns:
            (B, L, D) encoded tokens; what stands at masked places has no meaning.
        """
        for layer in self.encoder:
            visual_tokens = layer(visual_tokens, mask[:, None, None])
        return self.encoder_norm(visual_tokens)

    def forward(self, encoded: Tensor, mask: Tensor, token_ids: Tensor) -> Tensor:
        """Score whole reports (teacher forcing).

        Args:
            encoded: (B, L, D) of :meth:`encode`.
            mask: (B, L) bool.
            token_ids: (B, T) from ``<bos>`` on; padding may follow at the end.

        Returns:
            (B, T, W) logits of the token after each given one; token t sees tokens 0..t.
        """
        return self.logits(self._decode(encoded, mask, token_ids)[0])

    def cross_attention(self, encoded: Tensor, mask: Tensor, token_ids: Tensor) -> Tensor:
        """Return (B, T, L): how much token position t looks at each visual token, mean over layers and heads."""
        return self._decode(encoded, mask, token_ids, record=True)[1]

    def _decode(self, encoded: Tensor, mask: Tensor, token_ids: Tensor, *, record: bool = False) -> tuple[Tensor, Tensor]:
        """Run the decoder on whole reports; ``record`` adds up cross-attention weights (else they are zeros of no size)."""
        x = self._embed(token_ids, start=0)
        memory = self.relational_memory.initial(len(x), like=x)
        scales, shifts = self.conditioned_norms(self.relational_memory(x, memory)[0])
        seen = x.new_zeros(0)
        for number, layer in enumerate(self.decoder_layers):
            first = NORMS_PER_LAYER * number
            normed = conditioned_norm(x, scales[first], shifts[first])
            x = x + layer.dropout(layer.self_attention(normed, layer.self_attention.keys_values(normed), causal=True))
            normed = conditioned_norm(x, scales[first + 1], shifts[first + 1])
            cross = layer.cross_attention.keys_values(encoded)
            if record:
                weights = layer.cross_attention.weights(normed, cross[0], mask[:, None, None]).mean(dim=1)  # (B, T, L)
                seen = weights / len(self.decoder_layers) + (seen if number else 0)
            x = x + layer.dropout(layer.cross_attention(normed, cross, mask[:, None, None]))
            normed = conditioned_norm(x, scales[first + 2], shifts[first + 2])
            x = x + layer.dropout(layer.feed_forward(normed))
        return self.decoder_norm(x), seen

    def _embed(self, token_ids: Tensor, *, start: int) -> Tensor:
        """Embed tokens at positions ``start``, ``start + 1``, ...: (B, T) -> (B, T, D)."""
        embedded = self.embedding(token_ids) * math.sqrt(self.d_model)
        return self.dropout(embedded + sinusoidal_positions(start, token_ids.shape[1], self.d_model, like=embedded))

    def start(self, encoded: Tensor, mask: Tensor, *, beams: int) -> DecoderState:
        """Prepare step-by-step decoding of G beams for each of B sources; cross keys and values are computed here, once."""
        rows, head_width = len(encoded) * beams, self.d_model // self.num_heads
        empty = encoded.new_zeros(rows, self.num_heads, 0, head_width)
        return DecoderState(
            memory=self.relational_memory.initial(rows, like=encoded),
            keys_values=[(empty, empty) for _ in self.decoder_layers],
            cross=[layer.cross_attention.keys_values(encoded) for layer in self.decoder_layers],
            cross_mask=mask[:, None, None],
        )

    def step(self, token_ids: Tensor, state: DecoderState) -> Tensor:
        """Take in one more token a row and update ``state``.

        Args:
            token_ids: (R,) the latest token of each row.
            state: of :meth:`start`, changed in place.

        Returns:
            (R, W) logits of the next token; equal to the last position of :meth:`forward` on the rows' whole prefix.
        """
        x = self._embed(token_ids.unsqueeze(1), start=state.length)  # (R, 1, D)
        memory, state.memory = self.relational_memory(x, state.memory)
        scales, shifts = self.conditioned_norms(memory)
        sources = len(state.cross_mask)
        for number, layer in enumerate(self.decoder_layers):
            first = NORMS_PER_LAYER * number
            normed = conditioned_norm(x, scales[first], shifts[first])
            x = x + layer.self_attention(normed, self._grow(state, number, layer.self_attention.keys_values(normed)))
            normed = conditioned_norm(x, scales[first + 1], shifts[first + 1])
            # The beams of a source are queries of one attention: (R, 1, D) -> (B, G, D).
            queries = normed.view(sources, -1, self.d_model)
            x = x + layer.cross_attention(queries, state.cross[number], state.cross_mask).view_as(x)
            normed = conditioned_norm(x, scales[first + 2], shifts[first + 2])
            x = x + layer.feed_forward(normed)
        state.length += 1
        return self.logits(self.decoder_norm(x)).squeeze(1)

    @staticmethod
    def _grow(state: DecoderState, layer: int, fresh: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Append the new token's keys and values to a layer's cache."""
        keys, values = state.keys_values[layer]
        state.keys_values[layer] = (torch.cat([keys, fresh[0]], dim=2), torch.cat([values, fresh[1]], dim=2))
        return state.keys_values[layer]
