"""Training of a report model: the cross entropy of its tokens (teacher forcing), and losses beside it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.interface import Batch, Encoded, ReportModel, VisualTokens
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


class RegionLoss(nn.Module):
    """A loss on what the decoder looks at while it is taught a token; alive in training only.

    Attributes:
        name: of the loss in the history.
    """

    name: str

    def forward(self, attention: Tensor, batch: Any) -> Tensor:
        """Return the weighted sum over tokens, for a step's mean over all tokens that are taught.

        Args:
            attention: (B, T - 1, R) of ``ReportModel.logits_and_look``.
            batch: that it is of.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows a step of the optimiser."""

    def values(self) -> dict[str, float]:
        """Return what else the history shows."""
        return {}


class EncodedLoss(nn.Module):
    """A loss on what the encoder makes of the visual tokens; alive in training only.

    Attributes:
        name: of the loss in the history.
    """

    name: str

    def tell(self, encoded: Encoded, batch: Any) -> Encoded:
        """Return what the decoder is taught with: the encoded tokens, and maybe what the reference says is there.

        Reports that are drawn for a reward are not told it.
        """
        return encoded

    def forward(self, encoded: Encoded, batch: Any) -> Tensor:
        """Return the weighted sum over entries, for a step's mean over all tokens that are taught.

        Args:
            encoded: visual tokens after the encoder; B may be 0, and they then are those before it.
            batch: the entries.
        """
        raise NotImplementedError


class TokenLoss(nn.Module):
    """What tokens of some kind count for more in the cross entropy than the others; alive in training only.

    Attributes:
        name: of the loss in the history, which leaves the cross entropy itself as it is.
        weight: of the loss; with 1 these tokens count for twice what others do.
    """

    name: str

    def __init__(self, *, weight: float) -> None:
        """Take the weight."""
        super().__init__()
        self.weight = weight

    def chosen(self, batch: Any) -> Tensor:
        """Return (B, T - 1) bool: which of the tokens 1.. count for more; what it says of padding is not asked."""
        raise NotImplementedError

    def forward(self, logits: Tensor, batch: Any) -> Tensor:
        """Return the weighted sum over these tokens, in nats, for a step's mean over all tokens that are taught.

        Args:
            logits: (B, T - 1, W) of tokens 1..; B may be 0.
            batch: the entries.
        """
        targets = batch.token_ids[:, 1:].masked_fill(~self.chosen(batch), PAD_ID).flatten()
        return self.weight * F.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=PAD_ID, reduction="sum")


class Losses(Objective):
    """Model and further losses as one module, so that several processes can average its gradients."""

    def __init__(
        self,
        model: ReportModel,
        further: FurtherLosses | None,
        label_smoothing: float,
        self_critical: SelfCritical | None = None,
        looking: RegionLoss | None = None,
        encoded_loss: EncodedLoss | None = None,
        some_tokens: TokenLoss | None = None,
    ) -> None:
        """Take what is trained, and by what."""
        super().__init__()
        self.model = model
        self.further = further
        self.looking = looking
        self.encoded_loss = encoded_loss
        self.some_tokens = some_tokens
        self.label_smoothing = label_smoothing
        self.self_critical = self_critical

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch: ``train`` is the mean cross entropy over the tokens of all processes, unweighted."""
        visual: VisualTokens = self.model.look(batch)
        encoded = self.model.encode_tokens(visual) if len(batch) else None
        sums, count = self._taught(visual, encoded, batch)
        # The mean of these over processes is the mean over the tokens of all.
        tokens = sum_over_processes(count)
        losses = {name: total * num_processes() / tokens for name, total in sums.items()}
        main = losses["train"]
        critic = self.self_critical
        if critic is not None and critic.has_begun:
            assert isinstance(self.model.transformer, MemoryTransformer)  # settings refuse a language model
            drawn = sums["train"] if encoded is None else critic(self.model.transformer, encoded, batch)
            losses["self_critical"] = critic.weight * drawn * num_processes() / tokens
        if self.further is not None:
            losses |= self.further.weigh(self.further(visual, batch), main, self.model.visual_parameters())
        return losses

    def _taught(self, visual: VisualTokens, encoded: Encoded | None, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses that are sums over the tokens of the reports, and the number of these."""
        ids = batch.token_ids
        looking = self.looking
        if encoded is None:  # other processes have the few entries of an epoch's last batch
            encoded = Encoded(visual.tokens, visual.mask, self.model.num_regions(visual))
            attention = visual.tokens.new_zeros(0, ids.shape[1] - 1, 0)
            logits = visual.tokens.new_zeros(0, ids.shape[1] - 1, 1)
            total, count = visual.tokens.sum(), ids.new_zeros(())
        else:
            told = encoded if self.encoded_loss is None else self.encoded_loss.tell(encoded, batch)
            if looking is None:
                logits = self.model.logits(told, ids)
            else:
                logits, attention = self.model.logits_and_look(told, ids)
            total, count = token_loss(logits, ids, label_smoothing=self.label_smoothing)
        sums = {"train": total}
        if looking is not None:
            sums[looking.name] = looking(attention, batch)
        if self.encoded_loss is not None:
            sums[self.encoded_loss.name] = self.encoded_loss(encoded, batch)
        if self.some_tokens is not None:
            sums[self.some_tokens.name] = self.some_tokens(logits, batch)
        return sums, count

    def parts(self) -> dict[str, nn.Module | None]:
        """Model, further losses, and what is known of rewards, attention and the encoder."""
        return {
            "model": self.model,
            "further": self.further,
            "self_critical": self.self_critical,
            "looking": self.looking,
            "encoded_loss": self.encoded_loss,
        }

    def size(self, batch: Batch) -> Tensor:
        """Return how many tokens are learnt, of which the cross entropy is the mean."""
        return (batch.token_ids[:, 1:] != PAD_ID).sum()

    def weights(self) -> dict[str, float]:
        """Return what the cross entropy, also of tokens that count for more, weighs beside rewards; others come weighted."""
        critic = self.self_critical
        if critic is None or not critic.has_begun:
            return {}
        names = ["train", *([] if self.some_tokens is None else [self.some_tokens.name])]
        return dict.fromkeys(names, critic.cross_entropy_weight)

    def after_step(self) -> None:
        """Let the other losses do what follows a step."""
        for part in (self.further, self.self_critical, self.looking):
            if part is not None:
                part.after_step()

    def values(self) -> dict[str, float]:
        """Those of the other losses."""
        found: dict[str, float] = {}
        for part in (self.further, self.self_critical, self.looking):
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
    looking: RegionLoss | None = None,
    encoded_loss: EncodedLoss | None = None,
    some_tokens: TokenLoss | None = None,
    rates: Mapping[str, float] | None = None,
    loader_workers: int = 0,
    reward: Reward | None = None,
    lengths: NDArray[np.int64] | None = None,
) -> TrainingTask:
    """Return the training of a report model, at its beginning.

    Args:
        model: to be trained.
        entries: the training split.
        settings: of the training.
        device: where to train.
        further: losses beside the cross entropy.
        looking: a loss on what the decoder looks at.
        encoded_loss: a loss on the encoded visual tokens.
        some_tokens: tokens that count for more than others.
        rates: prefix of parameter names -> their own peak learning rate.
        loader_workers: processes that prepare batches.
        reward: of self-critical training; None where the settings ask for none.
        lengths: tokens of each entry's report; ``settings.group_by_length`` needs it.
    """
    if settings.group_by_length and lengths is None:
        raise ValueError("group_by_length: expected the lengths of the reports")
    steps_per_epoch = math.ceil(len(entries) / settings.batch_size)
    critic = None if reward is None else SelfCritical(settings, reward, steps_per_epoch=steps_per_epoch)
    objective = Losses(model, further, settings.label_smoothing, critic, looking, encoded_loss, some_tokens)
    return TrainingTask(
        objective,
        entries,
        settings,
        device=device,
        rates=rates,
        loader_workers=loader_workers,
        accumulation_steps=settings.accumulation_steps,
        lengths=lengths if settings.group_by_length else None,
    )
