"""What decides a reading beside the models, in the file ``reading.json`` of the report model's folder.

The rule describe_reading writes it from the configuration of the run, so that the two folders of weights are all that a
reading needs, wherever they are copied to.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from d2rnet.config import read_configuration
from d2rnet.cxr.annotation.confidence_filter import confidence_filter
from d2rnet.cxr.annotation.settings import ClassName
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.cxr.images.grey_levels import LEAST_IMAGES, GreyLevels, describe_grey_levels, reduce
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.cxr.report_model.settings import D2RNetGenerationSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.report.annotation_file import load_annotation
from d2rnet.runs.cards import is_of_demo_cohort
from d2rnet.settings import Section, merge, where_absent

FILE = "reading.json"
MOST_IMAGES = 200  # looked at; the 0.5th percentile of 200 is their second value
log = logging.getLogger(__name__)
Score = Annotated[float, Field(ge=0, le=1)]


class ReadingSettings(Section):
    """Settings of a reading.

    Attributes:
        max_side_px: longer side of the image that the detector sees.
        views: views that the models were trained on; empty: any.
        prediction: section ``cxr.detector.prediction``.
        thresholds: class name -> least score of a box, all 22 classes.
        max_boxes: most boxes kept per image.
        shown_score: least score of a box that pages and pictures show whatever is written: ``evaluation.gallery.shown_score``.
        box_views: views whose images get boxes; empty: any. An image that does not name its view gets them, too.
        generation: section ``cxr.report.generation``.
        detector_sha256: weights of the detector whose boxes the report model was trained on.
        synthetic: the models were trained on the drawn radiographs of the demo cohort.
        grey_levels: what the grey levels of the report model's training images are like; None: not known, nothing is checked.
    """

    max_side_px: int
    views: Annotated[tuple[str, ...], Field(strict=False)]
    prediction: PredictionSettings
    thresholds: Annotated[dict[ClassName, Score], Field(min_length=len(CATEGORY_IDS))]
    max_boxes: int
    generation: D2RNetGenerationSettings
    detector_sha256: str
    box_views: Annotated[tuple[str, ...], Field(strict=False)] = ()
    shown_score: Score = 0.0
    synthetic: bool = False
    grey_levels: GreyLevels | None = None

    def with_score_threshold(self, threshold: float) -> "ReadingSettings":
        """Return the same settings with one threshold for all classes; each box that is kept is shown.

        Raises:
            ConfigError: it is not in [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ConfigError(f"--score-threshold {threshold}: expected a score from 0 to 1.")
        return self.replaced(thresholds=dict.fromkeys(CATEGORY_IDS, float(threshold)), shown_score=0.0)


def describe_reading(
    *,
    weights: Path,
    report_model: Path,
    configfile: Sequence[Path] = (),
    thresholds: Path | None = None,
    annotation: Path | None = None,
    image_root: Path | None = None,
) -> None:
    """Write ``reading.json`` into the folder of a report model.

    Args:
        weights: of the detector whose boxes the report model was trained on.
        report_model: folder of train-report-model.
        configfile: YAML or JSON files, laid over ``config.yaml`` one after the other, as with Snakemake.
        thresholds: thresholds.json of calibrate-thresholds or fit-thresholds, where the configuration asks for it.
        annotation: annotation.json that the report model was trained on; of its training images, up to 200 evenly spaced ones
            are read for ``grey_levels``.
        image_root: folder that ``image_path`` in it is relative to.

    Raises:
        ConfigError: a setting is unknown or out of range, thresholds are missing or not asked for, or one of
            ``annotation`` and ``image_root`` is given without the other.
        DatasetError: the file of thresholds is not the one that is asked for, annotation.json is of another schema, or a
            training image cannot be read.
    """
    if (annotation is None) != (image_root is None):
        raise ConfigError("describe-reading: got one of --annotation and --image-root; expected both or neither.")
    configuration = read_configuration(configfile)
    settings = configuration.cxr
    max_side_px = settings.data.conversion.max_side_px
    reading = ReadingSettings(
        max_side_px=max_side_px,
        views=settings.data.reports.views,
        prediction=settings.detector.prediction,
        thresholds=confidence_filter(settings.annotation, thresholds).by_class(),
        max_boxes=settings.annotation.max_boxes,
        box_views=settings.annotation.box_views,
        shown_score=configuration.evaluation.gallery.shown_score,
        generation=settings.report.generation,
        detector_sha256=sha256_file(weights),
        synthetic=is_of_demo_cohort(settings.data.labelled.root) or is_of_demo_cohort(settings.data.reports.root),
        grey_levels=_training_grey_levels(annotation, image_root, max_side_px) if annotation and image_root else None,
    )
    write_json(report_model / FILE, reading.to_json())


def _training_grey_levels(annotation: Path, image_root: Path, max_side_px: int) -> GreyLevels | None:
    """Look at the first image of up to 200 training entries."""
    entries = load_annotation(annotation)["train"]
    count = min(len(entries), MOST_IMAGES)
    chosen = [entries[number * len(entries) // count] for number in range(count)]
    paths = [image_root / entry["image_path"][0] for entry in chosen]
    levels = describe_grey_levels([reduce(read_radiograph(path, max_side_px=max_side_px).pixels) for path in paths])
    if levels is None:
        log.warning("%s: %d training images; below %d, readings do not look at grey levels", annotation, count, LEAST_IMAGES)
    return levels


def read_reading_settings(report_model: Path) -> ReadingSettings:
    """Read ``reading.json`` of a report model's folder.

    Raises:
        FileNotFoundError: it is not there; the message says what writes it.
        DatasetError: it is not what describe-reading writes.
    """
    path = report_model / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected the settings of readings. Run the workflow to its end, or "
            "'d2rnet describe-reading' with the configuration of the run."
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: got a {type(content).__name__}; expected what 'd2rnet describe-reading' writes.")
    if isinstance(generation := content.get("generation"), dict):
        content = {**content, "generation": merge(where_absent(D2RNetGenerationSettings), generation)}
    return ReadingSettings.read(content, source=str(path))
