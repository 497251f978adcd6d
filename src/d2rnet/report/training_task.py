"""Training of a report model: the cross entropy of its tokens (teacher forcing), and losses beside it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.interface import Batch, ReportModel, VisualTokens
from d2rnet.report.rewards import Reward
from d2rnet.report.self_critical import SelfCritical
from d2rnet.report.settings import ReportTrainingSettings
from d2rnet.report.text.vocabulary import PAD_ID
from d2rnet.report.validation import token_loss
from d2rnet.training.collectives import num_processes, sum_over_processes
from d2rnet.training.task import Entries, Objective, TrainingTask


class FurtherLosses(nn.Module):
    """Losses beside the cross entropy, such as alignment: trained along, alive in training only."""

    def forward(self, visual: Any, batch: Any) -> dict[str, Tensor]:
        """Return named losses of a batch and the visual tokens of it, unweighted."""
        raise NotImplementedError

    def weigh(self, losses: dict[str, Tensor], main: Tensor, shared: Sequence[nn.Parameter]) -> dict[str, Tensor]:
        """Return each loss times its weight.

        Args:
            losses: of :meth:`forward`.
            main: cross entropy of the tokens.
            shared: parameters that make the visual tokens.
        """
        return losses

    def after_step(self) -> None:
        """Do what follows a step of the optimiser."""

    def values(self) -> dict[str, float]:
        """Return what else the history shows."""
        return {}


class Losses(Objective):
    """Model and further losses as one module, so that several processes can average its gradients."""

    def __init__(
        self,
        model: ReportModel,
        further: FurtherLosses | None,
        label_smoothing: float,
        self_critical: SelfCritical | None = None,
    ) -> None:
        """Take what is trained, and by what."""
        super().__init__()
        self.model = model
        self.further = further
        self.label_smoothing = label_smoothing
        self.self_critical = self_critical

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch: ``train`` is the mean cross entropy over the tokens of all processes."""
        visual: VisualTokens = self.model.look(batch)
        encoded = None
        if len(batch):
            encoded = self.model.encode_tokens(visual)
            logits = self.model.logits(encoded, batch.token_ids)
            loss, count = token_loss(logits, batch.token_ids, label_smoothing=self.label_smoothing)
        else:  # other processes have the few entries of an epoch's last batch
            loss = visual.tokens.sum()
            count = batch.token_ids.new_zeros(())
        # The mean of this over processes is the mean over the tokens of all.
        tokens = sum_over_processes(count)
        main = loss * num_processes() / tokens
        losses = {"train": main}
        critic = self.self_critical
        if critic is not None and critic.has_begun:
            assert isinstance(self.model.transformer, MemoryTransformer)  # settings refuse a language model
            drawn = loss if encoded is None else critic(self.model.transformer, encoded, batch)
            losses["train"] = critic.cross_entropy_weight * main
            losses["self_critical"] = critic.weight * drawn * num_processes() / tokens
        if self.further is not None:
            losses |= self.further.weigh(self.further(visual, batch), main, self.model.visual_parameters())
        return losses

    def parts(self) -> dict[str, nn.Module | None]:
        """Model, further losses, and what is known of rewards."""
        return {"model": self.model, "further": self.further, "self_critical": self.self_critical}

    def size(self, batch: Batch) -> Tensor:
        """Return how many tokens are learnt, of which the cross entropy is the mean."""
        return (batch.token_ids[:, 1:] != PAD_ID).sum()

    def after_step(self) -> None:
        """Let the other losses do what follows a step."""
        for part in (self.further, self.self_critical):
            if part is not None:
                part.after_step()

    def values(self) -> dict[str, float]:
        """Those of the other losses."""
        found: dict[str, float] = {}
        for part in (self.further, self.self_critical):
            if part is not None:
                found |= part.values()
        return found


def report_task(
    model: ReportModel,
    entries: Entries,
    settings: ReportTrainingSettings,
    *,
    device: torch.device,
    further: FurtherLosses | None = None,
    rates: Mapping[str, float] | None = None,
    loader_workers: int = 0,
    reward: Reward | None = None,
) -> TrainingTask:
    """Return the training of a report model, at its beginning.

    Args:
        model: to be trained.
        entries: the training split.
        settings: of the training.
        device: where to train.
        further: losses beside the cross entropy.
        rates: prefix of parameter names -> their own peak learning rate.
        loader_workers: processes that prepare batches.
        reward: of self-critical training; None where the settings ask for none.
    """
    steps_per_epoch = math.ceil(len(entries) / settings.batch_size)
    critic = None if reward is None else SelfCritical(settings, reward, steps_per_epoch=steps_per_epoch)
    objective = Losses(model, further, settings.label_smoothing, critic)
    return TrainingTask(
        objective,
        entries,
        settings,
        device=device,
        rates=rates,
        loader_workers=loader_workers,
        accumulation_steps=settings.accumulation_steps,
    )
