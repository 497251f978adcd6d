"""Pretrained weights of the image network, from files and folders that other projects and the detector write.

Known layouts: torchvision's ResNets and DenseNets (three or one channel), R2Gen's checkpoints, torchxrayvision's ResNet-50 and
DenseNet-121, a detector of train-detector, a folder of a vision transformer. Radiographs have one channel, so the first
convolution has one, too: three-channel weights are summed over their input channels, which equals feeding the grey image three
times (up to ImageNet's slightly different means of the three channels). Weights that saw grey levels otherwise normalised are
turned into those that give the same here, up to the border, where all pad with 0.

Shapes: O output channels of the first convolution, k its side.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from d2rnet.cxr.report_model.backbones import (
    PIXEL_MEAN,
    PIXEL_STD,
    PLACE,
    STRIDE_IN_1X1,
    Convolutional,
    VisionTransformer,
    import_transformers,
    transformer_facts,
)
from d2rnet.cxr.report_model.settings import DETECTOR, VISION_TRANSFORMER, D2RNetModelSettings
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.files.safetensors_files import load_safetensors
from d2rnet.files.torch_files import load_torch

# R2Gen's image network is a Sequential of torchvision's ResNet without its last two parts; 2 and 3 have no weights.
R2GEN_BACKBONE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
R2GEN_BACKBONE_KEY = re.compile(r"(?:module\.)?visual_extractor\.model\.(\d)\.(.+)")
STEMS = {"conv1.weight": "bn1.running_mean", "conv0.weight": "norm0.running_mean"}
PREFIXES = ("", "model.", "features.", "model.features.")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")  # torchvision before 2018: norm.1 for norm1
# torchxrayvision's pixels run from -1024 to 1024: (grey - mean) / std of grey levels in [0, 1].
TORCHXRAYVISION = (0.5, 1 / 2048)
FILE_EXPECTED = "the same network with torchvision's key names (torchvision's own weights: cxr.report.model.backbone_width 64)"
DETECTOR_PREFIX = "backbone.bottom_up."
DETECTOR_CONFIG = "config.yaml"
DETECTOR_NAMES = (
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res(\d)\.", lambda match: f"layer{int(match[1]) - 1}."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
)


def backbone_facts(settings: D2RNetModelSettings, detector: Path | None) -> dict[str, Any] | None:
    """Return what makes the image network again beside the settings, for the model folder; None where they say it all.

    Args:
        settings: section ``cxr.report.model``.
        detector: model_final.pth of train-detector, whose config.yaml lies beside it.

    Raises:
        ConfigError: the settings ask for a detector, and there is none; a vision transformer without a folder.
        FileNotFoundError: a file is missing.
        CheckpointError: a configuration that cannot be used.
    """
    if settings.backbone_weights == DETECTOR:
        return {STRIDE_IN_1X1: True} if _read_config(_given(detector)).strides_first else None
    return transformer_facts(settings)


def start_backbone(network: Convolutional | VisionTransformer, settings: D2RNetModelSettings, detector: Path | None) -> None:
    """Start an image network from what the settings name; from nothing where they name nothing.

    Args:
        network: of backbones.py; changed in place.
        settings: section ``cxr.report.model``.
        detector: model_final.pth of train-detector.

    Raises:
        ConfigError: the settings ask for a detector, and there is none.
        FileNotFoundError: a file is missing.
        CheckpointError: unreadable, or it does not fit.
    """
    if settings.backbone_weights == DETECTOR:
        load_detector(network, _given(detector))
    elif settings.backbone_weights:
        load_backbone(network, settings.backbone_weights, pixels=settings.backbone_pixels)


def backbone_inputs(settings: D2RNetModelSettings, detector: Path | None) -> dict[str, Path]:
    """Return the files that the image network starts from, name -> path, for a run's record.

    Raises:
        ConfigError: the settings ask for a detector, and there is none.
        FileNotFoundError: the folder of a vision transformer is missing.
    """
    if settings.backbone_weights == DETECTOR:
        weights = _given(detector)
        return {"backbone_weights": weights, "backbone_config": weights.with_name(DETECTOR_CONFIG)}
    if settings.backbone_weights is None:
        return {}
    path = Path(settings.backbone_weights)
    if settings.backbone != VISION_TRANSFORMER:
        return {"backbone_weights": path}
    if not path.is_dir():
        raise FileNotFoundError(f"{PLACE}: {path}: no such folder.")
    files = (file for file in sorted(path.iterdir()) if file.suffix in (".safetensors", ".bin", ".json"))
    return {f"backbone_{file.name}": file for file in files}


def _given(detector: Path | None) -> Path:
    if detector is None:
        raise ConfigError(f"{PLACE}: 'detector', but no --detector was given; expected model_final.pth of train-detector.")
    return detector


def load_backbone(network: nn.Module, path: str | Path, *, pixels: str = "imagenet") -> None:
    """Load pretrained weights into an image network.

    Args:
        network: of backbones.py; changed in place.
        path: state dict (.pth or .safetensors), checkpoint of R2Gen, or folder of a vision transformer.
        pixels: how grey levels were given to the weights: ``imagenet`` or ``torchxrayvision``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        CheckpointError: unreadable, or a weight of the network is missing in the file or has another shape.
    """
    path = Path(path)
    if isinstance(network, VisionTransformer):
        _load_transformer(network, path)
        return
    if not path.is_file():
        raise FileNotFoundError(f"{PLACE}: {path}: no such file.")
    state = _with_torchvision_names(_read(path))
    if pixels == "torchxrayvision":
        state = _renormalised(state, *TORCHXRAYVISION)
    load_matching(network, _one_channel(state), source=path, expected=FILE_EXPECTED)


def load_detector(network: Convolutional | VisionTransformer, path: Path) -> None:
    """Start from the ResNet of a trained detector, whose config.yaml lies beside its weights.

    Args:
        network: a ResNet of backbones.py that strides where the detector's does (:func:`backbone_facts`); changed in place.
        path: model_final.pth of train-detector.

    Raises:
        FileNotFoundError: one of the files is missing.
        CheckpointError: unreadable; another depth, width, stride or kind of network, or normalised by groups.
    """
    config = _read_config(path)
    if isinstance(network, Convolutional) and config.strides_first != network.stride_in_1x1:
        raise CheckpointError(f"{path}: its bottlenecks stride in another convolution than the report model's.")
    content = load_torch(path).get("model")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: no 'model' in it; expected a weight file of 'd2rnet train-detector'.")
    state = {_from_detectron2(name): value for name, value in content.items() if str(name).startswith(DETECTOR_PREFIX)}
    if "bn1.weight" in state and "bn1.running_mean" not in state:
        raise CheckpointError(
            f"{path}: its backbone is normalised by groups (cxr.detector.model.norm GN), the report model's by batches. Train "
            f"the detector with BN, SyncBN or FrozenBN, or set {PLACE} to null."
        )
    expected = (
        "a ResNet of the depth and width of the detector: cxr.report.model.backbone as cxr.detector.model.backbone_depth, "
        "cxr.report.model.backbone_width as cxr.detector.model.backbone_width"
    )
    load_matching(network, _renormalised(state, config.mean, config.std), source=path, expected=expected)


def _read(path: Path) -> Mapping[str, Any]:
    return load_safetensors(path) if path.suffix == ".safetensors" else load_torch(path)


@dataclass(frozen=True)
class _DetectorConfig:
    """What a detector's config.yaml says of its backbone.

    Attributes:
        mean: of its grey levels, as a share of 255.
        std: divisor of its grey levels, as a share of 255.
        strides_first: whether it has bottlenecks that stride in their first convolution.
    """

    mean: float
    std: float
    strides_first: bool


def _read_config(weights: Path) -> _DetectorConfig:
    """Read the config.yaml beside a detector's weights.

    Raises:
        FileNotFoundError: one of the files is missing.
        CheckpointError: it is no detector's.
    """
    path = weights.with_name(DETECTOR_CONFIG)
    for file in (weights, path):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; expected what train-detector wrote ({PLACE} is 'detector').")
    try:
        config = parse_yaml(path.read_text(encoding="utf-8"))["MODEL"]
        mean, std = (float(config[key][0]) / 255 for key in ("PIXEL_MEAN", "PIXEL_STD"))
        resnet = config["RESNETS"]
        strides_first = bool(resnet["STRIDE_IN_1X1"]) and int(resnet["DEPTH"]) >= 50
        if std <= 0:
            raise ValueError(f"PIXEL_STD is {config['PIXEL_STD']}")
    except (ParseError, UnicodeDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: not the config.yaml of a detector ({error}). Copy the folder again.") from error
    return _DetectorConfig(mean, std, strides_first)


def _from_detectron2(name: str) -> str:
    """Rename a parameter of detectron2's ResNet to torchvision's."""
    name = name.removeprefix(DETECTOR_PREFIX)
    for pattern, replacement in DETECTOR_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _load_transformer(network: VisionTransformer, folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{PLACE}: {folder}: no such folder.")
    safely = {"local_files_only": True, "trust_remote_code": False}  # else a folder may bring its own code
    try:
        saved = import_transformers().AutoModel.from_pretrained(str(folder), **safely)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{PLACE}: {folder}: not a vision transformer ({str(error).splitlines()[0]}). Expected config.json and "
            "model.safetensors as transformers saves them."
        ) from error
    load_matching(network.network, saved.state_dict(), source=folder, expected="the network of its config.json")


def _with_torchvision_names(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a network under the names that torchvision gives its parts, whichever project saved it."""
    saved = state["state_dict"] if isinstance(state.get("state_dict"), dict) else state
    found = [(R2GEN_BACKBONE_KEY.fullmatch(str(key)), value) for key, value in saved.items()]
    renamed = {f"{R2GEN_BACKBONE[key[1]]}.{key[2]}": value for key, value in found if key and key[1] in R2GEN_BACKBONE}
    if renamed:
        return renamed
    prefix = next((prefix for prefix in PREFIXES for stem in STEMS if f"{prefix}{stem}" in saved), "")
    return {OLD_DENSENET.sub(r"\1\2", str(key).removeprefix(prefix)): value for key, value in saved.items()}


