"""One step of a training of any model: losses, optimiser, learning rate, and what a checkpoint must hold.

Everything random in a step (dropout) is drawn from a generator seeded with (seed, step) and the order of entries from (seed,
epoch), so a run that resumes at any step goes on exactly as if it had never stopped. Losses, alignment grids and batch
statistics are over the entries of all processes: several of them make the step that one would make on the whole batch.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from d2rnet.errors import D2RNetError
from d2rnet.training.batches import EpochBatches, split_batch, start_loader_process
from d2rnet.training.collectives import num_processes, process_rank, sum_over_processes
from d2rnet.training.settings import OptimizationSettings

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Entries(Protocol):
    """Entries of a split, in order."""

    def __len__(self) -> int:
        """Return the number of entries."""

    def of_epoch(self, epoch: int) -> Dataset[Any]:
        """Return the entries as an epoch sees them: augmented, a function of the epoch alone."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Pad samples to a batch; there may be none."""


class Objective(nn.Module):
    """What is trained: makes losses of a batch. A subclass says which of its parts are trained and kept in checkpoints."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Return named losses of this process's entries; their mean over processes is that of the whole batch."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module | None]:
        """Return the modules that a checkpoint holds, by name, the one that is the result of the training as ``model``."""
        raise NotImplementedError

    def size(self, batch: Any) -> Tensor:
        """Return how much of what the losses are means over is in a batch, a scalar: micro-batches count by it.

        An objective that compares the entries of a batch with each other has none, and cannot accumulate.
        """
        raise NotImplementedError

    def weights(self) -> dict[str, float]:
        """Return what losses count for in this step's gradients, by name; 1 where there is none. The history is without."""
        return {}

    def after_step(self) -> None:
        """Do what follows a step of the optimiser."""

    def values(self) -> dict[str, float]:
        """Return what else the history shows."""
        return {}


