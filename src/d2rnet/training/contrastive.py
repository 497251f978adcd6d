"""Contrastive losses between two sets of vectors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d2rnet.training.collectives import first_row, gather_rows, num_processes, sum_over_processes

NOWHERE = torch.finfo(torch.float32).min


def mean_vector(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (E,) of the vectors (n, ..., E) of all processes where ``mask`` (n, ...) is True.

    It has a gradient, so that no loss on vectors less their mean can move all of them one way.
    """
    kept = (vectors * mask.unsqueeze(-1)).flatten(0, -2)
    total = sum_over_processes(torch.cat([kept.sum(dim=0), mask.sum().view(1).to(kept.dtype)]))
    return total[:-1] / total[-1].detach().clamp(min=1)


def hardest_negative_loss(scores: Tensor, valid: Tensor, margin: float, left_out: Tensor | None = None) -> Tensor:
    """Hinge with the hardest negative of the batch, image to report and report to image, mean over entries.

    Args:
        scores: (B, B), images by reports; the diagonal are the pairs.
        valid: (B,) bool, entries that take part.
        margin: by which a pair has to beat every other.
        left_out: (B, B) bool, symmetric: pairs of entries that are no negatives of each other.
    """
    pairs = scores.diagonal()
    negative = valid[:, None] & valid & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if left_out is not None:
        negative = negative & ~left_out
    of_images = (margin + scores - pairs[:, None]).clamp(min=0) * negative
    of_reports = (margin + scores - pairs).clamp(min=0) * negative
    return (of_images.amax(dim=1) + of_reports.amax(dim=0)).sum() / valid.sum().clamp(min=1)


def soft_target_loss(
    scores: Tensor,
    valid: Tensor,
    likeness: Tensor,
    temperature: float,
    left_out: Tensor | None = None,
    queue_valid: Tensor | None = None,
) -> Tensor:
    """Cross entropy between shares by score and shares by likeness of reports, mean of both ways and over entries.

    An image chooses among the reports of the batch and of a queue, a report among the images of the batch.

    Args:
        scores: (B, B + Q), images by reports: those of the batch, then those of the queue.
        valid: (B,) bool, entries that take part.
        likeness: (B, B + Q) of reports, 1 for equal ones; the first B columns are symmetric, as those of
        left_out: (B, B + Q) bool: pairs of different entries that are in neither softmax.
        temperature: of both softmaxes.
        queue_valid: (Q,) bool, places of the queue with a report; None: there is no queue.
    """
    keys = valid if queue_valid is None else torch.cat([valid, queue_valid])  # (B + Q,)
    outside = ~(valid[:, None] & keys)
    if left_out is not None:
        outside = outside | (left_out & ~torch.eye(*scores.shape, dtype=torch.bool, device=scores.device))
    logits = (scores / temperature).masked_fill(outside, NOWHERE)
    alike = (likeness / temperature).masked_fill(outside, NOWHERE)
    batch = slice(len(scores))
    to_reports = logits.log_softmax(dim=1).masked_fill(outside, 0.0)  # (B, B + Q)
    to_images = logits[:, batch].T.log_softmax(dim=1).masked_fill(outside[:, batch], 0.0)  # (B, B)
    of_images = -(alike.softmax(dim=1) * to_reports).sum(dim=1)
    of_reports = -(alike[:, batch].softmax(dim=1) * to_images).sum(dim=1)
    return ((of_images + of_reports) / 2 * valid).sum() / valid.sum().clamp(min=1)


