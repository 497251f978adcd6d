"""Text tower: what a report says of a structure, as a vector of length 1.

Source: the released code of arXiv 2603.04878 takes CT-CLIP's text encoder, frozen. Ours by default: a small encoder of the
project, trained along, since no weights can be shipped; the texts that join the queue are of its momentum copy (He et al.
2020, MoCo), so that keys of different steps fit together. Soft targets compare the trained tower's texts with all keys: those
of the batch, which are its own, and those of the queue, which are the copy's.

Shapes: N texts, T token ids, E width of the shared space.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.structure_model.settings import StructureTextSettings
from d2rnet.report.model_files import read_weights
from d2rnet.report.text.vocabulary import PAD_ID, Vocabulary
from d2rnet.report.text_encoder import PretrainedTextEncoder, SmallTextEncoder, encoder_files

TEXT_TOWER = "text_tower.safetensors"


class TextTower(nn.Module):
    """Token ids to vectors: word features of an encoder, their mean, a projection for the own encoder, length 1.

    Attributes:
        width: E.
        is_frozen: a pretrained encoder, which is neither trained nor saved.
    """

    def __init__(self, settings: StructureTextSettings, vocabulary: Vocabulary) -> None:
        """Make the own encoder with random weights, or load a pretrained one.

        Raises:
            ConfigError: the width does not fit the heads, or the package transformers is missing.
            FileNotFoundError: there is no such folder.
            CheckpointError: the folder holds no encoder.
        """
        super().__init__()
        self.encoder: PretrainedTextEncoder | SmallTextEncoder
        if settings.weights:
            self.encoder = PretrainedTextEncoder(settings.weights, vocabulary, place=f"{settings.place}.weights")
        else:
            self.encoder = SmallTextEncoder(
                vocabulary,
                width=settings.embed_dim,
                num_layers=settings.num_layers,
                num_heads=settings.num_heads,
                dropout=0.0,
                place=f"{settings.place}.embed_dim",
            )
        self.is_frozen = settings.weights is not None
        self.width = self.encoder.width
        self.project = nn.Identity() if self.is_frozen else nn.Linear(self.width, self.width, bias=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(N, T) ids from ``<bos>`` on -> (N, E) of length 1; a text without a word gives zeros."""
        words = self.encoder(token_ids, by_sentence=False)
        shares = words.mask.float() / words.mask.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (words.features * shares.unsqueeze(2)).sum(dim=1)
        return F.normalize(self.project(mean).float(), dim=-1)


def embed_known(tower: TextTower, token_ids: Tensor, known: Tensor) -> Tensor:
    """Embed the texts that are there.

    Args:
        tower: of width E.
        token_ids: (B, S, T).
        known: (B, S) bool, True where there is a text.

    Returns:
        (B, S, E), zeros where there is none.
    """
    texts = token_ids[known]  # (N, T)
    shape = (*known.shape, tower.width)
    if not len(texts):
        return torch.zeros(shape, device=token_ids.device)
    longest = int((texts != PAD_ID).sum(dim=1).max())
    vectors = tower(texts[:, :longest])
    return torch.zeros(shape, device=token_ids.device, dtype=vectors.dtype).masked_scatter(known.unsqueeze(2), vectors)


def tower_files(settings: StructureTextSettings) -> dict[str, Path]:
    """Return the files of a pretrained text encoder, name -> path, for a run's record; none of the own one.

    Raises:
        FileNotFoundError: the folder is missing.
    """
    if settings.weights is None:
        return {}
    return encoder_files(Path(settings.weights), place=f"{settings.place}.weights")


def load_text_tower(folder: Path, settings: StructureTextSettings, vocabulary: Vocabulary) -> TextTower:
    """Read the text tower of a folder of train-structures, in evaluation mode.

    Raises:
        FileNotFoundError: the file, or the folder of a pretrained encoder, is missing.
        CheckpointError: weights that do not fit, or of another vocabulary.
    """
    path = folder / TEXT_TOWER
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the folder is made by 'd2rnet train-structures'.")
    tower = TextTower(settings, vocabulary)
    tower.load_state_dict(read_weights(path, vocabulary, tower.state_dict()))
    return tower.eval()
