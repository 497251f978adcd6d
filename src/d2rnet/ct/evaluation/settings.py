"""Settings of the evaluation of chest CT reports."""

from typing import Literal

from d2rnet.evaluation.settings import WordScoreSettings
from d2rnet.settings import Section, setting

VectorKind = Literal["observations", "mean"]


class LabelSetSettings(Section):
    """Two baselines by stage 1: the training report of the nearest features, and the stored report of the labels that a linear
    classifier of the 18 abnormalities gives."""

    place = "ct.evaluation.label_set"

    features: VectorKind = setting("observations")
    """What both look at: observations, those of all structures side by side, as much as the report model sees; or the mean of
    the patches, a tenth of the numbers with ten structures and a weaker baseline."""
    penalty: float = setting(0.001, ge=0)
    """L2 penalty on the weights of the linear classifier, beside the mean loss of a label (own choice)."""
    max_iterations: int = setting(200, ge=1)
    """Most iterations of L-BFGS."""
    medoid_candidates: int = setting(400, ge=1)
    """Of training reports with the same label set at most so many, the first, are searched for the medoid; the search takes
    the square of their number."""


class CtEvaluationSettings(WordScoreSettings):
    """Scores of chest CT reports."""

    place = "ct.evaluation"

    level: Literal["scan", "volume"] = setting("scan")
    """What counts once: scan, each volume weighs one over the scored volumes of its scan; volume, each reconstruction by
    itself, as tables with n = 3,039 of CT-RATE do."""
    bootstrap_samples: int = setting(1000, ge=1)
    """Resamples of patients for the 95 % intervals; all volumes of a patient are drawn together."""
    radbert_weights: str | None = setting(None)
    """Folder with config.json and tokenizer of RadBERT-RoBERTa-4m and RadBertClassifier.pth of CT-RATE (or an 18-label
    sequence classifier saved by transformers), to score the 18 labels by; needs the package transformers. null: not run."""


class EvaluateCtSettings(CtEvaluationSettings):
    """All of the evaluation of chest CT reports."""

    label_set: LabelSetSettings = LabelSetSettings()
