"""Text tower: what a report says of a structure, as a vector of length 1.

Source: the released code of arXiv 2603.04878 takes CT-CLIP's text encoder, frozen. Ours by default: a small encoder of the
project, trained along, since no weights can be shipped; the texts that join the queue are of its momentum copy (He et al.
2020, MoCo), so that keys of different steps fit together. Soft targets compare the trained tower's texts with all keys: those
of the batch, which are its own, and those of the queue, which are the copy's.

Shapes: N texts, T token ids, E width of the shared space.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.structure_model.ct_clip_weights import load_ct_clip_text
from d2rnet.ct.structure_model.settings import StructureTextSettings
from d2rnet.errors import ConfigError
from d2rnet.report.local_encoder import encoder_files, encoder_without_weights, read_encoder, read_tokenizer
from d2rnet.report.model_files import read_weights
from d2rnet.report.text.protocols import SENTENCE_END
from d2rnet.report.text.vocabulary import PAD_ID, Vocabulary
from d2rnet.report.text_encoder import SmallTextEncoder

TEXT_TOWER = "text_tower.safetensors"
_LENGTHS = 4  # groups that the texts of a batch are embedded in, by length


@dataclass(frozen=True)
class TextTokens:
    """How texts become token ids of a tower: ``encode`` a text as written; ``pad_id`` fills up a batch."""

    encode: Callable[[str], list[int]]
    pad_id: int


def text_tokens(settings: StructureTextSettings, vocabulary: Vocabulary) -> TextTokens:
    """Return the tokens of the tower that the settings describe: the vocabulary's, or a pretrained encoder's word pieces.

    Raises:
        ConfigError: the package transformers is missing.
        FileNotFoundError: there is no such folder.
        CheckpointError: the folder holds no tokenizer.
    """
    if settings.weights is None:
        return TextTokens(lambda text: vocabulary.encode(text, max_tokens=settings.max_tokens), PAD_ID)
    tokenizer = read_tokenizer(settings.weights, place=f"{settings.place}.weights")

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, truncation=True, max_length=settings.max_tokens)["input_ids"]
        return ids

    return TextTokens(encode, tokenizer.pad_token_id)


class TextTower(nn.Module):
    """Token ids (N, T) of text_tokens -> (N, E) of length 1; a text without a word gives zeros by the mean of words.

    Attributes:
        width: E.
        pad_id: of its tokens.
        is_frozen: a pretrained encoder, which is neither trained nor saved.
    """

    width: int
    pad_id: int
    is_frozen: bool


class SmallTextTower(TextTower):
    """The own encoder: the mean of its words, projected."""

    is_frozen = False
    pad_id = PAD_ID

    def __init__(self, settings: StructureTextSettings, vocabulary: Vocabulary) -> None:
        """Make the encoder with random weights.

        Raises:
            ConfigError: the width does not fit the heads.
        """
        super().__init__()
        self.encoder = SmallTextEncoder(
            vocabulary,
            width=settings.embed_dim,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            dropout=0.0,
            place=f"{settings.place}.embed_dim",
        )
        self.width = self.encoder.width
        self.project = nn.Linear(self.width, self.width, bias=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(N, T) ids from ``<bos>`` on -> (N, E)."""
        words = self.encoder(token_ids, by_sentence=False)
        return F.normalize(self.project(_mean(words.features, words.mask)).float(), dim=-1)


