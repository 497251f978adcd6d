"""Image networks behind the global branch: torchvision's ResNets and DenseNet-121, or a vision transformer from a folder.

Each maps normalised radiographs (N, 1, S, S) to a feature map (N, C, h, w), knows C and its stride, and has one input channel.
torchvision (BSD-3) and transformers (Apache-2.0) are taken as libraries.

Shapes: N images, S input side, C channels, (h, w) map.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from d2rnet.cxr.report_model.settings import VISION_TRANSFORMER, D2RNetModelSettings
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.parsing import ParseError, parse_json
from d2rnet.report.optional_packages import optional_package
from d2rnet.training.collectives import GlobalBatchNorm

# Mean over the three channels of ImageNet's mean and standard deviation, for pixels in [0, 1].
PIXEL_MEAN = 0.449
PIXEL_STD = 0.226
PUBLISHED_WIDTH = 64
PLACE = "cxr.report.model.backbone_weights"
STRIDE_IN_1X1 = "stride_in_1x1"
MOST_FURTHER_TOKENS = 2  # class and distillation, before the patches; registers are named by the configuration


def make_backbone(settings: D2RNetModelSettings, facts: Mapping[str, Any] | None) -> "Convolutional | VisionTransformer":
    """Make the image network of the settings with random weights.

    Args:
        settings: section ``cxr.report.model``.
        facts: of :func:`backbone_weights.backbone_facts`; none of a network that torchvision makes as it is.

    Raises:
        ConfigError: settings that do not go together.
        CheckpointError: a vision transformer without facts that make one; facts that are none.
    """
    if facts is not None and not isinstance(facts, Mapping):
        raise CheckpointError(f"backbone_config is a {type(facts).__name__}; expected keys and values, or null")
    if settings.backbone != VISION_TRANSFORMER:
        return make_convolutional(
            settings.backbone,
            stages=settings.backbone_stages,
            width=settings.backbone_width,
            stride_in_1x1=facts is not None and facts.get(STRIDE_IN_1X1) is True,
        )
    if facts is None:
        raise CheckpointError("no backbone_config of the vision transformer")
    return VisionTransformer(facts, settings.input_size_px)


class Convolutional(nn.Sequential):
    """The layers of a ResNet or DenseNet up to one of its stages, by torchvision's names.

    Attributes:
        channels: C.
        stride: input pixels per cell of the map.
        stride_in_1x1: whether bottlenecks stride in their first convolution.
    """

    channels: int
    stride: int
    stride_in_1x1: bool


def make_convolutional(name: str, *, stages: int, width: int = PUBLISHED_WIDTH, stride_in_1x1: bool = False) -> Convolutional:
    """Make a network with random weights.

    Args:
        name: torchvision's, such as ``resnet101`` or ``densenet121``.
        stages: stages used, 1 to 4; the stride is 2 ** (stages + 1).
        width: channels of a ResNet's stem.
        stride_in_1x1: the bottlenecks of a ResNet stride in their first convolution (He et al., CVPR 2016, and MSRA's weights
            in Caffe and detectron2), not in the second, as torchvision's do: weights of the same shapes that see other pixels.

    Raises:
        ConfigError: another width of a DenseNet.
    """
    if name.startswith("densenet"):
        if width != PUBLISHED_WIDTH:
            raise ConfigError(f"cxr.report.model.backbone_width: got {width}; {name} has {PUBLISHED_WIDTH}.")
        layers, channels = _densenet_layers(name, stages)
    else:
        layers, channels = _resnet_layers(name, stages, width, stride_in_1x1)
    network = Convolutional()
    for layer_name, layer in layers.items():
        network.add_module(layer_name, layer)
    network.channels = channels
    network.stride = 2 ** (stages + 1)
    network.stride_in_1x1 = stride_in_1x1
    return network


def _resnet_layers(name: str, stages: int, width: int, stride_in_1x1: bool) -> tuple[dict[str, nn.Module], int]:
    resnet = getattr(torchvision.models, name)(weights=None, norm_layer=GlobalBatchNorm)
    resnet.conv1 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
    if width != PUBLISHED_WIDTH:
        _rebuild(resnet, width)
    if stride_in_1x1:
        for number in range(2, 5):  # the first stage does not stride
            block = getattr(resnet, f"layer{number}")[0]
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    names = ["conv1", "bn1", "relu", "maxpool", *(f"layer{number}" for number in range(1, stages + 1))]
    last_block = getattr(resnet, names[-1])[-1]
    last_norm = last_block.bn3 if hasattr(last_block, "bn3") else last_block.bn2
    return {layer: getattr(resnet, layer) for layer in names}, last_norm.num_features


def _rebuild(resnet: Any, width: int) -> None:
    """Give a ResNet's stem and stages another width: torchvision fixes that of the stem at 64."""
    resnet.bn1 = GlobalBatchNorm(width)
    resnet.inplanes = width
    for number in range(1, 5):
        old = getattr(resnet, f"layer{number}")
        stride = 1 if number == 1 else 2
        stage = resnet._make_layer(type(old[0]), width * 2 ** (number - 1), len(old), stride=stride)
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        setattr(resnet, f"layer{number}", stage)


