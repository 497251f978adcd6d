"""The report XML of Open-i: read from a folder or the packed archive, without unpacking it and without trusting it.

Part of the report source ``openi``. The archive is never extracted; a document that declares a type or entities (the way of
entity-expansion attacks, and nothing that Open-i's files do) or is larger than a megabyte is set aside unparsed.
"""

import logging
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.errors import DatasetError
from d2rnet.files.documents import check_regular_file
from d2rnet.files.problems import Problems
from d2rnet.files.table_checks import SAFE_ID

log = logging.getLogger(__name__)

ARCHIVE = "NLMCXR_reports.tgz"
FOLDER = "ecgen-radiology"
_ARCHIVE_SUFFIXES = (".tgz", ".tar.gz", ".tar")
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class OpeniReport:
    """One XML report.

    Attributes:
        origin: the file it comes from.
        image_ids: ids of its ``parentImage`` elements, in order.
        sections: lower-case section name -> text with white space collapsed; empty sections are left out.
    """

    origin: str
    image_ids: tuple[str, ...]
    sections: dict[str, str]


def find_reports(settings: ReportSourceSettings) -> Path:
    """Return the archive or folder of the reports; where there is none, the place where it is expected first."""
    if settings.report_root:
        base = Path(settings.report_root)
        candidates = [base / ARCHIVE, base / FOLDER]
        expected = base
    else:
        base = Path(settings.root)
        candidates = [base / ARCHIVE, base / FOLDER, base.parent / ARCHIVE, base.parent / FOLDER]
        expected = candidates[0]
    return next((path for path in candidates if path.exists()), expected)


def read_reports(settings: ReportSourceSettings, problems: Problems) -> tuple[dict[str, OpeniReport], list[dict[str, str]]]:
    """Read all reports.

    Args:
        settings: ``cxr.data.reports``.
        problems: grows by report ids that occur twice.

    Returns:
        Study id (such as ``CXR54``) -> report, in numerical order of the files; and the documents that could not be read
        (``path, study_id, reason``).

    Raises:
        FileNotFoundError: there is neither archive nor folder.
        DatasetError: the archive is damaged, or holds no XML.
    """
    place = find_reports(settings)
    if not place.exists():
        raise FileNotFoundError(
            f"{place}: no such file or folder; set cxr.data.reports.report_root to {ARCHIVE} or the folder {FOLDER}."
        )
    reports: dict[str, OpeniReport] = {}
    unreadable: list[dict[str, str]] = []
    for origin, data in sorted(_documents(place), key=lambda document: _number(document[0])):
        stem = PurePosixPath(origin).stem
        try:
            study_id, report = _parse(data, origin)
        except DatasetError as error:
            unreadable.append({"path": origin, "study_id": f"CXR{stem}", "reason": str(error)})
            continue
        if study_id in reports:
            problems.add(
                "duplicate_id",
                file=origin,
                record=f"uId {study_id}",
                got=f"again, after {reports[study_id].origin}",
                expected="one report per study",
                remedy="Remove one of the files.",
            )
            continue
        reports[study_id] = report
    if not reports:
        raise DatasetError(f"{place}: {len(unreadable)} XML report(s), none readable; expected Open-i's {FOLDER}/N.xml.")
    log.info("%s: %d reports, %d unreadable", place, len(reports), len(unreadable))
    return reports, unreadable


def _documents(place: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield (origin, bytes) of each XML document; one byte more than allowed of those too large, None for what is no file."""
    if place.is_dir():
        for path in place.rglob("*.xml"):
            yield str(path), _read_file(path)
        return
    if not place.name.endswith(_ARCHIVE_SUFFIXES):
        raise DatasetError(f"{place}: expected a folder of XML reports or an archive {', '.join(_ARCHIVE_SUFFIXES)}.")
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                if member.name.endswith(".xml"):
                    content = archive.extractfile(member) if member.isfile() else None  # a link is not followed
                    yield f"{place}:{member.name}", content.read(_MAX_BYTES + 1) if content else None
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DatasetError(f"{place}: damaged or truncated archive ({error}). Download it again.") from error


def _read_file(path: Path) -> bytes | None:
    try:
        check_regular_file(path)
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES + 1)
    except (DatasetError, OSError):
        return None


def _number(origin: str) -> tuple[int, str]:
    stem = PurePosixPath(origin).stem
    return (int(stem) if stem.isdecimal() and len(stem) < 20 else 0), origin


def _parse(data: bytes | None, origin: str) -> tuple[str, OpeniReport]:
    """Parse one document.

    Raises:
        DatasetError: it is no readable file, too large, not UTF-8, declares entities, is not well-formed, or lacks an id; the
            message is the reason alone.
    """
    if data is None:
        raise DatasetError("a folder, a link or another thing that cannot be read as a file")
    if len(data) > _MAX_BYTES:
        raise DatasetError(f"larger than {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"byte {error.start} is not UTF-8") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DatasetError("declares a document type or entities, which Open-i's reports do not")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DatasetError(f"not well-formed XML ({error})") from error
    identity = root.find("uId")
    study_id = "" if identity is None else identity.get("id", "")
    if not SAFE_ID.fullmatch(study_id):
        raise DatasetError(f"uId '{study_id}'; expected an id of letters, digits, '.', '_' and '-'")
    sections = {}
    for element in root.iter("AbstractText"):
        words = " ".join("".join(element.itertext()).split())
        if words:
            sections[element.get("Label", "").lower()] = words
    images = tuple(dict.fromkeys(element.get("id", "") for element in root.iter("parentImage")))
    return study_id, OpeniReport(origin, images, sections)
