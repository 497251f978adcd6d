"""Arms of an ablation: which settings and boxes each one has. Read by the workflow and by the table.

Reads: workflow/ablation.yaml, or the file at ``cxr.ablation.design``.
"""

from pathlib import Path
from typing import Any, Literal

from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.cxr.settings import CxrAblationSettings
from d2rnet.evaluation.ablation_design import AblationDesign, ArmName, read_arms
from d2rnet.evaluation.metric_names import COMMONEST, LESION_SET, NEAREST
from d2rnet.settings import Section, merge, setting


class ArmDesign(Section):
    """What one arm trains with.

    Attributes:
        label: its name in the table.
        boxes: of annotation.json (pseudo), of the detector with a score of at least ``sure_score`` (sure), or those that the
            demo cohort drew (oracle).
        main: trained with the seeds of ``cxr.ablation.main_seeds``, too.
        report: settings that are laid over section ``cxr.report``.
    """

    label: str
    boxes: Literal["pseudo", "sure", "oracle"]
    main: bool = False
    report: dict[str, Any]


class CxrAblationDesign(AblationDesign):
    """The arms of an ablation.

    Attributes:
        arms: name -> arm.
        report: settings of every arm, laid over section ``cxr.report`` before the arm's own.
        sure_score: least score of sure boxes.
    """

    arms: dict[ArmName, ArmDesign]
    report: dict[str, Any]
    sure_score: float = setting(0.5, ge=0, le=1)


def read_design(path: Path) -> CxrAblationDesign:
    """Read the arms of an ablation.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: as :func:`d2rnet.evaluation.ablation_design.read_arms`; a setting of an arm that is not valid.
    """
    design = read_arms(path, CxrAblationDesign, baselines=(COMMONEST, LESION_SET, NEAREST))
    for name in design.arms:
        cell_settings(TrainReportModelSettings(), design, arm=name, seed=0)  # now, and not hours later when its cell starts
    return design


def seeds_of(arm: ArmDesign, settings: CxrAblationSettings) -> list[int]:
    """Return the seeds that an arm is trained with, each once."""
    return list(dict.fromkeys((*settings.seeds, *(settings.main_seeds if arm.main else ()))))


def cell_settings(
    report: TrainReportModelSettings, design: CxrAblationDesign, *, arm: str, seed: int
) -> TrainReportModelSettings:
    """Return the settings that one arm trains with.

    Args:
        report: section ``cxr.report`` of the configuration; another way of decoding trains nothing again.
        design: of :func:`read_design`.
        arm: name of an arm.
        seed: of weights, order and dropout.

    Raises:
        ConfigError: the arm's settings are not valid.
    """
    settings = {key: value for key, value in report.to_json().items() if key in TrainReportModelSettings.model_fields}
    for overlay in (design.report, design.arms[arm].report, {"training": {"seed": seed}}):
        settings = merge(settings, overlay)
    return TrainReportModelSettings.read(settings, source=f"arm {arm} of the ablation")
