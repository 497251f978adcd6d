"""Beam search: the most probable reports, all beams of all sources in one tensor.

A beam that writes the end token is finished and leaves; its place is taken by continuations of the others. The search of a
source is over when no open beam can beat its best finished one: log-probabilities only fall, so the stop is exact, and what is
settled leaves the batch. At the last step unfinished beams count with their full sum, as in R2Gen. What a finished report
loses, for what it says or does not, is taken off its score; the stop stays exact, for that is never below 0.

Shapes: B sources, G beams, R = B * G rows, W vocabulary size, T tokens.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from d2rnet.report.decoder.token_rules import NEVER, TokenRules

# Settled sources leave when this share of a batch or less is left: each time, all caches are copied.
COMPACT_AT = 0.75


class StepDecoder(Protocol):
    """What a search needs of a decoder; MemoryTransformer is one."""

    def start(self, encoded: Tensor, mask: Tensor, *, beams: int, max_tokens: int) -> Any:
        """Return a state with ``reorder`` and ``keep`` as those of DecoderState."""

    def step(self, token_ids: Tensor, state: Any) -> Tensor:
        """Take in the latest token of each row (R,) and return logits of the next (R, W)."""


@dataclass(frozen=True)
class SearchOptions(TokenRules):
    """Settings of a search; see sections ``report.generation`` of the wings.

    Attributes:
        beam_size: beams; 1 is greedy decoding.
        length_penalty: a finished report's score is its log-probability, less what it loses, / length ** this.
        early_stop: stop a source once its report is settled; off only to measure what it saves.
    """

    beam_size: int = 3
    length_penalty: float = 0.0
    early_stop: bool = True


class Loss(Protocol):
    """Says what finished reports lose in the search."""

    def __call__(self, sources: Tensor, token_ids: Tensor, ended: Tensor) -> Tensor:
        """Return what each report loses, (B', G) >= 0 in nats; of those that have not ended it is not read.

        Args:
            sources: (B',) whose reports these are.
            token_ids: (B', G, t).
            ended: (B', G) bool.
        """


@dataclass
class Decoded:
    """The best report of each source.

    Attributes:
        token_ids: (B, T) without start token; the end token where the report ended by itself, then padding.
        log_probs: (B,) sum of the tokens' log-probabilities, end token included.
    """

    token_ids: Tensor
    log_probs: Tensor


@dataclass
class _Best:
    """Best finished report of each source so far; ``scores`` (B,) are what reports are compared by."""

    token_ids: Tensor
    log_probs: Tensor
    scores: Tensor

    def offer(self, sources: Tensor, token_ids: Tensor, log_probs: Tensor, scores: Tensor) -> None:
        """Take the best of G offered reports of each source where it beats what is kept.

        Args:
            sources: (B',) whose reports these are.
            token_ids: (B', G, t).
            log_probs: (B', G).
            scores: (B', G).
        """
        score, beam = scores.max(dim=1)
        better = score > self.scores[sources]
        row = torch.arange(len(beam), device=beam.device)
        length = token_ids.shape[2]
        kept = self.token_ids[sources, :length]
        self.token_ids[sources, :length] = torch.where(better.unsqueeze(1), token_ids[row, beam], kept)
        self.log_probs[sources] = torch.where(better, log_probs[row, beam], self.log_probs[sources])
        self.scores[sources] = torch.where(better, score, self.scores[sources])


@torch.no_grad()
def beam_search(
    decoder: StepDecoder, encoded: Tensor, mask: Tensor, options: SearchOptions, loss: Loss | None = None
) -> Decoded:
    """Find the most probable report of each source.

    Args:
        decoder: in evaluation mode.
        encoded: (B, L, D) visual tokens after the encoder.
        mask: (B, L) bool, True where there is a token.
        options: beam size, lengths, length penalty.
        loss: says what finished reports lose; None: nothing.

    Returns:
        One report a source; beam size 1 is greedy decoding.
    """
    beams = options.beam_size
    limit = options.max_tokens
    ids = options.ids
    sources = torch.arange(len(encoded), device=encoded.device)
    device = encoded.device
    state = decoder.start(encoded, mask, beams=beams, max_tokens=limit)
    latest = torch.full((len(sources), beams), ids.start, device=device)
    written = torch.empty(len(sources), beams, 0, dtype=torch.long, device=device)
    # Beams begin equal; only the first may be continued, or all would be copies of it.
    open_scores = torch.full((len(sources), beams), NEVER, device=device)
    open_scores[:, 0] = 0
    best = _Best(
        torch.full((len(sources), limit), ids.padding, device=device),
        torch.full((len(sources),), NEVER, device=device),
        torch.full((len(sources),), NEVER, device=device),
    )
    for length in range(1, limit + 1):
        log_probs = decoder.step(latest.flatten(), state).float().log_softmax(dim=-1).unflatten(0, (-1, beams))
        open_scores, origin, latest = _extend(open_scores, options.restrict(log_probs, written))
        written = torch.cat([written.gather(1, origin.unsqueeze(2).expand(-1, -1, length - 1)), latest.unsqueeze(2)], 2)
        state.reorder(origin)
        ended = (latest == ids.end) | (length == limit)
        ended &= open_scores > NEVER
        finished = torch.where(ended, open_scores, NEVER)
        worth = finished
        if loss is not None and bool(ended.any()):
            worth = torch.where(ended, finished - loss(sources, written, ended), NEVER)
        best.offer(sources, written, finished, worth / length**options.length_penalty)
        open_scores = torch.where(ended, NEVER, open_scores)
        if not options.early_stop:
            continue
        # A sum that can only fall, over the longest length, is the most an open beam can still reach.
        undecided = best.scores[sources] < open_scores.amax(dim=1) / limit**options.length_penalty
        left = int(undecided.sum())
        if left == 0:
            break
        if left <= COMPACT_AT * len(sources):
            going_on = undecided.nonzero().squeeze(1)
            state.keep(going_on)
            sources = sources[going_on]
            latest = latest[going_on]
            written = written[going_on]
            open_scores = open_scores[going_on]
    return Decoded(best.token_ids, best.log_probs)


def _extend(open_scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the G best continuations of a source: their sums, the beams they come from, their new tokens; each (B, G)."""
    beams, num_tokens = log_probs.shape[1:]
    scores, choice = (open_scores.unsqueeze(2) + log_probs).flatten(1).topk(beams, dim=1)
    return scores, choice // num_tokens, choice % num_tokens
