"""Beam search: the most probable reports, all beams of all sources in one tensor.

A beam that writes ``<eos>`` is finished and leaves; its place is taken by continuations of the others. The search of a source
is over when no open beam can beat its best finished one: log-probabilities only fall, so the stop is exact. At the last step
unfinished beams count with their full sum, as in R2Gen.

Shapes: B sources, G beams, R = B * G rows, W vocabulary size, T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d2rnet.report.memory_transformer import DecoderState, MemoryTransformer
from d2rnet.report.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID

NEVER = float("-inf")


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a search; see section ``report.generation`` of the configuration."""

    beam_size: int = 3
    max_tokens: int = 100
    min_tokens: int = 0
    length_penalty: float = 0.0


@dataclass
class Decoded:
    """The best report of each source.

    Attributes:
        token_ids: (B, T) without ``<bos>``; ``<eos>`` where the report ended by itself, then ``<pad>``.
        log_probs: (B,) sum of the tokens' log-probabilities, ``<eos>`` included.
    """

    token_ids: Tensor
    log_probs: Tensor


@dataclass
class _Best:
    """Best finished report of each source so far; ``scores`` (B,) are what reports are compared by."""

    token_ids: Tensor
    log_probs: Tensor
    scores: Tensor

    def offer(self, token_ids: Tensor, log_probs: Tensor, scores: Tensor) -> None:
        """Take the best of G offered reports where it beats what is kept: token_ids (B, G, t), others (B, G)."""
        score, place = scores.max(dim=1)
        better = score > self.scores
        source = torch.arange(len(place), device=place.device)
        length = token_ids.shape[2]
        padded = torch.full_like(self.token_ids, PAD_ID)
        padded[:, :length] = token_ids[source, place]
        self.token_ids = torch.where(better.unsqueeze(1), padded, self.token_ids)
        self.log_probs = torch.where(better, log_probs[source, place], self.log_probs)
        self.scores = torch.where(better, score, self.scores)


@torch.no_grad()
def beam_search(decoder: MemoryTransformer, encoded: Tensor, mask: Tensor, options: SearchOptions) -> Decoded:
    """Find the most probable report of each source.

    Args:
        decoder: in evaluation mode.
        encoded: (B, L, D) visual tokens after the encoder.
        mask: (B, L) bool, True where there is a token.
        options: beam size, lengths, length penalty.

    Returns:
        One report a source; beam size 1 is greedy decoding.
    """
    sources, beams, limit = len(encoded), options.beam_size, options.max_tokens
    device = encoded.device
    state = decoder.start(encoded, mask, beams=beams)
    latest = torch.full((sources * beams,), BOS_ID, device=device)
    written = torch.empty(sources, beams, 0, dtype=torch.long, device=device)
    # Beams begin equal; only the first may be continued, or all would be copies of it.
    open_scores = torch.full((sources, beams), NEVER, device=device)
    open_scores[:, 0] = 0
    best = _Best(
        torch.full((sources, limit), PAD_ID, device=device),
        torch.full((sources,), NEVER, device=device),
        torch.full((sources,), NEVER, device=device),
    )
    for length in range(1, limit + 1):
        log_probs = _allowed(decoder.step(latest, state).float().log_softmax(dim=-1), length, options)
        open_scores, choice = _extend(open_scores, log_probs)
        origin, latest_grid = choice // log_probs.shape[1], choice % log_probs.shape[1]  # (B, G) each
        written = torch.cat([written.gather(1, origin.unsqueeze(2).expand(-1, -1, length - 1)), latest_grid.unsqueeze(2)], 2)
        ended = (latest_grid == EOS_ID) | (length == limit)
        finished = torch.where(ended, open_scores, NEVER)
        best.offer(written, finished, finished / length**options.length_penalty)
        open_scores = torch.where(ended, NEVER, open_scores)
        # A sum that can only fall, over the longest length, is the most an open beam can still reach.
        if (best.scores >= open_scores.amax(dim=1) / limit**options.length_penalty).all():
            break
        latest = latest_grid.flatten()
        _reorder(state, origin)
    return Decoded(best.token_ids, best.log_probs)


def _allowed(log_probs: Tensor, length: int, options: SearchOptions) -> Tensor:
    """Rule out padding, start and unknown, and the end before ``min_tokens``; the other values stay the model's own."""
    log_probs[:, [PAD_ID, BOS_ID, UNK_ID]] = NEVER
    if length <= options.min_tokens and length < options.max_tokens:
        log_probs[:, EOS_ID] = NEVER
    return log_probs


def _extend(open_scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Pick the G best continuations of a source: sums (B, G) and flat places (B, G) in its G * W candidates."""
    sources, beams = open_scores.shape
    candidates = (open_scores.unsqueeze(2) + log_probs.view(sources, beams, -1)).flatten(1)  # (B, G * W)
    return candidates.topk(beams, dim=1)


def _reorder(state: DecoderState, origin: Tensor) -> None:
    """Let each beam go on from the beam it came from; ``origin`` (B, G) counts within a source."""
    sources, beams = origin.shape
    in_place = torch.arange(beams, device=origin.device).expand_as(origin)
    if not torch.equal(origin, in_place):
        state.reorder((origin + torch.arange(sources, device=origin.device).unsqueeze(1) * beams).flatten())
