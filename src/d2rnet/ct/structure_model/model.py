"""The model of stage 1: volume encoder, observer, and the projection to the space where observations and texts are compared.

Shapes: B volumes of Z x Y x X voxels, S structures, P patches, D width of the observer, E width of the shared space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.structure_model.encoders import make_encoder
from d2rnet.ct.structure_model.observer import Observation, Observer
from d2rnet.ct.structure_model.settings import StructureModelSettings, StructureNetworkSettings
from d2rnet.ct.structure_model.volume_encoder import Shape, patch_mask
from d2rnet.errors import CheckpointError
from d2rnet.report.interface import FrontEnd
from d2rnet.report.model_files import load_model
from d2rnet.report.text.vocabulary import Vocabulary

FACTS = ("structures", "shape_zyx", "window_hu", "spacing_mm", "embed_dim")


class StructureModel(nn.Module):
    """Encoder and observer of volumes."""

    def __init__(self, settings: StructureNetworkSettings, *, shape_zyx: Shape, num_structures: int, embed_dim: int) -> None:
        """Make the model; its encoder has pretrained weights where the settings name some.

        Args:
            settings: section ``ct.structure_model.model``.
            shape_zyx: voxels of a volume.
            num_structures: S.
            embed_dim: E.

        Raises:
            ConfigError: settings that do not go together.
        """
        super().__init__()
        self.encoder = make_encoder(settings.encoder, shape_zyx)
        self.observer = Observer(settings.observer, num_structures=num_structures, patch_width=self.encoder.width)
        self.project = nn.Linear(settings.observer.d_model, embed_dim, bias=False)

    def observe(self, volumes: Tensor) -> Observation:
        """Look at (B, 1, Z, Y, X) volumes in [-1, 1]."""
        grid_zyx = self.encoder.grid_zyx
        return cast(Observation, self.observer(self.encoder(volumes), grid_zyx, patch_mask(volumes, grid_zyx)))

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, S, K, D) observation tokens -> (B, S, E): their mean of each structure, projected, of length 1."""
        return F.normalize(self.project(tokens.mean(dim=2)).float(), dim=-1)

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, S, E)."""
        grid_zyx = self.encoder.grid_zyx
        return self.embed(self.observer.tokens(self.encoder(volumes), grid_zyx, patch_mask(volumes, grid_zyx)))


@dataclass(frozen=True)
class LoadedStructures:
    """A trained model of stage 1, in evaluation mode.

    Attributes:
        model: on its device.
        vocabulary: of its text tower.
        settings: what it was trained with.
        structures: names, in the order of the queries.
        conversion: grid and window of the volumes that it was trained on.
    """

    model: StructureModel
    vocabulary: Vocabulary
    settings: StructureModelSettings
    structures: tuple[str, ...]
    conversion: CtConversionSettings


def facts_of(structures: Sequence[str], conversion: CtConversionSettings, embed_dim: int) -> dict[str, Any]:
    """Return what a model folder says beside the settings."""
    return {
        "structures": list(structures),
        "shape_zyx": list(conversion.shape_zyx),
        "window_hu": list(conversion.window_hu),
        "spacing_mm": list(conversion.spacing_mm),
        "embed_dim": embed_dim,
    }


class _StructuresFrontEnd(FrontEnd):
    def make_model(self, settings: StructureModelSettings, *, num_tokens: int, facts: Mapping[str, Any]) -> Any:
        """Make a model with random weights.

        Raises:
            CheckpointError: a fact is not what the training writes.
        """
        names = facts["structures"]
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise CheckpointError("structures are no list of names")
        encoder = settings.model.encoder.replaced(weights=None)
        z, y, x = _conversion_of(facts).shape_zyx
        return StructureModel(
            settings.model.replaced(encoder=encoder.to_json()),
            shape_zyx=(z, y, x),
            num_structures=len(names),
            embed_dim=int(facts["embed_dim"]),
        )


def _conversion_of(facts: Mapping[str, Any]) -> CtConversionSettings:
    return CtConversionSettings.read({key: facts[key] for key in ("shape_zyx", "window_hu", "spacing_mm")})


STRUCTURES = _StructuresFrontEnd(settings=StructureModelSettings, facts=FACTS, command="train-structures")


def load_structure_model(folder: Path, device: torch.device) -> LoadedStructures:
    """Read the folder of train-structures.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        CheckpointError: files that do not belong together.
    """
    loaded = load_model(folder, device, STRUCTURES)
    return LoadedStructures(
        model=cast(StructureModel, loaded.model),
        vocabulary=loaded.vocabulary,
        settings=loaded.settings,
        structures=tuple(loaded.facts["structures"]),
        conversion=_conversion_of(loaded.facts),
    )


def volume_tensor(array: NDArray[Any], window_hu: Sequence[float]) -> Tensor:
    """Turn one converted volume (Z, Y, X) into (1, Z, Y, X) float32 in [-1, 1]; see :func:`scaled`."""
    return scaled(torch.from_numpy(np.array(array)), window_hu).unsqueeze(0)


def scaled(values: Tensor, window_hu: Sequence[float]) -> Tensor:
    """Turn stored values of converted volumes into float32 in [-1, 1], of the same shape.

    Args:
        values: uint8 over the window, or int16 HU.
        window_hu: lowest and highest Hounsfield unit.
    """
    if values.dtype == torch.uint8:
        return values.float().div_(127.5).sub_(1.0)
    low, high = window_hu
    return ((values.float() - low) / (high - low) * 2.0 - 1.0).clamp(-1.0, 1.0)
