"""What a report may go on with: special tokens, least and greatest length, no repeated n-gram.

Shapes: B sources, G beams, W vocabulary size, t tokens written so far.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d2rnet.report.text.vocabulary import OWN_IDS, SpecialIds

NEVER = float("-inf")


@dataclass(frozen=True)
class TokenRules:
    """Rules of a decoder; see sections ``report.generation`` of the wings.

    Attributes:
        max_tokens: tokens of a report, end token counted.
        min_tokens: no end token before so many tokens.
        no_repeat_ngram: a report holds no n-gram of this length twice; 0: it may. The end token is never held back by it.
        ids: special tokens.
    """

    max_tokens: int = 100
    min_tokens: int = 0
    no_repeat_ngram: int = 0
    ids: SpecialIds = OWN_IDS

    def restrict(self, log_probs: Tensor, written: Tensor) -> Tensor:
        """Put forbidden tokens to -inf, in place; the others keep the model's own log-probability.

        Args:
            log_probs: (B, G, W) of the next token.
            written: (B, G, t) tokens so far, start token left out.
        """
        for token in self.ids.never_written:  # one by one: a list as index is copied to a GPU, which then waits, at each token
            log_probs[..., token] = NEVER
        length = written.shape[2] + 1
        if length <= self.min_tokens and length < self.max_tokens:
            log_probs[..., self.ids.end] = NEVER
        if 0 < self.no_repeat_ngram < length:
            _forbid_repeats(log_probs, written, self.no_repeat_ngram)
        return log_probs


def _forbid_repeats(log_probs: Tensor, written: Tensor, size: int) -> None:
    """Forbid every token that would complete an n-gram of ``size`` tokens that is there already."""
    windows = written.unfold(2, size, 1)  # (B, G, t - size + 1, size)
    tail = written[..., written.shape[2] - size + 1 :].unsqueeze(2)  # (B, G, 1, size - 1)
    repeats = (windows[..., :-1] == tail).all(dim=3)  # (B, G, t - size + 1)
    penalty = torch.zeros_like(log_probs).scatter_reduce_(
        2, windows[..., -1], torch.where(repeats, NEVER, 0.0).to(log_probs.dtype), reduce="amin"
    )
    log_probs += penalty