class TrainingTask:
    """A training of steps over the shuffled entries of a split.

    Attributes:
        finished_steps: optimiser steps done since the beginning of the run, resumed parts included.
        loss_sums: by name, sum of the losses of this epoch's finished steps.
    """

    def __init__(
        self,
        objective: Objective,
        entries: Entries,
        settings: OptimizationSettings,
        *,
        device: torch.device,
        rates: Mapping[str, float] | None = None,
        loader_workers: int = 0,
        accumulation_steps: int = 1,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        """Make the optimiser; what is trained is at its beginning.

        Args:
            objective: the losses and what they train.
            entries: the training split.
            settings: of the training.
            device: where to train.
            rates: prefix of parameter names -> their own peak learning rate.
            loader_workers: processes that prepare batches.
            accumulation_steps: micro-batches that a process's part of a batch goes through the model in; their gradients
                are added up. Batch statistics, and grids of a batch, are those of a micro-batch.
            lengths: of the entries, where batches shall be of like ones; None: batches as they come.
        """
        self.objective = objective.to(device)
        self.parts = {name: part for name, part in objective.parts().items() if part is not None}
        self.entries = entries
        self.settings = settings
        self.device = device
        self.loader_workers = loader_workers
        self.accumulation_steps = accumulation_steps
        self.lengths = lengths
        self.steps_per_epoch = math.ceil(len(entries) / settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.finished_steps = 0
        self.loss_sums: defaultdict[str, float] = defaultdict(float)
        self.optimizer = make_optimizer(list(self.parts.values()), settings, rates or {})
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "16-mixed")
        allow_tf32(device, settings.precision)
        # A batch can leave a branch without a gradient: no box, no sentence.
        several = num_processes() > 1
        self.losses = DistributedDataParallel(objective, find_unused_parameters=True) if several else objective

    @property
    def model(self) -> nn.Module:
        """What the training is for."""
        return self.parts["model"]

    @property
    def finished_epochs(self) -> int:
        """Whole epochs done."""
        return self.finished_steps // self.steps_per_epoch

    @property
    def is_between_epochs(self) -> bool:
        """Whether the last step was the last of its epoch."""
        return self.finished_steps % self.steps_per_epoch == 0

    def batches(self) -> Iterator[Any]:
        """Yield what is left of the current epoch, on the device."""
        epoch, first_batch = divmod(self.finished_steps, self.steps_per_epoch)
        order = EpochBatches(
            len(self.entries),
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            first_batch=first_batch,
            rank=process_rank(),
            processes=num_processes(),
            lengths=self.lengths,
        )
        for batch in make_loader(self.entries.of_epoch(epoch), order, self.entries.collate, workers=self.loader_workers):
            yield batch.to(self.device)

    def train_step(self, batch: Any) -> None:
        """Make one step: seed, learning rate, losses, gradients, clipping, optimiser.

        Raises:
            D2RNetError: the loss is not finite.
        """
        self._seed()
        self._set_learning_rates()
        self.optimizer.zero_grad()
        parts = self._micro_batches(batch)
        for number, (part, share) in enumerate(parts, start=1):
            with self._gradients_of(is_last=number == len(parts)):
                self.scaler.scale(self.loss(part, share)).backward()
        self.scaler.unscale_(self.optimizer)
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_step()
        self.finished_steps += 1

    def _micro_batches(self, batch: Any) -> list[tuple[Any, float]]:
        """Cut a batch; return each part with its share of the step. Parts without anything in any process are left out."""
        if self.accumulation_steps == 1:
            return [(batch, 1.0)]
        parts = split_batch(batch, self.accumulation_steps)
        sizes = sum_over_processes(torch.stack([self.objective.size(part) for part in parts]).float())
        shares = (sizes / sizes.sum()).tolist()
        return [(part, share) for part, share in zip(parts, shares, strict=True) if share]

    def _gradients_of(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Average gradients over processes once a step, with the last micro-batch."""
        if is_last or not isinstance(self.losses, DistributedDataParallel):
            return nullcontext()
        return self.losses.no_sync()

    def loss(self, batch: Any, share: float = 1.0) -> Tensor:
        """Return the weighted sum of the losses of a batch, and add each, unweighted, to ``loss_sums``.

        Args:
            batch: a batch, or a micro-batch of it.
            share: of the step's losses that those of this batch are.

        Raises:
            D2RNetError: it is not finite.
        """
        dtype = AUTOCAST.get(self.settings.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None, cache_enabled=False):
            losses = self.losses(batch)
            weights = self.objective.weights()
            total = torch.stack([weights[name] * loss if name in weights else loss for name, loss in losses.items()])
            plain = torch.stack([loss.detach() for loss in losses.values()])
        values = (sum_over_processes(plain) / num_processes()).tolist()
        if not all(map(math.isfinite, values)):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in zip(losses, values, strict=True))
            raise D2RNetError(
                f"step {self.finished_steps}: the loss is {sum(values)} ({shown}); mean loss of this epoch so far "
                f"{self.mean_losses().get('train_loss', math.nan):.3f}. "
                f"Lower {self.settings.place}.learning_rate or gradient_clip, or use precision 32-true or bf16-mixed."
            )
        for name, value in zip(losses, values, strict=True):
            self.loss_sums[name] += value * share
        return total.sum() * share

    def _seed(self) -> None:
        """Seed what this step draws: the same whatever was drawn before it."""
        place = [self.settings.seed, self.finished_steps, *filter(None, [process_rank()])]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _set_learning_rates(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.finished_steps,
                total_steps=self.total_steps,
                warmup_fraction=self.settings.warmup_fraction,
                peak=group["peak_learning_rate"],
                final=min(self.settings.final_learning_rate, group["peak_learning_rate"]),
            )

    def _clip(self) -> None:
        """Clip gradients by their common norm, or each by its value."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        clip = nn.utils.clip_grad_norm_ if self.settings.gradient_clip_kind == "norm" else nn.utils.clip_grad_value_
        clip(parameters, self.settings.gradient_clip)

    def mean_losses(self) -> dict[str, float]:
        """Mean of each loss over the epoch's finished steps (the whole epoch's at its end), and further values now."""
        steps = self.finished_steps % self.steps_per_epoch or min(self.finished_steps, self.steps_per_epoch)
        means = {f"{name}_loss": total / max(steps, 1) for name, total in self.loss_sums.items()}
        return means | self.objective.values()

    def weights(self) -> dict[str, Any]:
        """Return the state of each part, by name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def state(self) -> dict[str, Any]:
        """Return what resuming needs: weights, optimiser, loss scale of 16-bit training and the place in the run."""
        return {
            "finished_steps": self.finished_steps,
            "loss_sums": dict(self.loss_sums),
            **self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.finished_steps = state["finished_steps"]
        self.loss_sums = defaultdict(float, state["loss_sums"])
        for name, part in self.parts.items():
            part.load_state_dict(state[name], strict=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def allow_tf32(device: torch.device, precision: str) -> None:
    """Let products that stay in 32 bits amid a mixed training round to TensorFloat-32 on a GPU; "32-true" does not round.

    Convolutions too, which PyTorch would else let round in any training.
    """
    if device.type == "cuda":
        mixed = precision in AUTOCAST
        torch.backends.cuda.matmul.allow_tf32 = mixed
        torch.backends.cudnn.allow_tf32 = mixed


def make_loader(dataset: Any, batches: Iterable[list[int]], collate: Callable[[Any], Any], *, workers: int) -> DataLoader[Any]:
    """Load batches of indices; ``workers`` processes, 0 for this one."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=start_loader_process,
    )


def make_optimizer(
    modules: list[nn.Module], settings: OptimizationSettings, rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    """Make the optimiser: norms, biases and embeddings do not decay.

    Args:
        modules: what is trained; parameters without a gradient stay as they are.
        settings: optimiser, learning rate, weight decay.
        rates: prefix of parameter names -> their own peak learning rate.
    """
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    options = {"amsgrad": settings.optimizer == "adam_amsgrad", "fused": True}
    undecayed = {
        id(parameter)
        for trained in modules
        for module in trained.modules()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim < 2 or isinstance(module, nn.Embedding)
    }
    named = [
        (name, parameter) for trained in modules for name, parameter in trained.named_parameters() if parameter.requires_grad
    ]
    groups = []
    for prefix in (*rates, ""):
        peak = rates.get(prefix, settings.learning_rate)
        mine = [parameter for name, parameter in named if _prefix_of(name, rates) == prefix]
        for decays in (True, False):
            chosen = [parameter for parameter in mine if (id(parameter) not in undecayed) is decays]
            decay = settings.weight_decay if decays else 0.0
            groups.append({"params": chosen, "lr": peak, "peak_learning_rate": peak, "weight_decay": decay})
    return kind(groups, **options)


def _prefix_of(name: str, rates: Mapping[str, float]) -> str:
    return next((prefix for prefix in rates if name.startswith(prefix)), "")


def learning_rate(step: int, *, total_steps: int, warmup_fraction: float, peak: float, final: float) -> float:
    """Return the learning rate of a step: linear up to ``peak``, then half a cosine down to ``final`` at the last step."""
    warmup = round(total_steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, total_steps - 1 - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * share))
