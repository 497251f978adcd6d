"""D2R-Net: radiographs and boxes in, report logits out.

The decoder's memory is [patch features of all images ; lesion tokens], with a mask, as in D2R-Net (Tang et al. 2025).

Shapes: B entries, V images an entry, P patches an image, K lesions an entry, L = V P + K visual tokens, D width, T tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn

from d2rnet.cxr.report_model.dataset import Batch
from d2rnet.cxr.report_model.lesion_encoder import make_lesion_encoder
from d2rnet.cxr.report_model.visual_extractor import VisualExtractor
from d2rnet.errors import ConfigError
from d2rnet.report.decoder.beam_search import Decoded, SearchOptions, beam_search
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.interface import Encoded, VisualTokens


class ReportModel(nn.Module):
    """Global branch, lesion branch and memory-driven Transformer."""

    def __init__(self, settings: dict[str, Any], *, num_tokens: int, num_categories: int) -> None:
        """Make the model with random weights.

        Args:
            settings: section ``cxr.report.model``.
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
                    f"cxr.report.model.d_model: got {d_model}; expected an even multiple of {key} ({settings[key]})."
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
        self.lesion_encoder = make_lesion_encoder(
            settings, channels=self.extractor.channels, stride=self.extractor.stride, num_categories=num_categories
        )
        transformer_keys = ("d_model", "d_ff", "num_heads", "num_layers", "dropout", "memory_slots", "memory_heads")
        self.transformer = MemoryTransformer(num_tokens=num_tokens, **{key: settings[key] for key in transformer_keys})

    def look(self, batch: Batch) -> VisualTokens:
        """Run both visual branches."""
        feature_map, found = self.extractor(batch.pixels[batch.view_mask])  # N images that are there
        embedded = self.patch_embedding(found)  # (N, P, D)
        patches, tokens = _of_entries(found, batch.view_mask), _of_entries(embedded, batch.view_mask)
        patch_mask = batch.view_mask.repeat_interleave(found.shape[1], dim=1)  # (B, V P)
        lesions, lesion_mask = tokens[:, :0], patch_mask[:, :0]
        if self.lesion_encoder is not None:
            lesions, lesion_mask = self.lesion_encoder(feature_map, batch), batch.lesion_mask
        return VisualTokens(
            patches=patches,
            patch_mask=patch_mask,
            lesions=lesions,
            lesion_mask=lesion_mask,
            tokens=torch.cat([tokens, lesions.to(tokens.dtype)], dim=1),
            mask=torch.cat([patch_mask, lesion_mask], dim=1),
        )

    def encode(self, batch: Batch) -> Encoded:
        """Turn images and boxes into encoded visual tokens."""
        return self.encode_tokens(self.look(batch))

    def encode_tokens(self, visual: VisualTokens) -> Encoded:
        """Run the encoder over what :meth:`look` returns."""
        return Encoded(self.transformer.encode(visual.tokens, visual.mask), visual.mask, visual.lesions.shape[1])

    def logits(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Return (B, T - 1, W) logits of tokens 1.. given the tokens before them."""
        return self.transformer(encoded.tokens, encoded.mask, batch.token_ids[:, :-1])

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T - 1, W) logits of tokens 1.. given the tokens before them."""
        return self.logits(self.encode(batch), batch)

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


def _of_entries(features: Tensor, view_mask: Tensor) -> Tensor:
    """Sort features of images into entries: (N, P, C) and mask (B, V) -> (B, V P, C), zero for absent images."""
    sorted_features = features.new_zeros(*view_mask.shape, *features.shape[1:])
    sorted_features[view_mask] = features
    return sorted_features.flatten(1, 2)
