"""A network with batch norms on many rows, chunk by chunk: memory of one chunk, results of all rows at once.

Plain checkpointing of chunks would give each chunk its own batch statistics, so that the result depended on where the rows are
cut. Here a norm's statistics are those of all rows of all processes, whatever the chunks: the forward pass goes through the
chunks once for each norm, as far as that norm, then once more for the output. The backward pass turns the same way: the
gradient of a norm's mean and variance needs all rows, and those of the norms behind it first. Nothing is kept but the rows'
inputs, the statistics and the outputs; the rest is computed again. Beyond the sums of a chunk the memory does not grow.

Price: with n norms, n + 1 passes forward and n + 1 forward and backward instead of one of each, so that it is meant for the
few batches that do not fit. A network draws nothing at random while it runs: it would draw anew in each pass.

Shapes: n rows of a chunk, N rows of this process, P chunks, C channels, W width of the output.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from d2rnet.training.collectives import GlobalBatchNorm, sum_over_processes

Run = Callable[[slice], Tensor]


def run_in_chunks(network: nn.Module, run: Run, *, count: int, chunk: int) -> Tensor:
    """Apply a network to rows, in training with statistics of all of them.

    Args:
        network: in training its GlobalBatchNorms all take part in ``run``; every process has to call this.
        run: takes the rows of a slice, (n, ...), through the network: (n, W). It computes the same whenever it is called.
        count: N; a process may have none.
        chunk: most rows of a slice.

    Returns:
        (N, W). Gradients reach the parameters of ``network`` alone.
    """
    slices = [slice(start, min(start + chunk, count)) for start in range(0, max(count, 1), chunk)]
    if not network.training:
        return torch.cat([run(rows) for rows in slices])
    norms = [module for module in network.modules() if isinstance(module, GlobalBatchNorm)]
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found: Tensor = _Chunks.apply(run, norms, slices, *parameters)
    return found


@dataclass(frozen=True)
class _Statistics:
    """Mean and variance (C,) of what enters a norm, over all rows of all processes, and of how many places each is."""

    mean: Tensor
    variance: Tensor
    count: Tensor


class _UnknownNormError(Exception):
    """A chunk has come to a norm whose statistics are not known yet."""


class _Passage:
    """One chunk on its way: norms standardise by what is known.

    Attributes:
        stopped: the norm without known statistics that it has come to, with what enters there (n, C, h, w).
    """

    def __init__(self, known: dict[GlobalBatchNorm, _Statistics], pulls: dict[GlobalBatchNorm, Tensor] | None = None) -> None:
        """Take statistics, and the pulls (2, C) on some norms' mean and variance: gradients over the number of places."""
        self.known = known
        self.pulls = pulls or {}
        self.stopped: tuple[GlobalBatchNorm, Tensor] | None = None

    def normalise(self, norm: GlobalBatchNorm, x: Tensor) -> Tensor:
        """Do what a norm does: (n, C, h, w) -> (n, C, h, w)."""
        if norm not in self.known:
            self.stopped = norm, x
            raise _UnknownNormError
        mean, variance = self.known[norm].mean, self.known[norm].variance
        if mean.requires_grad:  # torch's own gives them no gradient, but keeps a third as much
            return norm.scaled(_wide(x) - mean[:, None, None], variance).to(x.dtype)
        if norm in self.pulls:
            x.register_hook(partial(_pulled, x.detach(), mean, self.pulls[norm]))
        return F.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=norm.eps)


def _pulled(x: Tensor, mean: Tensor, pull: Tensor, gradient: Tensor) -> Tensor:
    """Add to the gradient of what enters a norm (n, C, h, w) that by way of its statistics.

    d mean / d x = 1 / count and d variance / d x = 2 (x - mean) / count; the pull (2, C) is over the count already.
    """
    moved = _wide(x) - mean[:, None, None]
    moved.mul_(2 * pull[1, :, None, None]).add_(pull[0, :, None, None]).add_(gradient)  # the one map that this takes
    return moved.to(gradient.dtype)


