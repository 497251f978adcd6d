"""CheXbert: 14 labels of a chest radiograph's report by weights that the user has; clinical efficacy as the field quotes it.

Source: Smit et al., EMNLP 2020; facts of the published file only: a BERT-base encoder, 14 linear layers on its first token, 13
with the classes blank, positive, negative, uncertain and "No Finding" with the first two; texts cut at 512 tokens. The call is
our own: the packages that wrap these weights ask transformers for ``encode_plus``, which its version 5 no longer has.

Shapes: N reports, C = 14 or 5 labels.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from d2rnet.errors import ToolError
from d2rnet.evaluation.labeller import Judged
from d2rnet.evaluation.outside_labeller import Classify, OutsideLabeller

NAME = "chexbert"
PLACE = "evaluation.chexbert_weights"
VOCABULARY = "vocab.txt"
LABELS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
SETS: Mapping[str, tuple[str, ...]] = {"chexbert14": LABELS, "chexbert5": FIVE}
BLANK, POSITIVE, NEGATIVE, UNCERTAIN = range(4)
CONVENTIONS: Mapping[str, tuple[int, ...]] = {
    "uncertain_positive": (POSITIVE, UNCERTAIN),
    "uncertain_negative": (POSITIVE,),
}
PROTOCOLS: Mapping[str, tuple[str, ...]] = {  # key -> its labels
    f"{labels}_{convention}": names for labels, names in SETS.items() for convention in CONVENTIONS
}


class Chexbert(OutsideLabeller):
    """Reads reports by CheXbert, or says why it does not."""

    def __init__(self, weights: str | None) -> None:
        """Open the weights of ``evaluation.chexbert_weights``; none are none."""
        super().__init__(NAME, lambda: _open(weights))

    def judge(self, references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, Judged]:
        """Set what it reads in N generated reports beside what it reads in their references.

        Returns:
            Each of PROTOCOLS -> labels, of which blank and negative are "not named"; nothing where it does not run.
        """
        truth = self.read(references)
        claimed = self.read(hypotheses)
        if truth is None or claimed is None:
            return {}
        found = {}
        for labels, names in SETS.items():
            columns = [LABELS.index(name) for name in names]
            for convention, counted in CONVENTIONS.items():
                true, named = (np.isin(states[:, columns], counted) for states in (truth, claimed))  # (N, C)
                found[f"{labels}_{convention}"] = Judged(true, named, np.ones_like(true))
        return found


def _open(weights: str | None) -> Classify:
    """Return a function: texts -> (n, 14) of BLANK, POSITIVE, NEGATIVE or UNCERTAIN.

    Raises:
        FileNotFoundError: weights or vocabulary are not there.
        ToolError: no weights are given, or torch or transformers is not installed.
        CheckpointError: the files are something else.
    """
    if weights is None:
        raise ToolError(f"{PLACE} is null")
    file = Path(weights)
    if not file.is_file():
        raise FileNotFoundError(f"{PLACE}: {file}: no such file; expected chexbert.pth.")
    words = file.with_name(VOCABULARY)
    if not words.is_file():
        expected = f"{VOCABULARY} of bert-base-uncased beside the weights"
        raise FileNotFoundError(f"{PLACE}: {words}: no such file; expected {expected}.")
    network = importlib.import_module("d2rnet.evaluation.chexbert_network")  # wants torch, which this rule does without
    try:
        return network.open_network(file, words, source=PLACE)
    except ImportError as error:
        remedy = "Install it: pip install 'd2rnet[report]'"
        raise ToolError(f"the package {error.name} does not import ({error}). {remedy}.") from error
