"""What an alignment loss is doing: does it tell pairs apart, do its vectors still differ, or has it collapsed?

A collapse: all vectors of a side point the same way, every score is like every other, and the hinge stays at twice its margin.
The mean of vectors of length 1 is then nearly 1 long, and the report of an image is found no more often than by chance.

Shapes: B entries of all processes, n of this one, R regions or words, E width.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d2rnet.training.collectives import process_rank, sum_over_processes

log = logging.getLogger(__name__)
MOMENTUM = 0.9
WATCHED = ("retrieval", "retrieval_by_chance", "region_mean_length", "word_mean_length")
FIRST_LOOK, LOOK_EVERY = 30, 10  # steps
COLLAPSED_LENGTH = 0.95
ABOVE_CHANCE = 0.1


@dataclass(frozen=True)
class Wording:
    """What a collapse is told with.

    Attributes:
        sides: what the two kinds of vectors are of.
        partner: what retrieval finds.
        remedies: settings of section alignment, beside the weight.
    """

    sides: str
    partner: str
    remedies: str


OF_REPORTS = Wording(
    "regions and words",
    "the report of an image",
    "centring true, projection_bias false, word_projection separate, targets soft",
)
OF_SENTENCES = Wording(
    "boxes and sentences", "a box of what a sentence names", "centring true, projection_bias false, word_projection separate"
)


@torch.no_grad()
def in_batch_retrieval(scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of entries whose own partner has the greatest score, mean of both ways, and what chance gives.

    Args:
        scores: (B, B), images by reports; the diagonal are the pairs.
        valid: (B,) bool, entries that take part. Of k equally great scores each counts 1 / k.
    """
    chosen = scores[valid][:, valid]
    found = []
    for table in (chosen, chosen.T):
        best = table == table.amax(dim=1, keepdim=True) if len(table) else table.bool()
        found.append((best.diagonal() / best.sum(dim=1).clamp(min=1)).mean())
    return torch.stack(found).mean(), 1 / valid.sum()


@torch.no_grad()
def mean_length(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the length of the mean of all processes' vectors: (n, R, E) of length 1, and (n, R) bool."""
    kept = vectors * mask.unsqueeze(-1)
    total = sum_over_processes(torch.cat([kept.sum(dim=(0, 1)), mask.sum().view(1).to(kept.dtype)]))
    return total[:-1].norm() / total[-1].clamp(min=1)


class Watch(nn.Module):
    """Moving averages over the steps of one loss, and a word in the log when it collapses; resumes exactly.

    Attributes:
        means: (4,) of ``WATCHED``.
        steps: () steps watched.
        warned: () bool, whether the collapse was named.
    """

    means: Tensor
    steps: Tensor
    warned: Tensor

    def __init__(self, name: str, *, place: str, weight: str, wording: Wording = OF_REPORTS) -> None:
        """Watch the loss ``name``, whose settings stand at ``place`` and whose weight is the setting ``weight``."""
        super().__init__()
        self.wording = wording
        self.name = name
        self.place = place
        self.weight = weight
        self.register_buffer("means", torch.zeros(len(WATCHED)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("warned", torch.zeros((), dtype=torch.bool))
        self._looks: list[Tensor] = []  # of the micro-batches of this step

    @torch.no_grad()
    def look(self, scores: Tensor, valid: Tensor, lengths: tuple[Tensor, Tensor]) -> None:
        """Take note of a batch, or micro-batch; one with fewer than two entries has nothing to tell apart.

        Args:
            scores: (B, B), images by reports.
            valid: (B,) bool.
            lengths: :func:`mean_length` of regions and of words.
        """
        if int(valid.sum()) >= 2:
            self.note(in_batch_retrieval(scores.float(), valid), lengths)

    def note(self, retrieval: tuple[Tensor, Tensor], lengths: tuple[Tensor, Tensor]) -> None:
        """Take note of what was seen of a batch, or micro-batch.

        Args:
            retrieval: share found, and by chance.
            lengths: :func:`mean_length` of either side.
        """
        self._looks.append(torch.stack([*retrieval, *lengths]).to(self.means.dtype))

    def after_step(self) -> None:
        """Count a step, by the mean of its micro-batches."""
        if not self._looks:
            return
        now = torch.stack(self._looks).mean(dim=0)
        self._looks.clear()
        self.means.lerp_(now, max(1 - MOMENTUM, 1 / (int(self.steps) + 1)))
        self.steps += 1
        if int(self.steps) >= FIRST_LOOK and int(self.steps) % LOOK_EVERY == 0 and not self.warned:
            self._name_a_collapse()

    def values(self) -> dict[str, float]:
        """Return the averages under their names."""
        return {f"{self.name}_{what}": value for what, value in zip(WATCHED, self.means.tolist(), strict=True)}

    def _name_a_collapse(self) -> None:
        retrieval, chance, *lengths = self.means.tolist()
        if max(lengths) < COLLAPSED_LENGTH or retrieval > chance + ABOVE_CHANCE * (1 - chance):
            return
        self.warned.fill_(True)
        if process_rank() == 0:
            log.warning(
                "%s has collapsed after %d batches: mean vectors of %s are %.3f and %.3f long (1: all alike), "
                "%s is found in %.2f of cases (by chance %.2f). It teaches nothing and pulls at the image "
                "network. In %s set %s, and weight_by gradient_ratio or a lower %s (0.03 to 0.05).",
                self.name,
                int(self.steps),
                self.wording.sides,
                *lengths,
                self.wording.partner,
                retrieval,
                chance,
                self.place,
                self.wording.remedies,
                self.weight,
            )
