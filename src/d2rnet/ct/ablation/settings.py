"""Settings of the ablation of chest CT."""

from typing import Annotated

from pydantic import AfterValidator, Field

from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.ct.report_model.settings import CtFeatureSettings, TrainCtReportModelSettings
from d2rnet.ct.structure_model.settings import StructureModelSettings
from d2rnet.evaluation.ablation_design import AblationSettings, ArmName, Seeds
from d2rnet.settings import Section, each_once, setting

_Names = Annotated[
    tuple[ArmName, ...],
    Field(min_length=1, strict=False, json_schema_extra={"uniqueItems": True}),
    AfterValidator(each_once),
]


class CtAblationSettings(AblationSettings):
    """What each part of both stages gives (rule ct_ablation, which is not part of a plain run)."""

    place = "ct.ablation"

    design: str | None = setting(None)
    """YAML file of the arms and what differs in each; null: workflow/ct_ablation.yaml, whose results lie in
    results/ct/ct_ablation, those of another design beside it: ct_ablation_<name of its file>."""
    arms: _Names | None = setting(None)
    """Names of the arms that are run, in any order, the reference among them; null: all of the file."""
    side_seeds: Seeds = setting((1,), min_length=1, json_schema_extra={"uniqueItems": True})
    """Seeds of the arms that the file calls side arms; the others are trained with each of ``seeds``. A difference to the
    reference is over the seeds of both."""


class AblatedReportSettings(TrainCtReportModelSettings):
    """Stage 2, as far as arms differ in it."""

    features: CtFeatureSettings = CtFeatureSettings()


class AblateCtSettings(Section):
    """What ct-ablation reads: what arms are laid over, which of them are run, and how their reports are scored."""

    place = "ct"

    structure_model: StructureModelSettings = StructureModelSettings()
    report: AblatedReportSettings = AblatedReportSettings()
    evaluation: EvaluateCtSettings = EvaluateCtSettings()
    ablation: CtAblationSettings = CtAblationSettings()
