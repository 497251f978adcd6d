"""Volume encoders of other people's packages: networks of MONAI by name, and COLIPRI. Nothing is downloaded; weights by path.

A convolutional network gives the map whose stride is the patch (8 for patches of 8 x 8 x 8), and ends there: later layers are
not made. ResNets have a first stride of 2, as MedicalNet's weights were trained (arXiv 1904.00625); MONAI's own default is 1.
MedicalNet's have other shortcuts than those that MONAI makes by default, and so names of their own.

COLIPRI (arXiv 2510.15042) is a Primus-M: patches of 8 x 8 x 8, width 864, 16 layers, 12 heads, on 192 x 192 x 192 voxels of
2 mm over -1000 to 1000 HU. Its axes run to superior, anterior and right, ours to superior, posterior and left.

Shapes: B volumes of Z x Y x X voxels, P = gz * gy * gx patches, W width.
"""

import importlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from d2rnet.ct.structure_model.encoder_weights import load_weights
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.ct.structure_model.volume_encoder import Shape, VolumeEncoder, grid_of, in_order, turn, turn_back
from d2rnet.errors import ConfigError
from d2rnet.files.safetensors_files import load_safetensors
from d2rnet.files.torch_files import load_torch
from d2rnet.report.decoder.r2gen_weights import state_dict_of

STRIDES = (4, 8, 16, 32)  # of the maps of the convolutional networks, finest first
COLIPRI_PREFIX = "image_encoder.backbone."
_IN_PLANE = (3, 4)  # axes y and x of a batch of volumes


@dataclass(frozen=True)
class _Convolutional:
    """A convolutional network of MONAI.

    Attributes:
        widths: channels of the map of each stride.
        stages: the layer that ends each map.
        body: prefix of these layers' names.
        head: prefix of the classifier behind them.
        shortcut: of ResNets; B has weights, A none, and MONAI passes no gradient back through it.
        biased: whether weights of shortcuts have a bias.
    """

    widths: tuple[int, int, int, int]
    stages: tuple[str, str, str, str]
    body: str
    head: str
    shortcut: str = ""
    biased: bool = False


def _resnet(expansion: int, shortcut: str, *, biased: bool) -> _Convolutional:
    narrow, wider, wide, widest = (width * expansion for width in (64, 128, 256, 512))
    stages = ("layer1", "layer2", "layer3", "layer4")
    return _Convolutional((narrow, wider, wide, widest), stages, body="", head="fc.", shortcut=shortcut, biased=biased)


CONVOLUTIONAL = {
    "resnet18": _resnet(1, "B", biased=True),
    "resnet34": _resnet(1, "B", biased=True),
    "resnet50": _resnet(4, "B", biased=True),
    "medicalnet_resnet18": _resnet(1, "A", biased=False),
    "medicalnet_resnet34": _resnet(1, "A", biased=False),
    "medicalnet_resnet50": _resnet(4, "B", biased=False),
    "densenet121": _Convolutional(
        (256, 512, 1024, 1024), ("denseblock1", "denseblock2", "denseblock3", "norm5"), body="features.", head="class_layers."
    ),
}
VIT = "vit"
_VIT_UNUSED = (
    (r"cls_token$|classification_head\.", "the class token and its head"),
    (r"blocks\.\d+\.\w*cross_attn\.", "cross-attention that older versions of MONAI made and never used"),
)
_COLIPRI_UNUSED = (
    (r"text_encoder\.", "the text tower"),
    (r"image_encoder\.(projector|pooler)\.|softmax_temperature$", "projection, pooling and temperature of COLIPRI's contrast"),
    (r"image_encoder\.backbone\.(up_projection\.|mask_token$)", "the reconstruction of the volume"),
)


