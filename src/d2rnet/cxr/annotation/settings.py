"""Settings of annotation.json."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from d2rnet.findings.classes import CATEGORY_IDS, suggest_category
from d2rnet.settings import Section, each_once, setting


def _known_class(name: str) -> str:
    if name not in CATEGORY_IDS:
        raise ValueError(f"unknown class; {suggest_category(name)}")
    return name


ContextPart = Literal["views", "indication", "prior"]
ClassName = Annotated[str, AfterValidator(_known_class)]


class AnnotationSettings(Section):
    """Which pseudo boxes are kept."""

    place = "cxr.annotation"

    thresholds: Literal["fixed", "calibrated", "reports"] = setting("fixed")
    """fixed: score_threshold and class_score_thresholds; calibrated: thresholds by class that calibrate_thresholds finds on
    the validation split (cxr.detector.calibration); reports: those that fit_thresholds finds, with which boxes agree best
    with the training reports. class_score_thresholds lies over either, score_threshold is unused then."""
    score_threshold: float = setting(0.2, ge=0, le=1)
    """Pseudo boxes with a lower score are dropped. No value is published for this filter (0.89 and 0.7 are training
    thresholds). Own choice 0.2: a lesion token carries its score, and the report model weighs sure and weak boxes itself
    better than a threshold does (docs/results.md). What pages show is evaluation.gallery.shown_score."""
    class_score_thresholds: dict[ClassName, Annotated[float, Field(ge=0, le=1)]] = setting(
        {}, json_schema_extra={"propertyNames": {"enum": list(CATEGORY_IDS)}}
    )
    """Class name -> threshold, over score_threshold; for classes whose scores run lower or higher than the rest."""
    min_reports: int = setting(10, ge=1)
    """Thresholds of reports: classes that fewer training entries name take the threshold of all classes together. Own choice
    10: with fewer, a single report moves F1 by several points."""
    max_boxes: int = setting(20, ge=0)
    """Most boxes kept per image, best scores first. Own choice: VinBigData's readers drew 2.7 boxes each on an image with
    findings; 20 only stops runaway detections."""
    box_views: Annotated[tuple[str, ...], AfterValidator(each_once)] = setting(())
    """Views whose images get boxes, such as PA and AP; unknown: images whose source names none; empty: all (published). The
    detector learns boxes on frontal images alone. It does not look at images of other views; they stay in the entries, without
    boxes."""
    entry: Literal["image", "study"] = setting("image")
    """image: one entry per image (R2Gen's convention for MIMIC-CXR); study: one entry per study with all its images."""
    context: Annotated[tuple[ContextPart, ...], AfterValidator(each_once)] = setting(())
    """What an entry tells beside images, boxes and report, for cxr.report.model: views (of each image), indication (and
    history), prior (report and boxes of the patient's study before). The last two need cxr.data.reports.context."""
