"""A queue of earlier reports for soft targets of LAB and GAB: further texts that an image can be told from, or is like.

The rule by which texts come and go is that of the CT wing (training/diverse_queue.py); what it compares are bags of words, by
which targets say how alike reports are, so that nothing in it ages with the text encoder. Reports are kept as ids and encoded
by the encoder of the moment.

Shapes: B reports of this process, N of all, Q places, T token ids, W words of the vocabulary, C lesion classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.vocabulary import PAD_ID
from d2rnet.training.collectives import gather_rows, pad_over_processes
from d2rnet.training.diverse_queue import DiverseQueue, Rule, text_number


class ReportQueue(nn.Module):
    """Reports of earlier steps. All of its state is in its buffers: it resumes exactly, and is the same in every process.

    Attributes:
        queue: which reports there are, and their bags of words.
        token_ids: (Q, T) from ``<bos>`` on, ``<pad>`` behind them and where there is no report.
        classes: (Q, C) bool, lesion classes that they name.
    """

    token_ids: Tensor
    classes: Tensor

    def __init__(self, size: int, *, rule: Rule, num_words: int, max_tokens: int) -> None:
        """Make an empty queue.

        Args:
            size: Q.
            rule: which report goes when there is one too many; a report that is there comes but once.
            num_words: W.
            max_tokens: of a report, its start and end not counted.
        """
        super().__init__()
        self.queue = DiverseQueue(1, size, num_words, rule=rule, admit_equal_texts="once")
        self.register_buffer("token_ids", torch.full((size, max_tokens + 2), PAD_ID))
        self.register_buffer("classes", torch.zeros(size, len(CATEGORY_NAMES), dtype=torch.bool))
        self._arrived: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def bags(self) -> Tensor:
        """Bags of words of length 1: (Q, W)."""
        return self.queue.features[0]

    @property
    def valid(self) -> Tensor:
        """Which places hold a report: (Q,) bool."""
        return self.queue.valid[0]

    def reports(self) -> Tensor:
        """Return the ids of all places, as long as the longest report: (Q, T)."""
        longest = int((self.token_ids != PAD_ID).sum(dim=1).max())
        return self.token_ids[:, : max(longest, 2)]

    def note(self, bags: Tensor, token_ids: Tensor, classes: Tensor | None) -> None:
        """Take note of reports of this step; they are in the queue from the next one on.

        Args:
            bags: (B, W) of length 1.
            token_ids: (B, T).
            classes: (B, C) bool, None where nobody asks for them.
        """
        none = self.classes.new_zeros(len(token_ids), self.classes.shape[1])
        self._arrived.append((bags, token_ids, none if classes is None else classes))

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the reports of the step in, those of the first process first."""
        for bags, token_ids, classes in self._arrived:
            self._add(bags, token_ids, classes)
        self._arrived.clear()

    def _add(self, bags: Tensor, token_ids: Tensor, classes: Tensor) -> None:
        numbers = [text_number(" ".join(str(number) for number in ids if number != PAD_ID)) for ids in token_ids.tolist()]
        before = torch.cat([self.queue.arrivals[0], self.queue.arrived])  # (Q + 1,), the last is the first newcomer's
        device = token_ids.device
        groups = torch.zeros(len(token_ids), dtype=torch.long, device=device)
        self.queue.add(bags, groups, torch.tensor(numbers, dtype=torch.long, device=device))
        ids = gather_rows(pad_over_processes(token_ids, 1))
        ids = F.pad(ids, (0, self.token_ids.shape[1] - ids.shape[1]), value=PAD_ID)
        arrivals = torch.cat([before[:-1], before[-1] + torch.arange(len(ids), device=device)])  # (Q + N,)
        came_from = (self.queue.arrivals[0][:, None] == arrivals).int().argmax(dim=1)  # (Q,)
        self.token_ids.copy_(torch.cat([self.token_ids, ids])[came_from])
        self.classes.copy_(torch.cat([self.classes, gather_rows(classes.byte()).bool()])[came_from])

    def values(self) -> dict[str, float]:
        """Return how full it is, and how old the reports are, in arrivals since."""
        found = self.queue.report()
        return {"alignment_queue_fill": found["fill"], "alignment_queue_mean_age": found["mean_age"]}