def class_balanced_loss(scores: Tensor, positives: Tensor, negative_classes: Tensor, key_classes: Tensor) -> Tensor:
    """Cross entropy of each positive key against the negative ones, of which each class counts as one key.

    Args:
        scores: (R, K) of rows and keys, divided by a temperature.
        positives: (R, K) bool, at least one a row.
        negative_classes: (R, C) bool, classes whose keys are negatives of a row.
        key_classes: (K, C) bool, class of each key; none: the key takes no part as a negative.

    Returns:
        (R,) mean over the positives p of -log(exp(s_p) / (exp(s_p) + sum over negative classes of the mean of exp(s))).
    """
    sizes = key_classes.sum(dim=0).clamp(min=1)  # (C,)
    shares = (negative_classes / sizes) @ key_classes.to(scores.dtype).T  # (R, K): 1 / size of its class, or 0
    weighted = scores + shares.clamp(min=torch.finfo(scores.dtype).tiny).log()
    against = weighted.masked_fill(shares == 0, NOWHERE).logsumexp(dim=1, keepdim=True)  # (R, 1)
    per_key = torch.logaddexp(scores, against) - scores
    return (per_key * positives).sum(dim=1) / positives.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class TargetRule:
    """How the targets of :func:`grouped_contrast` are made; the defaults but ``normalise`` are those of the released code.

    Attributes:
        soft_share: of a row's target that goes by the likeness of texts; the rest goes to the pair. 0: hard targets.
        temperature: of the softmax over likenesses.
        other_groups_weight: factor on the targets of other groups' keys.
        other_groups_in_denominator: whether they stay negatives; if not, their weight is 0.
        normalise: rows sum to 1. In the released code they sum to less, by as much as falls on other groups.
    """

    soft_share: float = 0.2
    temperature: float = 0.07
    other_groups_weight: float = 0.1
    other_groups_in_denominator: bool = True
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.other_groups_weight and not self.other_groups_in_denominator:
            raise ValueError(
                f"other_groups_weight is {self.other_groups_weight}, other_groups_in_denominator is False: a key cannot be a "
                "target without being in the denominator. Set other_groups_weight to 0."
            )


DEFAULT_TARGETS = TargetRule()


@dataclass(frozen=True)
class Relations:
    """What R rows (images of a group) and K keys (texts of a group) are to each other.

    Attributes:
        pairs: (R, K) bool, keys that are a row's own.
        same_group: (R, K) bool.
        outside: (R, K) bool, keys that are none for this row: neither in targets nor in the denominator.
    """

    pairs: Tensor
    same_group: Tensor
    outside: Tensor


def grouped_contrast(
    images: Tensor,
    texts: Tensor,
    valid: Tensor,
    queue: Tensor,
    queue_valid: Tensor,
    *,
    temperature: Tensor | float,
    targets: TargetRule = DEFAULT_TARGETS,
    equal_texts: tuple[Tensor, Tensor] | None = None,
    symmetric: bool = False,
) -> Tensor:
    """Cross entropy of what an image shows of a group against the texts of all groups: of the batch and of a queue.

    Source: released code of arXiv 2603.04878 (``compute_mlm3``): image to text, temperature 0.07, soft targets, other groups
    at weight 0.1 in the targets and whole in the denominator. Ours: masks, rows that sum to 1, equal texts, both ways.
    The mean of the result over processes is the loss of their whole batch. Computed in float32 under autocast, too.

    Shapes: B entries of this process, N of all, S groups, Q places in a group's queue, E width; rows are entry by entry.

    Args:
        images: (B, S, E), of length 1.
        texts: (B, S, E), of length 1. Targets are constants; keys pass a gradient on to texts that ask for one.
        valid: (B, S) bool, whether there is such a text. If not, it is no key and its image no row.
        queue: (S, Q, E); a constant.
        queue_valid: (S, Q) bool.
        temperature: of the logits.
        targets: how the targets are made.
        equal_texts: numbers of the texts, (B, S) and (S, Q): keys of a group with the row's number share the pair's part.
        symmetric: the mean of this and of text to image, which has the batch's images alone as keys.
    """
    keys = torch.cat([gather_rows(texts.float()).flatten(0, 1), queue.detach().float().flatten(0, 1)])  # (K, E), a copy
    relations = _relations(valid, queue_valid, equal_texts, targets)
    row_valid = valid.flatten()
    with torch.autocast(texts.device.type, enabled=False):
        row_images, row_texts = images.float().flatten(0, 1), texts.float().flatten(0, 1)  # (B*S, E)
        likeness = row_texts.detach() @ keys.detach().T
        loss = _soft_cross_entropy(row_images @ keys.T / temperature, likeness, row_valid, relations, targets)
        if symmetric:
            batch_images = gather_rows(images.float()).flatten(0, 1)
            batch = slice(len(batch_images))
            others = Relations(relations.pairs[:, batch], relations.same_group[:, batch], relations.outside[:, batch])
            logits = row_texts @ batch_images.T / temperature
            loss = (loss + _soft_cross_entropy(logits, likeness[:, batch], row_valid, others, targets)) / 2
    return loss


