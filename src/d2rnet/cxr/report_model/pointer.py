"""A pointer over lesion tokens: while a sentence names a lesion, the decoder is taught to look at a box of that lesion.

Ours: the mention extractor says which class, and on which side, a sentence of the reference names; boxes have classes and
places, so that the right boxes are known and attention need not be left to find its own use. At each token of such a sentence
the last layer's cross-attention, mean over heads, is taken over the lesion tokens alone, whatever goes to patches; the loss is
the cross entropy against "one of the right boxes". Sentences without a right box, and those that name nothing, leave it.

Shapes: B entries, T token ids, K lesions of an entry (padded).
"""

import torch
from torch import Tensor

from d2rnet.cxr.boxes.evidence import SIDES, fitting_boxes
from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.errors import ConfigError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.protocols import split_sentences
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_task import RegionLoss
from d2rnet.training.collectives import sum_over_processes

MOMENTUM = 0.9
LEAST_SHARE = 1e-20  # of all attention; what is below teaches nothing, so that no gradient overflows


class Pointer(RegionLoss):
    """The loss, and how much of the attention among lesion tokens goes to right boxes. All of its state is in its buffers.

    Attributes:
        share: () moving average over steps of that share, mean over the tokens of the loss.
        measured: () steps that had such tokens.
    """

    name = "pointer"
    share: Tensor
    measured: Tensor

    def __init__(self, weight: float, vocabulary: Vocabulary, *, lesion_branch: str) -> None:
        """Begin.

        Args:
            weight: of a token's term beside its cross entropy.
            vocabulary: of the model.
            lesion_branch: ``cxr.report.model.lesion_branch``.

        Raises:
            ConfigError: that is none, which leaves no lesion token to point at.
        """
        super().__init__()
        if lesion_branch == "none":
            raise ConfigError(
                f"cxr.report.training.pointer_weight: got {weight:g}, but cxr.report.model.lesion_branch is 'none' and leaves "
                "no lesion token to point at. Set it to 0, or the branch to roi_align or crop."
            )
        self.weight = weight
        self.vocabulary = vocabulary
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("measured", torch.zeros((), dtype=torch.long))
        self._shares: list[Tensor] = []  # of the micro-batches of this step

    def forward(self, attention: Tensor, batch: ChestBatch) -> Tensor:
        """Return the sum of the terms of this process's tokens, in nats times the weight.

        Args:
            attention: (B, T - 1, K) of the tokens 1.. to the lesion tokens, 0 for absent ones.
            batch: with the reports.
        """
        right = right_boxes(batch, self.vocabulary)  # (B, T - 1, K)
        taught = right.any(dim=2)  # (B, T - 1)
        on_right = (attention * right).sum(dim=2)[taught].clamp(min=LEAST_SHARE)
        on_lesions = attention.sum(dim=2)[taught].clamp(min=LEAST_SHARE)
        if self.training:
            self._shares.append((on_right / on_lesions).detach())
        return self.weight * (on_lesions.log() - on_right.log()).sum()

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the mean over the step's tokens, of all micro-batches and processes, into the average."""
        shares = torch.cat(self._shares or [self.share.new_zeros(0)])
        self._shares.clear()
        total, count = sum_over_processes(torch.stack([shares.sum(), shares.new_tensor(len(shares))]).float()).tolist()
        if count:
            self.measured += 1
            self.share.lerp_(self.share.new_tensor(total / count), max(1 - MOMENTUM, 1 / int(self.measured)))

    def values(self) -> dict[str, float]:
        """Return for the history ``pointer_share``, of the attention among lesion tokens, once there is one."""
        return {"pointer_share": float(self.share)} if self.measured else {}


def right_boxes(batch: ChestBatch, vocabulary: Vocabulary) -> Tensor:
    """Return (B, T - 1, K) bool: the boxes of which the sentence speaks that each of the tokens 1.. is in.

    Sides are those of the picture, however augmentation shifts it, and mirrored where image and report are. A box on a lateral
    image has none and is right where the sentence names its class without a side, or on both, never where it names one.
    """
    mask = batch.lesion_mask.tolist()
    category_ids = batch.category_ids.tolist()
    side_ids = batch.lesion_sides.tolist()
    right = torch.zeros(len(mask), batch.token_ids.shape[1] - 1, batch.lesion_mask.shape[1], dtype=torch.bool)
    for entry, ids in enumerate(batch.token_ids.tolist()):
        there = [place for place, is_there in enumerate(mask[entry]) if is_there]
        labels = [CATEGORY_NAMES[category_ids[entry][place] - 1] for place in there]
        sides = [SIDES[side_ids[entry][place]] for place in there]
        start = 0
        for sentence in split_sentences(vocabulary.decode(ids)) if there else ():
            chosen = fitting_boxes(" ".join(sentence), labels, sides)
            right[entry, start : start + len(sentence), [there[place] for place in chosen]] = True
            start += len(sentence)
    return right.to(batch.token_ids.device)
