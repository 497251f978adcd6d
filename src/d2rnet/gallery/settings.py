"""Settings of the gallery."""

from typing import Literal

from d2rnet.evaluation.settings import ScoreSettings
from d2rnet.settings import Section, setting


class PageSettings(Section):
    """The page of render_gallery, and the gallery of d2rnet compare. All values are own choices."""

    place = "evaluation.gallery"

    max_studies: int = setting(1000, ge=1)
    """Most entries of annotation.json shown; the others are counted on the page."""
    choice: Literal["random", "worst", "first"] = setting("random")
    """Which entries, if there are more: random, drawn by seed; worst, most lesion errors, of equals the lower ROUGE-L; first,
    of the file."""
    seed: int = setting(0, ge=0)
    """Seed of the random choice."""
    image_side_px: int = setting(512, ge=64, le=4096)
    """Longer side of the pictures, pixels; smaller radiographs are not enlarged."""
    jpeg_quality: int = setting(80, ge=1, le=100)
    """Quality of the JPEG pictures, 1 (small files) to 100."""
    shown_score: float = setting(0.5, ge=0, le=1)
    """Least score of the boxes that galleries, figures, readings and DICOM documents of radiographs show from the start; a
    weaker one is shown if the generated findings name it or look at it. All stay in the files, and pages show them when asked.
    Own choice 0.5: above it the detector holds the class likelier than background and all other classes together."""
    max_megabytes: float = setting(300, gt=0)
    """Most megabytes (1e6 bytes) of pictures and texts in the page; studies beyond it are left out and counted on the page."""


class GallerySettings(PageSettings):
    """The page of render_gallery, and the true boxes that it draws."""

    true_boxes: str | None = setting(None)
    """File of true boxes to draw beside the pseudo boxes: truth.jsonl of the demo cohort, or a COCO json of the 22 classes;
    null: in a demo run the cohort's own, else none."""


class CompareSettings(ScoreSettings):
    """What compare reads."""

    gallery: PageSettings = PageSettings()
