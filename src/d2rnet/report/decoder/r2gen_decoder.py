"""R2Gen's decoder with R2Gen's weights: patch features in, reports as R2Gen's token ids out.

Source: R2Gen (Chen et al., EMNLP 2020). The arithmetic is that of our own MemoryTransformer, which follows R2Gen's layers;
what differs is the meaning of the ids: 0 is padding, start and end in one, 1.. are the words, none is held back.

Shapes: B studies, L patches (R2Gen: 49 an image), P patch width, T tokens, V words.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from d2rnet.errors import CheckpointError
from d2rnet.report.decoder.beam_search import SearchOptions, beam_search
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.r2gen_keys import R2GenShape, decoder_part, infer_shape, translate
from d2rnet.report.text.vocabulary import SpecialIds

R2GEN_IDS = SpecialIds(padding=0, start=0, end=0, never_written=())
R2GEN_DROPOUT = 0.1
R2GEN_PATCH_DROPOUT = 0.5


class R2GenDecoder(nn.Module):
    """Projection of patch features, encoder and memory-driven decoder."""

    def __init__(self, shape: R2GenShape, *, num_heads: int, memory_heads: int) -> None:
        """Make the network with random weights.

        Raises:
            CheckpointError: the width is no multiple of the numbers of heads, which a state dict does not tell.
        """
        super().__init__()
        for name, heads in (("num_heads", num_heads), ("memory_heads", memory_heads)):
            if heads < 1 or shape.d_model % heads:
                raise CheckpointError(
                    f"state dict: width {shape.d_model} is no multiple of {name} {heads}; expected the number of heads that "
                    "the model was trained with (8 unless it was changed)."
                )
        self.shape = shape
        self.num_heads = num_heads
        self.memory_heads = memory_heads
        self.patch_embedding = nn.Sequential(
            nn.Linear(shape.patch_width, shape.d_model), nn.ReLU(), nn.Dropout(R2GEN_PATCH_DROPOUT)
        )
        self.transformer = MemoryTransformer(
            num_tokens=shape.num_tokens,
            d_model=shape.d_model,
            d_ff=shape.d_ff,
            num_heads=num_heads,
            num_layers=shape.num_layers,
            dropout=R2GEN_DROPOUT,
            memory_slots=shape.memory_slots,
            memory_heads=memory_heads,
        )

    def log_probs(self, patch_features: Tensor, token_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score given reports (teacher forcing).

        Args:
            patch_features: (B, L, P) of the image network.
            token_ids: (B, T), T > 1, from the start token 0 on, 0 after the report. Later tokens do not look at a 0
                other than the first; the memory takes it in like any token.
            mask: (B, L) bool, True where there is a patch; None: everywhere.

        Returns:
            (B, T - 1, V + 1) log-probabilities of the token after each of the first T - 1.
        """
        if token_ids.ndim != 2 or token_ids.shape[1] < 2 or len(token_ids) != len(patch_features):
            raise ValueError(
                f"token_ids: got shape {tuple(token_ids.shape)} for {len(patch_features)} studies; expected (B, T) with "
                "T > 1: the start token 0 and the report."
            )
        encoded, mask = self._encode(patch_features, mask)
        given = token_ids[:, :-1]
        visible = given > 0
        visible[:, 0] = True
        return self.transformer(encoded, mask, given, visible).log_softmax(dim=-1)

    @torch.no_grad()
    def generate(
        self, patch_features: Tensor, max_tokens: int, beam_size: int, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Write reports by beam search; the network must be in evaluation mode.

        Args:
            patch_features: (B, L, P) of the image network.
            max_tokens: most tokens of a report, end token counted.
            beam_size: beams; 1 is greedy. R2Gen's own greedy mode may also block repeated trigrams; this one does not.
            mask: (B, L) bool, True where there is a patch; None: everywhere.

        Returns:
            (B, max_tokens) ids without start token, 0 from the end on, and (B,) sums of log-probabilities, end included.
        """
        encoded, mask = self._encode(patch_features, mask)
        options = SearchOptions(beam_size=beam_size, max_tokens=max_tokens, ids=R2GEN_IDS)
        decoded = beam_search(self.transformer, encoded, mask, options)
        return decoded.token_ids, decoded.log_probs

    def _encode(self, patch_features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embed and encode patches; return them with their mask."""
        if patch_features.ndim != 3 or patch_features.shape[2] != self.shape.patch_width:
            raise ValueError(
                f"patch_features: got shape {tuple(patch_features.shape)}; expected (B, L, {self.shape.patch_width})."
            )
        if mask is None:
            mask = torch.ones(patch_features.shape[:2], dtype=torch.bool, device=patch_features.device)
        return self.transformer.encode(self.patch_embedding(patch_features), mask), mask


def load_r2gen_decoder(state_dict: Mapping[str, Tensor], num_heads: int = 8, memory_heads: int = 8) -> R2GenDecoder:
    """Make R2Gen's decoder from its weights; all sizes are read from the shapes.

    Args:
        state_dict: of R2Gen's ``encoder_decoder`` or of the whole model; the position table may be absent.
        num_heads: attention heads, which no shape tells.
        memory_heads: attention heads of the relational memory.

    Returns:
        The decoder in evaluation mode, on the CPU, in float32.

    Raises:
        CheckpointError: keys are missing or unexpected (both listed), shapes or heads do not fit.
    """
    state = decoder_part(state_dict)
    shape = infer_shape(state)
    decoder = R2GenDecoder(shape, num_heads=num_heads, memory_heads=memory_heads)
    decoder.load_state_dict(translate(state, shape, decoder.state_dict()), strict=True)
    return decoder.eval()
