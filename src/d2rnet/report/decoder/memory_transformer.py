"""Memory-driven Transformer: visual tokens in, next-token logits out, for whole reports or one token at a time.

Source: R2Gen (Chen et al., EMNLP 2020), from its published description: pre-norm residual blocks, a final norm on both stacks,
embeddings times sqrt(D), sinusoidal positions for words and none for visual tokens. It takes visual tokens with a mask and
knows nothing of grids or image dimensions.

Shapes: B sources, L visual tokens, T report tokens, D model width, W vocabulary size, G beams a source, R = B * G rows.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.report.decoder.attention import FeedForward, LayerNorm, MultiHeadAttention, sinusoidal_positions
from d2rnet.report.decoder.decoder_state import DecoderState, own_places
from d2rnet.report.decoder.relational_memory import MemoryConditionedNorms, RelationalMemory, conditioned_norm

NORMS_PER_LAYER = 3


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each in a pre-norm residual block."""

    def __init__(
        self, d_model: int, d_ff: int, num_heads: int, dropout: float, attention_dropout: float | None = None
    ) -> None:
        """Make the layer."""
        super().__init__()
        self.attention = MultiHeadAttention(d_model, num_heads, dropout if attention_dropout is None else attention_dropout)
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

    def __init__(
        self, d_model: int, d_ff: int, num_heads: int, dropout: float, attention_dropout: float | None = None
    ) -> None:
        """Make the layer; its norms live in MemoryConditionedNorms."""
        super().__init__()
        of_attention = dropout if attention_dropout is None else attention_dropout
        self.self_attention = MultiHeadAttention(d_model, num_heads, of_attention)
        self.cross_attention = MultiHeadAttention(d_model, num_heads, of_attention)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.dropout = nn.Dropout(dropout)


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
        attention_dropout: float | None = None,
    ) -> None:
        """Make both stacks; see sections ``report.model`` of the wings. No ``attention_dropout``: ``dropout``, there too."""
        super().__init__()
        self.d_model = d_model
        self.num_heads = num_heads
        sizes = (d_model, d_ff, num_heads, dropout, attention_dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(num_layers))
        self.encoder_norm = LayerNorm(d_model)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(num_layers))
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

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights: float32, or bfloat16 for faster decoding."""
        return self.embedding.weight.dtype

    def encode(self, visual_tokens: Tensor, mask: Tensor) -> Tensor:
        """Mix visual tokens.

        Args:
            visual_tokens: (B, L, D).
            mask: (B, L) bool, True where there is a token; at least one per row.

        Returns:
            (B, L, D) encoded tokens in the type of the weights; what stands at masked places has no meaning.
        """
        if self.dtype != torch.float32:  # under autocast weights stay float32, and tokens have the type that autocast chose
            visual_tokens = visual_tokens.to(self.dtype)
        for layer in self.encoder:
            visual_tokens = layer(visual_tokens, mask[:, None, None])
        return self.encoder_norm(visual_tokens)

    def forward(self, encoded: Tensor, mask: Tensor, token_ids: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Score whole reports (teacher forcing).

        Args:
            encoded: (B, L, D) of :meth:`encode`.
            mask: (B, L) bool.
            token_ids: (B, T) from ``<bos>`` on; padding may follow at the end.
            token_mask: (B, T) bool, True where later tokens may look; the first must be True. None: everywhere.

        Returns:
            (B, T, W) logits of the token after each given one; token t sees tokens 0..t.
        """
        return self.logits(self.decode(encoded, mask, token_ids, token_mask)[0])

    def cross_attention(self, encoded: Tensor, mask: Tensor, token_ids: Tensor) -> Tensor:
        """Return (B, T, L): how much token position t looks at each visual token, mean over layers and heads."""
        return self.decode(encoded, mask, token_ids, recorded=range(len(self.decoder_layers)))[1]

    def decode(
        self,
        encoded: Tensor,
        mask: Tensor,
        token_ids: Tensor,
        token_mask: Tensor | None = None,
        *,
        recorded: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor]:
        """Run the decoder on whole prefixes; arguments as in :meth:`forward`, but a source may have several rows.

        Args:
            encoded: (B, L, D).
            mask: (B, L) bool.
            token_ids: (R, T), R = B * G rows, rows of a source adjacent.
            token_mask: (R, T) bool or None.
            recorded: the layers of whose cross-attention the mean is returned, by their place, ascending.

        Returns:
            (R, T, D) normed features that the logits are read from, and (R, T, L) cross-attention, mean over heads, too (of
            no size where no layer is recorded).
        """
        x = self._embed(token_ids, start=0)
        memory = self.relational_memory.initial(len(x), like=x)
        scales, shifts = self.conditioned_norms(self.relational_memory(x, memory))
        seen = x.new_zeros(0)
        visible = _causal_mask(token_mask)
        cross_mask = mask[:, None, None]
        for number, layer in enumerate(self.decoder_layers):
            first = NORMS_PER_LAYER * number
            normed = conditioned_norm(x, scales[first], shifts[first])
            keys_values = layer.self_attention.keys_values(normed)
            x = x + layer.dropout(layer.self_attention(normed, keys_values, visible, causal=visible is None))
            normed = conditioned_norm(x, scales[first + 1], shifts[first + 1])
            # The rows of a source are queries of one attention: (R, T, D) -> (B, G T, D).
            queries = normed.view(len(encoded), -1, self.d_model)
            cross = layer.cross_attention.keys_values(encoded)
            if number in recorded:
                weights = layer.cross_attention.weights(queries, cross[0], cross_mask).mean(dim=1)  # (B, G T, L)
                seen = weights.view(*x.shape[:2], -1) / len(recorded) + (seen if number != recorded[0] else 0)
            x = x + layer.dropout(layer.cross_attention(queries, cross, cross_mask).view_as(x))
            normed = conditioned_norm(x, scales[first + 2], shifts[first + 2])
            x = x + layer.dropout(layer.feed_forward(normed))
        return self.decoder_norm(x), seen

    def _embed(self, token_ids: Tensor, *, start: int) -> Tensor:
        """Embed tokens at positions ``start``, ``start + 1``, ...: (B, T) -> (B, T, D)."""
        embedded = self.embedding(token_ids) * math.sqrt(self.d_model)
        return self.dropout(embedded + sinusoidal_positions(start, token_ids.shape[1], self.d_model, like=embedded))

    @torch.no_grad()
    def start(self, encoded: Tensor, mask: Tensor, *, beams: int, max_tokens: int) -> DecoderState:
        """Prepare step-by-step decoding of at most ``max_tokens`` tokens for G beams of each of B sources.

        Done here, once: keys and values of the visual tokens, and joined weights. The cache takes
        2 * layers * B * G * ``max_tokens`` * D numbers.
        """
        sources = len(encoded)
        cache_shape = (sources, self.num_heads, max_tokens * beams, self.d_model // self.num_heads)
        return DecoderState(
            memory=self.relational_memory.initial(sources * beams, like=encoded),
            keys=[encoded.new_empty(cache_shape) for _ in self.decoder_layers],
            values=[encoded.new_empty(cache_shape) for _ in self.decoder_layers],
            own=own_places(sources, beams, max_tokens, like=encoded),
            cross=[layer.cross_attention.keys_values(encoded) for layer in self.decoder_layers],
            cross_mask=mask[:, None, None],
            memory_weights=self.relational_memory.packed(),
            self_projections=[layer.self_attention.packed() for layer in self.decoder_layers],
        )

    @torch.no_grad()
    def step(self, token_ids: Tensor, state: DecoderState) -> Tensor:
        """Take in one more token per row and update ``state``.

        Args:
            token_ids: (R,) the latest token of each row.
            state: of :meth:`start`, changed in place.

        Returns:
            (R, W) logits of the next token; equal to the last position of :meth:`forward` on the rows' whole prefix.
        """
        x = self._embed(token_ids.unsqueeze(1), start=state.length)  # (R, 1, D)
        state.memory = self.relational_memory.step(x.squeeze(1), state.memory, state.memory_weights)
        # The beams of a source are queries of one attention: (R, 1, D) -> (B, G, D).
        by_source = (len(state.cross_mask), -1, self.d_model)
        x = x.view(by_source)
        read = self.conditioned_norms(state.memory.flatten(1).unsqueeze(1))
        scales, shifts = ([values.view_as(x) for values in of_norms] for of_norms in read)
        own = state.own_mask()
        for number, layer in enumerate(self.decoder_layers):
            first = NORMS_PER_LAYER * number
            normed = conditioned_norm(x, scales[first], shifts[first])
            projected = F.linear(normed, *state.self_projections[number]).chunk(3, dim=-1)
            query, keys, values = map(layer.self_attention.split_heads, projected)  # (B, H, G, Dh)
            x = x + layer.self_attention.attend(query, state.append(number, keys, values), own)
            normed = conditioned_norm(x, scales[first + 1], shifts[first + 1])
            x = x + layer.cross_attention(normed, state.cross[number], state.cross_mask)
            normed = conditioned_norm(x, scales[first + 2], shifts[first + 2])
            x = x + layer.feed_forward(normed)
        state.length += 1
        return self.logits(self.decoder_norm(x)).flatten(0, 1)


def _causal_mask(token_mask: Tensor | None) -> Tensor | None:
    """Turn (R, T) into (R, 1, T, T): token t sees those of 0..t that may be seen."""
    if token_mask is None:
        return None
    length = token_mask.shape[1]
    return token_mask[:, None, None] & torch.ones(length, length, dtype=torch.bool, device=token_mask.device).tril()
