"""Arms of an ablation: which settings and boxes each one has. Read by the workflow and by the table.

Reads: workflow/ablation.yaml, or the file at ``cxr.ablation.design``.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.errors import ConfigError
from d2rnet.evaluation.metric_names import COMMONEST, NEAREST
from d2rnet.settings import Section, merge, read_overlay


class ArmDesign(Section):
    """What one arm trains with.

    Attributes:
        label: its name in the table.
        boxes: of the detector (pseudo), or those that the demo cohort drew (oracle).
        report: settings that are laid over section ``cxr.report``.
    """

    label: str
    boxes: Literal["pseudo", "oracle"]
    report: dict[str, Any]


class AblationDesign(Section):
    """The arms of an ablation.

    Attributes:
        reference: the arm that others are compared with.
        report: settings of every arm, laid over section ``cxr.report`` before the arm's own.
        arms: name, which names a folder too -> arm.
    """

    reference: str
    report: dict[str, Any]
    arms: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], ArmDesign]


def read_design(path: Path) -> AblationDesign:
    """Read the arms of an ablation.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: not YAML, a key missing, unknown or there twice, a name that cannot be a folder's or is a baseline's, a
            setting of an arm that is not valid, or the reference is no arm.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the YAML file of an ablation's arms.")
    design = AblationDesign.read(read_overlay(path), source=f"{path}: no design of an ablation")
    if design.reference not in design.arms:
        raise ConfigError(f"{path}: reference: '{design.reference}' is none of the arms ({', '.join(design.arms)}).")
    for name in design.arms:
        if name in (COMMONEST, NEAREST):
            raise ConfigError(f"{path}: arm '{name}': the table has a baseline of this name; choose another one.")
        cell_settings(TrainReportModelSettings(), design, arm=name, seed=0)  # now, and not hours later when its cell starts
    return design


def cell_settings(
    report: TrainReportModelSettings, design: AblationDesign, *, arm: str, seed: int
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
