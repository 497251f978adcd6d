"""Relational memory and the norms that it conditions: what makes the decoder "memory-driven".

Source: R2Gen (Chen et al., EMNLP 2020, sec. 3.3 and 3.4), from its published description. A few memory slots are updated with
each token by attention and gates; their content shifts scale and offset of every norm in the decoder. Differs only in speed:
what depends on tokens alone is computed for all tokens at once, and the small networks of all norms are one batched product.

Shapes: B sequences, T tokens, M slots, D model width, N conditioned norms.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.report.decoder.attention import MultiHeadAttention, Projection, pack, standardise
from d2rnet.report.decoder.memory_loop import LoopWeights, advance, run_loop

MemoryWeights = tuple[Projection, LoopWeights]  # what reads tokens, what the loop over them needs


class RelationalMemory(nn.Module):
    """M slots that read each token through attention, an MLP and gates."""

    def __init__(self, d_model: int, num_slots: int, num_heads: int) -> None:
        """Make the memory; ``d_model`` is a multiple of ``num_heads``."""
        super().__init__()
        self.d_model = d_model
        self.num_slots = num_slots
        self.attention = MultiHeadAttention(d_model, num_heads)
        self.mlp = nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model), nn.ReLU())
        self.token_gates = nn.Linear(d_model, 2 * d_model)
        self.memory_gates = nn.Linear(d_model, 2 * d_model)

    def initial(self, count: int, like: Tensor) -> Tensor:
        """Return the starting memory (count, M, D): rows of the identity matrix, zero beyond its size."""
        return torch.eye(self.num_slots, self.d_model, device=like.device, dtype=like.dtype).expand(count, -1, -1)

    def packed(self) -> MemoryWeights:
        """Join what reads a token (key, value, gates) and what reads a slot (query, key, value): one product each.

        Under autocast they have its type, so that they are converted once, not at each token.
        """
        layers = cast("tuple[nn.Linear, ...]", (self.attention.output, self.mlp[0], self.mlp[2], self.memory_gates))
        parts = (
            *pack(self.attention.key, self.attention.value, self.token_gates),
            *self.attention.packed(),
            *(tensor for layer in layers for tensor in (layer.weight, layer.bias)),
        )
        device = parts[0].device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else parts[0].dtype
        weight, bias, *of_loop = (part.to(kind) for part in parts)
        return (weight, bias), LoopWeights(*of_loop)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Run over tokens.

        Args:
            tokens: (B, T, D) embedded tokens with positions, T > 0.
            memory: (B, M, D) before the first of them.

        Returns:
            (B, T, M * D) memory after each token, that token included.
        """
        of_tokens, of_loop = self.packed()
        projected = F.linear(tokens.to(of_tokens[0].dtype), *of_tokens)  # (B, T, 4 D): all tokens at once
        with torch.autocast(tokens.device.type, enabled=False):
            return run_loop(memory, projected, of_loop, self.attention.num_heads).flatten(2)

    def step(self, token: Tensor, memory: Tensor, packed: MemoryWeights) -> Tensor:
        """Take in one token (B, D): memory (B, M, D) before -> after; ``packed`` is kept from step to step."""
        of_tokens, of_loop = packed
        return advance(memory, F.linear(token, *of_tokens), of_loop, self.attention.num_heads)[0]


class MemoryConditionedNorms(nn.Module):
    """Scales and shifts of N norms, each with an offset that two 2-layer ReLU networks read from the memory."""

    def __init__(self, num_norms: int, d_model: int, num_slots: int) -> None:
        """Start as plain norms: the conditioning begins at zero."""
        super().__init__()
        self.num_norms = num_norms
        self.d_model = d_model
        self.gamma = nn.Parameter(torch.ones(num_norms, d_model))
        self.beta = nn.Parameter(torch.zeros(num_norms, d_model))
        # Networks in the order norm 0 gamma, norm 0 beta, norm 1 gamma, ...
        self.hidden = nn.Linear(num_slots * d_model, 2 * num_norms * d_model)
        self.weight = nn.Parameter(torch.zeros(2 * num_norms, d_model, d_model))  # (network, in, out)
        self.bias = nn.Parameter(torch.zeros(2 * num_norms, 1, d_model))

    def forward(self, memory: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Read the memory: (B, T, M * D) -> scales and shifts, each N of (B, T, D)."""
        batch, length = memory.shape[:2]
        hidden = self.hidden(memory).relu().view(batch * length, 2 * self.num_norms, self.d_model).transpose(0, 1)
        # The norm's own scale and shift join the bias: added to N rows, not to every token.
        bias = self.bias + torch.stack([self.gamma, self.beta], dim=1).view_as(self.bias)
        read = torch.baddbmm(bias, hidden, self.weight).view(-1, batch, length, self.d_model)
        parts = read.unbind()  # indexed, each part's gradient would be a tensor of the size of all
        return parts[0::2], parts[1::2]


def conditioned_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Standardise x (B, T, D), then apply a scale and shift of its own to each token."""
    return torch.addcmul(shift, scale, standardise(x))
