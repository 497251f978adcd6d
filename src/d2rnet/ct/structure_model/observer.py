"""The observer: learnable queries, some for each structure, look at the patches of a volume.

Source: arXiv 2603.04878 as its authors' code has it: queries attend to each other and to the patches, layer by layer;
``update_patches`` lets patches do the same with the same weights. Differs: norms come before attention, padded air may be left
out, attention may begin uneven, and observations may be standardised over the batch.

Shapes: B volumes, S structures, K queries of each, P patches, D width, H heads.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.structure_model.positions import patch_positions
from d2rnet.ct.structure_model.settings import ObserverSettings
from d2rnet.errors import ConfigError
from d2rnet.report.decoder.attention import FeedForward, MultiHeadAttention
from d2rnet.training.collectives import GlobalBatchNorm, num_processes, sum_over_processes

_FEWEST = 2  # volumes of a batch that have a deviation; a single one is standardised as in evaluation


@dataclass
class Observation:
    """What the queries saw.

    Attributes:
        tokens: (B, S, K, D) observation tokens after the last layer, standardised with ``standardise``.
        patches: (B, P, D) patch tokens; updated ones with ``update_patches``.
        attention: (B, S, P) of the last layer, greatest over heads and over the K queries; 0 where nothing may be seen.
        patch_mask: (B, P) bool, False for a patch of nothing but padded air.
    """

    tokens: Tensor
    patches: Tensor
    attention: Tensor
    patch_mask: Tensor


class ObserverLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each in a pre-norm residual block."""

    def __init__(self, settings: ObserverSettings) -> None:
        """Make the layer."""
        super().__init__()
        width = settings.d_model
        self.self_attention = MultiHeadAttention(width, settings.num_heads, settings.dropout)
        self.cross_attention = MultiHeadAttention(width, settings.num_heads, settings.dropout)
        self.feed_forward = FeedForward(width, settings.d_ff, settings.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor, other: Tensor, x_mask: Tensor | None, other_mask: Tensor | None) -> Tensor:
        """(B, T, D) looks at itself and at (B, L, D); masks (B, 1, 1, T or L) -> (B, T, D)."""
        normed = self.norms[0](x)
        x = x + self.dropout(self.self_attention(normed, self.self_attention.keys_values(normed), x_mask))
        x = x + self.dropout(self.cross_attention.over(self.norms[1](x), self.norms[2](other), other_mask))
        return x + self.dropout(self.feed_forward(self.norms[3](x)))

    def cross_weights(self, x: Tensor, other: Tensor, x_mask: Tensor | None, other_mask: Tensor | None) -> Tensor:
        """Return (B, H, T, L): the shares of attention that :meth:`forward` gives in evaluation mode."""
        normed = self.norms[0](x)
        x = x + self.self_attention(normed, self.self_attention.keys_values(normed), x_mask)
        keys, _ = self.cross_attention.keys_values(self.norms[2](other))
        return self.cross_attention.weights(self.norms[1](x), keys, other_mask)


