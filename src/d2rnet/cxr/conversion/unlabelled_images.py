"""Which images the detector may see without labels: those of all report and folder sources, less bad and labelled ones.

Used by convert_unlabelled; nothing is written.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.conversion.leakage import check_leakage, count_reasons, overlaps
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.sources.sources import report_source, unlabelled_source
from d2rnet.cxr.sources.tables import ReportTable
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnlabelledSources:
    """All sources of images without boxes, read and joined.

    Attributes:
        images: columns of REPORT_IMAGE_COLUMNS but ``path``, and ``file`` (path to open), ``source_path`` (relative to
            ``cxr.data.reports.root``; None for extra images), ``origin`` (key under ``data``), ``name`` and ``patient`` (ids as
            the source has them). Extra images come last; their ``source_id``, ``study_id`` and ``subject_id`` begin with
            ``extra<n>_``, so that no two sources collide.
        reports: columns of REPORT_COLUMNS.
        unreadable_reports: report texts left out, with ``path, study_id, reason``.
        n_studies: studies whose report was looked for.
        counts: what each source counted, by its key.
    """

    images: pd.DataFrame
    reports: pd.DataFrame
    unreadable_reports: list[dict[str, str]]
    n_studies: int
    counts: dict[str, Any]


def read_sources(settings: DataSettings, problems: Problems) -> UnlabelledSources:
    """Read the report source and the extra unlabelled folders.

    Args:
        settings: the section ``data``.
        problems: grows by whatever is wrong with the tables.
    """
    tables = [report_source(settings.reports.source).read_table(settings.reports, problems)]
    tables += [unlabelled_source(extra.source).read_table(extra, problems) for extra in settings.extra_unlabelled]
    return join_sources(tables, settings)


def join_sources(tables: Sequence[ReportTable], settings: DataSettings) -> UnlabelledSources:
    """Join the report source and the extra unlabelled folders.

    Args:
        tables: of ``cxr.data.reports``, then of each part of ``cxr.data.extra_unlabelled``.
        settings: the section ``data``.
    """
    section, table = settings.reports, tables[0]
    own = _with_own_ids(table).assign(source_path=table.images["path"], origin="reports")
    own["file"] = [os.path.join(section.root, path) for path in own["path"]]  # noqa: PTH118 - 377,110 rows
    counts: dict[str, Any] = {"source": section.source, "from_reports": dict(sorted(table.counts.items()))}
    parts = [own]
    for number, (extra, found) in enumerate(zip(settings.extra_unlabelled, tables[1:], strict=True)):
        ids = {key: f"extra{number + 1}_" + found.images[key] for key in ("source_id", "study_id", "subject_id")}
        files = [str(Path(extra.root, path)) for path in found.images["path"]]
        parts.append(_with_own_ids(found).assign(**ids, source_path=None, file=files, origin=f"extra_unlabelled[{number}]"))
        counts[f"from_extra_unlabelled_{number + 1}"] = dict(sorted(found.counts.items()))
    images = pd.concat(parts, ignore_index=True).drop(columns="path")
    without = table.counts[f"studies_without_{section.section}"]
    n_studies = len(table.reports) + len(table.unreadable_reports) + without
    return UnlabelledSources(images, table.reports, table.unreadable_reports, n_studies, counts)


def _with_own_ids(table: ReportTable) -> pd.DataFrame:
    """Add ``name`` and ``patient``: the ids as the source has them, by which sources are compared."""
    return table.images.assign(name=table.images["source_id"], patient=table.images["subject_id"])


def leave_out_overlaps(images: pd.DataFrame, labelled: pd.DataFrame, counts: dict[str, Any]) -> pd.DataFrame:
    """Drop the extra images that belong to the labelled or the report source, then prove that no labelled test image is left.

    A labelled image without an official split may end up in the test split, so it counts as one.

    Args:
        images: images of :class:`UnlabelledSources`.
        labelled: columns ``source_id, path, split, subject_id`` of the labelled images.
        counts: grows by ``extra_images_left_out``, by reason.

    Raises:
        DatasetError: a labelled test image is among the ``train`` or ``val`` images of the report source; the first ten are
            named.
    """
    table = labelled.assign(file=labelled["path"].astype(str))
    is_extra = images["source_path"].isna()
    reasons = overlaps(images[is_extra], table, images[~is_extra])
    counts["extra_images_left_out"] = count_reasons(reasons)
    left_out = reasons.index[reasons != ""]
    if len(left_out):
        log.warning("%d extra unlabelled image(s) left out: %s", len(left_out), counts["extra_images_left_out"])
    kept = images.drop(index=left_out)
    assert_no_shared_images(table, kept)
    return kept


def assert_no_shared_images(labelled: pd.DataFrame, unlabelled: pd.DataFrame) -> None:
    """Prove that no labelled test image is among the images trained on without labels.

    Args:
        labelled: columns ``source_id, split, file``.
        unlabelled: columns ``name, file, split, origin``.

    Raises:
        DatasetError: names the first ten.
    """
    problems = Problems()
    for origin, found in unlabelled.groupby("origin"):
        remedy = f"Leave it out of cxr.data.{origin}, or take another labelled test split."
        check_leakage(labelled, found, problems, file=f"cxr.data.{origin}", remedy=remedy)
    problems.raise_if_any()
