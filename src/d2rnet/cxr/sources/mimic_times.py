"""When the studies of MIMIC-CXR took place, for the order of a patient's studies. Part of the report source ``mimic``.

Dates are shifted by patient, so that they order the studies of one patient and mean nothing else.
"""

import logging
import re
from collections import Counter

from d2rnet.cxr.sources.mimic_tables import METADATA_TABLE, MimicFolders
from d2rnet.files.csv_tables import read_table_csv

log = logging.getLogger(__name__)
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"(\d{1,6})(?:\.(\d*))?")  # hours, minutes, seconds without leading zeros: 80556.875 is 08:05:56.875
_FRACTION_DIGITS = 6


def time_text(date: str, time: str) -> str:
    """Return StudyDate and StudyTime as one text that sorts in time, "" where one of them is none: YYYYMMDDhhmmss.ffffff."""
    match = _TIME.fullmatch(time)
    if match is None or not _DATE.fullmatch(date):
        return ""
    return f"{date}{match[1].zfill(6)}.{(match[2] or '')[:_FRACTION_DIGITS].ljust(_FRACTION_DIGITS, '0')}"


def study_times(folders: MimicFolders, counts: Counter[str]) -> dict[str, str]:
    """Read the time of each study: that of its earliest image.

    Args:
        folders: where to look.
        counts: grows by ``studies_without_time``, of the metadata table.

    Returns:
        Study id -> text of :func:`time_text`; studies without one are left out.

    Raises:
        DatasetError: the metadata table lacks StudyDate or StudyTime.
    """
    file = folders.optional_table(METADATA_TABLE)
    if file is None:
        log.warning("%s: no table %s: no study has a time, so that none has a study before", folders.root, METADATA_TABLE)
        return {}
    table = read_table_csv(file, ("study_id", "StudyDate", "StudyTime"))
    times: dict[str, str] = {}
    for study_id, date, time in table.itertuples(index=False, name=None):
        if text := time_text(date, time):
            times[study_id] = min(text, times.get(study_id, text))
    counts["studies_without_time"] = table["study_id"].nunique() - len(times)
    return times
