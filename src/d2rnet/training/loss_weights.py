"""Weights of losses beside a main one: fixed, or by how hard each pulls at the parameters that it shares with the main one.

Source: GradNorm (Chen et al., ICML 2018) balances losses by the norms of their gradients on shared parameters. Ours: a norm is
held at a given ratio to the main loss's, by a moving average of measurements, without a loss or an optimiser of its own.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from d2rnet.training.collectives import average_over_processes

RATIO_MOMENTUM = 0.9
LEAST_RATIO = 1e-3  # a loss that hardly pulls gets at most 1000 times the wanted ratio as its weight


class LossWeights(nn.Module):
    """Weighs losses, and measures their gradients. All of its state is in its buffers: it resumes exactly.

    Attributes:
        steps: () steps of training so far.
        ratios: (L,) moving average of each loss's gradient norm, unweighted, over the main loss's; 0 before the first.
        measured: (L,) how often each was measured.
    """

    steps: Tensor
    ratios: Tensor
    measured: Tensor

    def __init__(
        self, base: Mapping[str, float], *, target_ratio: float | None, warmup_steps: int, measure_every_steps: int
    ) -> None:
        """Begin at step 0.

        Args:
            base: name of each loss -> its weight, or factor on the weight by gradients.
            target_ratio: wanted ratio of gradient norms; None: the weight is fixed.
            warmup_steps: steps over which weights rise linearly from 0; the last of them has the whole weight.
            measure_every_steps: steps from one measurement to the next; each costs a backward pass per loss and one of the
                main loss.
        """
        super().__init__()
        self.base = dict(base)
        self.target_ratio = target_ratio
        self.warmup_steps = warmup_steps
        self.measure_every_steps = measure_every_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("ratios", torch.zeros(len(self.base)))
        self.register_buffer("measured", torch.zeros(len(self.base), dtype=torch.long))
        self._measured_at = -1

    def forward(self, losses: Mapping[str, Tensor], main: Tensor, shared: Sequence[nn.Parameter]) -> dict[str, Tensor]:
        """Return losses times their weights; in training, measure them first where it is time to.

        Args:
            losses: the unweighted ones, all names of ``base``; their mean over processes is that of the whole batch.
            main: the main loss.
            shared: parameters that the main loss reaches and others may.
        """
        step = int(self.steps)
        if self.training and step % self.measure_every_steps == 0 and step != self._measured_at:
            self._measured_at = step  # the further micro-batches of a step need no measuring
            self._measure(losses, main, [parameter for parameter in shared if parameter.requires_grad])
        weights = self.weights()
        return {name: weights[place] * losses[name] for place, name in enumerate(self.base)}

    def after_step(self) -> None:
        """Count a step of the optimiser."""
        self.steps += 1

    def weights(self) -> Tensor:
        """Return the weights of this step: (L,)."""
        weights = torch.tensor(list(self.base.values()), device=self.ratios.device)
        if self.target_ratio is not None:
            # A loss that was never measured waits: at weight 1 it could pull many times as hard as the main one.
            weights = weights * (self.measured > 0) * self.target_ratio / self.ratios.clamp(min=LEAST_RATIO)
        if self.warmup_steps:
            weights = weights * ((self.steps + 1) / self.warmup_steps).clamp(max=1)
        return weights

    def values(self) -> dict[str, float]:
        """Return for the history ``<loss>_weight`` and ``<loss>_gradient_ratio``, the weighted loss's to the main one's."""
        weights = self.weights()
        found = {}
        for place, name in enumerate(self.base):
            found[f"{name}_weight"] = float(weights[place])
            found[f"{name}_gradient_ratio"] = float(weights[place] * self.ratios[place])
        return found

    def _measure(self, losses: Mapping[str, Tensor], main: Tensor, shared: Sequence[nn.Parameter]) -> None:
        of_main = mean_gradient(main, shared)
        for place, name in enumerate(self.base):
            ratio = norm_ratio(mean_gradient(losses[name], shared), of_main)
            if not 0 < float(ratio) < torch.inf:  # no box in this batch, or a loss that is not finite and is named elsewhere
                continue
            count = int(self.measured[place])
            self.ratios[place].lerp_(ratio.to(self.ratios.dtype), max(1 - RATIO_MOMENTUM, 1 / (count + 1)))
            self.measured[place] += 1


def mean_gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return the gradient of a loss, mean over processes, zeros where it does not reach; the graph can be used again."""
    found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    gradients = [
        torch.zeros_like(parameter) if part is None else part.clone()
        for part, parameter in zip(found, parameters, strict=True)
    ]
    average_over_processes(gradients)
    return gradients


def norm_ratio(gradient: Sequence[Tensor], of_main: Sequence[Tensor]) -> Tensor:
    """Return |gradient| / |main gradient| over the tensors in which the first is not zero everywhere; 0 if it is in all."""
    reached = [(part.float(), main.float()) for part, main in zip(gradient, of_main, strict=True) if part.any()]
    if not reached:
        return torch.zeros(())
    squares = torch.stack([torch.stack([part.square().sum(), main.square().sum()]) for part, main in reached])
    norm, main_norm = squares.sum(dim=0).sqrt()
    return norm / main_norm
