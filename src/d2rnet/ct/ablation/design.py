"""Arms of the ablation of chest CT: what each is trained with, and which of its parts it shares. Read by workflow and table.

Reads: workflow/ct_ablation.yaml, or the file at ``ct.ablation.design``.

An arm is stage 1, its features, and stage 2. Arms of equal settings in stage 1 share it, seed by seed; so do arms with equal
features, and arms that are equal altogether, which stand in the table twice and are trained once. What several arms share lies
in a folder named after the first of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.ct.ablation.settings import AblateCtSettings, AblatedReportSettings
from d2rnet.ct.evaluation.baselines import LABEL_SET, TRUE_LABEL_SET
from d2rnet.ct.report_model.kept import check_kept
from d2rnet.ct.report_model.settings import CtFeatureSettings, TrainCtReportModelSettings
from d2rnet.ct.structure_model.settings import StructureModelSettings
from d2rnet.errors import ConfigError
from d2rnet.evaluation.ablation_design import AblationDesign, ArmName, read_arms
from d2rnet.evaluation.metric_names import COMMONEST, NEAREST
from d2rnet.settings import Section, merge

BASELINES = {
    COMMONEST: "most frequent training report",
    NEAREST: "report of the nearest training volume",
    LABEL_SET: "stored report of the predicted labels",
    TRUE_LABEL_SET: "stored report of the true labels",
}


class CtArmDesign(Section):
    """What one arm changes.

    Attributes:
        label: its name in the table.
        side: trained with the seeds of ``ct.ablation.side_seeds`` alone.
        structure_model: settings that are laid over section ``ct.structure_model``.
        report: likewise over section ``ct.report``: ``model``, ``training``, ``features``.
    """

    label: str
    side: bool
    structure_model: dict[str, Any]
    report: dict[str, Any]


class CtAblationDesign(AblationDesign):
    """The arms of an ablation.

    Attributes:
        arms: name -> arm.
    """

    arms: dict[ArmName, CtArmDesign]


def read_design(path: Path) -> CtAblationDesign:
    """Read the arms of an ablation.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: as :func:`d2rnet.evaluation.ablation_design.read_arms`; a setting of an arm that is not valid.
    """
    design = read_arms(path, CtAblationDesign, baselines=(*BASELINES,))
    for name, arm in design.arms.items():
        _laid_over(AblateCtSettings(), name, arm)
    return design


@dataclass(frozen=True)
class ArmPlan:
    """One arm that is run.

    Attributes:
        label: its name in the table.
        structure_model: settings of its stage 1, but for the seed.
        report: of its features and stage 2, but for the seed.
        seeds: that it is trained with.
        structures: the arm in whose folder its stage 1 lies.
        features: ... its features.
        cells: ... its stage 2 and its reports.
    """

    label: str
    structure_model: StructureModelSettings
    report: AblatedReportSettings
    seeds: tuple[int, ...]
    structures: str
    features: str
    cells: str

    def stage_one(self, seed: int) -> StructureModelSettings:
        """Return the settings that its stage 1 is trained with."""
        return self.structure_model.replaced(training={"seed": seed})

    def stage_two(self, seed: int) -> TrainCtReportModelSettings:
        """Return the settings that its stage 2 is trained with."""
        parts = {name: getattr(self.report, name) for name in TrainCtReportModelSettings.model_fields}
        parts["training"] = self.report.training.replaced(seed=seed)
        return TrainCtReportModelSettings(**parts)

    @property
    def extraction(self) -> CtFeatureSettings:
        """Settings of its features."""
        return self.report.features


def plan_arms(design: CtAblationDesign, settings: AblateCtSettings) -> dict[str, ArmPlan]:
    """Return the arms that are run, by name, in the order of the design.

    Args:
        design: of :func:`read_design`.
        settings: what arms are laid over, and which are run.

    Raises:
        ConfigError: ``ct.ablation.arms`` names no arm of the design or leaves the reference out; settings of an arm that are
            not valid over these, or ask for features that are not kept.
    """
    chosen = settings.ablation.arms or (*design.arms,)
    unknown = [name for name in chosen if name not in design.arms]
    if unknown:
        raise ConfigError(f"ct.ablation.arms: {', '.join(unknown)}: expected arms of the design ({', '.join(design.arms)}).")
    if design.reference not in chosen:
        raise ConfigError(f"ct.ablation.arms: leaves out '{design.reference}', which the others are compared with. Add it.")
    plans: dict[str, ArmPlan] = {}
    for name, arm in design.arms.items():
        if name in chosen:
            plans[name] = _plan(name, arm, settings, plans)
    return plans


def _plan(name: str, arm: CtArmDesign, settings: AblateCtSettings, before: Mapping[str, ArmPlan]) -> ArmPlan:
    """Return the plan of an arm; it takes over what an earlier one of equal settings has."""
    own = _laid_over(settings, name, arm)
    same_structures = [other for other, plan in before.items() if plan.structure_model == own.structure_model]
    same_features = [other for other in same_structures if before[other].extraction == own.report.features]
    same_cells = [other for other in same_features if before[other].report == own.report]
    return ArmPlan(
        label=arm.label,
        structure_model=own.structure_model,
        report=own.report,
        seeds=settings.ablation.side_seeds if arm.side else settings.ablation.seeds,
        structures=(*same_structures, name)[0],
        features=(*same_features, name)[0],
        cells=(*same_cells, name)[0],
    )


def _laid_over(settings: AblateCtSettings, name: str, arm: CtArmDesign) -> AblateCtSettings:
    """Return the settings of an arm.

    Raises:
        ConfigError: they are not valid, or its stage 2 asks for what its features do not hold.
    """
    changes = {"structure_model": arm.structure_model, "report": arm.report}
    own = AblateCtSettings.read(merge(settings.to_json(), changes), source=f"arm {name} of the ablation")
    if (problem := _not_kept(own)) and not _not_kept(settings):
        raise ConfigError(f"arm {name} of the ablation: {problem}")
    return own


def _not_kept(settings: AblateCtSettings) -> str | None:
    """Say what stage 2 asks for that its features do not hold.

    Where the configuration itself does, its arms are not refused: the workflow plans them at every start, whatever is asked
    for, and verify-ct-training tells whoever trains.
    """
    try:
        check_kept(settings.report.model, settings.report.features)
    except ConfigError as error:
        return str(error)
    return None
