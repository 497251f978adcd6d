"""Checks and filters that every source of images with reports shares: ids, splits of patients, views.

Works on whole columns, so that 377,110 rows take seconds; only offending rows are looked at one by one.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from d2rnet.cxr.images.views import UNKNOWN, shows_view
from d2rnet.cxr.sources.clinical_context import ClinicalText
from d2rnet.cxr.sources.tables import REPORT_COLUMNS
from d2rnet.errors import ConfigError

log = logging.getLogger(__name__)


def keep_views(
    images: pd.DataFrame, views: Sequence[str], counts: Counter[str], *, keep_anyway: "pd.Series[bool] | None" = None
) -> pd.DataFrame:
    """Keep the images of the wanted views and count the others by view.

    Args:
        images: with column ``view``, "" where unknown.
        views: ``cxr.data.reports.views``, see :func:`d2rnet.cxr.images.views.shows_view`; empty keeps all.
        counts: grows by ``images_dropped_view_<view>``, ``images_kept`` and ``studies_without_wanted_view``.
        keep_anyway: images whose view could not be read because the file is broken: left for the conversion to report.

    Raises:
        ConfigError: images were there and none is left; the message names the views found.
    """
    seen = images["view"].str.upper()
    keep = seen.isin([view for view in seen.unique() if shows_view(view, views)])
    if keep_anyway is not None:
        keep |= keep_anyway
    dropped = seen[~keep].replace("", UNKNOWN).value_counts()
    counts.update({f"images_dropped_view_{view}": int(number) for view, number in dropped.items()})
    kept = images[keep]
    if len(images) and not len(kept):
        raise ConfigError(
            f"cxr.data.reports.views: no image has a view of {', '.join(views)}; views found: "
            f"{', '.join(f'{view} ({number})' for view, number in dropped.items())}. Sources that do not tell the view "
            "(Open-i, annotation.json of R2Gen) need views: []."
        )
    counts["images_kept"] = len(kept)
    counts["studies_without_wanted_view"] = images["study_id"].nunique() - kept["study_id"].nunique()
    return kept


def report_table(rows: Sequence[tuple[str, ...]]) -> pd.DataFrame:
    """Build the reports table from rows in the order of REPORT_COLUMNS; string columns even where there is no row."""
    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS), dtype=str)


def with_context(
    reports: pd.DataFrame, indications: Mapping[str, ClinicalText], times: Mapping[str, str], counts: Counter[str]
) -> pd.DataFrame:
    """Add CONTEXT_COLUMNS to the reports table.

    Args:
        reports: columns REPORT_COLUMNS.
        indications: study id -> why it was taken.
        times: study id -> when; a study that is not in it has no time.
        counts: grows by ``reports_with_indication``, ``indications_cut_before_findings``, ``indications_refused`` and
            ``reports_without_time``.
    """
    studies = reports["study_id"].tolist()
    found = [indications.get(study_id, ClinicalText()) for study_id in studies]
    reports = reports.assign(
        indication=pd.Series([item.text for item in found], index=reports.index, dtype=str),
        study_time=pd.Series([times.get(study_id, "") for study_id in studies], index=reports.index, dtype=str),
    )
    counts["reports_with_indication"] = sum(bool(item.text) for item in found)
    counts["indications_cut_before_findings"] = sum(item.is_cut for item in found)
    counts["indications_refused"] = sum(item.is_refused for item in found)
    counts["reports_without_time"] = int((reports["study_time"] == "").sum())
    log.info(
        "%d of %d reports say why; %d cut where they began to describe, %d refused for sentences of the report",
        counts["reports_with_indication"],
        len(found),
        counts["indications_cut_before_findings"],
        counts["indications_refused"],
    )
    return reports