class MonaiCnn(VolumeEncoder):
    """A ResNet or DenseNet of MONAI, up to the map whose stride is the patch."""

    def __init__(self, settings: VolumeEncoderSettings, shape_zyx: Shape) -> None:
        """Make the encoder, with the weights that the settings name.

        Raises:
            ConfigError: MONAI is missing, patches are no cubes of one of its strides, or width is not that of the map.
            CheckpointError: weights that do not fit, name by name.
        """
        super().__init__()
        facts = CONVOLUTIONAL[str(settings.name)]
        side = settings.patch_zyx[0]
        if set(settings.patch_zyx) != {side} or side not in STRIDES:
            expected = " or ".join(map(str, STRIDES))
            raise ConfigError(
                f"{settings.place}.patch_zyx: got {list(settings.patch_zyx)}; {settings.name} has cubes of {expected} voxels."
            )
        width = facts.widths[STRIDES.index(side)]
        if settings.width != width:
            raise ConfigError(
                f"{settings.place}.width: got {settings.width}; {settings.name} gives {width} for patches of {side} voxels."
            )
        self.grid_zyx = grid_of(shape_zyx, settings.patch_zyx, settings.place)
        self.width = width
        self.axes = settings.axes
        body = _monai_cnn(settings).get_submodule(facts.body.rstrip("."))
        self.network = _up_to(body, facts.stages[STRIDES.index(side)])
        if settings.weights is not None:
            taken = self.network.state_dict()
            later = "|".join(re.escape(facts.body + name) for name in body.state_dict() if name not in taken)
            unused = [(re.escape(facts.head), "the classifier"), (f"({later})$", "layers of coarser maps")]
            names = {own: facts.body + own for own in taken}
            load_weights(self.network, _state(Path(settings.weights)), names, unused, Path(settings.weights))

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        maps = self.network(turn(volumes, self.axes))  # (B, W, a, b, c)
        return turn_back(maps.movedim(1, -1), self.axes)


class MonaiVit(VolumeEncoder):
    """MONAI's Vision Transformer over all patches at once; its places are learnt, so that weights are of one grid."""

    def __init__(self, settings: VolumeEncoderSettings, shape_zyx: Shape) -> None:
        """Make the encoder, with the weights that the settings name.

        Raises:
            ConfigError: MONAI is missing, or heads do not divide the width.
            CheckpointError: weights that do not fit, name by name.
        """
        super().__init__()
        self.grid_zyx = grid_of(shape_zyx, settings.patch_zyx, settings.place)
        self.width = settings.width
        self.axes = settings.axes
        _check_layers(settings)
        _imported("einops", settings, extra="ct-encoders")  # which MONAI asks for when the network is made
        self.network = _imported("monai.networks.nets.vit", settings, extra="ct-encoders").ViT(
            in_channels=1,
            img_size=in_order(shape_zyx, settings.axes),
            patch_size=in_order(settings.patch_zyx, settings.axes),
            hidden_size=settings.width,
            mlp_dim=4 * settings.width,
            num_layers=settings.layers,
            num_heads=settings.num_heads,
        )
        if settings.weights is not None:
            names = {own: own for own in self.network.state_dict()}
            load_weights(self.network, _state(Path(settings.weights)), names, _VIT_UNUSED, Path(settings.weights))

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        tokens, _ = self.network(turn(volumes, self.axes))  # (B, P, W), raster order of the turned axes
        return turn_back(tokens.unflatten(1, in_order(self.grid_zyx, self.axes)), self.axes)


