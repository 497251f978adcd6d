"""A queue of text vectors for each group, as negatives of :func:`grouped_contrast`, that keeps what differs.

Source: released code of arXiv 2603.04878 (``_dequeue_and_enqueue2``, ``_update_queue``) for the rule ``released``; the others
are ours. Texts are admitted one after the other, those of the first process first: an addition of many is that of each in
turn, and every process holds the same queue.

Shapes: G groups, Q places of a group, E width, n texts of this process; while adding, m texts at the most of one group and
T = Q + m slots: the queue's, oldest first, and behind them the new ones in the order of their arrival.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from d2rnet.training.collectives import gather_rows

Rule = Literal["fifo", "released", "refreshed", "closest_pair"]
NOISE_SCORE = 10_000.0
LOWEST = torch.finfo(torch.float32).min


def text_number(text: str) -> int:
    """Return a number from 0 that stands for a text in every process and run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class DiverseQueue(nn.Module):
    """Texts of each group, oldest first. All of its state is in its buffers: it resumes exactly.

    With 10 groups of 1,000 texts of width 512, one core adds 8 texts to each group in 0.02 s (``fifo``), 0.03 to 0.06 s
    (``released``), 0.07 to 0.09 s (``closest_pair``; as long as the products of all pairs alone would take, which are not
    kept: 40 MB), 0.10 to 0.12 s (``refreshed``): ``benchmarks/queue_rules.py``.

    Attributes:
        features: (G, Q, E) float32.
        valid: (G, Q) bool, the places that hold something: the first of each group.
        scores: (G, Q) that ``released`` and ``closest_pair`` keep; the greatest goes first.
        nearest: (G, Q) arrival of the newer text that a score of ``closest_pair`` compares with.
        arrivals: (G, Q) number of a text among all that came to its group, from 0; negative: noise of the start.
        numbers: (G, Q) :func:`text_number`; negative: noise.
        normal: (G, Q) bool, as the caller says.
        arrived: (G,) how many texts have come.
    """

    features: Tensor
    valid: Tensor
    scores: Tensor
    nearest: Tensor
    arrivals: Tensor
    numbers: Tensor
    normal: Tensor
    arrived: Tensor

    def __init__(
        self,
        groups: int,
        size: int,
        width: int,
        *,
        rule: Rule = "closest_pair",
        admit_equal_texts: Literal["once", "always"] = "always",
        temperature: float = 0.07,
        start: Literal["empty", "noise"] = "empty",
    ) -> None:
        """Make a queue at its beginning.

        Args:
            groups: G.
            size: Q.
            width: E.
            rule: which text of a group goes when there is one too many. ``fifo``: the oldest. ``released``: that with the
                greatest mean similarity / temperature to what the queue held when it came; the first is taken to have met its
                equal. ``refreshed``: that with the greatest mean similarity to the others that are there now.
                ``closest_pair``: the older of the two that are most similar.
            admit_equal_texts: ``once``: the older of two texts of one number goes at once.
            temperature: of the scores of ``released``.
            start: ``noise``: full of normal random vectors, not of length 1, with a score of 10,000, as the released code.

        Raises:
            ValueError: a rule of another name, or a size below 1.
        """
        super().__init__()
        if rule not in RULES or min(groups, size, width) < 1:
            raise ValueError(
                f"queue of {groups} x {size} x {width}, rule {rule!r}; expected sizes from 1, one of {', '.join(RULES)}"
            )
        self.rule = RULES[rule]
        self.admits_once = admit_equal_texts == "once"
        self.temperature = temperature
        noise = start == "noise"
        places = (groups, size)
        self.register_buffer("features", torch.randn(*places, width) if noise else torch.zeros(*places, width))
        self.register_buffer("valid", torch.full(places, noise))
        self.register_buffer("scores", torch.full(places, NOISE_SCORE if noise else LOWEST))
        before = torch.arange(-size, 0).expand(places).clone()
        self.register_buffer("nearest", before.clone())
        self.register_buffer("arrivals", before)
        self.register_buffer("numbers", before.clone())
        self.register_buffer("normal", torch.zeros(places, dtype=torch.bool))
        self.register_buffer("arrived", torch.zeros(groups, dtype=torch.long))

    @torch.no_grad()
    def add(self, features: Tensor, groups: Tensor, numbers: Tensor, normal: Tensor | None = None) -> None:
        """Admit the texts of all processes.

        Args:
            features: (n, E), of length 1; n may differ among processes and be 0.
            groups: (n,) int64, 0 to G - 1.
            numbers: (n,) int64, :func:`text_number`.
            normal: (n,) bool, whether a text says that nothing was found.

        Raises:
            ValueError: a group out of range.
        """
        normal = torch.zeros_like(groups, dtype=torch.bool) if normal is None else normal
        features, groups, numbers = gather_rows(features.detach().float()), gather_rows(groups), gather_rows(numbers)
        normal = gather_rows(normal.byte()).bool()
        if not len(groups):
            return
        if groups.min() < 0 or groups.max() >= len(self.arrived):
            raise ValueError(f"groups {int(groups.min())} to {int(groups.max())}; expected 0 to {len(self.arrived) - 1}")
        counts = torch.bincount(groups, minlength=len(self.arrived))
        order = groups.argsort(stable=True)
        group = groups[order]
        place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[group]  # within its group

        def slots(old: Tensor, new: Tensor) -> Tensor:
            """(G, Q, ...) and (n, ...) -> (G, T, ...)."""
            padding = old.new_zeros(len(counts), int(counts.max()), *old.shape[2:])
            padding[group, place] = new[order].to(old.dtype)
            return torch.cat([old, padding], dim=1)

        arrivals = torch.empty_like(groups)
        arrivals[order] = self.arrived[group] + place
        content = Slots(
            features=slots(self.features, features),
            there=slots(self.valid, torch.zeros_like(normal)),
            scores=slots(self.scores, torch.full_like(groups, LOWEST, dtype=torch.float32)),
            nearest=slots(self.nearest, arrivals),
            arrivals=slots(self.arrivals, arrivals),
            numbers=slots(self.numbers, numbers),
            normal=slots(self.normal, normal),
            temperature=self.temperature,
        )
        self._admit(content, counts)
        self._keep(content)
        self.arrived += counts

    def _admit(self, content: "Slots", counts: Tensor) -> None:
        """Let the new texts in, the first of all groups, then the second, and drop those that are too many."""
        size = self.valid.shape[1]
        for place in range(content.there.shape[1] - size):
            slot = size + place
            comes = counts > place
            self.rule.arrive(content, slot, comes)
            content.there[:, slot] = comes
            equal = content.numbers[:, :slot] == content.numbers[:, slot, None]
            equal &= content.there[:, :slot] & comes[:, None] & self.admits_once
            twice = equal.any(dim=1)
            full = content.there.sum(dim=1) > size
            goes = torch.where(twice, equal.int().argmax(dim=1), self.rule.first_to_go(content))
            content.drop(goes, twice | full)
            self.rule.leave(content, goes, twice | full)

    def _keep(self, content: "Slots") -> None:
        """Copy what is there into the buffers, in place: oldest first."""
        held = content.there.int().argsort(dim=1, descending=True, stable=True)[:, : self.valid.shape[1]]  # (G, Q)
        self.features.copy_(content.features.gather(1, held[:, :, None].expand_as(self.features)))
        self.valid.copy_(content.there.gather(1, held))
        for name in ("scores", "nearest", "arrivals", "numbers", "normal"):
            getattr(self, name).copy_(getattr(content, name).gather(1, held))

    def report(self, group: int | None = None) -> dict[str, float]:
        """Describe the texts of a group, or of all groups.

        Returns:
            ``fill``: share of places with a text. ``noise``: share of places with noise of the start. Of the texts, 0 if none:
            ``normal_share``, ``distinct_texts`` (how many, group by group), ``mean_age`` (arrivals since, of its group).
        """
        chosen = slice(None) if group is None else slice(group, group + 1)
        valid, arrivals, numbers = self.valid[chosen], self.arrivals[chosen], self.numbers[chosen]
        texts = valid & (arrivals >= 0)
        count = max(int(texts.sum()), 1)
        ages = self.arrived[chosen, None] - 1 - arrivals
        return {
            "fill": float(texts.float().mean()),
            "noise": float((valid & ~texts).float().mean()),
            "normal_share": float(self.normal[chosen][texts].sum()) / count,
            "distinct_texts": float(sum(len(row[there].unique()) for row, there in zip(numbers, texts, strict=True))),
            "mean_age": float(ages[texts].sum()) / count,
        }

    def poorest(self) -> dict[str, float]:
        """Describe the poorest of the groups that hold a text; the sums of :meth:`report` hide it among the others.

        Returns:
            ``normal_share_greatest`` and ``distinct_texts_least`` of a group, each over the groups; 0 where none holds a text.
        """
        reports = [one for one in map(self.report, range(len(self.arrived))) if one["fill"] > 0]
        return {
            "normal_share_greatest": max((one["normal_share"] for one in reports), default=0.0),
            "distinct_texts_least": min((one["distinct_texts"] for one in reports), default=0.0),
        }


