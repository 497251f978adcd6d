"""What a CT source hands over: tables of volumes, reports, labels and region texts. Volumes are not opened here.

A source is one module of this folder, named in :mod:`d2rnet.ct.sources.registry`, that has what :class:`CtSourceModule` asks
for.
"""

import importlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast, get_args

import pandas as pd

from d2rnet.ct.sources.registry import CtSourceName
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.errors import ConfigError
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile

STATED = ("slope", "intercept", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm")
VOLUME_COLUMNS = ("volume_id", "study_id", "subject_id", "split", "path", *STATED)
REPORT_COLUMNS = ("study_id", "subject_id", "split", "section", "report")
REGION_COLUMNS = ("study_id", "region", "text")


@dataclass
class CtTable:
    """Volumes and the reports of their studies.

    Attributes:
        volumes: one row per volume to convert, columns VOLUME_COLUMNS: ``path`` str, a file or the folder of a DICOM series,
            absolute or relative to the working directory; ``split`` "train", "val", "test"; STATED float64, what a table
            beside the volumes says of rescaling and spacing (z, y, x), NaN where it says nothing.
        reports: one row per study that has text in the wanted section, columns REPORT_COLUMNS; white space collapsed to
            single spaces, nothing else changed.
        labels: the 18 abnormalities of each study that has them, index study_id, one float64 column per label: 1 present,
            0 absent, NaN where the table leaves the cell blank.
        regions: texts per region of studies that were split by the source, columns REGION_COLUMNS; empty for other sources.
        masks: volume_id -> folder of region masks, for evaluation only.
        counts: volumes and studies in, dropped and why, kept.
        release: which of several releases the volumes are of; "" for sources that have one.
    """

    volumes: pd.DataFrame
    reports: pd.DataFrame
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    regions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(REGION_COLUMNS), dtype=str))
    masks: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    release: str = ""


class CtSourceModule(Protocol):
    """What a module of this folder must have to be a source.

    Attributes:
        TERMS: the terms under which the data set is released, as its publisher states them.
        RELEASE_COUNTS: numbers of the full release by the name of the source's own count; {} where there is no release.
    """

    TERMS: str
    RELEASE_COUNTS: Mapping[str, int]

    def required_files(self, settings: CtSourceSettings) -> list[RequiredFile]:
        """List what must exist under the configured roots, and why."""

    def read_table(self, settings: CtSourceSettings, problems: Problems) -> CtTable:
        """Parse the tables and reports; what is wrong with a row goes into ``problems`` with file and row."""


def ct_source(name: str) -> CtSourceModule:
    """Return the module of a source; it is imported only now.

    Raises:
        ConfigError: no source has that name.
    """
    names = get_args(CtSourceName)
    if name not in names:
        raise ConfigError(f"ct.data.reports.source: unknown source '{name}'; expected one of {', '.join(names)}.")
    return cast(CtSourceModule, importlib.import_module(f"d2rnet.ct.sources.{name}"))


def volume_table(rows: list[dict[str, object]] | pd.DataFrame) -> pd.DataFrame:
    """Build the table of volumes; STATED that are not given are NaN."""
    table = pd.DataFrame(rows).reindex(columns=list(VOLUME_COLUMNS))
    text = [name for name in VOLUME_COLUMNS if name not in STATED]
    return table.astype(dict.fromkeys(text, str) | dict.fromkeys(STATED, "float64")).reset_index(drop=True)


def report_table(studies: pd.DataFrame, section: str, counts: Counter[str]) -> pd.DataFrame:
    """Build the table of reports; studies without text are left out and counted.

    Args:
        studies: one row per study, columns ``study_id, subject_id, split, report``.
        section: which section the texts are.
        counts: grows by ``studies_with_report`` and ``studies_without_<section>``.
    """
    with_text = studies[studies["report"] != ""]
    counts["studies_with_report"] = len(with_text)
    counts[f"studies_without_{section}"] = len(studies) - len(with_text)
    return with_text.assign(section=section)[list(REPORT_COLUMNS)].astype(str).reset_index(drop=True)
