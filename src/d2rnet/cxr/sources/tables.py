"""What a source module is and hands over: the two tables every labelled or report source is read into.

A source is one module of this folder, named in :mod:`d2rnet.cxr.sources.registry`, that has what :class:`SourceModule` asks
for; its settings are its own section of config.yaml. Images are not opened here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pandas as pd

from d2rnet.cxr.sources.settings import LabelledSettings, ReportSourceSettings, UnlabelledSourceSettings
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile

LABELLED_IMAGE_COLUMNS = ("source_id", "path", "split", "subject_id", "source_height", "source_width", "n_readers")
BOX_COLUMNS = ("source_id", "reader_id", "category_id", "x_min", "y_min", "x_max", "y_max", "origin")
REPORT_IMAGE_COLUMNS = ("source_id", "path", "subject_id", "study_id", "view", "split", "source_height", "source_width")
REPORT_COLUMNS = ("study_id", "subject_id", "split", "section", "report")
CONTEXT_COLUMNS = ("indication", "study_time")


@dataclass
class LabelledTable:
    """Images with boxes of one or more readers.

    Attributes:
        images: one row per image, columns LABELLED_IMAGE_COLUMNS: ``source_id`` str; ``path`` str, absolute or relative to the
            working directory; ``split`` "train" or "test" as the source says, "" where it has none; ``subject_id`` str, ""
            where unknown; ``source_height``/``source_width`` int, the frame of the boxes in pixels, 0 where it is the
            image file's own size; ``n_readers`` int, readers who looked at the image (including those who saw nothing).
        boxes: one row per box, columns BOX_COLUMNS: corners are float64 pixels of the source frame; ``reader_id`` str, "" for
            a consensus; ``category_id`` 1..22; ``origin`` "file.csv:row 17" (1 = first line below the header).
        counts: rows in, dropped and why, kept.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    counts: Counter[str] = field(default_factory=Counter)


@dataclass
class ReportTable:
    """Images and the reports of their studies.

    Attributes:
        images: one row per image, columns REPORT_IMAGE_COLUMNS: ``path`` str relative to ``cxr.data.reports.root``; ``view``
            str, "" unknown; ``split`` "train", "val", "test"; ``source_height``/``source_width`` int, 0 where the file tells.
            Views that are not wanted are already left out and counted.
        reports: one row per study that has text in the wanted section, columns REPORT_COLUMNS; ``report`` is the section's
            text with white space collapsed to single spaces, nothing else changed. With ``cxr.data.reports.context`` also
            CONTEXT_COLUMNS: ``indication`` str, "" where the report does not say why; ``study_time`` str that sorts the
            studies of a patient, "" unknown.
        counts: images and studies in, dropped and why, kept.
        unreadable_reports: one record per report file that is missing, empty or not UTF-8, keys ``path, study_id, reason``;
            its images stay, for the detector.
    """

    images: pd.DataFrame
    reports: pd.DataFrame
    counts: Counter[str] = field(default_factory=Counter)
    unreadable_reports: list[dict[str, str]] = field(default_factory=list)


Settings = TypeVar("Settings", contravariant=True)
Table = TypeVar("Table", covariant=True)


class SourceModule(Protocol[Settings, Table]):
    """What a module of this folder must have to be a source.

    Attributes:
        TERMS: the terms under which the data set is released, as its publisher states them.
        RELEASE_COUNTS: numbers of the full release by the name of the source's own count; {} where there is no release. A
            subset is a legitimate input, so that other numbers are named in the log.
    """

    TERMS: str
    RELEASE_COUNTS: Mapping[str, int]

    def required_files(self, settings: Settings) -> list[RequiredFile]:
        """List what must exist under the configured roots, and why."""

    def read_table(self, settings: Settings, problems: Problems) -> Table:
        """Parse the tables, and the reports if it has any.

        Everything wrong with a row goes into ``problems`` with file and row; this raises only where it cannot go on (a table
        is missing or lacks a column).
        """


LabelledSource = SourceModule[LabelledSettings, LabelledTable]
ReportSource = SourceModule[ReportSourceSettings, ReportTable]
UnlabelledSource = SourceModule[UnlabelledSourceSettings, ReportTable]
