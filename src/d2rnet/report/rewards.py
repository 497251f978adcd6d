"""Rewards: how much a written report earns beside its reference, for self-critical training and for selection by it.

What a report names is read by the wing, which knows its findings; CIDEr is the same for any.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from d2rnet.report.annotation_file import Entry
from d2rnet.report.settings import ReportTrainingSettings
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_cider import TrainingCider
from d2rnet.runs.cards import REWARDED_KEY

Read = Callable[[str], Collection[str]]
NAMES = {"findings_f1": "F1 of the findings that a report names", "cider": "CIDEr"}


class Score(Protocol):
    """Compares texts."""

    def __call__(self, reference: str, written: str) -> float:
        """Return what a written report earns; words of both are separated by single spaces."""


@dataclass(frozen=True)
class FindingsF1:
    """F1 of the findings that a report names.

    Attributes:
        read: which findings a text says are there.
    """

    read: Read

    def __call__(self, reference: str, written: str) -> float:
        """Return 2 shared / (named by one + named by the other).

        Ours: two reports that name none earn 1, or nothing would be lost by inventing one; a report without words earns 0.
        """
        if not any(map(str.isalnum, written)):
            return 0.0
        true = set(self.read(reference))
        named = set(self.read(written))
        return 2 * len(true & named) / (len(true) + len(named)) if true or named else 1.0


@dataclass(frozen=True)
class Reward:
    """Rewards of reports as ids.

    Attributes:
        tokens: what the ids mean.
        score: of one report.
    """

    tokens: ReportTokens
    score: Score

    def __call__(self, references: Tensor, written: Tensor) -> Tensor:
        """Return (B,) float32 on the ids' device; start token, padding and what follows the end token are no words.

        Args:
            references: (B, T) ids.
            written: (B, T') ids.
        """
        pairs = zip(references.tolist(), written.tolist(), strict=True)
        earned = [self.score(self._text(reference), self._text(report)) for reference, report in pairs]
        return torch.tensor(earned, dtype=torch.float32, device=written.device)

    def _text(self, ids: list[int]) -> str:
        return " ".join(self.tokens.decode(ids))


def rewarded(settings: ReportTrainingSettings) -> dict[str, str]:
    """Return what run record and card say of the score that was trained for; nothing where none was."""
    own = settings.self_critical
    if own.reward == "none":
        return {}
    words = (
        f"{NAMES[own.reward]}, from epoch {own.start_epoch + 1} on; its score is what was trained for, other scores are not"
    )
    return {REWARDED_KEY: words}


def make_reward(
    settings: ReportTrainingSettings, vocabulary: Vocabulary, *, read: Read, entries: Iterable[Entry]
) -> Reward | None:
    """Return the reward that the settings ask for, None if none.

    Args:
        settings: of the training.
        vocabulary: token <-> id.
        read: which findings of its wing a text says are there; it can be pickled, being a function of a module.
        entries: of the training split; CIDEr counts the n-grams of their reports as they are learnt.
    """
    wanted = settings.self_critical.reward
    if wanted == "none":
        return None
    if wanted == "findings_f1":
        return Reward(vocabulary, FindingsF1(read))
    learnt = (vocabulary.encode(entry["report"], max_tokens=settings.max_report_tokens) for entry in entries)
    cider = TrainingCider((" ".join(vocabulary.decode(ids)) for ids in learnt), vocabulary.ids)
    return Reward(vocabulary, cider.score)
