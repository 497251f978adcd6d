"""Malformed tables of the chest CT sources: CT-RATE, RadGenome-ChestCT, CTRG and a folder of one's own."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

from case_files import put_link
from hostile_case import READ, REFUSED, Case, Make

from d2rnet.findings.ct_classes import CT_ABNORMALITIES

VOLUMES = {"train": [f"train_{patient}_a_1" for patient in range(1, 9)], "valid": ["valid_1_a_1", "valid_2_a_1"]}
TOTAL = sum(map(len, VOLUMES.values()))
REPORTS, METADATA = "radiology_text_reports/train_reports.csv", "metadata/train_metadata.csv"
LABELS = "multi_abnormality_labels/train_predicted_labels.csv"
REGIONS, NO_CHEST = "radgenome_files/train_region_report.csv", "metadata/no_chest_train.txt"
Change = Callable[[bytes], bytes]


def ct_rate(changed: str = "", change: Change | None = None, place: Make | None = None, **others: bytes) -> Make:
    """CT-RATE of ten empty volumes with its tables, one of which is changed; ``place`` puts something in its stead."""

    def make(folder: Path) -> Path | None:
        for part, names in VOLUMES.items():
            word = "train" if part == "train" else "validation"
            rows = {
                f"radiology_text_reports/{word}_reports.csv": (
                    "VolumeName,Findings_EN,Impressions_EN", ",Clear lungs.,Normal.",
                ),
                f"metadata/{word}_metadata.csv": (
                    "VolumeName,XYSpacing,RescaleIntercept,RescaleSlope,ZSpacing", ',"[0.7, 0.7]",0,1,1.5',
                ),
                f"multi_abnormality_labels/{part}_predicted_labels.csv": (
                    ",".join(("VolumeName", *CT_ABNORMALITIES)), ",0" * len(CT_ABNORMALITIES),
                ),
                f"radgenome_files/{word}_region_report.csv": ("Volumename,Anatomy,Sentence", ",lung,Clear lungs."),
            }  # fmt: skip
            for name, (header, cells) in rows.items():
                text = "\n".join([header, *(f"{volume}.nii.gz{cells}" for volume in names)]) + "\n"
                _write(folder / name, text.encode())
            for volume in names:
                study = volume.rpartition("_")[0]
                _write(folder / f"{part}_fixed" / study.rpartition("_")[0] / study / f"{volume}.nii.gz", b"")
        for name, data in others.items():
            _write(folder / name.replace("__", "/"), data)
        path = folder / changed
        if place is not None:
            path.unlink(missing_ok=True)
            place(path.parent)
        elif change is not None:
            _write(path, change(path.read_bytes() if path.exists() else b""))
        return path if changed else None

    return make


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def exchange(old: str, new: str) -> Change:
    """Exchange the first such text."""

    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


def append(line: str) -> Change:
    """Append a row."""
    return lambda data: data + line.encode() + b"\n"


def ct_rate_cases() -> list[Case]:
    """What is wrong with a row or a table of CT-RATE."""

    def case(what: str, table: str, change: Change, record: str = "", kind: str = REFUSED, kept: int = 0) -> Case:
        return Case("CT-RATE", what, ct_rate(table, change), record=record, expected=(kind,), records=kept)

    label = f"{','.join(CT_ABNORMALITIES)}\ntrain_1_a_1.nii.gz,"
    pipe = ct_rate(METADATA, place=lambda folder: os.mkfifo(folder / "train_metadata.csv"))  # type: ignore[arg-type]
    tables = [
        case("reports without their text column", REPORTS, exchange("Findings_EN", "Findings"), "Findings_EN"),
        case("reports with a NUL character", REPORTS, exchange("Clear", "Cl\0ear")),
        case("a column of reports twice", REPORTS, exchange("Impressions_EN", "Findings_EN"), "Findings_EN"),
        case("half a gzip file of reports", REPORTS, lambda data: gzip.compress(data)[:60]),
        case("reports in UTF-16", REPORTS, lambda data: data.decode().encode("utf-16")),
        case("reports of a header alone", REPORTS, lambda data: data.split(b"\n")[0] + b"\n"),
        case("an empty table of reports", REPORTS, lambda data: b""),
        case("a report of 2 MB", REPORTS, exchange("Clear", "word " * 400_000)),
        case("a name that climbs out of its folder", REPORTS, append("../../etc/passwd.nii.gz,a,b"), "row 9"),
        case("a name of another part", REPORTS, append("valid_9_a_1.nii.gz,a,b"), "row 9"),
        case("a name in capitals", REPORTS, append("TRAIN_9_a_1.nii.gz,a,b"), "row 9"),
        case("a patient number of 40 digits", REPORTS, append(f"train_{'9' * 40}_a_1.nii.gz,a,b"), "row 9"),
        case("a name in other digits", REPORTS, append("train_\uff15_a_1.nii.gz,a,b"), "row 9"),
        case("a volume twice", REPORTS, append("train_1_a_1.nii.gz,a,b"), "row 9"),
        case("a volume twice, once without its ending", REPORTS, append("train_1_a_1,a,b"), "row 9"),
        case("labels without a column", LABELS, exchange("Hiatal hernia", "Hernia"), "Hiatal hernia"),
        case("a label of 2", LABELS, exchange(f"{label}0", f"{label}2"), "row 1"),
        case("a label of -1", LABELS, exchange(f"{label}0", f"{label}-1"), "row 1"),
        case("a label of NaN", LABELS, exchange(f"{label}0", f"{label}NaN"), "row 1"),
        case("a label of 0.5", LABELS, exchange(f"{label}0", f"{label}0.5"), "row 1"),
        case("labels with a field too many", LABELS, append(f"train_9_a_1.nii.gz{',0' * 19}"), "row 9"),
        case("a list of volumes without chest that is binary", NO_CHEST, lambda data: b"\x89PNG\r\n\x1a\n\xff\xfe\0\0"),
        case("a list of volumes without chest with a NUL character", NO_CHEST, lambda data: b"train_1_a_1.nii.gz\0\n"),
        case("metadata without names", METADATA, exchange("VolumeName", "Volume"), "VolumeName"),
        Case("CT-RATE", "a named pipe for metadata", pipe),
        Case("CT-RATE", "a link to an endless device for labels",
             ct_rate(LABELS, place=put_link("train_predicted_labels.csv", "/dev/zero"))),
        Case("CT-RATE", "the same part under two names", ct_rate(**{"radiology_text_reports__valid_reports.csv": b"a"}),
             record="valid_reports.csv"),
    ]  # fmt: skip
    read = [
        case(
            "a byte-order mark and CRLF", REPORTS, lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), "", READ, TOTAL
        ),
        case("a report of 100,000 characters", REPORTS, exchange("Clear", "word " * 20_000), "", READ, TOTAL),
        case("a report with script and formula", REPORTS, exchange("Clear", "=1+1 <script>"), "", READ, TOTAL),
        case("spacing that is no list", METADATA, exchange("[0.7, 0.7]", "{} of 3; ["), "", READ, TOTAL),
        case("metadata without spacing", METADATA, lambda data: data.replace(b"XYSpacing", b"Spacing"), "", READ, TOTAL),
        case("a slope of infinity", METADATA, exchange(",0,1,1.5", ",0,inf,1e999"), "", READ, TOTAL),
        case("labels of volumes that are not there", LABELS, append(f"train_77_a_1.nii.gz{',1' * 18}"), "", READ, TOTAL),
    ]
    return tables + read


def radgenome_cases() -> list[Case]:
    """The region reports beside CT-RATE."""

    def case(what: str, change: Change, record: str = "", kind: str = REFUSED, kept: int = 0) -> Case:
        return Case("RadGenome", what, ct_rate(REGIONS, change), record=record, expected=(kind,), records=kept)

    return [
        case("no sentences", exchange("Sentence", "Text"), "Sentence"),
        case("a NUL character in a sentence", exchange("Clear", "\0")),
        case("a table cut off in gzip", lambda data: gzip.compress(data)[:-9]),
        case("a row with a field less", append("train_1_a_1.nii.gz,lung"), "row 9"),
        case("an unknown region", append("train_1_a_1.nii.gz,../../x,Clear."), "", READ, TOTAL),
        case("regions of volumes that are not there", append("train_99_a_1.nii.gz,lung,Clear."), "", READ, TOTAL),
    ]


def own_folder(name: str, data: bytes) -> Make:
    """Twelve empty volumes and a table or document of them."""

    def make(folder: Path) -> Path:
        for number in range(12):
            _write(folder / f"v{number}.nii.gz", b"")
            _write(folder / f"V{number}.nii.gz", b"")
        _write(folder / name, data)
        return folder / name

    return make


def ctrg_cases() -> list[Case]:
    """CTRG's document."""
    good = [{"id": f"v{number}", "finding": "Clear lungs."} for number in range(11)]

    def case(what: str, content: object, record: str = "", kind: str = REFUSED) -> Case:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        return Case("CTRG", what, own_folder("reports.json", data), record=record, expected=(kind,))

    def with_one(what: str, extra: object) -> Case:
        return case(what, [*good, extra], "record 12")

    return [
        case("lists 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
        case("an empty file", b""),
        case("an empty list", []),
        case("a number", 3),
        case("an unknown split", {"holdout": good}),
        case("a key twice", b'{"train": [], "train": []}'),
        case("half a document", json.dumps(good).encode()[:90]),
        case("UTF-16", json.dumps(good).encode("utf-16")),
        with_one("a record that is a text", "v11"),
        with_one("an id with '..'", {"id": "../../etc/passwd", "finding": "x"}),
        with_one("an id that is true", {"id": True, "finding": "x"}),
        with_one("an id of NaN", {"id": float("nan"), "finding": "x"}),
        with_one("an id twice", good[0]),
        with_one("two texts", {"id": "v11", "finding": "x", "report": "y"}),
        with_one("a text that is a list", {"id": "v11", "finding": ["x"]}),
        case("ids that differ in capitals", [*good, {"id": "V1", "finding": "x"}], "", READ),
        case("half a surrogate pair in a text", [*good, {"id": "v11", "finding": "\ud800"}]),
    ]  # fmt: skip


def folder_cases() -> list[Case]:
    """The table of one's own folder."""
    header = "path,report,study_id"
    good = [f"v{number}.nii.gz,Clear lungs.,s{number}" for number in range(11)]

    def case(what: str, lines: list[str], record: str = "", kind: str = REFUSED) -> Case:
        text = "\n".join(lines) + "\n"
        return Case("CT folder", what, own_folder("studies.csv", text.encode()), record=record, expected=(kind,))

    return [
        case("no path", [header.replace("path", "file"), *good], "path"),
        case("no report", [header.replace("report", "text"), *good], "report"),
        case("a header alone", [header]),
        case("a path that climbs out", [header, *good, "../../etc/passwd,x,s11"], "row 12"),
        case("an absolute path", [header, *good, "/etc/passwd,x,s11"], "row 12"),
        case("a path twice", [header, *good, good[0]], "row 12"),
        case("an id with '..'", [header, *good, "v11.nii.gz,x,a..b"], "study_id"),
        case("ids that differ in capitals", [header, *good, "v11.nii.gz,x,S1"], "", READ),
        case("two reports of a study", [header, *good, "v11.nii.gz,other,s1"], "study s1"),
        case("a cell of 2 MB for an id", [header, *good, f"v11.nii.gz,x,{'s' * 2_000_000}"], "study_id"),
        case("a quote that never ends", [header, *good, '"v11.nii.gz,x,s11'], ""),
    ]  # fmt: skip


def cases() -> list[Case]:
    """All of them."""
    return [*ct_rate_cases(), *radgenome_cases(), *ctrg_cases(), *folder_cases()]
