"""The sections of the chest radiograph wing."""

from typing import Annotated

from pydantic import AfterValidator, Field

from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.demo.settings import DemoSettings
from d2rnet.cxr.detector.settings import DetectorSettings, TrainDetectorSettings
from d2rnet.cxr.report_model.settings import ReportSettings, TrainReportModelSettings
from d2rnet.settings import Section, each_once, setting


class AblationSettings(Section):
    """What each part of the report model gives (rule ablation, which is not part of a plain run)."""

    place = "cxr.ablation"

    design: str | None = setting(None)
    """YAML file of the arms and what differs in each; null: workflow/ablation.yaml."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(each_once)] = setting(
        (1, 2, 3), min_length=1, json_schema_extra={"uniqueItems": True}
    )
    """Seeds of weights, order and dropout; every arm is trained with each of them."""


class CxrDataSettings(DataSettings):
    """Sources, conversion, and the demo cohort."""

    demo: DemoSettings = DemoSettings()


class TrainingsSettings(Section):
    """Both networks and their trainings: what verify-training reads."""

    place = "cxr"

    detector: TrainDetectorSettings = TrainDetectorSettings()
    report: TrainReportModelSettings = TrainReportModelSettings()


class CxrSettings(Section):
    """Chest radiographs."""

    place = "cxr"

    data: CxrDataSettings = CxrDataSettings()
    detector: DetectorSettings = DetectorSettings()
    annotation: AnnotationSettings = AnnotationSettings()
    report: ReportSettings = ReportSettings()
    ablation: AblationSettings = AblationSettings()


def trainings_of(settings: CxrSettings) -> TrainingsSettings:
    """Return what verify-training reads of the whole."""
    detector = {name: getattr(settings.detector, name) for name in TrainDetectorSettings.model_fields}
    report = {name: getattr(settings.report, name) for name in TrainReportModelSettings.model_fields}
    return TrainingsSettings(detector=TrainDetectorSettings(**detector), report=TrainReportModelSettings(**report))