def _one_channel(state: Mapping[str, Any]) -> dict[str, Any]:
    """Sum the first convolution over its input channels."""
    kernels = {name: state[name] for name in STEMS if isinstance(state.get(name), Tensor) and state[name].ndim == 4}
    return {**state, **{name: kernel.sum(dim=1, keepdim=True) for name, kernel in kernels.items()}}


def _renormalised(state: Mapping[str, Any], mean: float, std: float) -> dict[str, Any]:
    """Let weights that saw (grey - mean) / std give the same on our (grey - PIXEL_MEAN) / PIXEL_STD.

    The first convolution is linear: its kernels are scaled, and the constant goes off the running mean of the norm behind it.

    Args:
        state: a network under torchvision's names.
        mean: of grey levels in [0, 1].
        std: likewise.
    """
    changed = dict(state)
    for name, norm in STEMS.items():
        kernels, running_mean = state.get(name), state.get(norm)
        if isinstance(kernels, Tensor) and kernels.ndim == 4 and isinstance(running_mean, Tensor):
            kernels = kernels.float()
            changed[name] = kernels * (PIXEL_STD / std)
            changed[norm] = running_mean - kernels.sum(dim=(1, 2, 3)) * ((PIXEL_MEAN - mean) / std)
    return changed


def load_matching(module: nn.Module, state: Mapping[str, Any], *, source: Path, expected: str) -> None:
    """Load every tensor of ``module`` from ``state``; what the module does not use is left out.

    Raises:
        CheckpointError: a tensor of the module is missing or has another shape; the first keys of both are listed.
    """
    own = module.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # files of other projects may lack them
    state = {**{name: torch.zeros_like(own[name]) for name in counters}, **state}
    missing = [key for key in own if not isinstance(state.get(key), Tensor)]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key not in missing and state[key].shape != own[key].shape
    ]
    if missing or misshapen:
        unused = [key for key in state if key not in own]
        raise CheckpointError(
            f"{source}: does not fit the model. Missing {len(missing)}: {', '.join(missing[:5])}; of another shape "
            f"{len(misshapen)}: {', '.join(misshapen[:5])}; unused {len(unused)}: {', '.join(unused[:5])}. "
            f"Expected {expected}."
        )
    module.load_state_dict({key: state[key] for key in own}, strict=True)
