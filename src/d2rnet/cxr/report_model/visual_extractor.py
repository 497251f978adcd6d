"""Global branch: a radiograph to a map of features and to patch features for the encoder.

Source: D2R-Net (Tang et al., J Imaging Inform Med 2025): ResNet -> CPCA attention -> 1x1 convolution. CPCA: channel prior
convolutional attention (Huang et al., 2024). The ResNet is torchvision's (BSD-3), taken as a library.
Differs: radiographs have one channel, so the first convolution has one too; three-channel weights are summed over their input
channels, which equals feeding the grey image three times (up to ImageNet's slightly different means of the three channels).

Shapes: N images, S input side, C backbone channels, (h, w) map, P patch channels.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from d2rnet.errors import CheckpointError
from d2rnet.files.safetensors_files import load_safetensors
from d2rnet.files.torch_files import load_torch
from d2rnet.training.collectives import GlobalBatchNorm

# Mean over the three channels of ImageNet's mean and standard deviation, for pixels in [0, 1].
PIXEL_MEAN = 0.449
PIXEL_STD = 0.226
CHANNEL_REDUCTION = 4
STRIP_LENGTHS = (7, 11, 21)
# R2Gen's image network is a Sequential of torchvision's ResNet without its last two parts; 2 and 3 have no weights.
R2GEN_BACKBONE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
R2GEN_BACKBONE_KEY = re.compile(r"(?:module\.)?visual_extractor\.model\.(\d)\.(.+)")


class ChannelPriorAttention(nn.Module):
    """CPCA: channel attention, then a spatial map from depthwise strips of several lengths."""

    def __init__(self, channels: int) -> None:
        """Make the block for maps of ``channels`` channels; the output has as many."""
        super().__init__()
        hidden = max(1, channels // CHANNEL_REDUCTION)
        self.entry = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())
        self.channel_mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, (1, length), padding=(0, length // 2), groups=channels),
                nn.Conv2d(channels, channels, (length, 1), padding=(length // 2, 0), groups=channels),
            )
            for length in STRIP_LENGTHS
        )
        self.spatial = nn.Conv2d(channels, channels, 1)
        self.exit = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (N, C, h, w) -> (N, C, h, w)."""
        x = self.entry(x)
        mean = x.mean(dim=(2, 3), keepdim=True)
        peak = x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel_mlp(mean).sigmoid() + self.channel_mlp(peak).sigmoid())
        local = self.local(x)
        spatial = self.spatial(local + sum(strip(local) for strip in self.strips))
        return self.exit(spatial * x)


class VisualExtractor(nn.Module):
    """ResNet, CPCA and projection."""

    def __init__(self, *, backbone: str, stages: int, patch_channels: int, attention: bool) -> None:
        """Make the branch with random weights.

        Args:
            backbone: torchvision's name, such as ``resnet101``.
            stages: residual stages used, 2 to 4; the stride is 2 ** (stages + 1).
            patch_channels: channels of the patch features.
            attention: whether CPCA follows the backbone.
        """
        super().__init__()
        resnet = getattr(torchvision.models, backbone)(weights=None, norm_layer=GlobalBatchNorm)
        resnet.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        names = ["conv1", "bn1", "relu", "maxpool", *(f"layer{number}" for number in range(1, stages + 1))]
        self.backbone = nn.Sequential()
        for name in names:
            self.backbone.add_module(name, getattr(resnet, name))
        last_block = getattr(resnet, names[-1])[-1]
        self.channels: int = (last_block.bn3 if hasattr(last_block, "bn3") else last_block.bn2).num_features
        self.stride: int = 2 ** (stages + 1)
        self.attention = ChannelPriorAttention(self.channels) if attention else nn.Identity()
        self.projection = nn.Conv2d(self.channels, patch_channels, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features.

        Args:
            pixels: (N, S, S) uint8.

        Returns:
            (N, C, h, w) map after CPCA, for pooling lesions, and (N, h * w, P) patch features, row by row.
        """
        x = (pixels.unsqueeze(1).to(self.projection.weight.dtype) / 255 - PIXEL_MEAN) / PIXEL_STD
        feature_map = self.attention(self.backbone(x))
        return feature_map, self.projection(feature_map).flatten(2).transpose(1, 2)

    def load_backbone(self, path: str | Path) -> None:
        """Load a torchvision ResNet state dict, or the ResNet of an R2Gen checkpoint, into the backbone.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: unreadable, or a weight of the backbone is missing in the file or has another shape.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"cxr.report.model.backbone_weights: {path}: no such file.")
        state = load_safetensors(path) if path.suffix == ".safetensors" else load_torch(path)
        load_matching(self.backbone, _one_channel(_with_torchvision_names(state)), source=path)


def _with_torchvision_names(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ResNet of an R2Gen checkpoint under torchvision's names; another state dict as it is."""
    saved = state["state_dict"] if isinstance(state.get("state_dict"), dict) else state
    found = [(R2GEN_BACKBONE_KEY.fullmatch(str(key)), value) for key, value in saved.items()]
    renamed = {f"{R2GEN_BACKBONE[key[1]]}.{key[2]}": value for key, value in found if key and key[1] in R2GEN_BACKBONE}
    return renamed or state


def _one_channel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum the first convolution over its input channels."""
    kernels = state.get("conv1.weight")
    if not isinstance(kernels, Tensor) or kernels.ndim != 4:
        return dict(state)
    return {**state, "conv1.weight": kernels.sum(dim=1, keepdim=True)}


def load_matching(module: nn.Module, state: Mapping[str, Tensor], *, source: Path) -> None:
    """Load every tensor of ``module`` from ``state``; what the module does not use is left out.

    Raises:
        CheckpointError: a tensor of the module is missing or has another shape; the first keys of both are listed.
    """
    own = module.state_dict()
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
            "Expected a state dict of the same ResNet depth with torchvision's key names."
        )
    module.load_state_dict({key: state[key] for key in own}, strict=True)
