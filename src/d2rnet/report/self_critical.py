"""Self-critical sequence training: a sampled report that earns more than the greedy one becomes more probable, else less.

Source: Rennie et al., CVPR 2017 (arXiv 1612.00563): the loss is -(r(sampled) - r(greedy)) log p(sampled), with one sample an
entry, after a time of cross entropy alone. Ours: it can stand beside the cross entropy, and is divided as that is, by the
number of the references' tokens. Dividing by that of the samples' would let the gradient depend on what was drawn.

Both reports are written from what the model sees, without what the reference tells the cross entropy
(``EncodedLoss.tell``), by the decoder without dropout, which then scores the sample: it was drawn from the very distribution
whose gradient is taken. No gradient goes through the writing, of which nothing is kept but ids. What an entry's sample is
drawn by depends on seed, step and entry alone.

Shapes: B entries of this process, T tokens of a sampled report (padded), W words of the vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.report.decoder.beam_search import SearchOptions, beam_search
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.sampling import SamplingOptions, entry_draws, sample_reports
from d2rnet.report.interface import Batch, Encoded
from d2rnet.report.rewards import Reward
from d2rnet.report.settings import ReportTrainingSettings
from d2rnet.report.text.vocabulary import OWN_IDS
from d2rnet.training.collectives import sum_over_processes


class SelfCritical(nn.Module):
    """Makes the loss, and keeps the epoch's rewards. All of its state is in its buffers: it resumes exactly.

    Attributes:
        steps: () steps of training so far.
        sums: (3,) float64 of the epoch's finished steps: rewards of samples, of greedy reports, entries.
    """

    steps: Tensor
    sums: Tensor

    def __init__(self, settings: ReportTrainingSettings, reward: Reward, *, steps_per_epoch: int) -> None:
        """Begin at step 0.

        Args:
            settings: of the training.
            reward: of a report.
            steps_per_epoch: of the training.
        """
        super().__init__()
        own = settings.self_critical
        self.reward = reward
        self.seed = settings.seed
        self.max_tokens = settings.max_report_tokens
        self.weight = own.weight
        self.cross_entropy_weight = own.cross_entropy_weight
        self.steps_per_epoch = steps_per_epoch
        self.first_step = own.start_epoch * steps_per_epoch
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("sums", torch.zeros(3, dtype=torch.float64))
        self._of_step = torch.zeros(3, dtype=torch.float64)

    @property
    def has_begun(self) -> bool:
        """Whether this step is one of it."""
        return int(self.steps) >= self.first_step

    def forward(self, decoder: MemoryTransformer, encoded: Encoded, batch: Batch) -> Tensor:
        """Return the sum over the entries of -(r(sampled) - r(greedy)) log p(sampled); B is at least 1.

        Args:
            decoder: its mode is left as it was.
            encoded: of the model, without what the reference tells.
            batch: with the references.
        """
        with _without_dropout(decoder):
            sampled, greedy = self._write(decoder, encoded, batch)
            earned = self.reward(batch.token_ids, sampled)
            baseline = self.reward(batch.token_ids, greedy)
            start = torch.full_like(sampled[:, :1], OWN_IDS.start)
            logits = decoder(encoded.tokens, encoded.mask, torch.cat([start, sampled[:, :-1]], dim=1))  # (B, T, W)
        of_step = torch.stack([earned.sum(), baseline.sum(), earned.new_tensor(len(batch))])
        self._of_step = self._of_step.to(of_step.device) + of_step
        return -((earned - baseline) * report_log_probs(logits, sampled)).sum()

    @torch.no_grad()
    def _write(self, decoder: MemoryTransformer, encoded: Encoded, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the sampled reports (B, T), as long as the longest, and the greedy ones, in 32 bits."""
        names = [f"step {int(self.steps)} entry {number}" for number in batch.entry_numbers.tolist()]
        draws = entry_draws(names, seed=self.seed, max_tokens=self.max_tokens)
        tokens = encoded.tokens.detach()
        with torch.autocast(tokens.device.type, enabled=False):
            looked_at = (tokens.to(decoder.dtype), encoded.mask)
            sampled = sample_reports(decoder, *looked_at, SamplingOptions(max_tokens=self.max_tokens), draws).token_ids
            greedy = beam_search(decoder, *looked_at, SearchOptions(max_tokens=self.max_tokens, beam_size=1)).token_ids
        longest = int((sampled != OWN_IDS.padding).sum(dim=1).max())
        return sampled[:, :longest], greedy

    @torch.no_grad()
    def after_step(self) -> None:
        """Count a step and take note of its rewards, those of all processes."""
        if int(self.steps) % self.steps_per_epoch == 0:
            self.sums.zero_()
        if self.has_begun:
            self.sums += sum_over_processes(self._of_step.to(self.sums.device))
        self._of_step.zero_()
        self.steps += 1

    def values(self) -> dict[str, float]:
        """Return means over the epoch so far: ``self_critical_reward``, ``..._baseline`` and ``..._advantage``, or nothing."""
        reward, baseline, count = self.sums.tolist()
        if not count:
            return {}
        means = {"reward": reward, "baseline": baseline, "advantage": reward - baseline}
        return {f"self_critical_{name}": value / count for name, value in means.items()}


def report_log_probs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Return the log-probability of each report in the distribution that it is drawn from: (B,).

    What is never written has no share in that. The end token counts, padding does not; a report that was cut has no end token.

    Args:
        logits: (B, T, W) of the tokens.
        token_ids: (B, T) ids without start token.
    """
    possible = logits.float().index_fill(2, torch.tensor(OWN_IDS.never_written, device=logits.device), -torch.inf)
    costs = F.cross_entropy(
        possible.flatten(0, 1), token_ids.flatten(), ignore_index=OWN_IDS.padding, reduction="none"
    )  # (B T,)
    return -costs.view_as(token_ids).sum(dim=1)


@contextmanager
def _without_dropout(decoder: MemoryTransformer) -> Iterator[None]:
    was_training = decoder.training
    decoder.eval()
    try:
        yield
    finally:
        decoder.train(was_training)
