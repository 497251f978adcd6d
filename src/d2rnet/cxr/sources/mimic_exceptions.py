"""MIMIC-CXR studies whose report no rule can split: where a person found the description of the image.

Facts taken from the public list of the MIT-LCP mimic-cxr code (https://github.com/MIT-LCP/mimic-cxr, txt/section_parser.py,
MIT licence): 23 studies that hide their findings under another header, 23 whose findings are a range of characters, and 8
that describe nothing. Ranges count characters of the decoded report file of MIMIC-CXR 2.0.0. A further list can be laid over
this one with :func:`read_exceptions`; ``mimic`` does so when ``section_exceptions.csv`` lies beside the ``files`` folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import read_table_csv

EXCEPTIONS_FILE = "section_exceptions.csv"


@dataclass(frozen=True)
class SectionException:
    """Where a study's findings are: in the section of a (normalised) name, or in a range of characters (0, 0: nowhere)."""

    section: str | None = None
    start: int = 0
    end: int = 0


_STUDIES_BY_SECTION: Mapping[str, str] = {
    "recommendations": "50913680 56482935 58157373 58375018 59067458 59087630 59768032",
    "examination": "50743547 53356173 55157853 59215320 59363654",
    "technique": "50808053 53202765 59279892",
    "indication": "50058765 51966317 54365831 54654948 55124749 57936451",
    "history": "51491012",
    "note": "56451190",
}
_RANGES: Mapping[str, tuple[int, int]] = {
    "50196495": (59, 399), "50525523": (201, 349), "51410602": (47, 320), "52119491": (179, 454), "52648681": (292, 631),
    "52674888": (145, 296), "53182247": (59, 412), "53488209": (149, 475), "53514462": (73, 377), "54875119": (234, 988),
    "54986978": (59, 306), "55258338": (192, 568), "56412866": (522, 822), "56579911": (59, 218), "56760320": (219, 457),
    "57150433": (61, 394), "57564132": (233, 554), "59003148": (262, 505), "59330497": (140, 655), "59505494": (59, 450),
    "59562049": (158, 348), "59889364": (172, 453), "59982525": (313, 717),
}  # fmt: skip
_STUDIES_WITHOUT_FINDINGS = "50798377 52035334 53071062 53607029 54168089 54231141 56724958 58235663"

Exceptions = Mapping[str, SectionException]
MIMIC_EXCEPTIONS: Exceptions = MappingProxyType(
    {study: SectionException(section=name) for name, studies in _STUDIES_BY_SECTION.items() for study in studies.split()}
    | {study: SectionException(start=start, end=end) for study, (start, end) in _RANGES.items()}
    | {study: SectionException() for study in _STUDIES_WITHOUT_FINDINGS.split()}
)


def read_exceptions(path: str | Path) -> Exceptions:
    """Read further exceptions from a CSV file with the columns ``study_id, section, start, end``.

    A row names either a section (``start`` and ``end`` empty) or a range of characters (``section`` empty; 0, 0 for a
    report that describes nothing). ``study_id`` may carry MIMIC's leading ``s``.

    Raises:
        DatasetError: a column is missing, or a row is neither of the two; the message names the row.
    """
    table = read_table_csv(path, ("study_id", "section", "start", "end"))
    found: dict[str, SectionException] = {}
    for row, (study_id, section, start, end) in enumerate(table.itertuples(index=False, name=None), start=1):
        study = study_id.removeprefix("s")
        if section and not start and not end:
            found[study] = SectionException(section=section.lower())
        elif not section and start.isdecimal() and end.isdecimal() and int(start) <= int(end):
            found[study] = SectionException(start=int(start), end=int(end))
        else:
            raise DatasetError(
                f"{path}: row {row} (study {study_id}): got section '{section}', start '{start}', end '{end}'; expected a "
                "section name alone, or start <= end in characters alone. Mend the row."
            )
    return found