class Observer(nn.Module):
    """Queries of structures over the patches of a volume."""

    def __init__(self, settings: ObserverSettings, *, num_structures: int, patch_width: int) -> None:
        """Make the observer with random weights.

        Args:
            settings: section ``ct.structure_model.model.observer``.
            num_structures: S.
            patch_width: width of the encoder's patch embeddings.

        Raises:
            ConfigError: heads do not divide the width.
        """
        super().__init__()
        if settings.d_model % settings.num_heads or settings.d_model % 2:
            got = f"{settings.d_model} with num_heads {settings.num_heads}"
            raise ConfigError(f"{settings.place}.d_model: got {got}; expected an even multiple of it.")
        self.settings = settings
        self.project = nn.Linear(patch_width, settings.d_model, bias=False)
        self.queries = nn.Parameter(torch.randn(num_structures, settings.queries_per_structure, settings.d_model) * 0.02)
        self.layers = nn.ModuleList(ObserverLayer(settings) for _ in range(settings.num_layers))
        with torch.no_grad():
            for number in range(settings.num_layers):
                for parameter in self._layer(number).cross_attention.query.parameters():
                    parameter.mul_(settings.attention_start)
        self.norm = nn.LayerNorm(settings.d_model)
        channels = num_structures * settings.queries_per_structure * settings.d_model
        self.standardise = GlobalBatchNorm(channels) if settings.standardise else None

    def finish(self, queries: Tensor) -> Tensor:
        """(B, S * K, D) behind the last layer -> (B, S, K, D) tokens; all processes of a training step call it."""
        structures, per_structure, _ = self.queries.shape
        tokens = self.norm(queries).unflatten(1, (structures, per_structure))
        if self.standardise is None:
            return tokens
        channels = tokens.flatten(1)[..., None, None]  # (B, S * K * D, 1, 1)
        norm = self.standardise
        if self.training and _volumes_of_all(tokens) < _FEWEST:
            finished = F.batch_norm(channels, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        else:
            finished = norm(channels)
        return finished.view_as(tokens)

    def forward(self, embeddings: Tensor, grid_zyx: tuple[int, int, int], patch_mask: Tensor) -> Observation:
        """Look at patches.

        Args:
            embeddings: (B, P, W) of the encoder.
            grid_zyx: patches along each axis.
            patch_mask: (B, P) bool, True where there is something to see.
        """
        queries, patches, seen = self._before_last(embeddings, grid_zyx, patch_mask)
        with torch.no_grad():
            attention = self._layer(-1).cross_weights(queries, patches, None, seen[:, None, None])
        of_query = attention.amax(dim=1).unflatten(1, self.queries.shape[:2])  # (B, S, K, P)
        queries, patches = self._through(self._layer(-1), queries, patches, seen)
        return Observation(
            tokens=self.finish(queries),
            patches=patches,
            attention=of_query.amax(dim=2),
            patch_mask=seen,
        )

    def tokens(self, embeddings: Tensor, grid_zyx: tuple[int, int, int], patch_mask: Tensor) -> Tensor:
        """Return (B, S, K, D): only the tokens of :meth:`forward`, which are all that training needs."""
        queries, patches, seen = self._before_last(embeddings, grid_zyx, patch_mask)
        return self.finish(self._layer(-1)(queries, patches, None, seen[:, None, None]))

    def _layer(self, place: int) -> ObserverLayer:
        return cast(ObserverLayer, self.layers[place])

    def _before_last(
        self, embeddings: Tensor, grid_zyx: tuple[int, int, int], patch_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, S * K, D) and patches (B, P, D) behind all layers but the last; (B, P), what may be looked at."""
        seen = patch_mask if self.settings.mask_air else torch.ones_like(patch_mask)
        patches = self.project(embeddings)
        if self.settings.positions:
            patches = patches + patch_positions(grid_zyx, patches.shape[-1], like=patches)
        queries = self.queries.flatten(0, 1).expand(len(patches), -1, -1)
        for number in range(len(self.layers) - 1):
            queries, patches = self._through(self._layer(number), queries, patches, seen)
        return queries, patches, seen

    def _through(self, layer: ObserverLayer, queries: Tensor, patches: Tensor, patch_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pass queries (B, S * K, D) and, with ``update_patches``, patches (B, P, D) through a layer."""
        seen = patch_mask[:, None, None]  # (B, 1, 1, P)
        updated: Tensor = layer(queries, patches, None, seen)
        if self.settings.update_patches:
            patches = layer(patches, queries, seen, None)
        return updated, patches


def _volumes_of_all(tokens: Tensor) -> int:
    """Count the volumes of all processes' batches."""
    own = len(tokens)
    return own if num_processes() == 1 else int(sum_over_processes(torch.tensor(own, device=tokens.device)))
