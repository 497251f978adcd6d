"""RadGraph F1 by the package radgraph, where the user has package and weights; else a note says why not.

Source: Jain et al., NeurIPS 2021; Delbrouck et al., EMNLP 2022. Weights by path; nothing is downloaded, so the tokenizer's
files have to be in Hugging Face's local cache. Version 0.1.18 of the package calls ``encode_plus`` of tokenizers, which
transformers 5 no longer has: beside it RadGraph is "not run", and says so; it asks for transformers 4.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from d2rnet.errors import ToolError
from d2rnet.evaluation.outside_labeller import attempt

NAME = "radgraph"
PLACE = "evaluation.radgraph_weights"
MODELS = ("radgraph-xl", "modern-radgraph-xl", "radgraph")
LEVELS = ("simple", "partial", "complete")


def radgraph_scores(
    weights: str | None, references: Sequence[str], hypotheses: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Score N hypotheses against as many references.

    Args:
        weights: ``evaluation.radgraph_weights``.
        references: N texts.
        hypotheses: N texts in the same order.

    Returns:
        ``<model>_f1_<level>`` -> F1 of entities and relations, 0 to 1, and why it did not run, if it did not.
    """
    notes: dict[str, str] = {}
    scores = attempt(NAME, lambda: _score(weights, references, hypotheses), notes)
    return scores or {}, notes


def _score(weights: str | None, references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    if weights is None:
        raise ToolError(f"{PLACE} is null")
    folder = Path(weights)
    model = next((name for name in MODELS if (folder / name / "weights.th").is_file()), None)
    if model is None:
        wanted = " or ".join(f"{name}/weights.th" for name in MODELS)
        raise FileNotFoundError(f"{PLACE}: {folder}: holds no {wanted}.")
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the import: a tokenizer that is not in the cache is an error at once
    try:
        module = importlib.import_module("radgraph")
    except ImportError as error:
        remedy = "Install it: pip install radgraph 'transformers<5'"
        raise ToolError(f"the package radgraph does not import ({error}). {remedy}.") from error
    scorer = module.F1RadGraph(reward_level="all", model_type=model, model_cache_dir=str(folder))
    means = scorer(refs=list(references), hyps=list(hypotheses))[0]
    return {f"{model.replace('-', '_')}_f1_{level}": float(value) for level, value in zip(LEVELS, means, strict=True)}
