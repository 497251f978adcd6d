"""build_annotation: pseudo boxes that pass the confidence filter, joined with the reports, become annotation.json.

Reads: unlabelled.json and reports.jsonl of convert_unlabelled, COCO results of predict_boxes. Writes: annotation.json,
counts.json, run.json, and with indications refused_indications.jsonl. The only place where boxes change frame: from pixels of
the converted PNG to original pixels, each axis by its own factor. Why the default threshold is what it is:
docs/explanation/annotation.md.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.annotation.confidence_filter import confidence_filter
from d2rnet.cxr.annotation.context import EntryContext, check_told
from d2rnet.cxr.annotation.inputs import (
    ImageTable,
    check_looked_at,
    check_origin,
    match_images,
    read_images,
    read_reports,
    view_of,
)
from d2rnet.cxr.annotation.predictions import PseudoBoxes, by_class, read_predictions
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.boxes.geometry import clip_to_image, has_area, xyxy_to_xywh
from d2rnet.cxr.images.views import other_views, shows_view
from d2rnet.files.collection import collection_paused
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import SPLITS, Entry, write_annotation
from d2rnet.report.text.protocols import has_words
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
REFUSED = "refused_indications.jsonl"
DECIMALS_PX = 2  # a hundredth of an original pixel is far below any detector's accuracy


@collection_paused()
def build_annotation(
    *,
    unlabelled: Path,
    reports: Path,
    predictions: list[Path],
    thresholds: Path | None = None,
    output: Path,
    settings: AnnotationSettings,
) -> None:
    """Filter pseudo boxes by score and join them with the reports.

    Args:
        unlabelled: COCO json of the report source's images; frame of the predicted boxes.
        reports: reports.jsonl, one study a line.
        predictions: JSON lines of predict_boxes, or of each shard.
        thresholds: thresholds.json of calibrate-thresholds or fit-thresholds; None for the fixed filter of the settings.
        output: folder for annotation.json, counts.json and run.json.
        settings: the section ``annotation``.

    Raises:
        ConfigError: ``thresholds`` and the settings disagree.
        FileNotFoundError: a shard or the thresholds are missing.
        DatasetError: the inputs contradict each other or their formats; all contradictions are in output/problems.jsonl.
            Predictions of other images or of another detector than the thresholds', or without images that get boxes.
            Reports that lack what the context needs. No image shows a view that gets boxes.
    """
    confidence = confidence_filter(settings, thresholds)
    check_origin(predictions, unlabelled, confidence.detector_sha256)
    problems = Problems()
    images = read_images(unlabelled, problems)
    records = read_reports(reports, problems)
    check_told(records, settings.context, source=reports)
    rows_of_reports, absent = match_images(images, records, images_file=unlabelled, reports_file=reports, problems=problems)
    boxes, box_counts = read_predictions(predictions, images, confidence, problems=problems)
    problems.raise_if_any(details=output / "problems.jsonl")

    studies = [(record, rows) for record, rows in zip(records, rows_of_reports, strict=True) if has_words(record["report"])]
    images_with_report = _with_report(images, studies)
    others = _count_other_views(images, predictions, settings.box_views, source=unlabelled)
    boxes, dropped = keep_boxes(boxes, images, images_with_report, max_boxes=settings.max_boxes, box_views=settings.box_views)
    entries = EntryWriter(images, boxes, studies, entry=settings.entry, context=settings.context)
    write_annotation(output / "annotation.json", {split: entries.of_split(split) for split in SPLITS})

    counts = {
        **_count_images(images, images_with_report, absent, rows_of_reports, without_words=len(records) - len(studies)),
        "thresholds": confidence.source,
        "boxes": box_counts | dropped,
        "entries": dict(entries.written),
        "entries_without_boxes": dict(entries.without_boxes),
        **({"images_of_other_views": others} if settings.box_views else {}),
        **({"context": entries.told.counts()} if settings.context else {}),
    }
    _write_refusals(entries.told, output / REFUSED)
    write_json(output / "counts.json", counts)
    inputs = {"unlabelled": unlabelled, "reports": reports, **({"thresholds": thresholds} if thresholds else {})}
    inputs |= {f"predictions_{number}": path for number, path in enumerate(predictions, start=1)}
    write_run_record(
        output / "run.json",
        command="build-annotation",
        settings=settings,
        inputs=inputs,
        counts=counts,
        extra={"thresholds": {"source": confidence.source, "by_class": confidence.by_class()}},
    )
    _log_counts(counts, output)


def _with_report(images: ImageTable, studies: list[tuple[dict[str, Any], list[int]]]) -> NDArray[np.bool_]:
    """Return which images (n,) a report has."""
    found = np.zeros(len(images.records), dtype=bool)
    found[[row for _, rows in studies for row in rows]] = True
    return found


def _count_images(
    images: ImageTable,
    images_with_report: NDArray[np.bool_],
    absent: int,
    rows_of_reports: list[list[int]],
    *,
    without_words: int,
) -> dict[str, dict[str, int]]:
    """Count images and studies, with and without their counterpart."""
    return {
        "images": {
            "in": len(images.records),
            "extra_unlabelled": sum(record.get("source_path") is None for record in images.records),
            "with_report": int(images_with_report.sum()),
            "without_report": int((~images_with_report).sum()),
            "listed_by_a_report_but_not_converted": absent,
        },
        "studies": {
            "with_report": len(rows_of_reports),
            "with_report_but_no_image": sum(not rows for rows in rows_of_reports),
            "with_report_without_words": without_words,
        },
    }


def _count_other_views(
    images: ImageTable, predictions: Sequence[Path], box_views: Sequence[str], *, source: Path
) -> dict[str, int]:
    """Count the images that get no boxes by view.

    Raises:
        DatasetError: that is all of them, or the detector did not look at one that gets boxes.
    """
    views = [view_of(record) for record in images.records]
    check_looked_at(predictions, views, box_views)
    return other_views(views, box_views, source=source, asked_by="cxr.annotation.box_views")


def keep_boxes(
    boxes: PseudoBoxes,
    images: ImageTable,
    images_with_report: NDArray[np.bool_],
    *,
    max_boxes: int,
    box_views: Sequence[str] = (),
) -> tuple[PseudoBoxes, dict[str, Any]]:
    """Scale boxes to original pixels and keep the best ones of each image that has a report.

    Args:
        boxes: corners in pixels of the PNG, sorted by image and score.
        images: heights and widths of PNG and original.
        images_with_report: (n,) mask.
        max_boxes: most boxes kept per image.
        box_views: views whose images get boxes, see :func:`shows_view`.

    Returns:
        Boxes in original pixels, and counts of what was dropped and kept.
    """
    scaled = to_original_pixels(boxes, images)
    sized = scaled.take(has_area(scaled.boxes_xyxy))
    gets_boxes = np.array([shows_view(view_of(record), box_views) for record in images.records], dtype=bool)
    wanted = sized.take(gets_boxes[sized.rows])
    rank = np.arange(len(wanted)) - np.searchsorted(wanted.rows, wanted.rows)
    best = wanted.take(rank < max_boxes)
    kept = best.take(images_with_report[best.rows])
    return kept, {
        "under_a_hundredth_pixel": len(scaled) - len(sized),
        "on_other_views": len(sized) - len(wanted),
        "above_max_boxes": len(wanted) - len(best),
        "on_images_without_report": len(best) - len(kept),
        "kept": len(kept),
        "kept_by_class": by_class(np.bincount(kept.category_ids, minlength=len(CATEGORY_NAMES) + 1)),
    }


def to_original_pixels(boxes: PseudoBoxes, images: ImageTable) -> PseudoBoxes:
    """Scale corners from the PNG to the original image, x by the widths and y by the heights, rounded to 0.01 px."""
    factor_hw = images.source_hw[boxes.rows] / images.hw[boxes.rows]  # (N, 2): y, x
    limit_hw = images.source_hw[boxes.rows]
    corners = clip_to_image(boxes.boxes_xyxy * factor_hw[:, [1, 0, 1, 0]], limit_hw)
    return PseudoBoxes(boxes.rows, boxes.category_ids, boxes.scores, corners.round(DECIMALS_PX))


class EntryWriter:
    """Turns reports, images and boxes into the entries of annotation.json, and counts them by split.

    Attributes:
        written: split -> entries made so far.
        without_boxes: split -> those without any box.
        told: what they tell beside images, boxes and report.
    """

    def __init__(
        self,
        images: ImageTable,
        boxes: PseudoBoxes,
        studies: list[tuple[dict[str, Any], list[int]]],
        *,
        entry: str,
        context: Sequence[str] = (),
    ) -> None:
        """Keep references to the joined tables.

        Args:
            images: images of unlabelled.json.
            boxes: boxes in original pixels, sorted by image.
            studies: report record and rows of its images, in output order.
            entry: ``image`` for an entry per image, ``study`` for an entry per study.
            context: ``cxr.annotation.context``.
        """
        self._images = images
        self._studies = studies
        self._entry = entry
        self.told = EntryContext(context, images, studies)
        self._starts = np.searchsorted(boxes.rows, np.arange(len(images.records) + 1)).tolist()
        self._boxes_xywh = np.round(xyxy_to_xywh(boxes.boxes_xyxy), DECIMALS_PX)
        self._scores = np.round(boxes.scores, 6)
        self._category_ids = boxes.category_ids
        self.written: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
        self.without_boxes: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))

    def of_split(self, split: str) -> Iterator[Entry]:
        """Yield the entries of a split: by subject, then study, then the report's order of images."""
        studies = [(report, rows) for report, rows in self._studies if report["split"] == split and rows]
        for report, rows in track(studies, total=len(studies), what=f"join {split}", unit="report"):
            for group in [rows] if self._entry == "study" else [[row] for row in rows]:
                entry = self.make(report, group)
                self.written[split] += 1
                self.without_boxes[split] += not entry["boxes"]
                yield entry

    def make(self, report: dict[str, Any], rows: list[int]) -> Entry:
        """Return the entry of a report and the rows of its images."""
        records = [self._images.records[row] for row in rows]
        boxes = [self._boxes_of(row) for row in rows]
        entry: Entry = {
            "id": report["study_id"] if self._entry == "study" else records[0]["source_id"],
            "study_id": report["study_id"],
            "subject_id": report["subject_id"],
            "image_path": [record["source_path"] for record in records],
            "split": report["split"],
            "report": report["report"],
            "height": records[0]["source_height"],
            "width": records[0]["source_width"],
            **{key: [item for of_image in boxes for item in of_image[key]] for key in ("boxes", "scores", "labels")},
        }
        if len(rows) > 1:
            entry["heights"] = [record["source_height"] for record in records]
            entry["widths"] = [record["source_width"] for record in records]
            entry["box_image"] = [image for image, of_image in enumerate(boxes) for _ in of_image["boxes"]]
        return entry | self.told.of(report, rows, self._boxes_of)

    def _boxes_of(self, row: int) -> dict[str, Any]:
        """Return ``boxes``, ``scores`` and ``labels`` of an image."""
        span = slice(self._starts[row], self._starts[row + 1])
        return {
            "boxes": self._boxes_xywh[span].tolist(),
            "scores": self._scores[span].tolist(),
            "labels": [CATEGORY_NAMES[index - 1] for index in self._category_ids[span].tolist()],
        }


