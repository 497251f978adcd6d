"""Relational memory and the norms that it conditions: what makes the decoder "memory-driven".

Source: R2Gen (Chen et al., EMNLP 2020, sec. 3.3 and 3.4), from its published description. A few memory slots are updated with
each token by attention and gates; their content shifts scale and offset of every norm in the decoder. Differs only in speed:
what depends on tokens alone is computed for all tokens at once, and the small networks of all norms are one batched product.

Shapes: B sequences, T tokens, M slots, D model width, N conditioned norms.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.report.attention import MultiHeadAttention, Projection, pack, standardise


class RelationalMemory(nn.Module):
    """M slots that read each token through attention, an MLP and gates."""

    def __init__(self, d_model: int, num_slots: int, num_heads: int) -> None:
        """Make the memory; ``d_model`` is a multiple of ``num_heads``."""
        super().__init__()
        self.d_model, self.num_slots = d_model, num_slots
        self.attention = MultiHeadAttention(d_model, num_heads)
        self.mlp = nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_model), nn.ReLU())
        self.token_gates = nn.Linear(d_model, 2 * d_model)
        self.memory_gates = nn.Linear(d_model, 2 * d_model)

    def initial(self, count: int, like: Tensor) -> Tensor:
        """Return the starting memory (count, M, D): rows of the identity matrix, zero beyond its size."""
        return torch.eye(self.num_slots, self.d_model, device=like.device, dtype=like.dtype).expand(count, -1, -1)

    def packed(self) -> tuple[Projection, Projection]:
        """Join what reads a slot (query, key, value) and what reads a token (key, value, gates): one product each."""
        return self.attention.packed(), pack(self.attention.key, self.attention.value, self.token_gates)

    def forward(
        self, tokens: Tensor, memory: Tensor, packed: tuple[Projection, Projection] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run over tokens.

        Args:
            tokens: (B, T, D) embedded tokens with positions.
            memory: (B, M, D) before the first of them.
            packed: of :meth:`packed`, where it is kept from call to call.

        Returns:
            (B, T, M * D) memory after each token, that token included, and (B, M, D) the last one.
        """
        of_slots, of_tokens = packed or self.packed()
        split = self.attention.split_heads
        keys, values, gates = F.linear(tokens, *of_tokens).split([self.d_model, self.d_model, 2 * self.d_model], dim=-1)
        parts = (
            split(keys).split(1, 2),
            split(values).split(1, 2),
            gates.split(1, 1),
        )  # a token each: (B, H, 1, Dh), (B, 1, 2 D)
        states = []
        for token_keys, token_values, token_gates in zip(*parts, strict=True):
            query, slot_keys, slot_values = map(split, F.linear(memory, *of_slots).chunk(3, dim=-1))
            source = torch.cat([slot_keys, token_keys], dim=2), torch.cat([slot_values, token_values], dim=2)
            proposal = memory + self.attention.attend(query, source)
            memory = self._gate(memory, proposal + self.mlp(proposal), token_gates)
            states.append(memory.flatten(1))
        return torch.stack(states, dim=1), memory

    def _gate(self, memory: Tensor, proposal: Tensor, token_gates: Tensor) -> Tensor:
        """Mix old and new slots (B, M, D); the token's part of the gates (B, 1, 2 D) is the same for all slots."""
        input_gate, forget_gate = (token_gates + self.memory_gates(memory.tanh())).sigmoid().chunk(2, dim=-1)
        return input_gate * proposal.tanh() + forget_gate * memory


class MemoryConditionedNorms(nn.Module):
    """Scales and shifts of N norms, each with an offset that two 2-layer ReLU networks read from the memory."""

    def __init__(self, num_norms: int, d_model: int, num_slots: int) -> None:
        """Start as plain norms: the conditioning begins at zero."""
        super().__init__()
        self.num_norms, self.d_model = num_norms, d_model
        self.gamma, self.beta = nn.Parameter(torch.ones(num_norms, d_model)), nn.Parameter(torch.zeros(num_norms, d_model))
        # Networks in the order norm 0 gamma, norm 0 beta, norm 1 gamma, ...
        self.hidden = nn.Linear(num_slots * d_model, 2 * num_norms * d_model)
        self.weight = nn.Parameter(torch.zeros(2 * num_norms, d_model, d_model))  # (network, in, out)
        self.bias = nn.Parameter(torch.zeros(2 * num_norms, 1, d_model))

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Read the memory: (B, T, M * D) -> scales and shifts, each (N, B, T, D)."""
        batch, length = memory.shape[:2]
        hidden = self.hidden(memory).relu().view(batch * length, 2 * self.num_norms, self.d_model).transpose(0, 1)
        # The norm's own scale and shift join the bias: added to N rows, not to every token.
        bias = self.bias + torch.stack([self.gamma, self.beta], dim=1).view_as(self.bias)
        read = torch.baddbmm(bias, hidden, self.weight).view(self.num_norms, 2, batch, length, self.d_model)
        return read[:, 0], read[:, 1]


def conditioned_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Standardise x (B, T, D), then apply a scale and shift of its own to each token."""
    return scale * standardise(x) + shift
