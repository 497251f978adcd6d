"""A pretend GPU: tensors that were moved to ``cuda:0`` are kept on the CPU and marked, and what a real one minds is minded.

While :func:`pretend_gpu` is active every call of torch from Python passes through a mode. It raises where marked and plain
tensors meet in one call, as CUDA does (numbers, that is plain tensors without dimension, may meet marked ones), and where a
marked one is turned into a NumPy array; it counts the calls at which a GPU is waited for. A copy to it is a copy: what is
changed on one side afterwards is not changed on the other.

What it cannot see: what C++ does inside a call, so kernels, memory, streams, mixed precision and speed; Python code that runs
inside a call of torch, such as the backward pass of a ``torch.autograd.Function``; several processes (NCCL).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

GPU = torch.device("cuda", 0)
MARK = "_on_the_pretend_gpu"
# Calls whose result a GPU must have computed before Python goes on.
WAITS = {
    "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__", "__repr__", "__format__",
    "equal", "allclose", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "is_nonzero",
}  # fmt: skip
# Calls in which both kinds may meet.
MAY_MIX = {"copy_", "to", "type_as", "expand_as", "view_as", "reshape_as", "new_tensor", "_has_compatible_shallow_copy_type"}
NUMBERS_MAY_NOT_MIX = {"cat", "stack", "matmul", "mm", "bmm", "linear", "conv2d", "embedding", "index_select", "gather"}

# What the package asks of torch.cuda. is_available stays False: with True data loaders would pin memory.
CUDA = {
    "default_generators": (torch.default_generator,),
    "device_count": lambda: 1,
    "get_device_name": lambda device=None: "pretend GPU",
    "set_device": lambda device: None,
    "current_device": lambda: 0,
}


def on_gpu(tensor: Any) -> bool:
    """Whether a tensor is on the pretend GPU."""
    return getattr(tensor, MARK, False)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _tensors(part)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _holds_list(index: Any) -> bool:
    """Whether an index holds a list, or an array, of numbers: torch makes a tensor of it, inside the call."""
    return any(isinstance(part, (list, np.ndarray)) for part in (index if isinstance(index, tuple) else (index,)))


def _is_gpu(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == GPU.type


class PretendGpu(TorchFunctionMode):
    """The mode; ``waits`` counts by name the calls at which the GPU was waited for."""

    def __init__(self) -> None:
        """Begin with no wait."""
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what a call of torch does, on the CPU."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        owner = getattr(getattr(func, "__self__", None), "__name__", "")  # of a property: "device" and the like
        given = list(_tensors([args, kwargs]))
        marked = any(map(on_gpu, given))
        if name == "__get__" and owner in ("device", "is_cuda") and on_gpu(args[0]):
            return GPU if owner == "device" else True
        if name == "__set__":
            return self._set(owner, func, args)
        if name in ("to", "cuda", "cpu"):
            return self._move(name, *args, **kwargs)
        wants_gpu = _is_gpu(kwargs.get("device"))
        if wants_gpu:
            kwargs["device"] = "cpu"
        if name == "__reduce_ex__" and marked:  # a file holds no device: torch.load says where to
            self.waits["copy to the CPU"] += 1
            return args[0].detach().__reduce_ex__(args[1])
        if marked:
            self._mind(name, func, args, given)
        result = func(*args, **kwargs)
        if name == "__iter__":
            result = list(result)
        if marked or wants_gpu:
            known = {id(tensor) for tensor in given}
            for tensor in _tensors(result):
                if wants_gpu or (id(tensor) not in known and kwargs.get("device") != "cpu"):
                    setattr(tensor, MARK, True)
        return iter(result) if name == "__iter__" else result

    def _set(self, owner: str, func: Any, args: Any) -> None:
        """Set a property; a tensor whose data are exchanged goes where the data are."""
        func(*args)
        if owner == "data":
            setattr(args[0], MARK, on_gpu(args[1]))

    def _mind(self, name: str, func: Any, args: Any, given: list[Tensor]) -> None:
        """Raise where devices are mixed, and count waits."""
        if name == "numpy" or name == "__array__":
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        plain = [tensor for tensor in given if not on_gpu(tensor)]
        if name in ("__getitem__", "__setitem__"):
            index = list(_tensors(args[1]))
            if not on_gpu(args[0]) and any(map(on_gpu, index)):
                raise RuntimeError(f"{name}: indices should be on the device of the indexed tensor (cpu)")
            by_mask = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in index)
            # a plain index is copied
            if by_mask or any(not on_gpu(tensor) for tensor in index) or _holds_list(args[1]):
                self.waits[f"{name} with a mask or a plain index"] += 1
            return
        if name in WAITS or (name == "where" and len(args) == 1):
            self.waits[name] += 1
        if name == "repeat_interleave" and len(args) > 1 and isinstance(args[1], Tensor):
            self.waits[name] += 1
        if name == "tensor":  # numbers read from a list of tensors
            self.waits[name] += len(given)
            return
        if name in MAY_MIX or name.startswith("__get__"):
            if name == "copy_" and plain and not on_gpu(args[0]):
                self.waits["copy to the CPU"] += 1
            return
        bad = [tensor for tensor in plain if tensor.dim() > 0 or name in NUMBERS_MAY_NOT_MIX]
        if bad and not _state_steps(name, plain, given):
            where = resolve_name(func) or name
            raise RuntimeError(
                f"{where}: expected all tensors to be on the same device, but found cuda:0 and cpu, {tuple(bad[0].shape)}"
            )

    def _move(self, name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``to``, ``cuda`` and ``cpu``."""
        args = list(args)
        target = on_gpu(tensor)
        if name != "to":
            target = name == "cuda"
            args = [] if name == "cuda" else args
        elif args and isinstance(args[0], Tensor):
            target = on_gpu(args[0])
        elif args and isinstance(args[0], (str, torch.device)):
            target = _is_gpu(args[0])
            args[0] = "cpu"
        if kwargs.get("device") is not None:
            target = _is_gpu(kwargs["device"])
            kwargs["device"] = "cpu"
        moved = tensor.to(*args, **kwargs) if name == "to" else tensor
        if target != on_gpu(tensor):
            if not target or not kwargs.get("non_blocking", len(args) > 2 and args[2]):
                self.waits["copy to the CPU" if not target else "blocking copy to the GPU"] += 1
            moved = moved.clone() if moved is tensor or moved.data_ptr() == tensor.data_ptr() else moved
        if moved is not tensor:
            setattr(moved, MARK, target)
        return moved


def _state_steps(name: str, plain: list[Tensor], given: list[Tensor]) -> bool:
    """Whether a call is over lists of numbers that an optimiser keeps on the CPU beside weights on the GPU."""
    return name.startswith("_group_tensors") or (name.startswith("_foreach") and len(plain) == len(given))


@contextmanager
def pretend_gpu() -> Iterator[PretendGpu]:
    """Let ``cuda:0`` exist; parameters made of marked tensors are marked."""
    made = nn.Parameter.__new__

    def new(cls: type, data: Any = None, requires_grad: bool = True) -> Any:
        parameter = made(cls, data, requires_grad)
        if on_gpu(data):
            setattr(parameter, MARK, True)
        return parameter

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(nn.Parameter, "__new__", new))
        for name, value in CUDA.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        yield stack.enter_context(PretendGpu())
