"""What the report stage asks of a front end: visual tokens with a mask, whatever they were made from.

A front end is a :class:`ReportModel` that knows how to look at its own batches, a data set of these batches, and a
:class:`FrontEnd` that makes the model again from the settings in a model folder. Training, validation, generation and model
folders know nothing else of it.

Shapes: B entries, L visual tokens (padded), R regions among them, D width, T token ids (padded), W words of the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from d2rnet.errors import ConfigError
from d2rnet.report.decoder.beam_search import Decoded, Loss, SearchOptions, beam_search
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.llm.decoder import LlmDecoder
from d2rnet.report.settings import DecoderSettings
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.settings import Section


class Batch(Protocol):
    """Padded entries.

    Attributes:
        token_ids: (B, T) int64 from ``<bos>`` on, ``<pad>`` behind the report.
        entry_numbers: (B,) int64, place of each entry in its split.
    """

    token_ids: Tensor
    entry_numbers: Tensor

    def to(self, device: torch.device | str) -> Self:
        """Copy to a device."""

    def __len__(self) -> int:
        """Return the number of entries; 0 where several processes share fewer entries than there are processes."""


@dataclass
class VisualTokens:
    """What a front end sees, before the encoder: ``tokens`` (B, L, D) and ``mask`` (B, L) bool, True where there is one."""

    tokens: Tensor
    mask: Tensor


@dataclass
class Encoded:
    """Visual tokens after the encoder.

    Attributes:
        tokens: (B, L, D).
        mask: (B, L) bool.
        num_regions: R, the last R tokens stand for regions that a sentence may refer to, such as boxes; 0: none do.
        findings: (B, C) logits of what the encoder finds; None where nothing asks it.
    """

    tokens: Tensor
    mask: Tensor
    num_regions: int
    findings: Tensor | None = None


class ReportModel(nn.Module):
    """A front end and the decoder behind it, the memory-driven Transformer or a language model.

    A subclass makes both and says how to look.
    """

    transformer: MemoryTransformer | LlmDecoder

    def look(self, batch: Any) -> VisualTokens:
        """Turn a batch into visual tokens."""
        raise NotImplementedError

    def num_regions(self, visual: Any) -> int:
        """Return how many of the last tokens stand for regions."""
        return 0

    def visual_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that make the visual tokens: all but those of the decoder."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("transformer.")]

    def encode(self, batch: Any) -> Encoded:
        """Turn a batch into encoded visual tokens."""
        return self.encode_tokens(self.look(batch))

    def encode_tokens(self, visual: Any) -> Encoded:
        """Run the encoder over what :meth:`look` returns."""
        return Encoded(self.transformer.encode(visual.tokens, visual.mask), visual.mask, self.num_regions(visual))

    def logits(self, encoded: Encoded, token_ids: Tensor) -> Tensor:
        """Return (B, T - 1, W) logits of tokens 1.. given the tokens before them."""
        return self.transformer(encoded.tokens, encoded.mask, token_ids[:, :-1])

    def logits_and_look(self, encoded: Encoded, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return :meth:`logits`, and (B, T - 1, R): the last layer's cross-attention to each region, mean over heads."""
        assert isinstance(self.transformer, MemoryTransformer)  # a language model has no cross-attention
        last = len(self.transformer.decoder_layers) - 1
        features, attention = self.transformer.decode(encoded.tokens, encoded.mask, token_ids[:, :-1], recorded=[last])
        return self.transformer.logits(features), _to_regions(attention, encoded)

    def forward(self, batch: Any) -> Tensor:
        """Return (B, T - 1, W) logits of tokens 1.. given the tokens before them."""
        return self.logits(self.encode(batch), batch.token_ids)

    def generate(self, encoded: Encoded, options: SearchOptions, loss: Loss | None = None) -> Decoded:
        """Write a report for each entry; the model must be in evaluation mode.

        Args:
            encoded: of :meth:`encode`.
            options: of the search.
            loss: says what finished reports lose in it; a language model has its own search, which takes none.
        """
        if isinstance(self.transformer, LlmDecoder):
            return self.transformer.search(encoded.tokens, encoded.mask, options)
        return beam_search(self.transformer, encoded.tokens, encoded.mask, options, loss)

    def region_attention(self, encoded: Encoded, token_ids: Tensor) -> Tensor:
        """Return (B, T - 1, R): the share of cross-attention that each region gets while token t + 1 is written.

        Args:
            encoded: of :meth:`encode`.
            token_ids: (B, T) from ``<bos>`` on.
        """
        assert isinstance(self.transformer, MemoryTransformer)  # a language model has no cross-attention
        attention = self.transformer.cross_attention(encoded.tokens, encoded.mask, token_ids[:, :-1])
        return _to_regions(attention, encoded)


def _to_regions(attention: Tensor, encoded: Encoded) -> Tensor:
    """Take of attention to all visual tokens (B, T - 1, L) that to the regions, the last ones: (B, T - 1, R)."""
    return attention[..., attention.shape[-1] - encoded.num_regions :]


def make_transformer(settings: DecoderSettings, num_tokens: int) -> MemoryTransformer:
    """Make the Transformer with random weights.

    Raises:
        ConfigError: d_model is odd or not a multiple of the numbers of heads.
    """
    for key, heads in (("num_heads", settings.num_heads), ("memory_heads", settings.memory_heads)):
        if settings.d_model % heads or settings.d_model % 2:
            raise ConfigError(
                f"{settings.place}.d_model: got {settings.d_model}; expected an even multiple of {key} ({heads})."
            )
    return MemoryTransformer(
        num_tokens=num_tokens,
        d_model=settings.d_model,
        d_ff=settings.d_ff,
        num_heads=settings.num_heads,
        num_layers=settings.num_layers,
        dropout=settings.dropout,
        memory_slots=settings.memory_slots,
        memory_heads=settings.memory_heads,
        attention_dropout=settings.attention_dropout,
    )


@dataclass(frozen=True)
class FrontEnd:
    """How a model folder becomes a model again.

    Attributes:
        settings: section with the parts ``text``, ``model`` and ``training``.
        facts: keys of the folder's config.yaml that the front end needs beside them, such as its class table.
        later_facts: such keys that folders of earlier versions lack; None stands for one that is not there.
        command: sub-command that makes the folder.
    """

    settings: type[Section]
    facts: tuple[str, ...] = ()
    later_facts: tuple[str, ...] = ()
    command: str = "train-report-model"

    def tokens(self, vocabulary: Vocabulary, settings: Any, *, facts: Mapping[str, Any], source: Path) -> ReportTokens:
        """Return what the token ids of a trained model mean: the vocabulary, unless a decoder brings its own tokens.

        Args:
            vocabulary: of the model folder.
            settings: what it was trained with.
            facts: those of ``facts``, as config.yaml has them.
            source: that file, for messages.

        Raises:
            FileNotFoundError: a folder that the model needs beside its own is missing.
            CheckpointError: it is not the one that the model was trained with.
        """
        return vocabulary

    def make_model(self, settings: Any, *, num_tokens: int, facts: Mapping[str, Any]) -> ReportModel:
        """Make the model with random weights.

        Args:
            settings: what it was trained with.
            num_tokens: W.
            facts: those of ``facts``, as config.yaml has them.

        Raises:
            CheckpointError: a fact is not what the front end writes; the message needs no file name.
            ConfigError: the settings do not go together.
        """
        raise NotImplementedError