@dataclass
class Slots:
    """A queue while texts are added: (G, T) each, features (G, T, E); ``there`` says which slots count."""

    features: Tensor
    there: Tensor
    scores: Tensor
    nearest: Tensor
    arrivals: Tensor
    numbers: Tensor
    normal: Tensor
    temperature: float

    @cached_property
    def squares(self) -> Tensor:
        """Products of all texts with themselves: (G, T)."""
        return self.features.square().sum(dim=2)

    def similarities(self, slot: int) -> Tensor:
        """Return products of all texts with that of one slot: (G, T)."""
        return torch.einsum("gte,ge->gt", self.features, self.features[:, slot])

    def greatest(self, scores: Tensor) -> Tensor:
        """Return the slot of the greatest score (G, T) of each group, the oldest of equal ones: (G,)."""
        return scores.masked_fill(~self.there, -torch.inf).argmax(dim=1)

    def drop(self, slots: Tensor, really: Tensor) -> None:
        """Empty one slot (G,) of the groups where ``really`` (G,)."""
        self.there &= ~(really[:, None] & (torch.arange(self.there.shape[1], device=slots.device) == slots[:, None]))


class Fifo:
    """The oldest goes."""

    def arrive(self, content: Slots, slot: int, comes: Tensor) -> None:
        """Look at a new text of each group (G,) before it is there."""

    def first_to_go(self, content: Slots) -> Tensor:
        """Return the slot that goes if one has to: (G,)."""
        return content.there.int().argmax(dim=1)

    def leave(self, content: Slots, slots: Tensor, left: Tensor) -> None:
        """Mend what scores owe to the texts of ``slots`` (G,), which have just left where ``left`` (G,)."""


