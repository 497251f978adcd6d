"""Text encoders of the alignment losses: a report to one feature vector per word. Training only; inference never needs them.

Source: D2R-Net (Tang et al. 2025) takes word features of BERT, once of the whole report and once of the list of its sentences.
Differs by default: a small Transformer over the model's own tokens, trained along, so that nothing has to be downloaded. A
local folder of a Hugging Face encoder can be given instead; its weights stay as they are.

Words are tokens other than padding, start, end and the full stop, which stands for nothing in an image.

Shapes: B reports, T token ids, U words, W width of the features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from d2rnet.errors import ConfigError
from d2rnet.report.decoder.attention import LayerNorm, sinusoidal_positions
from d2rnet.report.decoder.memory_transformer import EncoderLayer
from d2rnet.report.local_encoder import read_encoder, read_tokenizer
from d2rnet.report.text.protocols import SENTENCE_END, split_sentences
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK_ID, Vocabulary


@dataclass
class Words:
    """Word features: ``features`` (B, U, W) and ``mask`` (B, U) bool, True where there is a word."""

    features: Tensor
    mask: Tensor


class SmallTextEncoder(nn.Module):
    """A few Transformer layers over the model's vocabulary; the features are as wide as the space of the losses."""

    def __init__(
        self, vocabulary: Vocabulary, *, width: int, num_layers: int, num_heads: int, dropout: float, place: str
    ) -> None:
        """Make the encoder with random weights; ``place`` names the setting of the width, for messages.

        Raises:
            ConfigError: the width is odd or not a multiple of the number of heads.
        """
        super().__init__()
        if width % num_heads or width % 2:
            raise ConfigError(f"{place}: got {width}; expected an even multiple of the text encoder's heads ({num_heads}).")
        self.width = width
        self.stop_id = vocabulary.ids.get(SENTENCE_END, UNK_ID)
        self.embedding = nn.Embedding(len(vocabulary), width, padding_idx=PAD_ID)
        self.layers = nn.ModuleList(EncoderLayer(width, 2 * width, num_heads, dropout) for _ in range(num_layers))
        self.norm = LayerNorm(width)

    def let_context_count(self) -> "SmallTextEncoder":
        """Begin as the memory-driven Transformer does: embeddings of standard deviation W^-1/2, layers by Xavier's rule.

        Embeddings of torch's deviation 1, times sqrt(W), drown what attention adds: one word at one place of two reports has
        features of cosine 0.9999 (W = 64), so that a loss on words reads a bag of words. This way it is about 0.97.
        """
        with torch.no_grad():
            self.embedding.weight.mul_(self.width**-0.5)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        return self

    def forward(self, token_ids: Tensor, *, by_sentence: bool) -> Words:
        """Encode reports; a sentence is encoded as if it stood alone, places counted from its first word."""
        length = token_ids.shape[1]
        places = torch.arange(length, device=token_ids.device).expand_as(token_ids)
        seen = (token_ids != PAD_ID).unsqueeze(1).expand(-1, length, -1)  # (B, T, T): query, key
        if by_sentence:
            stops = (token_ids == self.stop_id) | (token_ids == BOS_ID)
            sentence = stops.cumsum(1) - stops.long()  # a full stop ends its own sentence
            starts = places.masked_fill(sentence == sentence.roll(1, 1), 0)
            places = places - starts.cummax(1).values
            seen = seen & (sentence.unsqueeze(2) == sentence.unsqueeze(1))
        seen = seen | torch.eye(length, dtype=torch.bool, device=token_ids.device)  # padding must see something
        embedded = self.embedding(token_ids) * self.width**0.5
        x = embedded + sinusoidal_positions(0, length, self.width, like=embedded)[places]
        for layer in self.layers:
            x = layer(x, seen.unsqueeze(1))
        mask = (token_ids != PAD_ID) & (token_ids != BOS_ID) & (token_ids != EOS_ID) & (token_ids != self.stop_id)
        return Words(self.norm(x), mask)


class PretrainedTextEncoder(nn.Module):
    """A frozen Hugging Face encoder from a local folder; its word pieces are the words."""

    def __init__(self, folder: str | Path, vocabulary: Vocabulary, *, place: str) -> None:
        """Load tokenizer and weights; nothing is fetched from anywhere. ``place`` names the setting, for messages.

        Raises:
            ConfigError: the package ``transformers`` is missing.
            FileNotFoundError: there is no such folder.
            CheckpointError: the folder holds no encoder that transformers can load.
        """
        super().__init__()
        self.tokenizer = read_tokenizer(folder, place=place)
        encoder = read_encoder(folder, place=place)
        # In a list it is no part of this module: its weights are not trained, saved or put into training mode.
        self._encoder = [encoder]
        self.width: int = encoder.config.hidden_size
        self.longest: int = encoder.config.max_position_embeddings
        self.stop_id: int = self.tokenizer.convert_tokens_to_ids(SENTENCE_END)
        self.vocabulary = vocabulary

    @torch.no_grad()
    def forward(self, token_ids: Tensor, *, by_sentence: bool) -> Words:
        """Encode reports; each sentence is a text of its own with ``by_sentence``."""
        texts: list[str] = []
        owners: list[int] = []
        for report, ids in enumerate(token_ids.tolist()):
            tokens = [self._spell(token) for token in self.vocabulary.decode(ids)]
            parts = split_sentences(tokens) if by_sentence else [tokens]
            texts += [" ".join(part) for part in parts]
            owners += [report] * len(parts)
        features, mask = self._encode(texts, token_ids.device) if texts else (token_ids.new_zeros(0, 1, self.width), None)
        words = [[features.new_zeros(0, self.width)] for _ in token_ids]
        for text, owner in enumerate(owners):
            assert mask is not None
            words[owner].append(features[text][mask[text]])
        joined = [torch.cat(parts) for parts in words]
        if not joined:
            return Words(features.new_zeros(0, 0, self.width), torch.zeros(0, 0, dtype=torch.bool, device=token_ids.device))
        lengths = torch.tensor([len(part) for part in joined], device=token_ids.device)
        padded = pad_sequence(joined, batch_first=True)
        return Words(padded, torch.arange(padded.shape[1], device=token_ids.device) < lengths.unsqueeze(1))

    def _spell(self, token: str) -> str:
        return (self.tokenizer.unk_token or "") if token in SPECIAL_TOKENS else token

    def _encode(self, texts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return features (texts, pieces, W) and a mask of pieces that stand for words."""
        options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        inputs = self.tokenizer(texts, return_special_tokens_mask=True, **options).to(device)
        special = inputs.pop("special_tokens_mask").bool()
        encoder = self._encoder[0].to(device)
        mask = inputs["attention_mask"].bool() & ~special & (inputs["input_ids"] != self.stop_id)
        return encoder(**inputs).last_hidden_state, mask
