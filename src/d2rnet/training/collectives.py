"""Sums and gathers over the processes that share a training step; with one process each is the identity.

They let a step of several processes be the step of one process on the whole batch: losses and statistics are over all
entries. Values that carry a gradient carry it back over process borders: a process's objective counts with 1 / processes
(DDP averages gradients), and each of these backward passes adds up what all processes ask for.

Shapes: n rows of this process, N rows of all processes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm


def num_processes() -> int:
    """Return how many processes share the step."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Return this process's place, from 0."""
    return dist.get_rank() if num_processes() > 1 else 0


class _Sum(torch.autograd.Function):
    """Sum over processes; so is the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """Concatenate the rows of all processes; a row's gradient is the sum of what all processes ask of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, counts: list[int]) -> Tensor:
        ctx.start = sum(counts[: dist.get_rank()])
        ctx.count = len(values)
        padded = values.new_zeros(max(counts), *values.shape[1:])
        padded[: len(values)] = values.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count], None


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor of the same shape over processes."""
    return values if num_processes() == 1 else _Sum.apply(values)


def gather_rows(values: Tensor) -> Tensor:
    """Concatenate (n, ...) of all processes, first process first: (N, ...); n may differ, the rest may not."""
    return values if num_processes() == 1 else _Gather.apply(values, _row_counts(len(values), values.device))


def first_row(count: int, device: torch.device) -> int:
    """Return where the first of this process's ``count`` rows lies among the rows of all processes."""
    return 0 if num_processes() == 1 else sum(_row_counts(count, device)[: process_rank()])


def _row_counts(count: int, device: torch.device) -> list[int]:
    counts = torch.zeros(num_processes(), dtype=torch.long, device=device)
    counts[process_rank()] = count
    dist.all_reduce(counts)
    return counts.tolist()


def most_over_processes(count: int, device: torch.device) -> int:
    """Return the largest count of all processes."""
    if num_processes() == 1:
        return count
    most = torch.tensor(count, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def pad_over_processes(values: Tensor, dim: int) -> Tensor:
    """Pad a dimension with zeros to the longest of all processes."""
    if num_processes() == 1:
        return values
    missing = list(values.shape)
    missing[dim] = most_over_processes(values.shape[dim], values.device) - values.shape[dim]
    return torch.cat([values, values.new_zeros(missing)], dim=dim)


def gather_objects(value: Any) -> list[Any]:
    """Return every process's plain Python value, first process first."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def average_over_processes(tensors: list[Tensor]) -> None:
    """Replace floating-point tensors by their means over all processes, in place."""
    if num_processes() == 1 or not tensors:
        return
    flat = sum_over_processes(torch.cat([tensor.flatten() for tensor in tensors])) / num_processes()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' batches, on CPU and GPU; a process may hold no image.

    On GPUs it does what torch.nn.SyncBatchNorm does, which is for GPUs only: no DDP takes a network with one to a CPU.

    Attributes:
        instead: what to do in place of the below while batches go through in chunks (training/chunks.py); else None.
    """

    instead: "Callable[[GlobalBatchNorm, Tensor], Tensor] | None" = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise: (n, C, h, w) -> (n, C, h, w)."""
        if self.instead is not None:
            return self.instead(self, x)
        if not self.training or num_processes() == 1:
            return super().forward(x)
        if x.is_cuda:
            return self._on_gpus(x)
        values = x.float()
        own = torch.cat([values.sum(dim=(0, 2, 3)), values.new_tensor([values.numel() / self.num_features])])
        total = sum_over_processes(own)
        count = total[-1].detach().clamp(min=1)
        mean = total[:-1] / count
        # Squares of differences, not of values: the variance of a bright map would drown in rounding.
        centred = values - mean[:, None, None]
        variance = sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        self.track(mean.detach(), variance.detach(), count)
        return self.scaled(centred, variance).to(x.dtype)

    def _on_gpus(self, x: Tensor) -> Tensor:
        """Do the same with torch's kernels; they gather float32 statistics, but zeros of the type of an empty batch."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        values = x if x.numel() else x.float()
        affine, running = (self.weight, self.bias), (self.running_mean, self.running_var)
        rates = (self.eps, self.momentum)
        return SyncBatchNorm.apply(values, *affine, *running, *rates, dist.group.WORLD, num_processes()).to(x.dtype)

    def scaled(self, centred: Tensor, variance: Tensor) -> Tensor:
        """Give (n, C, h, w) of mean 0 and ``variance`` (C,) the norm's own deviation and mean."""
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Take the statistics (C,) of a step's ``count`` () places into the running ones."""
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
