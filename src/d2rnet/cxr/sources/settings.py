"""Settings of the sources: what is read, and from where."""

from typing import Literal

from d2rnet.cxr.sources.registry import LabelledName, ReportName, UnlabelledName
from d2rnet.settings import Section, setting

OutsideAction = Literal["stop", "clip", "list"]


class LabelledSettings(Section):
    """The source of box annotations."""

    place = "cxr.data.labelled"

    source: LabelledName = setting("vindr")
    """Which labelled source."""
    root: str = setting("resources/cxr/demo_cohort/vindr")
    """Folder of the labelled source; never written to."""
    require_all: bool = setting(True)
    """Whether an image that the tables list must be there; false takes what is there and counts the rest by folder."""
    box_tables: tuple[str, ...] = setting(())
    """nih: box tables relative to root (BBox_List layout or VinDr-style CSV); empty: BBox_List_2017.csv."""
    size_table: str | None = setting(None)
    """CSV image_id,height,width with the original DICOM size, for re-encoded PNG/JPG copies; relative to root."""
    coco_json: str | dict[str, str] | None = setting(None)
    """coco: json file(s) relative to root: one path to be split by seed, or an object with train, test and optionally val."""
    consensus: Literal["none", "union", "majority", "weighted_boxes_fusion"] = setting("weighted_boxes_fusion")
    """How boxes of several readers become one set. A lesion is the boxes of one class that overlap: none keeps each box, union
    draws one around them, majority their mean if more than half of the readers drew it, weighted_boxes_fusion their mean."""
    consensus_iou: float = setting(0.4, le=1, gt=0)
    """IoU above which boxes of two readers are one lesion (VinBigData's own IoU of 0.4)."""
    min_readers: int = setting(1, ge=1)
    """Fused boxes seen by fewer readers are dropped."""
    box_tolerance_px: float = setting(1.0, ge=0)
    """How far a box may lie outside its image and still count as a slip of rounding, pixels of the original radiograph."""
    boxes_within_tolerance: OutsideAction = setting("clip")
    """What to do with a box that lies outside by no more than the tolerance: stop the run, clip it to the image, or list it
    (left out, counted; more than max_bad_fraction of a source's boxes stop the run)."""
    boxes_beyond_tolerance: OutsideAction = setting("stop")
    """The same for a box that lies further outside."""
    val_fraction: float = setting(0.1, gt=0, lt=0.5)
    """Share of the training images set aside for validation."""
    split_seed: int = setting(1, ge=0)
    """Seed of the split."""


class ReportSourceSettings(Section):
    """The source of images with reports."""

    place = "cxr.data.reports"

    source: ReportName = setting("mimic")
    """Which report source."""
    root: str = setting("resources/cxr/demo_cohort/mimic")
    """Folder of the report source; image_path in annotation.json is relative to it; never written to."""
    require_all: bool = setting(True)
    """Whether an image that the tables list must be there; false takes what is there and counts the rest by folder."""
    report_root: str | None = setting(None)
    """Folder of the report texts if not under root; openi: folder or .tgz of the XML files; r2gen: annotation.json."""
    format: Literal["jpg", "dicom"] = setting("jpg")
    """mimic: jpg for MIMIC-CXR-JPG 2.x, dicom for MIMIC-CXR 2.x."""
    section: Literal["findings", "impression"] = setting("findings")
    """Which report section is the target."""
    context: bool = setting(False)
    """Whether to read why and when each study was taken, for cxr.annotation.context: indication and history (mimic, openi)
    without anything of findings or impression, and date and time (mimic)."""
    views: tuple[str, ...] = setting(("PA", "AP"))
    """Views kept, by their names or by what these are read as (AP takes in AP AXIAL); unknown: images whose source names
    none; empty: all. The others are dropped and counted."""
    split_seed: int = setting(1, ge=0)
    """Seed of the patient-grouped 70/10/20 split, for sources without an official one."""


class UnlabelledSourceSettings(Section):
    """Further images without reports, for the detector's unlabelled stream only."""

    place = "cxr.data.extra_unlabelled"

    source: UnlabelledName = setting("folder")
    """Which kind of source."""
    root: str
    """Folder of the images; never written to."""