def _relations(
    valid: Tensor, queue_valid: Tensor, equal_texts: tuple[Tensor, Tensor] | None, targets: TargetRule
) -> Relations:
    """Relate the rows (R = B*S) to the keys (K = N*S + S*Q)."""
    num_groups = len(queue_valid)
    key_valid = torch.cat([gather_rows(valid.byte()).bool().flatten(), queue_valid.flatten()])
    first = first_row(len(valid), valid.device) * num_groups
    rows = torch.arange(first, first + valid.numel(), device=valid.device)
    places = torch.arange(len(key_valid), device=valid.device)
    # Keys of the batch go through the groups again and again, those of the queue are group by group.
    in_queue = places - (len(key_valid) - queue_valid.numel())
    key_groups = torch.where(in_queue < 0, places % num_groups, in_queue // max(queue_valid.shape[1], 1))
    same_group = (rows % num_groups)[:, None] == key_groups
    pairs = rows[:, None] == places
    if equal_texts is not None:
        numbers, queue_numbers = equal_texts
        key_numbers = torch.cat([gather_rows(numbers).flatten(), queue_numbers.flatten()])
        pairs = same_group & (numbers.flatten()[:, None] == key_numbers)
    outside = ~key_valid.expand_as(pairs)
    if not targets.other_groups_in_denominator:
        outside = outside | ~same_group
    return Relations(pairs, same_group, outside)


def _soft_cross_entropy(
    logits: Tensor, likeness: Tensor, row_valid: Tensor, relations: Relations, targets: TargetRule
) -> Tensor:
    """Return this process's part of the mean over the valid rows of all: (R, K) logits and likeness, (R,) valid."""
    shares = target_shares(likeness, relations, targets)
    outside = relations.outside
    log_softmax = logits.masked_fill(outside, NOWHERE).log_softmax(dim=1).masked_fill(outside, 0.0)
    per_row = -(shares * log_softmax).sum(dim=1)
    # The mean of this over processes is the mean over the rows of all.
    return (per_row * row_valid).sum() * num_processes() / sum_over_processes(row_valid.sum()).clamp(min=1)


def target_shares(likeness: Tensor, relations: Relations, rule: TargetRule) -> Tensor:
    """Return what share of its loss each row gives to each key: (R, K) float32.

    Args:
        likeness: (R, K) of the rows' own texts to the keys' texts.
        relations: of rows and keys.
        rule: weights.
    """
    pairs = relations.pairs & ~relations.outside
    soft = (likeness / rule.temperature).masked_fill(relations.outside, NOWHERE).softmax(dim=1)
    hard = pairs / pairs.sum(dim=1, keepdim=True).clamp(min=1)
    shares = rule.soft_share * soft + (1 - rule.soft_share) * hard
    shares = torch.where(relations.same_group, shares, rule.other_groups_weight * shares)
    shares = shares.masked_fill(relations.outside, 0.0)
    if rule.normalise:
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
    return shares


class Temperature(nn.Module):
    """Temperature of logits, fixed, or learnt as its logarithm and kept within bounds."""

    def __init__(self, start: float = 0.07, *, learnable: bool = False, bounds: tuple[float, float] = (0.01, 0.5)) -> None:
        """Begin at ``start``.

        Raises:
            ValueError: ``start`` is out of bounds.
        """
        super().__init__()
        if not bounds[0] <= start <= bounds[1]:
            raise ValueError(f"temperature starts at {start}; expected {bounds[0]} to {bounds[1]}")
        self.bounds = bounds
        self.logarithm = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learnable)

    def forward(self) -> Tensor:
        """Return the temperature; a step of the optimiser beyond a bound is taken back, so that the next can leave it."""
        with torch.no_grad():
            self.logarithm.clamp_(*map(math.log, self.bounds))
        return self.logarithm.exp()
