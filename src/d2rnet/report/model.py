"""D2R-Net: radiographs and boxes in, report logits out.

The decoder's memory is [patch features of all images ; lesion tokens], with a mask, as in D2R-Net (Tang et al. 2025).

Shapes: B entries, V images an entry, P patches an image, K lesions an entry, L = V P + K visual tokens, D width, T tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d2rnet.errors import ConfigError
from d2rnet.report.dataset import Batch
from d2rnet.report.decoding import Decoded, SearchOptions, beam_search
from d2rnet.report.lesion_encoder import LesionEncoder
from d2rnet.report.memory_transformer import MemoryTransformer
from d2rnet.report.visual_extractor import VisualExtractor


@dataclass
class Encoded:
    """Visual tokens after the encoder: ``tokens`` (B, L, D), ``mask`` (B, L) bool, the last ``num_lesions`` are lesions."""

    tokens: Tensor
    mask: Tensor
    num_lesions: int


class ReportModel(nn.Module):
    """Global branch, lesion branch and memory-driven Transformer."""

    def __init__(self, settings: dict[str, Any], *, num_tokens: int, num_categories: int) -> None:
        """Make the model with random weights.

        Args:
            settings: section ``report.model``.
            num_tokens: size of the vocabulary.
            num_categories: number of lesion classes.

        Raises:
            ConfigError: d_model is odd or not a multiple of the numbers of heads.
        """
        super().__init__()
        d_model = settings["d_model"]
        for key in ("num_heads", "memory_heads"):
            if d_model % settings[key] or d_model % 2:
                raise ConfigError(
                    f"report.model.d_model: got {d_model}; expected an even multiple of {key} ({settings[key]})."
                )
        self.extractor = VisualExtractor(
            backbone=settings["backbone"],
            stages=settings["backbone_stages"],
            patch_channels=settings["patch_channels"],
            attention=settings["channel_prior_attention"],
        )
        self.patch_embedding = nn.Sequential(
            nn.Linear(settings["patch_channels"], d_model), nn.ReLU(), nn.Dropout(settings["patch_dropout"])
        )
        self.lesion_encoder = None
        if settings["lesion_branch"] == "roi_align":
            self.lesion_encoder = LesionEncoder(
                channels=self.extractor.channels,
                stride=self.extractor.stride,
                roi_size=settings["lesion_roi_size"],
                d_model=d_model,
                num_categories=num_categories,
                dropout=settings["dropout"],
            )
        transformer_keys = ("d_model", "d_ff", "num_heads", "num_layers", "dropout", "memory_slots", "memory_heads")
        self.transformer = MemoryTransformer(num_tokens=num_tokens, **{key: settings[key] for key in transformer_keys})

    def encode(self, batch: Batch) -> Encoded:
        """Turn images and boxes into encoded visual tokens."""
        feature_map, patches = self.extractor(batch.pixels[batch.view_mask])  # N images that are there
        patches = self.patch_embedding(patches)  # (N, P, D)
        tokens = patches.new_zeros(*batch.view_mask.shape, *patches.shape[1:])
        tokens[batch.view_mask] = patches
        mask = batch.view_mask.unsqueeze(2).expand(-1, -1, patches.shape[1]).flatten(1)  # (B, V P)
        visual = tokens.flatten(1, 2)  # (B, V P, D)
        if self.lesion_encoder is not None:
            lesions = self.lesion_encoder(feature_map, batch)
            visual, mask = torch.cat([visual, lesions.to(visual.dtype)], dim=1), torch.cat([mask, batch.lesion_mask], dim=1)
        num_lesions = visual.shape[1] - tokens.shape[1] * tokens.shape[2]
        return Encoded(self.transformer.encode(visual, mask), mask, num_lesions)

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T - 1, W) logits of tokens 1.. given the tokens before them."""
        encoded = self.encode(batch)
        return self.transformer(encoded.tokens, encoded.mask, batch.token_ids[:, :-1])

    def generate(self, encoded: Encoded, options: SearchOptions) -> Decoded:
        """Write a report for each entry; the model must be in evaluation mode."""
        return beam_search(self.transformer, encoded.tokens, encoded.mask, options)

    def lesion_attention(self, encoded: Encoded, token_ids: Tensor) -> Tensor:
        """Return (B, T - 1, K): the share of cross-attention that each lesion gets while token t + 1 is written.

        Args:
            encoded: of :meth:`encode`.
            token_ids: (B, T) from ``<bos>`` on.
        """
        attention = self.transformer.cross_attention(encoded.tokens, encoded.mask, token_ids[:, :-1])
        return attention[..., attention.shape[-1] - encoded.num_lesions :]
