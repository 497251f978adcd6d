"""The report texts of MIMIC-CXR: 227,835 small files, read with threads and cut to the wanted section.

Part of the report source ``mimic``; the section rules are in :mod:`d2rnet.cxr.sources.report_sections`.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from d2rnet.cxr.sources.clinical_context import ClinicalText, clinical_text
from d2rnet.cxr.sources.mimic_exceptions import Exceptions
from d2rnet.cxr.sources.mimic_tables import FILES_FOLDER
from d2rnet.cxr.sources.report_checks import report_table
from d2rnet.cxr.sources.report_sections import FULL_REPORT, extract_section, split_sections
from d2rnet.errors import DatasetError
from d2rnet.files.documents import check_regular_file
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)

# Reading waits for the file system (0.1 ms on a local disk, several on a network share), so more threads than cores pay.
_THREADS = 16
_CHUNK = 256
MAX_WITHOUT_HEADER = 0.02  # share of the reports read; a warning above it
_NO_WHY = ClinicalText()
_MAX_BYTES = 1_000_000  # the longest report of MIMIC-CXR has about 10,000


@dataclass(frozen=True)
class _Outcome:
    """What a report file gave: the section's text, nothing, or why it cannot be read; if it has headers; the indication."""

    text: str | None = None
    reason: str | None = None
    has_header: bool = True
    why: ClinicalText = _NO_WHY


def read_reports(
    studies: pd.DataFrame,
    report_root: Path,
    *,
    section: str,
    exceptions: Exceptions,
    counts: Counter[str],
    with_why: bool = False,
) -> tuple[pd.DataFrame, list[dict[str, str]], dict[str, ClinicalText]]:
    """Read the wanted section of each study's report.

    Args:
        studies: columns ``subject_id, study_id, split``, one row per study.
        report_root: folder that holds ``files/p10/p10000032/s50414267.txt``.
        section: ``findings`` or ``impression``.
        exceptions: hand-made section rules by study id.
        counts: grows by ``reports_read``, ``reports_without_header``, ``studies_without_<section>``, ``studies_with_report``,
            ``reports_unreadable``.
        with_why: whether to look for indication and history.

    Returns:
        The reports table; the report files that are missing, empty, no text in UTF-8, too large or no files at all
        (``path, study_id, reason``); and study id -> why it was taken, of the studies in the table.

    Raises:
        DatasetError: not one of the report files exists.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    unreadable = []
    headless = []
    whys: dict[str, ClinicalText] = {}
    keys = list(studies[["subject_id", "study_id", "split"]].itertuples(index=False, name=None))
    outcomes = _outcomes(keys, report_root, section, exceptions, with_why)
    for (subject_id, study_id, split), outcome in zip(keys, outcomes, strict=True):
        if outcome.reason is not None:
            path = report_root / _report_path(subject_id, study_id)
            unreadable.append({"path": str(path), "study_id": study_id, "reason": outcome.reason})
        elif outcome.text is not None:
            rows.append((study_id, subject_id, split, section, outcome.text))
            whys[study_id] = outcome.why
        if not outcome.has_header:
            headless.append(_report_path(subject_id, study_id))
    if keys and all(record["reason"] == "missing" for record in unreadable) and len(unreadable) == len(keys):
        raise DatasetError(
            f"{unreadable[0]['path']}: no such report, and none of the other {len(keys) - 1}; expected the report texts of "
            "MIMIC-CXR (mimic-cxr-reports.zip) unpacked. Set cxr.data.reports.report_root to the folder that holds their "
            f"folder '{FILES_FOLDER}'."
        )
    counts["reports_read"] = len(keys) - len(unreadable)
    counts["reports_unreadable"] = len(unreadable)
    counts["reports_without_header"] = len(headless)
    _warn_of_headless(headless, report_root, counts["reports_read"], section)
    counts[f"studies_without_{section}"] = counts["reports_read"] - len(rows)
    counts["studies_with_report"] = len(rows)
    return report_table(rows), unreadable, whys


def _warn_of_headless(headless: list[str], report_root: Path, read: int, section: str) -> None:
    """Warn where more texts lack a header than a release of MIMIC-CXR would have."""
    if len(headless) <= MAX_WITHOUT_HEADER * read:
        return
    log.warning(
        "%s: %d of %d reports have no header that is known, such as 'FINDINGS:' at the start of a line; %s. Look at %s: "
        "indication and impression may be in it",
        report_root,
        len(headless),
        read,
        "their whole text is taken as the findings" if section == "findings" else f"they give no {section}",
        headless[0],
    )


def _report_path(subject_id: str, study_id: str) -> str:
    return f"{FILES_FOLDER}/p{subject_id[:2]}/p{subject_id}/s{study_id}.txt"


def _outcomes(
    keys: list[tuple[str, str, str]], report_root: Path, section: str, exceptions: Exceptions, with_why: bool
) -> Iterator[_Outcome]:
    """Yield the outcome of each study, in order; chunks keep the number of futures small."""

    def read_chunk(start: int) -> list[_Outcome]:
        return [
            _read_one(f"{report_root}/{_report_path(subject_id, study_id)}", section, study_id, exceptions, with_why)
            for subject_id, study_id, _ in keys[start : start + _CHUNK]
        ]

    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = pool.map(read_chunk, range(0, len(keys), _CHUNK))
        for chunk in track(chunks, total=len(keys), what="read reports", unit="report", step=_CHUNK):
            yield from chunk


def _read_one(path: str, section: str, study_id: str, exceptions: Exceptions, with_why: bool) -> _Outcome:
    try:
        check_regular_file(path)
        with open(path, "rb") as stream:  # noqa: PTH123 - a Path object per file costs as much as reading it
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return _Outcome(reason="missing")
    except DatasetError:
        return _Outcome(reason="not a file")
    except OSError as error:
        return _Outcome(reason=f"not readable ({error.strerror})")
    if len(data) > _MAX_BYTES:
        return _Outcome(reason=f"larger than {_MAX_BYTES} bytes")
    if b"\0" in data:
        return _Outcome(reason=f"byte {data.index(0)} is NUL, so this is no text in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _Outcome(reason=f"byte {error.start} is not UTF-8")
    if not text.strip():
        return _Outcome(reason="empty")
    sections = split_sections(text)
    found = extract_section(text, section, study_id, exceptions=exceptions, sections=sections)
    # Of a study whose sections no rule can split, the indication may well be the findings.
    is_sought = with_why and found is not None and study_id not in exceptions
    why = clinical_text(sections) if is_sought else _NO_WHY
    return _Outcome(text=found, has_header=sections[0].name != FULL_REPORT, why=why)
