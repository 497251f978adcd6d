"""Weight files: the released ones, and pretrained backbones of other projects.

Released files hold ``{"model": state}`` under detectron2's plain parameter names, readable by its ``DetectionCheckpointer``.
"""

import logging
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from d2rnet.errors import CheckpointError
from d2rnet.files.torch_files import load_torch, save_torch, unsound_tensors

log = logging.getLogger(__name__)
BACKBONE_PREFIX = "backbone.bottom_up."
STEM = BACKBONE_PREFIX + "stem.conv1."
SHOWN_KEYS = 8
TORCHVISION_NAMES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)
SAFE_PICKLE_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


@dataclass(frozen=True)
class Channels:
    """How the three channels were normalised that a pretrained stem has seen: mean and divisor of each, grey levels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


CAFFE2_CHANNELS = Channels((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))  # BGR; detectron2's default
TORCHVISION_CHANNELS = Channels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # RGB


@dataclass(frozen=True)
class PretrainedFile:
    """What a weight file holds.

    Attributes:
        tensors: by detectron2's names.
        names: the file's own name of each.
        channels: what its stem has seen; None where the file does not tell.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    channels: Channels | None


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a network's weights, atomically, as ``{"model": state}`` on the CPU."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_torch(path, {"model": state})


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a file of :func:`save_weights`; every key must match.

    Raises:
        CheckpointError: no such file, unreadable, other keys or shapes than the network's (both lists are shown), or not
            finite.
    """
    state = load_torch(path).get("model")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: no 'model' in it; expected a weight file of 'd2rnet train-detector'.")
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(map(str, state.keys() - own.keys()))
    shapes = [
        f"{k} {_shape(state[k])}, expected {tuple(own[k].shape)}"
        for k in own
        if k in state and _shape(state[k]) != tuple(own[k].shape)
    ]
    if missing or unknown or shapes:
        raise CheckpointError(
            f"{path}: does not fit config.yaml beside it. Missing: {_shown(missing)}. Unknown: {_shown(unknown)}. "
            f"Other shape: {_shown(shapes)}."
        )
    if unsound := unsound_tensors(state, own):
        raise CheckpointError(
            f"{path}: tensors with NaN, infinity or whole numbers: {_shown(unsound)}; expected finite weights (with "
            "others no box is drawn, and nothing is said). Copy the file again, or train the detector again."
        )
    model.load_state_dict(state, strict=True)


def _shape(value: Any) -> tuple[int, ...] | str:
    """Shape of a tensor; for anything else the name of its type, which is no tensor's shape."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True)
class PretrainedReport:
    """What a pretrained file gave: names of the network, and the file's own names that found no use."""

    loaded: list[str]
    not_in_file: list[str]
    unused: list[str]

    def counts(self) -> dict[str, Any]:
        """Numbers and names for run.json."""
        return {"loaded": len(self.loaded), "not_in_file": len(self.not_in_file), "unused": self.unused}


def load_pretrained(path: Path, model: nn.Module) -> PretrainedReport:
    """Start from weights of detectron2 (.pth, .pkl), Caffe2 (.pkl) or torchvision (.pth).

    Backbone weights alone are enough, but then all of the backbone must be there: half a network loaded in silence is the
    usual reason why warm starts disappoint. A three-channel stem becomes the one-channel stem that gives the same on a grey
    image, see :func:`one_channel_stem`.

    Args:
        path: weight file. Pickles are read with everything but NumPy arrays refused. As detectron2 does, a file of names
            without a dot is taken for Caffe2's, whether or not it says so: ``MSRA/R-50.pkl`` is a bare dictionary.
        model: the network; changed in place.

    Returns:
        What was loaded.

    Raises:
        CheckpointError: unreadable, nothing fits, or the backbone is covered in part only.
    """
    file = _translated(_read_pickle(path) if path.suffix == ".pkl" else load_torch(path), path)
    found = _grey_stem(file, model, path)
    own = model.state_dict()
    loaded = []
    used = set()
    mismatched = []
    for name, tensor in own.items():
        source = name if name in found else name.removeprefix(BACKBONE_PREFIX)
        if source not in found:
            continue
        value = found[source]
        if value.shape != tensor.shape:
            mismatched.append(f"{name}: {tuple(value.shape)} in the file, {tuple(tensor.shape)} here")
            continue
        tensor.copy_(value)
        loaded.append(name)
        used.add(source)
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    unused = sorted(file.names.get(name, name) for name in file.tensors.keys() - used)
    report = PretrainedReport(loaded, sorted(own.keys() - set(loaded) - counters), unused)
    folded = _folded_statistics(model)
    incomplete = [name for name in report.not_in_file if name.startswith(BACKBONE_PREFIX) and name not in folded]
    if not loaded or incomplete:
        what = "nothing in it fits" if not loaded else f"{len(incomplete)} backbone tensors are not in it"
        raise CheckpointError(
            f"{path}: {what}. Missing: {_shown(incomplete)}. Unused: {_shown(report.unused)}. "
            f"Other shape: {_shown(mismatched)}. "
            "Check cxr.detector.model backbone_depth, backbone_width, norm and finest_level against the file."
        )
    log.info(
        "%s: %d tensors loaded; %d start at random: %s",
        path.name,
        len(loaded),
        len(report.not_in_file),
        _shown(report.not_in_file),
    )
    log.info("%s: %d tensors of the file unused: %s", path.name, len(report.unused), _shown(report.unused))
    for line in mismatched:
        log.warning("%s: not loaded, other shape: %s", path.name, line)
    return report