class Released(Fifo):
    """The greatest mean similarity at arrival goes; scores are kept for ever."""

    def arrive(self, content: Slots, slot: int, comes: Tensor) -> None:
        """Score the new texts; the first of all has nothing to compare with but itself."""
        similarities = content.similarities(slot)
        count = content.there.sum(dim=1)
        mean = (similarities * content.there).sum(dim=1) / count.clamp(min=1)
        content.scores[:, slot] = torch.where(count > 0, mean, similarities[:, slot]) / content.temperature

    def first_to_go(self, content: Slots) -> Tensor:
        """Return the greatest score."""
        return content.greatest(content.scores)


class Refreshed(Fifo):
    """The greatest mean similarity to what is there goes."""

    def first_to_go(self, content: Slots) -> Tensor:
        """Compare the sums of products with the others; with all it is the product with their sum."""
        total = torch.einsum("gte,gt->ge", content.features, content.there.float())
        with_all = torch.einsum("gte,ge->gt", content.features, total)
        return content.greatest(with_all - content.squares)


class ClosestPair(Fifo):
    """The older of the closest pair goes. A text's score is its greatest similarity to a newer one."""

    def arrive(self, content: Slots, slot: int, comes: Tensor) -> None:
        """Compare all texts with the new one, which has none newer."""
        similarities = content.similarities(slot)
        closer = content.there & comes[:, None] & (similarities >= content.scores)
        content.scores = torch.where(closer, similarities, content.scores)
        content.nearest = torch.where(closer, content.arrivals[:, slot, None], content.nearest)

    def first_to_go(self, content: Slots) -> Tensor:
        """Return the greatest score."""
        return content.greatest(content.scores)

    def leave(self, content: Slots, slots: Tensor, left: Tensor) -> None:
        """Look for the next nearest of the texts whose nearest has left; there are few."""
        gone = content.arrivals.gather(1, slots[:, None])
        orphans = content.there & (content.nearest == gone) & left[:, None]
        for group, slot in orphans.nonzero().tolist():  # one by one: features of whole groups are not copied
            newer = slice(slot + 1, None)
            similarities = content.features[group, newer] @ content.features[group, slot]
            best, place = similarities.masked_fill(~content.there[group, newer], LOWEST).max(dim=0)
            content.scores[group, slot] = best
            content.nearest[group, slot] = content.arrivals[group, newer][place]


RULES: dict[Rule, Fifo] = {
    "fifo": Fifo(),
    "released": Released(),
    "refreshed": Refreshed(),
    "closest_pair": ClosestPair(),
}
