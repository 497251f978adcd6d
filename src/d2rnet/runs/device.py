"""Which device torch computes on; the same words for detector and report model."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from d2rnet.errors import ConfigError

if TYPE_CHECKING:
    import torch


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = 128 * 1024, 65536  # its defaults
_GREATEST_INT = 2**31 - 1
_REMEDY = (
    "Mend what hides the GPU ('nvidia-smi' asks the driver, 'd2rnet doctor' asks torch), or, to compute on the CPU, which "
    "takes weeks at published sizes, set runtime.gpus to 0 and runtime.device to cpu (--device cpu)."
)


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
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if available == 0 or int(index or 0) >= available:
        raise ConfigError(f"device '{name}': this job shows torch {available} GPU(s): {gpu_facts()}. {_REMEDY}")
    return torch.device(name)


@contextmanager
def freed_memory_kept(device: "torch.device") -> Iterator[None]:
    """Let a process that trains on the CPU keep what it frees, instead of asking the system for it in every step.

    glibc gives large buffers back at once, and the next step pays for each of their pages anew: a third of the processor time
    of stage 1 of chest CT (docs/explanation/measurements.md). Inside, the process stays as large as it was at its largest; at
    the end all that is free is given back. Does nothing on a GPU and with another C library (macOS, musl).
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _GREATEST_INT)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        libc.malloc_trim(0)


def gpu_facts() -> str:
    """Say what decides whether torch sees a GPU: how it was built, CUDA_VISIBLE_DEVICES and the driver."""
    import torch

    name = "CUDA_VISIBLE_DEVICES"
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA (a CPU wheel)"
    visible = f"{name} is {os.environ[name]!r}" if name in os.environ else f"{name} is not set"
    driver = "an" if Path("/proc/driver/nvidia/version").exists() else "no"
    return f"torch {torch.__version__} is built {built}, {visible}, {driver} NVIDIA driver is loaded"


def device_words(device: "torch.device", processes: int = 1) -> str:
    """Name the devices of a training with their hardware, for the first line of its log.

    Args:
        device: of :func:`resolve_device`.
        processes: how many train together, on GPUs one on each.

    Returns:
        For instance "cpu, 2 process(es)" or "cuda:0 (NVIDIA H100), cuda:1 (NVIDIA H100), 2 process(es)".
    """
    import torch

    names = [str(device)]
    if device.type == "cuda":
        indices = range(processes) if processes > 1 else [device.index or 0]
        names = [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in indices]
    return f"{', '.join(names)}, {processes} process(es)"