def one_channel_stem(kernels: Tensor, channels: Channels, pixel_mean: float, pixel_std: float) -> tuple[Tensor, Tensor]:
    """Turn the first convolution of a colour network into that of a grey one.

    On a grey image g the colour stem sees (g - mean_c) / std_c in channel c, ours (g - pixel_mean) / pixel_std. So it sums
    kernel_c * pixel_std / std_c over c, and what it gives is less by kernel_c * (pixel_mean - mean_c) / std_c, summed over c
    and the kernel. (Up to the border, where both pad with 0.)

    Args:
        kernels: (O, 3, k, k).
        channels: what they have seen.
        pixel_mean: ours, grey levels.
        pixel_std: ours, grey levels.

    Returns:
        Kernels (O, 1, k, k), and (O,) what has to be added to their output.
    """
    std = torch.tensor(channels.std)[:, None, None]  # (3, 1, 1)
    shift = pixel_mean - torch.tensor(channels.mean)[:, None, None]  # (3, 1, 1)
    kernels = kernels.float() / std
    return (kernels * pixel_std).sum(dim=1, keepdim=True), (kernels * shift).sum(dim=(1, 2, 3))


def _grey_stem(file: PretrainedFile, model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, with a stem of one channel if the network has one and the file three.

    The constant goes off the running mean of the stem's normalisation: frozen or not, batch statistics or running ones, that
    is exact. (In the bias it would be wrong for batch statistics, which take it off by themselves.)
    """
    tensors = dict(file.tensors)
    own = model.state_dict()
    name = next((name for name in (STEM + "weight", STEM.removeprefix(BACKBONE_PREFIX) + "weight") if name in tensors), "")
    kernels = tensors.get(name)
    if kernels is None or kernels.ndim != 4 or kernels.shape[1] != 3 or own[STEM + "weight"].shape[1] != 1:
        return tensors
    pixel_mean, pixel_std = (float(model.get_buffer(name)) for name in ("pixel_mean", "pixel_std"))
    if file.channels is None:
        log.warning("%s: does not tell how its input was normalised; taken for grey levels normalised as here", path.name)
    channels = file.channels or Channels((pixel_mean,) * 3, (pixel_std,) * 3)
    tensors[name], constant = one_channel_stem(kernels, channels, pixel_mean, pixel_std)
    mean = name.replace("conv1.weight", "conv1.norm.running_mean")
    if STEM + "norm.running_mean" in own:
        tensors[mean] = tensors.get(mean, torch.zeros_like(constant)) - constant
    else:
        log.warning("%s: the stem's normalisation keeps no mean that could take up the colour channels' means", path.name)
    return tensors


def _folded_statistics(model: nn.Module) -> set[str]:
    """Statistics of frozen normalisation layers: Caffe2 folds them into weight and bias, leaving mean 0, variance 1."""
    frozen = [name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    return {f"{name}.{statistic}" for name in frozen for statistic in ("running_mean", "running_var")}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays in plain containers and nothing else, so that a weight file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class but those an array is made of."""
        if (module, name) not in SAFE_PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weight file")
        return super().find_class(module, name)


_PICKLE_REMEDY = "Copy it again; if it holds other objects, save its arrays alone where it was made."


def _read_pickle(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file.")
    try:
        with path.open("rb") as stream:
            content = _ArrayUnpickler(stream, encoding="latin1").load()
    except Exception as error:  # damaged pickles raise almost anything
        raise CheckpointError(f"{path}: not a pickled detectron2 or Caffe2 weight file ({error}). {_PICKLE_REMEDY}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a dictionary of arrays.")
    return content


def _translated(content: dict[str, Any], path: Path) -> PretrainedFile:
    """Flatten a file to detectron2 names -> tensors, whichever project it came from."""
    state = next((content[key] for key in ("model", "state_dict", "blobs") if key in content), content)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: got a {type(state).__name__} where the weights should be; expected names and arrays.")
    tensors = {
        name: torch.as_tensor(value)
        for name, value in state.items()
        if _is_array(value) and isinstance(name, str) and not name.endswith("_momentum")
    }
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it; expected weights of detectron2, Caffe2 or torchvision.")
    if not any("." in name for name in tensors):
        from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

        renamed, names = convert_c2_detectron_names(tensors)
        return PretrainedFile(renamed, names, CAFFE2_CHANNELS)
    if any(name.startswith("layer1.") for name in tensors):
        names = {_from_torchvision(name): name for name in tensors}
        return PretrainedFile({new: tensors[name] for new, name in names.items()}, names, TORCHVISION_CHANNELS)
    return PretrainedFile(tensors, {}, _channels_of(content, tensors))


def _channels_of(content: dict[str, Any], tensors: dict[str, Tensor]) -> Channels | None:
    """What the stem of a file with detectron2's names has seen, if the file says so."""
    if content.get("__author__") == "torchvision":  # detectron2's converter of torchvision's weights
        return TORCHVISION_CHANNELS
    mean, std = (tensors.get(name, torch.zeros(0)).flatten().tolist() for name in ("pixel_mean", "pixel_std"))
    return Channels(tuple(mean), tuple(std)) if len(mean) == len(std) == 3 else None


def _is_array(value: Any) -> bool:
    """Say whether a value is a tensor, or an array that can become one."""
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")


def _from_torchvision(name: str) -> str:
    """Rename a parameter of torchvision's ResNet to detectron2's."""
    for pattern, replacement in TORCHVISION_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _shown(names: list[str]) -> str:
    """First few names and how many more there are."""
    if not names:
        return "none"
    rest = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return ", ".join(names[:SHOWN_KEYS]) + rest
