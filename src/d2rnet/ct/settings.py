"""The sections of the chest CT wing."""

from d2rnet.ct.ablation.settings import CtAblationSettings
from d2rnet.ct.conversion.data_settings import CtSourceDataSettings
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.ct.report_model.settings import CtReportSettings
from d2rnet.ct.structure_model.settings import StageOneSettings
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.settings import Section


class CtDataSettings(CtSourceDataSettings):
    """Source, reading and conversion, and the demo cohort."""

    demo: CtDemoSettings = CtDemoSettings()


class CtSettings(Section):
    """Chest CT."""

    place = "ct"

    data: CtDataSettings = CtDataSettings()
    structures: StructureSettings = StructureSettings()
    structure_model: StageOneSettings = StageOneSettings()
    report: CtReportSettings = CtReportSettings()
    evaluation: EvaluateCtSettings = EvaluateCtSettings()
    ablation: CtAblationSettings = CtAblationSettings()
