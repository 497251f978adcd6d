"""Sampling: reports drawn token by token from the model's distribution, cut to its most probable part (top-p).

Source: nucleus sampling, Holtzman et al., ICLR 2020. An entry's random numbers come from the seed and its id alone, so that
neither shards nor batches nor the kind of device decide them.

Shapes: B sources, W vocabulary size, T tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d2rnet.report.decoder.beam_search import Decoded, StepDecoder
from d2rnet.report.decoder.token_rules import TokenRules


@dataclass(frozen=True)
class SamplingOptions(TokenRules):
    """Settings of sampling; see sections ``report.generation`` of the wings.

    Attributes:
        temperature: log-probabilities are divided by it before drawing; below 1 sharper, above 1 flatter.
        top_p: tokens are drawn from the fewest most probable ones that hold this share together; 1: all.
    """

    temperature: float = 1.0
    top_p: float = 1.0


def entry_draws(names: Sequence[str], *, seed: int, max_tokens: int) -> Tensor:
    """Return (B, T) float64 random numbers in [0, 1): a row depends on the seed and that entry's name alone."""
    rows = []
    for name in names:
        words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32)
        rows.append(np.random.default_rng([seed, *words.tolist()]).random(max_tokens))
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def sample_reports(decoder: StepDecoder, encoded: Tensor, mask: Tensor, options: SamplingOptions, draws: Tensor) -> Decoded:
    """Draw a report for each source.

    Args:
        decoder: in evaluation mode.
        encoded: (B, L, D) visual tokens after the encoder.
        mask: (B, L) bool, True where there is a token.
        options: lengths, temperature, top-p.
        draws: (B, at least max_tokens) numbers in [0, 1), one per token.

    Returns:
        One report a source; ``log_probs`` are the model's own, untouched by temperature and top-p.
    """
    ids = options.ids
    device = encoded.device
    draws = draws.to(device)  # all at once: a copy at each token would have a GPU wait
    state = decoder.start(encoded, mask, beams=1, max_tokens=options.max_tokens)
    latest = torch.full((len(encoded), 1), ids.start, device=device)
    written = torch.empty(len(encoded), 1, 0, dtype=torch.long, device=device)
    sums = torch.zeros(len(encoded), device=device)
    ended = torch.zeros(len(encoded), dtype=torch.bool, device=device)
    for place in range(options.max_tokens):
        log_probs = decoder.step(latest.flatten(), state).float().log_softmax(dim=-1).unsqueeze(1)  # (B, 1, W)
        log_probs = options.restrict(log_probs, written).squeeze(1)
        token = pick(log_probs, draws[:, place], temperature=options.temperature, top_p=options.top_p)
        sums += torch.where(ended, 0.0, log_probs.gather(1, token.unsqueeze(1)).squeeze(1))
        latest = torch.where(ended, ids.padding, token).unsqueeze(1)
        written = torch.cat([written, latest.unsqueeze(2)], dim=2)
        ended = ended | (token == ids.end)
        if ended.all():
            break
    padding = torch.full((len(encoded), options.max_tokens - written.shape[2]), ids.padding, device=device)
    return Decoded(torch.cat([written.squeeze(1), padding], dim=1), sums)


def pick(log_probs: Tensor, draws: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Draw a token per row by the inverse of the cumulative distribution, most probable token first.

    Args:
        log_probs: (B, W), -inf for tokens that may not come.
        draws: (B,) float64 in [0, 1).
        temperature: > 0.
        top_p: in (0, 1].

    Returns:
        (B,) token ids; never one of probability 0.
    """
    shares, order = (log_probs.double() / temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = shares.cumsum(dim=-1) - shares  # share of the tokens ahead of each one
    shares = torch.where((before < top_p) & (shares > 0), shares, 0.0)
    sums = shares.cumsum(dim=-1)
    place = torch.searchsorted(sums, (draws * sums[:, -1]).unsqueeze(1), right=True)
    last = (shares > 0).sum(dim=-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last)).squeeze(1)
