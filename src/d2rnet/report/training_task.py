"""What Lightning runs: one training step, the optimiser, the learning rate, and what a checkpoint must hold.

Everything random in a step (dropout) is drawn from a generator seeded with (seed, step) and the order of entries from (seed,
epoch), so a run that resumes at any step goes on exactly as if it had never stopped. Losses, alignment grids and batch
statistics are over the entries of all processes: several of them make the step that one would make on the whole batch.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.augmentation import Augmentation
from d2rnet.cxr.report_model.dataset import Batch, ReportDataset, collate
from d2rnet.cxr.report_model.model import ReportModel
from d2rnet.errors import D2RNetError
from d2rnet.report.validation import token_loss
from d2rnet.training.batches import EpochBatches
from d2rnet.training.collectives import num_processes, process_rank, sum_over_processes


class ReportTask(lightning.LightningModule):
    """Teacher-forced training of a report model.

    Attributes:
        finished_steps: optimiser steps done since the beginning of the run, resumed parts included.
        loss_sums: by name, sum of the losses of this epoch's finished steps.
    """

    def __init__(
        self, model: ReportModel, dataset: ReportDataset, settings: dict[str, Any], alignment: Alignment | None = None
    ) -> None:
        """Take the model, the training split, section ``cxr.report.training`` and the alignment losses that are on."""
        super().__init__()
        self.model, self.alignment, self.dataset, self.settings = model, alignment, dataset, settings
        self.steps_per_epoch = math.ceil(len(dataset) / settings["batch_size"])
        self.total_steps = self.steps_per_epoch * settings["epochs"]
        self.finished_steps = 0
        self.loss_sums: defaultdict[str, float] = defaultdict(float)
        self._resumed: dict[str, Any] | None = None

    @property
    def finished_epochs(self) -> int:
        """Whole epochs done."""
        return self.finished_steps // self.steps_per_epoch

    def train_dataloader(self) -> DataLoader[Any]:
        """Return what is left of the current epoch; Lightning asks for it at each epoch."""
        epoch, first_batch = divmod(self.finished_steps, self.steps_per_epoch)
        batches = EpochBatches(
            len(self.dataset),
            batch_size=self.settings["batch_size"],
            seed=self.settings["seed"],
            epoch=epoch,
            first_batch=first_batch,
            rank=process_rank(),
            processes=num_processes(),
        )
        augmentation = Augmentation(self.settings["augmentation"], seed=self.settings["seed"], epoch=epoch)
        return make_loader(self.dataset.augmented(augmentation), batches, workers=self.settings["workers"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser, with its state where a run resumes."""
        optimizer = make_optimizer([self.model, *filter(None, [self.alignment])], self.settings)
        if self._resumed is not None:
            optimizer.load_state_dict(self._resumed["optimizer"])
        return optimizer

    def on_fit_start(self) -> None:
        """Take over the loss scale of 16-bit training where a run resumes."""
        if self._resumed is not None:
            self.trainer.precision_plugin.load_state_dict(self._resumed["precision"])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this step and set its learning rate."""
        place = [self.settings["seed"], self.finished_steps, *filter(None, [process_rank()])]
        seed = np.random.SeedSequence(place).generate_state(1)[0]
        torch.manual_seed(int(seed))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate(
                self.finished_steps,
                total_steps=self.total_steps,
                warmup_fraction=self.settings["warmup_fraction"],
                peak=group["peak_learning_rate"],
                final=min(self.settings["final_learning_rate"], group["peak_learning_rate"]),
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: cross entropy and the alignment losses.

        Raises:
            D2RNetError: it is not finite.
        """
        visual = self.model.look(batch)
        if len(batch):
            logits = self.model.logits(self.model.encode_tokens(visual), batch)
            loss, count = token_loss(logits, batch.token_ids, label_smoothing=self.settings["label_smoothing"])
        else:  # other processes have the few entries of an epoch's last batch
            loss, count = visual.tokens.sum(), batch.token_ids.new_zeros(())
        # The mean of this over processes is the mean over the tokens of all.
        losses = {"train": loss * num_processes() / sum_over_processes(count)}
        if self.alignment is not None:
            losses |= self.alignment(visual, batch.token_ids)
        total = torch.stack(list(losses.values()))
        values = (sum_over_processes(total.detach()) / num_processes()).tolist()
        if not all(map(math.isfinite, values)):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in zip(losses, values, strict=True))
            raise D2RNetError(
                f"step {self.finished_steps}: the loss is {sum(values)} ({shown}); mean loss of this epoch so far "
                f"{self.mean_losses().get('train_loss', math.nan):.3f}. "
                "Lower cxr.report.training.learning_rate or gradient_clip, or use precision 32-true or bf16-mixed."
            )
        for name, value in zip(losses, values, strict=True):
            self.loss_sums[name] += value
        return total.sum()

    def mean_losses(self) -> dict[str, float]:
        """Mean of each loss over the epoch's finished steps (the whole epoch's at its end), and the boundaries now."""
        steps = self.finished_steps % self.steps_per_epoch or min(self.finished_steps, self.steps_per_epoch)
        means = {f"{name}_loss": total / max(steps, 1) for name, total in self.loss_sums.items()}
        return means | (self.alignment.boundary_values() if self.alignment is not None else {})

    def state(self) -> dict[str, Any]:
        """Return what resuming needs: weights, optimiser, loss scale of 16-bit training and the place in the run."""
        return {
            "finished_steps": self.finished_steps,
            "loss_sums": dict(self.loss_sums),
            "model": self.model.state_dict(),
            "alignment": {} if self.alignment is None else self.alignment.state_dict(),
            "optimizer": self.trainer.optimizers[0].state_dict(),
            "precision": self.trainer.precision_plugin.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`; call before fitting."""
        self.finished_steps, self.loss_sums = state["finished_steps"], defaultdict(float, state["loss_sums"])
        self.model.load_state_dict(state["model"], strict=True)
        if self.alignment is not None:
            self.alignment.load_state_dict(state["alignment"], strict=True)
        self._resumed = state


def make_loader(dataset: ReportDataset, batches: Any, *, workers: int) -> DataLoader[Any]:
    """Load batches of indices; ``workers`` processes, 0 for this one."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(collate, size_px=dataset.size_px, crop_size_px=dataset.crop_size_px),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
    )


def make_optimizer(modules: list[nn.Module], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Make the optimiser: the ResNet has its own learning rate; norms, biases and embeddings do not decay.

    Args:
        modules: the report model, and what else is trained with it.
        settings: section ``cxr.report.training``.
    """
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW if settings["optimizer"] == "adamw" else torch.optim.Adam
    options = {"amsgrad": True} if settings["optimizer"] == "adam_amsgrad" else {}
    undecayed = {
        id(parameter)
        for trained in modules
        for module in trained.modules()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim < 2 or isinstance(module, nn.Embedding)
    }
    groups = []
    for in_backbone in (True, False):
        peak = settings["backbone_learning_rate"] if in_backbone else settings["learning_rate"]
        for decays in (True, False):
            chosen = [
                parameter
                for trained in modules
                for name, parameter in trained.named_parameters()
                if name.startswith("extractor.backbone.") is in_backbone and (id(parameter) not in undecayed) is decays
            ]
            decay = settings["weight_decay"] if decays else 0.0
            groups.append({"params": chosen, "lr": peak, "peak_learning_rate": peak, "weight_decay": decay})
    return kind(groups, **options)


def learning_rate(step: int, *, total_steps: int, warmup_fraction: float, peak: float, final: float) -> float:
    """Return the learning rate of a step: linear up to ``peak``, then half a cosine down to ``final`` at the last step."""
    warmup = round(total_steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, total_steps - 1 - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * share))
