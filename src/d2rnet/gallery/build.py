"""From studies to a gallery on disk; what all galleries share."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json
from d2rnet.gallery.modality import RADIOGRAPHS, Modality
from d2rnet.gallery.page import open_page
from d2rnet.gallery.pictures import Picture
from d2rnet.gallery.settings import PageSettings
from d2rnet.gallery.studies import Study, study_record
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)
Counts = dict[str, int]


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json of evaluate-reports.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it lacks ``protocol`` or ``table``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet evaluate-reports'.")
    metrics = read_json(path)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("protocol"), dict) or "table" not in metrics:
        raise DatasetError(f"{path}: lacks protocol or table; expected metrics.json of 'd2rnet evaluate-reports'.")
    return metrics


def corpus_rows(tables: Sequence[Sequence[Mapping[str, Any]]], modality: Modality = RADIOGRAPHS) -> list[list[Any]]:
    """Return key, name and (value, interval) of each system, for each metric that the page names.

    Args:
        tables: rows with ``metric, value, interval`` of each system.
        modality: names the metrics.
    """
    systems = [{row["metric"]: [row["value"], row["interval"]] for row in table} for table in tables]
    return [[key, name, [rows[key] for rows in systems]] for key, name in modality.scores.items() if key in systems[0]]


def write_gallery(
    studies: Sequence[Study],
    pictures: Iterable[Sequence[Picture]],
    *,
    output: Path,
    meta: Mapping[str, Any],
    known: int,
    how: str,
    settings: PageSettings,
    modality: Modality = RADIOGRAPHS,
    synthetic: bool = False,
) -> Counts:
    """Write the page; return what was shown and what was left out.

    Args:
        studies: to show, in their order on the page.
        pictures: of each study; none where only texts are known.
        output: folder of index.html.
        meta: head of the page.
        known: number of entries with a report that there are.
        how: how ``studies`` were chosen among them, "" if all are shown.
        settings: size of the page.
        modality: of all studies.
        synthetic: the images are those of the demo cohort.

    Raises:
        DatasetError: no picture can be shown, or a sentence lists a box that its entry does not have.
    """
    unreadable: list[str] = []
    seen = true_boxes_known = 0
    with open_page(
        output / "index.html",
        title=meta["title"],
        systems=len(meta["systems"]),
        max_bytes=round(settings.max_megabytes * 1e6),
        modality=modality,
        synthetic=synthetic,
    ) as page:
        for study, shown in zip(studies, track(pictures, total=len(studies), what="gallery", unit="report"), strict=False):
            if not page.add(study, study_record(study, shown, settings.shown_score)):
                break
            seen += len(shown)
            true_boxes_known += study.true_boxes is not None
            unreadable += [picture.problem for picture in shown if picture.problem]
        _check_pictures(unreadable, seen, modality)
        counts = {
            "reports": known,
            "shown": page.count,
            "studies": page.studies,
            "left_out_by_number": known - len(studies),
            "left_out_by_size": len(studies) - page.count,
            "images": seen - len(unreadable),
            "images_not_shown": len(unreadable),
            "true_boxes_known": true_boxes_known,
            "bytes": page.study_bytes,
        }
        page.finish({**meta, "counts": counts, "how": how, "names": modality.scores, "shown_score": settings.shown_score})
    _log_counts(counts, how, settings, output / "index.html", modality)
    return counts


def _check_pictures(unreadable: Sequence[str], seen: int, modality: Modality) -> None:
    for problem in unreadable[:10]:
        log.warning("not shown: %s", problem)
    if unreadable and len(unreadable) == seen:
        option = "--image-root" if modality is RADIOGRAPHS else "--volumes"
        raise DatasetError(f"none of {seen} {modality.images} can be shown; the first: {unreadable[0]} Check {option}.")


def _log_counts(counts: Counts, how: str, settings: PageSettings, page: Path, modality: Modality) -> None:
    log.info("gallery of %d of %d reports, on %d studies: %s", *(counts[key] for key in ("shown", "reports", "studies")), page)
    if counts["left_out_by_number"]:
        log.info("%d left out: more than %d; shown are %s", counts["left_out_by_number"], settings.max_studies, how)
    if counts["left_out_by_size"]:
        log.warning("%d left out: more than %s MB", counts["left_out_by_size"], settings.max_megabytes)
    if counts["images_not_shown"]:
        log.warning("%d %s cannot be shown; the page says why at each", counts["images_not_shown"], modality.images)
