"""Settings of the evaluation of reports."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from d2rnet.settings import Section, setting


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):  # 1 equals true
        raise ValueError("expected auto, true or false")
    return value


class RetrievalSettings(Section):
    """The retrieval baseline."""

    place = "evaluation"

    retrieval_candidates: int = setting(20000, ge=0)
    """Training entries among which the retrieval baseline searches the nearest one, drawn by seed; 300000 takes all of
    MIMIC-CXR; 0: no retrieval baseline."""
    retrieval_seed: int = setting(0, ge=0)
    """Seed of the draw of candidates."""


class WordScoreSettings(Section):
    """Scores of generated reports by their words, controls and intervals."""

    place = "evaluation"

    meteor: Annotated[Literal["auto", True, False], BeforeValidator(_no_number)] = setting("auto")
    """auto: METEOR where Java is found, else 'not run'; true: an error without Java; false: not run."""
    shuffle_seed: int = setting(0, ge=0)
    """Seed of the control that pairs hypotheses with shuffled references."""
    bootstrap_samples: int = setting(1000, ge=1)
    """Resamples of studies for the 95 % intervals of the scores."""
    bootstrap_seed: int = setting(0, ge=0)
    """Seed of the resamples."""


class ScoreSettings(WordScoreSettings):
    """Scores of generated reports."""

    place = "evaluation"

    chexbert_weights: str | None = setting(None)
    """File chexbert.pth for CheXbert's 14 labels, with vocab.txt of bert-base-uncased beside it; needs the package
    transformers. null: not run."""
    radgraph_weights: str | None = setting(None)
    """Folder that holds radgraph-xl/, modern-radgraph-xl/ or radgraph/ with weights.th, for RadGraph F1 by the package
    radgraph, which is not installed here and asks for transformers below 5; null: not run."""


class NoBoxSettings(ScoreSettings):
    """Scores beside those of a model without boxes."""

    place = "evaluation"

    references: Literal["full", "r2gen_exact"] = setting("full")
    """What reports are scored against: full, the cleaned report; r2gen_exact, as R2Gen and published scores on its code do:
    cut one word before the model's training.max_report_tokens, words outside its vocabulary as <unk>; text protocol r2gen
    only."""
    no_box_reports: str | None = setting(None)
    """test.jsonl of a model without boxes, for the same entries; its scores stand beside this model's. null: none."""


class MeteorRuntime(Section):
    """How long METEOR may take on this machine; changes no result."""

    place = "runtime"

    meteor_timeout_seconds: int = setting(180, ge=10)
    """Seconds to wait for one answer of METEOR before giving up with an error; the first includes about 10 s of loading."""