class Colipri(VolumeEncoder):
    """COLIPRI's image encoder, before its projection."""

    def __init__(self, settings: VolumeEncoderSettings, shape_zyx: Shape) -> None:
        """Make the encoder, with the weights that the settings name.

        Args:
            settings: section ``ct.structure_model.model.encoder``; ``workflow/presets/ct/colipri.yaml`` has COLIPRI's sizes.
            shape_zyx: voxels of a volume.

        Raises:
            ConfigError: the package of the network is missing, or heads do not divide the width.
            CheckpointError: weights that do not fit, name by name.
        """
        super().__init__()
        self.grid_zyx = grid_of(shape_zyx, settings.patch_zyx, settings.place)
        self.width = settings.width
        self.axes = settings.axes
        _check_layers(settings)
        primus = _imported("dynamic_network_architectures.architectures.primus", settings, extra="colipri")
        self.network = primus.Primus(
            input_channels=1,
            num_classes=1,
            eva_depth=settings.layers,
            eva_numheads=settings.num_heads,
            embed_dim=settings.width,
            patch_embed_size=in_order(settings.patch_zyx, settings.axes),
            input_shape=in_order(shape_zyx, settings.axes),
            use_rot_pos_emb=True,
            use_abs_pos_embed=False,
            drop_path_rate=0.2,
            init_values=0.1,
            scale_attn_inner=True,
        )
        self.network.up_projection = nn.Identity()
        # Of pretraining with masks; without them the network does not read it.
        self.network.register_buffer("mask_token", self.network.mask_token, persistent=False)
        if settings.weights is not None:
            names = {own: COLIPRI_PREFIX + own for own in self.network.state_dict()}
            load_weights(self.network, _state(Path(settings.weights)), names, _COLIPRI_UNUSED, Path(settings.weights))

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        maps = self.network(turn(volumes.flip(_IN_PLANE), self.axes))  # (B, W, a, b, c)
        tokens = turn_back(maps.movedim(1, -1), self.axes).unflatten(1, self.grid_zyx)  # (B, gz, gy, gx, W)
        return tokens.flip(2, 3).flatten(1, 3)


def make_monai(settings: VolumeEncoderSettings, shape_zyx: Shape) -> VolumeEncoder:
    """Make the network of MONAI that the settings name.

    Raises:
        ConfigError: no such name, MONAI is missing, or settings that do not go together.
        CheckpointError: weights that do not fit, name by name.
    """
    if settings.name in CONVOLUTIONAL:
        return MonaiCnn(settings, shape_zyx)
    if settings.name == VIT:
        return MonaiVit(settings, shape_zyx)
    raise ConfigError(f"{settings.place}.name: got {settings.name!r}; expected one of {', '.join([*CONVOLUTIONAL, VIT])}.")


def _monai_cnn(settings: VolumeEncoderSettings) -> nn.Module:
    if settings.name == "densenet121":
        densenet = _imported("monai.networks.nets.densenet", settings, extra="ct-encoders")
        network: nn.Module = densenet.densenet121(spatial_dims=3, in_channels=1, out_channels=1)
        return network
    facts = CONVOLUTIONAL[str(settings.name)]
    resnet = _imported("monai.networks.nets.resnet", settings, extra="ct-encoders")
    network = getattr(resnet, str(settings.name).removeprefix("medicalnet_"))(
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=2,
        feed_forward=False,
        shortcut_type=facts.shortcut,
        bias_downsample=facts.biased,
    )
    return network


def _up_to(body: nn.Module, last: str) -> nn.Sequential:
    """Return the layers of a network up to one of them, under their names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in body.named_children():
        layers[name] = layer
        if name == last:
            break
    return nn.Sequential(layers)


def _check_layers(settings: VolumeEncoderSettings) -> None:
    if settings.layers < 1:
        raise ConfigError(f"{settings.place}.layers: got 0; kind {settings.kind} expects 1 or more.")
    if settings.width % settings.num_heads:
        got = f"{settings.width} with num_heads {settings.num_heads}"
        raise ConfigError(f"{settings.place}.width: got {got}; expected a multiple of it.")


def _state(path: Path) -> dict[str, Tensor]:
    content = load_safetensors(path) if path.suffix == ".safetensors" else load_torch(path)
    return state_dict_of(content, path)


def _imported(name: str, settings: VolumeEncoderSettings, *, extra: str) -> Any:
    """Import a module of an optional package, which no other part of the program needs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise ConfigError(
            f"{settings.place}.kind: {settings.kind} needs the package {package} ({error}). Run "
            f"\"pip install 'd2rnet[{extra}]'\", or choose another kind."
        ) from error
