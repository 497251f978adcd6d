"""The report model of stage 2 as a front end of the report stage: how a model folder becomes a model again."""

from collections.abc import Mapping
from typing import Any

from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.report_model.settings import TrainCtReportModelSettings
from d2rnet.errors import CheckpointError
from d2rnet.report.interface import FrontEnd
from d2rnet.report.model_files import LoadedModel

FACT = "features"


def facts_of(features: FeatureFacts) -> dict[str, Any]:
    """Return what a model folder says beside the settings: the features that the model was trained on."""
    return {FACT: features.to_json()}


def features_of(loaded: LoadedModel) -> FeatureFacts:
    """Return what is said of the features that a model was trained on."""
    return FeatureFacts.of(loaded.facts[FACT])


class _CtReportFrontEnd(FrontEnd):
    def make_model(self, settings: TrainCtReportModelSettings, *, num_tokens: int, facts: Mapping[str, Any]) -> CtReportModel:
        """Make a model with random weights."""
        try:
            features = FeatureFacts.of(facts[FACT])
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return CtReportModel(settings.model, num_tokens=num_tokens, facts=features)


CT_REPORT = _CtReportFrontEnd(settings=TrainCtReportModelSettings, facts=(FACT,), command="train-ct-report-model")
