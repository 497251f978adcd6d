"""The sections of the chest radiograph wing."""

from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.demo.settings import DemoSettings
from d2rnet.cxr.detector.settings import DetectorSettings, TrainDetectorSettings
from d2rnet.cxr.report_model.settings import ReportSettings, TrainReportModelSettings
from d2rnet.evaluation.ablation_design import AblationSettings, Seeds
from d2rnet.settings import Section, setting


class CxrAblationSettings(AblationSettings):
    """What each part of the report model gives (rule ablation, which is not part of a plain run)."""

    place = "cxr.ablation"

    design: str | None = setting(None)
    """YAML file of the arms and what differs in each, in the working directory, else beside the Snakefile; null:
    workflow/ablation.yaml. Cells and table lie in results/cxr/ablation, of another design in a folder beside it with the name
    of its file: ablation_<name>."""
    main_seeds: Seeds = setting((4, 5), json_schema_extra={"uniqueItems": True})
    """Further seeds of the arms that the file calls main: those that a default is chosen between."""


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
    ablation: CxrAblationSettings = CxrAblationSettings()


def trainings_of(settings: CxrSettings) -> TrainingsSettings:
    """Return what verify-training reads of the whole."""
    detector = {name: getattr(settings.detector, name) for name in TrainDetectorSettings.model_fields}
    report = {name: getattr(settings.report, name) for name in TrainReportModelSettings.model_fields}
    return TrainingsSettings(detector=TrainDetectorSettings(**detector), report=TrainReportModelSettings(**report))
