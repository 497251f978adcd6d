"""Whether a report model can start from the detector's backbone, told from the settings, before either is trained."""

from d2rnet.cxr.detector.settings import DetectorModelSettings
from d2rnet.cxr.report_model.settings import DETECTOR, D2RNetModelSettings
from d2rnet.errors import ConfigError


def check_warm_start(detector: DetectorModelSettings, report: D2RNetModelSettings, *, what: str = "cxr.report") -> None:
    """Compare the report model's image network with the detector's, where it is to start from it.

    Args:
        detector: section ``cxr.detector.model``.
        report: section ``cxr.report.model``, or what an arm of the ablation makes of it.
        what: name of the report model for the error.

    Raises:
        ConfigError: they are not of the same kind.
    """
    if report.backbone_weights != DETECTOR:
        return
    wanted = {"backbone": f"resnet{detector.backbone_depth}", "backbone_width": detector.backbone_width}
    others = {key: value for key, value in wanted.items() if getattr(report, key) != value}
    if others:
        needed = ", ".join(f"model.{key} {value}" for key, value in others.items())
        raise ConfigError(
            f"{what}: model.backbone_weights is 'detector', whose backbone is another; expected {needed}, or other "
            "backbone_weights: null or a path."
        )
    if detector.norm == "GN":
        raise ConfigError(
            f"{what}: model.backbone_weights is 'detector', but cxr.detector.model.norm is GN; expected BN, SyncBN or "
            "FrozenBN, as the report model normalises by batches, or other backbone_weights: null or a path."
        )
