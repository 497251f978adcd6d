"""Which device torch computes on; the same words for detector and report model."""

from typing import TYPE_CHECKING

from d2rnet.errors import ConfigError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a torch device.

    Raises:
        ConfigError: a GPU is asked for where there is none, N is too large, or the word is unknown.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise ConfigError(f"device '{name}': expected auto, cpu, cuda or cuda:N.")
    available = torch.cuda.device_count()
    if available == 0 or int(index or 0) >= available:
        raise ConfigError(
            f"device '{name}': this machine shows torch {available} GPU(s). Set runtime.device to auto or cpu, or check "
            "the driver and CUDA_VISIBLE_DEVICES with 'd2rnet doctor'."
        )
    return torch.device(name)
