"""The report model of stage 2 as a front end of the report stage: how a model folder becomes a model again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.report_model.settings import CtLlmSettings, TrainCtReportModelSettings
from d2rnet.errors import CheckpointError
from d2rnet.report.interface import FrontEnd
from d2rnet.report.llm.base import base_identity, check_identity, load_tokenizer
from d2rnet.report.llm.tokens import LlmTokens
from d2rnet.report.model_files import LoadedModel
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import Vocabulary

FACT = "features"
BASE = "base_model"
BASE_PLACE = f"{CtLlmSettings.place}.weights"


def facts_of(features: FeatureFacts, settings: CtLlmSettings) -> dict[str, Any]:
    """Return what a model folder says beside the settings: features that the model was trained on, and its language model.

    Raises:
        FileNotFoundError: there is no language model where the settings name one.
    """
    base = base_identity(Path(settings.weights), place=BASE_PLACE) if settings.weights else None
    return {FACT: features.to_json(), BASE: base}


def features_of(loaded: LoadedModel) -> FeatureFacts:
    """Return what is said of the features that a model was trained on."""
    return FeatureFacts.of(loaded.facts[FACT])


def tokens_of(vocabulary: Vocabulary, settings: CtLlmSettings) -> ReportTokens:
    """Return what token ids mean: the vocabulary's words, or the pieces of a language model's tokenizer.

    Raises:
        ConfigError: the package transformers is missing.
        CheckpointError: the language model's folder holds no tokenizer.
    """
    if settings.weights is None:
        return vocabulary
    return LlmTokens(load_tokenizer(settings.weights, place=BASE_PLACE), vocabulary.protocol)


class _CtReportFrontEnd(FrontEnd):
    def tokens(
        self, vocabulary: Vocabulary, settings: TrainCtReportModelSettings, *, facts: Mapping[str, Any], source: Path
    ) -> ReportTokens:
        """Return what token ids mean, once the language model is known to be that of the training."""
        llm = settings.model.llm
        if llm.weights is not None:
            check_identity(Path(llm.weights), facts[BASE], place=f"{source}: model.llm.weights")
        return tokens_of(vocabulary, llm)

    def make_model(self, settings: TrainCtReportModelSettings, *, num_tokens: int, facts: Mapping[str, Any]) -> CtReportModel:
        """Make a model with random weights."""
        try:
            features = FeatureFacts.of(facts[FACT])
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return CtReportModel(settings.model, num_tokens=num_tokens, facts=features)


CT_REPORT = _CtReportFrontEnd(settings=TrainCtReportModelSettings, facts=(FACT, BASE), command="train-ct-report-model")
