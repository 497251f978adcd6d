"""What one decoding step hands to the next: memory, and keys and values of all tokens so far.

Beams change places at every step. The cache stays where it is: each token's keys and values are kept in the place of the beam
that wrote it, all beams of a source attend to the places of all of them, and a mask says which tokens are a beam's own. Only
this mask follows the beams, thousands of times smaller than the cache.

Shapes: B sources, G beams, R = B * G rows (rows of a source adjacent), T tokens at most, H heads, Dh = D / H, M slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d2rnet.report.decoder.attention import Projection
from d2rnet.report.decoder.relational_memory import MemoryWeights

HIDDEN = float("-inf")


@dataclass
class DecoderState:
    """State of B sources times G beams.

    Attributes:
        memory: (R, M, D) relational memory.
        keys: for each layer, (B, H, T * G, Dh) keys; token t of beam g stands at t * G + g.
            Places from ``length`` on are empty.
        values: likewise.
        own: (B, G, T, G) mask to add to attention scores: 0 where place (t, g') holds token t of beam g, else -inf.
        cross: for each layer, keys and values of the visual tokens, each (B, H, L, Dh): beams share them.
        cross_mask: (B, 1, 1, L) bool.
        memory_weights: of RelationalMemory.packed.
        self_projections: for each layer, of MultiHeadAttention.packed.
        length: tokens taken in so far.
    """

    memory: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    own: Tensor
    cross: list[tuple[Tensor, Tensor]]
    cross_mask: Tensor
    memory_weights: MemoryWeights
    self_projections: list[Projection]
    length: int = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a token's keys and values, each (B, H, G, Dh), to a layer's cache; return all of them up to this token."""
        beams = keys.shape[2]
        start = self.length * beams
        end = (self.length + 1) * beams
        self.keys[layer][:, :, start:end] = keys
        self.values[layer][:, :, start:end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def own_mask(self) -> Tensor | None:
        """Return (B, 1, G, (length + 1) * G), the mask of the cache with the current token; None for a single beam."""
        if self.own.shape[1] == 1:
            return None
        return self.own[:, :, : self.length + 1].flatten(2).unsqueeze(1)

    def reorder(self, origin: Tensor) -> None:
        """Let beam g of each source go on from what its beam ``origin[:, g]`` was: (B, G)."""
        sources, beams = origin.shape
        source = torch.arange(sources, device=origin.device).unsqueeze(1)
        self.memory = self.memory[(source * beams + origin).flatten()]
        self.own[:, :, : self.length] = self.own[source, origin, : self.length]

    def keep(self, sources: Tensor) -> None:
        """Go on with some of the sources alone: ``sources`` (B',) are their places."""
        beams = self.own.shape[1]
        self.memory = self.memory.unflatten(0, (-1, beams))[sources].flatten(0, 1)
        self.keys = [keys[sources] for keys in self.keys]
        self.values = [values[sources] for values in self.values]
        self.cross = [(keys[sources], values[sources]) for keys, values in self.cross]
        self.own = self.own[sources]
        self.cross_mask = self.cross_mask[sources]


def own_places(sources: int, beams: int, max_tokens: int, like: Tensor) -> Tensor:
    """Return ``own`` before the first token: a beam will write, and see, its own place of each token."""
    mask = torch.full((beams, beams), HIDDEN, device=like.device, dtype=like.dtype).fill_diagonal_(0)
    return mask.unsqueeze(1).repeat(sources, 1, max_tokens, 1)