def _densenet_layers(name: str, stages: int) -> tuple[dict[str, nn.Module], int]:
    features = dict(getattr(torchvision.models, name)(weights=None).features.named_children())
    features["conv0"] = nn.Conv2d(1, PUBLISHED_WIDTH, 7, stride=2, padding=3, bias=False)
    wanted = ["conv0", "norm0", "relu0", "pool0", "denseblock1"]
    for number in range(2, stages + 1):
        wanted += [f"transition{number - 1}", f"denseblock{number}"]
    layers = {layer: features[layer] for layer in wanted}
    if stages == 4:
        layers |= {"norm5": features["norm5"], "relu5": nn.ReLU()}
    layers = {layer: _with_global_norms(module) for layer, module in layers.items()}
    last = list(layers[f"denseblock{stages}"].children())
    first_norm = last[0].get_submodule("norm1")
    growth = last[0].get_submodule("conv2")
    assert isinstance(first_norm, nn.BatchNorm2d) and isinstance(growth, nn.Conv2d)
    return layers, first_norm.num_features + growth.out_channels * len(last)


def _with_global_norms(module: nn.Module) -> nn.Module:
    """Replace batch norms by those over all processes, in place; return the module, or what replaces itself."""
    if isinstance(module, nn.BatchNorm2d):
        return GlobalBatchNorm(module.num_features)
    for name, child in list(module.named_children()):
        setattr(module, name, _with_global_norms(child))
    return module


