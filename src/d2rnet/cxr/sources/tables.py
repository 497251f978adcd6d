"""What a source module hands over: the two tables every labelled or report source is read into.

Each source is one module under ``d2rnet.cxr`` with the same two functions:

* ``required_files(settings) -> list[RequiredFile]``: what must exist under the configured roots, and why;
* ``read_table(settings, problems) -> LabelledTable | ReportTable``: parse the tables. Everything wrong with a row goes into
  ``problems`` with file and row; the function raises only where it cannot go on (a table is missing or lacks a column).

``settings`` is the source's own section of config.yaml (``cxr.data.labelled`` or ``cxr.data.reports``). Images are not opened here.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

LABELLED_IMAGE_COLUMNS = ("source_id", "path", "split", "subject_id", "source_height", "source_width", "n_readers")
BOX_COLUMNS = ("source_id", "reader_id", "category_id", "x_min", "y_min", "x_max", "y_max", "origin")
REPORT_IMAGE_COLUMNS = ("source_id", "path", "subject_id", "study_id", "view", "split", "source_height", "source_width")
REPORT_COLUMNS = ("study_id", "subject_id", "split", "section", "report")


@dataclass(frozen=True)
class RequiredFile:
    """A file or folder that a source needs."""

    path: Path
    config_key: str  # dotted key that led here, such as "cxr.data.labelled.root"
    what: str  # such as "VinDr-CXR training boxes"
    columns: tuple[str, ...] = ()  # columns a CSV must have; () for folders and other files


@dataclass
class LabelledTable:
    """Images with boxes of one or more readers.

    Attributes:
        images: one row an image, columns LABELLED_IMAGE_COLUMNS: ``source_id`` str; ``path`` str, absolute or relative to the
            working directory; ``split`` "train" or "test" as the source says, "" where it has none; ``subject_id`` str, ""
            where unknown; ``source_height``/``source_width`` int, the frame of the boxes in pixels, 0 where it is the
            image file's own size; ``n_readers`` int, readers who looked at the image (including those who saw nothing).
        boxes: one row a box, columns BOX_COLUMNS: corners are float64 pixels of the source frame; ``reader_id`` str, "" for
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
        images: one row an image, columns REPORT_IMAGE_COLUMNS: ``path`` str relative to ``cxr.data.reports.root``; ``view`` str,
            "" unknown; ``split`` "train", "val", "test"; ``source_height``/``source_width`` int, 0 where the file tells.
            Views that are not wanted are already left out and counted.
        reports: one row a study that has text in the wanted section, columns REPORT_COLUMNS; ``report`` is the section's text
            with white space collapsed to single spaces, nothing else changed.
        counts: images and studies in, dropped and why, kept.
        unreadable_reports: one record a report file that is missing, empty or not UTF-8, keys ``path, study_id, reason``;
            its images stay, for the detector.
    """

    images: pd.DataFrame
    reports: pd.DataFrame
    counts: Counter[str] = field(default_factory=Counter)
    unreadable_reports: list[dict[str, str]] = field(default_factory=list)
