"""CheXbert-14 and RadGraph F1 through their own packages, where the user has package and weights; else a note says why not.

Neither is needed for anything else: both packages want torch, the tokenizer files in Hugging Face's local cache and weights
by path; nothing is downloaded here. Sources: CheXbert (Smit et al., EMNLP 2020) by ``f1chexbert``; RadGraph F1 (Jain et al.,
NeurIPS 2021; Delbrouck et al., EMNLP 2022) by ``radgraph``.
"""

import importlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.errors import ToolError
from d2rnet.evaluation.settings import ScoreSettings

log = logging.getLogger(__name__)
RADGRAPH_MODELS = ("radgraph-xl", "modern-radgraph-xl", "radgraph")
Result = tuple[dict[str, float | None], dict[str, str]]  # scores, notes


def outside_scores(references: Sequence[str], hypotheses: Sequence[str], settings: ScoreSettings) -> Result:
    """Run the labelers whose weights are given.

    Args:
        references: N texts.
        hypotheses: N texts in the same order.
        settings: where the weights are.

    Returns:
        Scores with their convention in the key, and for each labeler that did not run a note why.

    Raises:
        FileNotFoundError: weights are given and not there.
        ToolError: a labeler is there and fails.
    """
    scores: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    labelers = (
        ("chexbert", settings.chexbert_weights, "f1chexbert", _chexbert),
        ("radgraph", settings.radgraph_weights, "radgraph", _radgraph),
    )
    for name, file, package, run in labelers:
        key = f"{name}_weights"
        if file is None:
            notes[name] = f"not run: evaluation.{key} is null"
            continue
        weights = Path(file)
        if not weights.exists():
            raise FileNotFoundError(f"evaluation.{key}: {weights}: no such file or folder.")
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the import: a tokenizer that is not in the cache is an error at once
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            notes[name] = f"not run: the package {package} does not import ({error}). Install it: pip install {package}."
            continue
        try:
            scores |= run(module, weights, references, hypotheses)
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever a foreign package raises
            raise ToolError(
                f"{package}: {type(error).__name__}: {error}. Expected the weights of evaluation.{key} and tokenizer files in "
                f"the Hugging Face cache; nothing is downloaded. Set evaluation.{key} to null to leave it out."
            ) from error
        log.info("%s: %s", name, scores)
    return scores, notes


def _chexbert(module: Any, weights: Path, references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float | None]:
    """Label both sides with CheXbert; F1 over 14 labels, blank and negative both count as not named."""
    source: Any = importlib.import_module(f"{module.__name__}.f1chexbert")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "chexbert.pth").symlink_to(weights.resolve())
        source.CACHE_DIR = folder  # where the package looks for its weights; it has no argument for them
        labeler = source.F1CheXbert()
    truth, claimed = (_chexbert_labels(labeler, texts) for texts in (references, hypotheses))
    scores: dict[str, float | None] = {}
    for convention, counted in (("positive", (1, -1)), ("negative", (1,))):
        true = np.isin(truth, counted)
        named = np.isin(claimed, counted)
        hits = (true & named).sum(axis=0)  # (14,)
        either = true.sum(axis=0) + named.sum(axis=0)  # (14,)
        held = true.any(axis=0)
        of_classes = 2 * hits[held] / either[held]
        scores[f"chexbert14_micro_f1_uncertain_{convention}"] = float(2 * hits.sum() / either.sum()) if either.sum() else None
        scores[f"chexbert14_macro_f1_uncertain_{convention}"] = float(of_classes.mean()) if held.any() else None
    return scores


def _chexbert_labels(labeler: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    """Return (N, 14): 1 positive, 0 negative, -1 uncertain, 2 not mentioned."""
    labels = (labeler.get_label(text, mode="classification") for text in texts)
    return np.array([[2 if label == "" else label for label in row] for row in labels], dtype=np.int64)


def _radgraph(module: Any, weights: Path, references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float | None]:
    """Score entities and relations; ``weights`` is a folder that holds the unpacked folder of a model."""
    model = next((name for name in RADGRAPH_MODELS if (weights / name / "weights.th").is_file()), None)
    if model is None:
        wanted = " or ".join(f"{name}/weights.th" for name in RADGRAPH_MODELS)
        raise FileNotFoundError(f"evaluation.radgraph_weights: {weights}: holds no {wanted}.")
    scorer = module.F1RadGraph(reward_level="all", model_type=model, model_cache_dir=str(weights))
    means = scorer(refs=list(references), hyps=list(hypotheses))[0]
    levels = ("simple", "partial", "complete")
    return {f"{model.replace('-', '_')}_f1_{level}": float(value) for level, value in zip(levels, means, strict=True)}