def _write_refusals(told: EntryContext, path: Path) -> None:
    """List the indications that were refused, where entries have indications."""
    if "indication" not in told.parts:
        path.unlink(missing_ok=True)  # of an earlier build
        return
    count = write_jsonl(path, told.refusals())
    if count:
        log.warning("%d indications hold a sentence of their target and are left empty: %s", count, path)


def _log_counts(counts: dict[str, Any], output: Path) -> None:
    boxes = counts["boxes"]
    entries = counts["entries"]
    empty = counts["entries_without_boxes"]
    log.info(
        "boxes: %d predicted, %d that the confidence filter drops, %d above max_boxes, %d on images without report, %d kept",
        *(boxes[key] for key in ("predicted", "below_threshold", "above_max_boxes", "on_images_without_report", "kept")),
    )
    shares = ", ".join(f"{split} {entries[split]} ({empty[split]} without boxes)" for split in SPLITS)
    log.info("%s: entries %s", output / "annotation.json", shares)
    if without_words := counts["studies"]["with_report_without_words"]:
        log.warning("%d studies whose report holds no word are left out", without_words)
    if others := counts.get("images_of_other_views"):
        told = ", ".join(f"{view} ({count})" for view, count in others.items())
        log.info("images without boxes for their view: %s; %d boxes on them are left out", told, boxes["on_other_views"])
    for part in ("indication", "prior"):
        if counts.get("context", {}).get(f"studies_with_{part}") == 0:
            log.warning(
                "%s: no study tells '%s': leave it out of cxr.annotation.context, or see why none does",
                output / "annotation.json",
                part,
            )
    if boxes["predicted"] and not boxes["kept"]:
        log.warning("no box passed the confidence filter: lower cxr.annotation.score_threshold or train the detector longer")