class VisionTransformer(nn.Module):
    """Patch tokens of a transformer that ``transformers`` knows, as a map; class and register tokens are left out."""

    def __init__(self, facts: Mapping[str, Any], input_size_px: int) -> None:
        """Make the network with random weights.

        Args:
            facts: of :func:`transformer_facts`.
            input_size_px: S.

        Raises:
            ConfigError: transformers is missing; S is no multiple of the patch.
            CheckpointError: the facts make no vision transformer.
        """
        super().__init__()
        transformers = import_transformers()
        try:
            config = _configuration(facts["config"])
            self.network = transformers.AutoModel.from_config(config).float()  # its folder may be saved in 16 bits
            self.channels = int(config.hidden_size)
            self.stride = int(config.patch_size)
            mean, std = (torch.tensor(facts[key], dtype=torch.float32).view(1, 3, 1, 1) for key in ("mean", "std"))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"backbone_config makes no vision transformer ({str(error).splitlines()[0]})") from error
        if input_size_px % self.stride:
            raise ConfigError(
                f"cxr.report.model.input_size_px: got {input_size_px}; expected a multiple of the vision transformer's patch, "
                f"{self.stride} pixels."
            )
        self.network.pooler = None
        takes = inspect.signature(self.network.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, S, S), normalised as for the others -> (N, C, S / patch, S / patch).

        Raises:
            CheckpointError: the network gives no token for each patch, or many others beside them.
        """
        pixels = (x * PIXEL_STD + PIXEL_MEAN - self.get_buffer("mean")) / self.get_buffer("std")  # (N, 3, S, S)
        side = x.shape[-1] // self.stride
        if not len(x):
            return x.new_zeros(0, self.channels, side, side)
        tokens = self.network(pixel_values=pixels.to(x.dtype), **self.options).last_hidden_state
        if not 0 <= tokens.shape[1] - side**2 <= MOST_FURTHER_TOKENS + getattr(self.network.config, "num_register_tokens", 0):
            raise CheckpointError(
                f"{PLACE}: a network of model_type '{self.network.config.model_type}' gives {tokens.shape[1]} tokens of an "
                f"image of {side} x {side} patches. Expected a plain vision transformer, with a token a patch, such as vit."
            )
        return tokens[:, -(side**2) :].transpose(1, 2).reshape(len(x), self.channels, side, side)


def _configuration(given: Mapping[str, Any]) -> Any:
    """Return the configuration that transformers makes of a config.json.

    Raises:
        ValueError: transformers knows no such model, or it looks at no patches.
    """
    kind = given["model_type"]
    config = import_transformers().AutoConfig.for_model(
        kind, **{key: value for key, value in given.items() if key != "model_type"}
    )
    if not isinstance(getattr(config, "patch_size", None), int) or not isinstance(getattr(config, "hidden_size", None), int):
        raise ValueError(f"model_type '{kind}' has no patch_size and hidden_size, so it looks at no patches of an image")
    return config


def import_transformers() -> Any:
    """Import the optional package.

    Raises:
        ConfigError: it is not installed.
    """
    place = f"cxr.report.model.backbone '{VISION_TRANSFORMER}'"
    return optional_package("transformers", place, extra="text-encoder", instead="choose a ResNet")


def transformer_facts(settings: D2RNetModelSettings) -> dict[str, Any] | None:
    """Read what makes the vision transformer of a folder again: its configuration, mean and deviation of its input.

    Returns:
        None for another backbone.

    Raises:
        ConfigError: there is no folder in the settings.
        FileNotFoundError: it is missing, or has no config.json.
        CheckpointError: config.json is none of a vision transformer, or preprocessor_config.json scales by nothing.
    """
    if settings.backbone != VISION_TRANSFORMER:
        return None
    if settings.backbone_weights is None:
        raise ConfigError(f"{PLACE}: null, but cxr.report.model.backbone is '{VISION_TRANSFORMER}'; expected its folder.")
    folder = Path(settings.backbone_weights)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{PLACE}: {folder}: no config.json in it; expected a folder that transformers saved.")
    config = _json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{folder / 'config.json'}: no model_type; expected the config.json of a vision transformer.")
    try:
        _configuration(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: not of a vision transformer ({str(error).splitlines()[0]}). {PLACE} expects the "
            "folder of one, such as vit or dinov2."
        ) from error
    return {"config": config, **_input_levels(folder / "preprocessor_config.json")}


def _input_levels(path: Path) -> dict[str, list[float]]:
    """Return mean and deviation, by channel, of a network's input as levels in [0, 1]; ImageNet's where there is no file.

    The file's own are of 8-bit levels times ``rescale_factor``, 1 / 255 where it says nothing else.

    Raises:
        CheckpointError: the factor is no positive number.
    """
    found = _json(path) if path.is_file() else {}
    mean, std = found.get("image_mean", [0.485, 0.456, 0.406]), found.get("image_std", [0.229, 0.224, 0.225])
    if found.get("do_normalize") is False:  # whatever mean and deviation stand beside it
        mean, std = [0.0] * 3, [1.0] * 3
    factor = 1 if found.get("do_rescale") is False else found.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor > 0:
        raise CheckpointError(f"{path}: rescale_factor is {factor!r}; expected a number above 0. Copy the folder again.")
    scale = 255 * factor  # what level 1 becomes
    try:
        return {"mean": [level / scale for level in mean], "std": [level / scale for level in std]}
    except TypeError as error:
        raise CheckpointError(f"{path}: image_mean and image_std: expected a number a channel ({error}).") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (ParseError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a JSON document ({error}). Copy the folder again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected an object. Copy the folder again.")
    return content
