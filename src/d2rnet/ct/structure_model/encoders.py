"""Volume encoders by kind, with the weights that the settings name."""

from pathlib import Path

from d2rnet.ct.structure_model.ct_clip_weights import load_ct_clip
from d2rnet.ct.structure_model.factorised_vit import FactorisedViT
from d2rnet.ct.structure_model.outside_encoders import Colipri, make_monai
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.ct.structure_model.volume_encoder import Shape, SmallEncoder, VolumeEncoder
from d2rnet.errors import ConfigError


def make_encoder(settings: VolumeEncoderSettings, shape_zyx: Shape) -> VolumeEncoder:
    """Make the encoder that the settings name; its weights are random where they name none.

    Args:
        settings: section ``ct.structure_model.model.encoder``.
        shape_zyx: voxels of a volume.

    Raises:
        ConfigError: settings that do not go together, or a network that is not installed.
        CheckpointError: weights that are not all of this encoder's.
    """
    if settings.kind == "ct_vit":
        vit = FactorisedViT(settings, shape_zyx)
        if settings.weights is not None:
            load_ct_clip(vit, Path(settings.weights), settings.patch_zyx)
        return vit
    if settings.kind == "monai":
        return make_monai(settings, shape_zyx)
    if settings.kind == "colipri":
        return Colipri(settings, shape_zyx)
    if settings.weights is not None:
        raise ConfigError(f"{settings.place}.weights: got {settings.weights}; kind small has none. Set it to null.")
    return SmallEncoder(settings, shape_zyx)