class _Chunks(torch.autograd.Function):
    """The whole of it: parameters -> (N, W)."""

    @staticmethod
    def forward(
        ctx: Any, run: Run, norms: Sequence[GlobalBatchNorm], slices: Sequence[slice], *parameters: nn.Parameter
    ) -> Tensor:
        known: dict[GlobalBatchNorm, _Statistics] = {}
        for _ in norms:
            norm, statistics = _next_statistics(run, norms, slices, known)
            norm.track(statistics.mean, statistics.variance, statistics.count)
            known[norm] = statistics
        ctx.run, ctx.norms, ctx.slices, ctx.known, ctx.parameters = run, norms, slices, known, parameters
        device = parameters[0].device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        with _passing(norms, _Passage(known)):
            return torch.cat([run(rows) for rows in slices])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pulls: dict[GlobalBatchNorm, Tensor] = {}
        for norm, statistics in reversed(ctx.known.items()):
            mean = statistics.mean.clone().requires_grad_()
            variance = statistics.variance.clone().requires_grad_()
            known = ctx.known | {norm: _Statistics(mean, variance, statistics.count)}
            own = torch.stack(_gradients(ctx, gradients[0], known, pulls, [mean, variance]))  # (2, C)
            pulls[norm] = sum_over_processes(own) / statistics.count
        return None, None, None, *_gradients(ctx, gradients[0], ctx.known, pulls, ctx.parameters)


def _gradients(
    ctx: Any,
    gradient: Tensor,
    known: dict[GlobalBatchNorm, _Statistics],
    pulls: dict[GlobalBatchNorm, Tensor],
    leaves: Sequence[Tensor],
) -> list[Tensor]:
    """Gradients of ``leaves``, by way of the output and of the statistics of the norms in ``pulls``.

    Args:
        ctx: of the forward pass.
        gradient: (N, W) of the output.
        known: statistics of all norms; some may be among the leaves.
        pulls: (2, C) gradients of a norm's mean and variance over the number of places that these are of.
        leaves: what the gradients are of.
    """
    device, dtype, enabled = ctx.autocast

    def again(rows: slice) -> Tensor:
        autocast = torch.autocast(device, dtype, enabled=enabled, cache_enabled=False)
        with _passing(ctx.norms, _Passage(known, pulls)), torch.enable_grad(), autocast:
            out: Tensor = ctx.run(rows)
            return out

    total = [torch.zeros_like(leaf) for leaf in leaves]
    for rows in ctx.slices:
        # No name for the output: what its graph holds would live on beside the next chunk's.
        found = torch.autograd.grad(again(rows), list(leaves), gradient[rows])
        total = [one + other for one, other in zip(total, found, strict=True)]
    return total


def _next_statistics(
    run: Run, norms: Sequence[GlobalBatchNorm], slices: Sequence[slice], known: dict[GlobalBatchNorm, _Statistics]
) -> tuple[GlobalBatchNorm, _Statistics]:
    """Take all rows as far as the first norm that is not known; return it with its statistics."""
    counts, means, squares = [], [], []
    for rows in slices:
        passage = _Passage(known)
        with _passing(norms, passage), suppress(_UnknownNormError):
            run(rows)
        assert passage.stopped is not None
        norm, x = passage.stopped
        values = _wide(x)
        counts.append(values.new_tensor([values.numel() / norm.num_features]))
        means.append(values.sum(dim=(0, 2, 3)) / counts[-1].clamp(min=1))
        squares.append((values - means[-1][:, None, None]).square().sum(dim=(0, 2, 3)))
    places, mean_of, square_of = torch.stack(counts), torch.stack(means), torch.stack(squares)  # (P, 1), (P, C), (P, C)
    total = sum_over_processes(torch.cat([(places * mean_of).sum(dim=0), places.sum(dim=0)]))
    count = total[-1].clamp(min=1)
    mean = total[:-1] / count
    # Squares about each chunk's own mean, then its distance from the common one: nothing drowns in rounding.
    variance = sum_over_processes((square_of + places * (mean_of - mean).square()).sum(dim=0)) / count
    return norm, _Statistics(mean, variance, count)


@contextmanager
def _passing(norms: Sequence[GlobalBatchNorm], passage: _Passage) -> Iterator[None]:
    """Have norms do as ``passage`` says."""
    for norm in norms:
        norm.instead = passage.normalise
    try:
        yield
    finally:
        for norm in norms:
            norm.instead = None


def _wide(x: Tensor) -> Tensor:
    """In 32 bits at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
