"""What is fuzzed: functions of bytes that may raise nothing but what a caller can act on.

Each target feeds a parser and checks what it answers. An error of the package is a right answer; anything else is a finding.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from d2rnet.ct.sources import ct_rate, ctrg
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.cxr.sources.openi_reports import _parse
from d2rnet.cxr.sources.report_sections import extract_section, split_sections
from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import load_annotation

Target = Callable[[bytes], None]
_MEMORY = Path("/dev/shm")
_FOLDER = Path(tempfile.mkdtemp(prefix="d2rnet-fuzz-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
_ENTRY = (
    b'{"train": [{"id": "a", "study_id": "s", "subject_id": "p", "split": "train", "report": "x", "image_path": ["a.png"], '
    b'"height": 9, "width": 9, "boxes": [[1, 1, 2, 2]], "scores": [0.5], "labels": ["Edema"]}], "val": [], "test": []}'
)


def report_sections(data: bytes) -> None:
    """The section rules of MIMIC-CXR's reports: sections are parts of the text, in order, and do not overlap."""
    text = data.decode("utf-8", errors="replace")
    end = 0
    for section in split_sections(text):
        assert end <= section.start <= section.end <= len(text)
        end = section.end
    for wanted in ("findings", "impression"):
        found = extract_section(text, wanted)
        assert found is None or " ".join(found.split()) == found != ""


def csv_tables(data: bytes) -> None:
    """The table reader, plain and gzip: as many cells as rows and columns, and none with a NUL character."""
    with suppress(DatasetError):
        table = read_table_csv(_written("table.csv", data), ["a"], optional=["b"])
        assert len(table) and all(isinstance(cell, str) and "\0" not in cell for cell in table.to_numpy().ravel())


def annotation(data: bytes) -> None:
    """annotation.json: every entry that is accepted can be used."""
    with suppress(DatasetError):
        for split, entries in load_annotation(_written("annotation.json", data)).items():
            for entry in entries:
                assert entry["split"] == split and len(entry["boxes"]) == len(entry["scores"]) == len(entry["labels"])
                assert all(0 <= score <= 1 for score in entry["scores"])
                entry["report"].encode()
                for name in entry["image_path"]:
                    assert (_FOLDER / name).resolve().is_relative_to(_FOLDER.resolve())


def openi_xml(data: bytes) -> None:
    """The XML of Open-i: an id that can be a file name, sections of collapsed text."""
    with suppress(DatasetError):
        study_id, report = _parse(data, "1.xml")
        assert "/" not in study_id and ".." not in study_id
        assert all(text and " ".join(text.split()) == text for text in report.sections.values())


def ct_rate_tables(data: bytes) -> None:
    """The four tables of CT-RATE, divided by lines of dashes: reports, metadata, labels, volumes without a chest."""
    root = _FOLDER / "ct_rate"
    parts = [*data.split(b"\n---\n"), b"", b"", b""]
    valid = b"VolumeName,Findings_EN\nvalid_1_a_1.nii.gz,Clear.\n"
    files = ("train_reports.csv", "train_metadata.csv", "train_predicted_labels.csv", "no_chest_train.txt")
    root.mkdir(exist_ok=True)
    for name, part in zip((*files, "validation_reports.csv"), (*parts[:4], valid), strict=True):
        (root / name).write_bytes(part)
    for subject in ("valid_1", "train_1", "train_2"):
        folder = root / f"{subject.partition('_')[0]}_fixed" / subject / f"{subject}_a"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{subject}_a_1.nii.gz").touch()
    with suppress(DatasetError):
        table = ct_rate.read_table(CtSourceSettings(root=str(root)), Problems())
        assert all(ct_rate.NAME.fullmatch(name) for name in table.volumes["volume_id"])
        assert set(table.volumes["split"]) <= {"train", "val", "test"} and table.volumes["volume_id"].is_unique
        assert (table.labels.isin([0.0, 1.0]) | table.labels.isna()).all(axis=None)


def ctrg_reports(data: bytes) -> None:
    """CTRG's document: ids that can be file names, splits that are known."""
    file = _written("reports.json", data)
    (_FOLDER / "v1.nii.gz").touch()
    with suppress(DatasetError):
        settings = CtSourceSettings(source="ctrg", root=str(_FOLDER), table=file.name, require_all=False)
        table = ctrg.read_table(settings, Problems())
        assert set(table.volumes["volume_id"]) == {"v1"} and set(table.volumes["split"]) <= {"train", "val", "test"}


def _written(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


TARGETS: dict[str, Target] = {
    target.__name__: target for target in (report_sections, csv_tables, annotation, openi_xml, ct_rate_tables, ctrg_reports)
}
SEEDS: dict[str, tuple[bytes, ...]] = {
    "report_sections": (
        b" FINAL REPORT\n FINDINGS:\n The heart is enlarged. IMPRESSION: Normal.\n",
        b"CHEST, PA AND LATERAL:\nLUNGS: clear.\nIMPRESSION\nNormal.\nADDENDUM: see above\n",
    ),
    "csv_tables": (
        b'a,b\n1,2\n"x,y",z\n',
        b"Image Index,Finding Label,Bbox [x,y,w,h],,,\na,b,1,2,3,4\n",
        b"\xef\xbb\xbfa\r\n1\r\n",
    ),
    "ct_rate_tables": (
        b"VolumeName,Findings_EN\ntrain_1_a_1.nii.gz,Clear.\ntrain_2_a_1.nii.gz,Not given.\n---\n"
        b'VolumeName,XYSpacing,RescaleSlope\ntrain_1_a_1.nii.gz,"[0.7, 0.7]",1\n---\n'
        + f"VolumeName,{','.join(CT_ABNORMALITIES)}\ntrain_1_a_1.nii.gz{',0' * 18}\n---\ntrain_2_a_1.nii.gz\n".encode(),
    ),
    "ctrg_reports": (
        b'[{"id": "v1", "finding": "Clear."}, {"id": "v2", "report": "x"}]',
        b'{"train": [{"id": "v1", "finding": "Clear."}], "test": []}',
    ),
    "annotation": (_ENTRY, b'{"train": [], "val": [], "test": []}'),
    "openi_xml": (
        b'<e><uId id="CXR1"/><AbstractText Label="FINDINGS">clear</AbstractText><parentImage id="x"/></e>',
        b'<?xml version="1.0" encoding="utf-8"?><e><uId id="CXR1"/></e>',
    ),
}