class PretrainedTextTower(TextTower):
    """A frozen Hugging Face encoder from a local folder, or CT-CLIP's text tower in its place.

    The network lies in a list, so that it is no part of this module: not trained, not saved, always in evaluation mode.
    """

    is_frozen = True

    def __init__(self, settings: StructureTextSettings) -> None:
        """Load tokenizer and weights.

        Raises:
            ConfigError: the package transformers is missing, or the encoder reads fewer tokens than the settings say.
            FileNotFoundError: there is no such folder or file.
            CheckpointError: the folder holds no encoder, or CT-CLIP's weights do not fit it.
        """
        super().__init__()
        assert settings.weights is not None
        place = f"{settings.place}.weights"
        tokenizer = read_tokenizer(settings.weights, place=place)
        if settings.ct_clip_weights is None:
            encoder = read_encoder(settings.weights, place=place)
            self._project: list[nn.Module] = [nn.Identity()]
            self.width = encoder.config.hidden_size
        else:
            encoder = encoder_without_weights(settings.weights, place=place)
            tower, _ = load_ct_clip_text(encoder, Path(settings.ct_clip_weights))
            self._project = [tower.projection]
            self.width = tower.projection.out_features
        longest: int = encoder.config.max_position_embeddings
        if settings.max_tokens > longest:
            raise ConfigError(
                f"{settings.place}.max_tokens: got {settings.max_tokens}; the encoder in {settings.weights} reads {longest}."
            )
        self._encoder = [encoder]
        self.pad_id = tokenizer.pad_token_id
        self.pooling = settings.pooling
        ends = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.convert_tokens_to_ids(SENTENCE_END)]
        self._no_words = torch.tensor([one for one in ends if one is not None])

    @torch.no_grad()
    def forward(self, token_ids: Tensor) -> Tensor:
        """(N, T) ids of word pieces, with the encoder's own first and last token -> (N, E)."""
        device = token_ids.device
        there = token_ids != self.pad_id
        features = self._encoder[0].to(device)(input_ids=token_ids, attention_mask=there.long()).last_hidden_state  # (N, T, W)
        if self.pooling == "cls":
            pooled = features[:, 0]
        else:
            pooled = _mean(features, there & ~torch.isin(token_ids, self._no_words.to(device)))
        return F.normalize(self._project[0].to(device)(pooled).float(), dim=-1)


def _mean(features: Tensor, mask: Tensor) -> Tensor:
    """(N, U, W) features, (N, U) which count -> (N, W); zeros where none does."""
    shares = mask.float() / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return (features * shares.unsqueeze(2)).sum(dim=1)


def make_text_tower(settings: StructureTextSettings, vocabulary: Vocabulary) -> TextTower:
    """Make the tower that the settings describe; errors as of its class."""
    return SmallTextTower(settings, vocabulary) if settings.weights is None else PretrainedTextTower(settings)


def embed_known(tower: TextTower, token_ids: Tensor, known: Tensor) -> Tensor:
    """Embed the texts that are there; equal ones once, and in groups of like length, since most are short.

    Args:
        tower: of width E.
        token_ids: (B, S, T).
        known: (B, S) bool, True where there is a text.

    Returns:
        (B, S, E), zeros where there is none.
    """
    texts = token_ids[known]  # (N, T)
    shape = (*known.shape, tower.width)
    if not len(texts):  # other processes may have some: a gather of theirs and ours goes backward in all or in none
        nothing = sum(parameter.sum() for parameter in tower.parameters() if parameter.requires_grad) * 0.0
        return torch.zeros(shape, device=token_ids.device) + nothing
    distinct, places = texts.unique(dim=0, return_inverse=True)  # (M, T), (N,)
    lengths, order = (distinct != tower.pad_id).sum(dim=1).sort()
    groups = zip(distinct[order].chunk(_LENGTHS), lengths.chunk(_LENGTHS), strict=True)
    ordered = torch.cat([tower(group[:, : int(of_group[-1])]) for group, of_group in groups])  # (M, E)
    vectors = ordered[order.argsort()[places]]  # (N, E)
    return torch.zeros(shape, device=token_ids.device, dtype=vectors.dtype).masked_scatter(known.unsqueeze(2), vectors)


def tower_files(settings: StructureTextSettings) -> dict[str, Path]:
    """Return the files of a pretrained text encoder, name -> path, for a run's record; none of the own one.

    Raises:
        FileNotFoundError: the folder or file is missing.
    """
    if settings.weights is None:
        return {}
    files = encoder_files(Path(settings.weights), place=f"{settings.place}.weights")
    if settings.ct_clip_weights is None:
        return files
    path = Path(settings.ct_clip_weights)
    if not path.is_file():
        raise FileNotFoundError(f"{settings.place}.ct_clip_weights: {path}: no such file.")
    return files | {"text_ct_clip_weights": path}


def load_text_tower(folder: Path, settings: StructureTextSettings, vocabulary: Vocabulary) -> TextTower:
    """Read the text tower of a folder of train-structures, in evaluation mode.

    Raises:
        FileNotFoundError: the file, or the folder of a pretrained encoder, is missing.
        CheckpointError: weights that do not fit, or of another vocabulary.
    """
    path = folder / TEXT_TOWER
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the folder is made by 'd2rnet train-structures'.")
    tower = make_text_tower(settings, vocabulary)
    tower.load_state_dict(read_weights(path, vocabulary, tower.state_dict()))
    return tower.eval()
