"""MIMIC-CXR layouts, well-formed and broken, written by hand into a temporary folder."""

import gzip
from pathlib import Path
from typing import Any

import pydicom
import pytest

from d2rnet.cxr.sources import mimic
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.cxr.sources.tables import REPORT_COLUMNS, REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems

REPORT = "                    FINAL REPORT\n FINDINGS: \n \n The lungs are\n clear.\n \n IMPRESSION: Normal.\n"

# dicom_id, study, subject, split, view
IMAGES = [
    ("a-1", "50000001", "10000001", "train", "PA"),
    ("a-2", "50000001", "10000001", "train", "LATERAL"),
    ("b-1", "50000002", "10000001", "train", "AP"),
    ("c-1", "50000003", "10000002", "validate", "PA"),
    ("d-1", "50000004", "11000003", "test", ""),
    ("e-1", "50000005", "11000004", "test", "AP"),
]


class Release:
    """A small MIMIC-CXR release on disk, editable before it is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.split = [f"{image},{study},{subject},{split}" for image, study, subject, split, _ in IMAGES]
        self.metadata = [f"{image},{subject},{study},{view},2544,3056" for image, study, subject, _, view in IMAGES]
        self.records = [
            f"{subject},{study},{image},{image_path(subject, study)}/{image}.dcm" for image, study, subject, *_ in IMAGES
        ]
        self.reports: dict[str, bytes] = {
            f"{image_path(subject, study)}.txt": REPORT.encode() for _, study, subject, *_ in IMAGES
        }

    def write_jpg(self, version: str = "2.0.0") -> None:
        self.write_table(f"mimic-cxr-{version}-split.csv.gz", "dicom_id,study_id,subject_id,split", self.split)
        header = "dicom_id,subject_id,study_id,ViewPosition,Rows,Columns"
        self.write_table(f"mimic-cxr-{version}-metadata.csv.gz", header, self.metadata)
        self.write_reports(self.root)

    def write_dicom(self) -> None:
        self.write_table("cxr-record-list.csv.gz", "subject_id,study_id,dicom_id,path", self.records)
        studies = [f"{subject},{study}" for _, study, subject, *_ in IMAGES] + ["10000009,50000099"]
        self.write_table("cxr-study-list.csv.gz", "subject_id,study_id", list(dict.fromkeys(studies)))
        self.write_reports(self.root)

    def write_table(self, name: str, header: str, rows: list[str]) -> None:
        self.root.mkdir(exist_ok=True)
        data = "\n".join([header, *rows, ""]).encode()
        (self.root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    def write_reports(self, root: Path) -> None:
        for name, content in self.reports.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

    def settings(self, **changes: Any) -> ReportSourceSettings:
        return ReportSourceSettings(source="mimic", root=str(self.root)).replaced(**changes)

    def read(self, **changes: Any) -> tuple[ReportTable, Problems]:
        problems = Problems()
        return mimic.read_table(self.settings(**changes), problems), problems


def image_path(subject: str, study: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s{study}"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "mimic")


def test_jpg_release(release: Release) -> None:
    release.write_jpg()
    table, problems = release.read()
    assert not len(problems)
    assert tuple(table.images.columns) == REPORT_IMAGE_COLUMNS
    assert tuple(table.reports.columns) == REPORT_COLUMNS
    assert table.images["source_id"].tolist() == ["a-1", "b-1", "c-1", "e-1"]
    assert table.images["split"].tolist() == ["train", "train", "val", "test"]
    assert table.images.iloc[0].to_dict() == {
        "source_id": "a-1", "path": "files/p10/p10000001/s50000001/a-1.jpg", "subject_id": "10000001", "study_id": "50000001",
        "view": "PA", "split": "train", "source_height": 2544, "source_width": 3056,
    }  # fmt: skip
    assert table.reports.iloc[0].to_dict() == {
        "study_id": "50000001", "subject_id": "10000001", "split": "train", "section": "findings",
        "report": "The lungs are clear.",
    }  # fmt: skip
    expected = {
        "images_in_table": 6, "studies_in_table": 5, "images_dropped_view_LATERAL": 1, "images_dropped_view_unknown": 1,
        "images_kept": 4, "studies_without_wanted_view": 1, "reports_read": 4, "reports_unreadable": 0,
        "studies_without_findings": 0, "studies_with_report": 4, "reports_without_header": 0, "metadata_rows_without_image": 0,
    }  # fmt: skip
    assert table.counts == expected


def test_no_views_keeps_all_and_impression_is_taken(release: Release) -> None:
    release.write_jpg("2.1.0")
    table, _ = release.read(views=[], section="impression")
    assert len(table.images) == 6
    assert set(table.reports["report"]) == {"Normal."}
    assert set(table.reports["section"]) == {"impression"}


def test_reports_under_another_root(release: Release, tmp_path: Path) -> None:
    release.write_jpg()
    other = tmp_path / "texts"
    release.reports = {name: REPORT.replace("clear", "hazy").encode() for name in release.reports}
    release.write_reports(other)
    table, _ = release.read(report_root=str(other))
    assert set(table.reports["report"]) == {"The lungs are hazy."}
    assert [needed.config_key for needed in mimic.required_files(release.settings(report_root=str(other)))][:2] == [
        "cxr.data.reports.root",
        "cxr.data.reports.report_root",
    ]


def test_unreadable_reports_are_set_aside_and_images_stay(release: Release) -> None:
    names = list(release.reports)
    release.reports[names[0]] = b" FINDINGS: \xe9panchement\n"
    release.reports[names[1]] = b" \n"
    del release.reports[names[2]]
    release.write_jpg()
    table, problems = release.read()
    assert not len(problems)
    reasons = {record["study_id"]: record["reason"] for record in table.unreadable_reports}
    assert reasons == {"50000001": "byte 11 is not UTF-8", "50000002": "empty", "50000003": "missing"}
    assert table.unreadable_reports[0]["path"] == str(release.root / names[0])
    assert table.counts["reports_unreadable"] == 3
    assert table.reports["study_id"].tolist() == ["50000005"]
    assert len(table.images) == 4


def test_report_without_findings_is_counted(release: Release) -> None:
    release.reports[f"{image_path('11000004', '50000005')}.txt"] = b" INDICATION: Cough.\n\n IMPRESSION: Normal.\n"
    release.write_jpg()
    table, _ = release.read()
    assert table.counts["studies_without_findings"] == 1
    assert "50000005" not in set(table.reports["study_id"])
    assert "e-1" in set(table.images["source_id"])


def test_non_ascii_report_is_kept(release: Release) -> None:
    release.reports[f"{image_path('11000004', '50000005')}.txt"] = " FINDINGS: 37\u00b0.\n".encode()
    release.write_jpg()
    assert release.read()[0].reports["report"].tolist()[-1] == "37\u00b0."


def test_no_report_at_all_names_the_remedy(release: Release) -> None:
    release.reports = {}
    release.write_jpg()
    with pytest.raises(DatasetError, match=r"none of the other 3.*data\.reports\.report_root"):
        release.read()


def test_reports_that_are_all_there_but_unreadable_are_not_said_to_be_missing(release: Release) -> None:
    release.reports = dict.fromkeys(release.reports, b"\xff")
    release.write_jpg()
    table, _ = release.read()
    assert {record["reason"] for record in table.unreadable_reports} == {"byte 0 is not UTF-8"}
    assert table.reports.empty and len(table.images) == 4


def test_hand_made_section_rules_beside_the_reports(release: Release) -> None:
    release.write_jpg()
    (release.root / "section_exceptions.csv").write_text("study_id,section,start,end\ns50000005,impression,,\n")
    reports = release.read()[0].reports.set_index("study_id")["report"]
    assert reports["50000005"] == "Normal."
    assert reports["50000001"] == "The lungs are clear."


def kinds_and_text(problems: Problems) -> tuple[list[str], str]:
    return sorted(problems.counts()), problems.text()


@pytest.mark.parametrize("bad", ["../x", "a/b", "..", "a..b", "", "a b"])
def test_bad_image_id(release: Release, bad: str) -> None:
    release.split[1] = f"{bad},50000001,10000001,train"
    release.write_jpg()
    table, problems = release.read()
    kinds, text = kinds_and_text(problems)
    assert kinds == ["bad_id"]
    assert "mimic-cxr-2.0.0-split.csv.gz: row 2: got dicom_id" in text
    assert bad == "" or not table.images["source_id"].str.contains(bad, regex=False).any()


def test_study_id_that_is_no_number(release: Release) -> None:
    release.split[2] = "b-1,../5,10000001,train"
    release.write_jpg()
    assert "row 3: got study_id '../5'; expected digits" in release.read()[1].text()


def test_duplicate_image_id(release: Release) -> None:
    release.split.append(release.split[0])
    release.write_jpg()
    table, problems = release.read()
    assert kinds_and_text(problems)[0] == ["duplicate_id"]
    assert "row 7: got dicom_id 'a-1' again" in problems.text()
    assert table.images["source_id"].is_unique


def test_unknown_split(release: Release) -> None:
    release.split[0] = "a-1,50000001,10000001,dev"
    release.write_jpg()
    assert "row 1: got split 'dev'; expected train, validate or test" in release.read()[1].text()


def test_patient_in_two_splits(release: Release) -> None:
    release.split[2] = "b-1,50000002,10000001,test"
    release.write_jpg()
    kinds, text = kinds_and_text(release.read()[1])
    assert kinds == ["patient_in_two_splits"]
    assert "subject_id 10000001: got split test, train; expected one split" in text


def test_study_of_two_patients(release: Release) -> None:
    release.split[1] = "a-2,50000001,10000009,train"
    release.metadata[1] = "a-2,10000009,50000001,LATERAL,1,1"
    release.write_jpg()
    assert kinds_and_text(release.read()[1])[0] == ["study_of_two_patients"]


def test_image_without_metadata_or_with_another_patient(release: Release) -> None:
    release.metadata[2] = "zzz,10000001,50000002,AP,1,1"
    release.metadata[3] = "c-1,10000009,50000003,PA,1,1"
    release.write_jpg()
    table, problems = release.read()
    assert kinds_and_text(problems)[0] == ["metadata_of_another_study", "no_metadata"]
    assert "image b-1: got no row" in problems.text()
    assert table.counts["metadata_rows_without_image"] == 1


@pytest.mark.parametrize("size", ["-5", "abc", "1.5", "nan", "inf"])
def test_bad_size(release: Release, size: str) -> None:
    release.metadata[0] = f"a-1,10000001,50000001,PA,{size},3056"
    release.write_jpg()
    table, problems = release.read()
    assert f"row 1: got Rows '{size}'" in problems.text()
    assert table.images["source_height"].tolist()[0] == 0


def test_empty_size_means_the_file_tells(release: Release) -> None:
    release.metadata[0] = "a-1,10000001,50000001,PA,,"
    release.write_jpg()
    table, problems = release.read()
    assert not len(problems)
    assert table.images.loc[0, ["source_height", "source_width"]].tolist() == [0, 0]


def test_empty_table(release: Release) -> None:
    release.write_jpg()
    (release.root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DatasetError, match=r"split\.csv\.gz: the file is empty"):
        release.read()


def test_missing_column(release: Release) -> None:
    release.write_jpg()
    release.write_table("mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,splits", release.split)
    with pytest.raises(DatasetError, match=r"missing column 'split' \(closest: 'splits'\)"):
        release.read()


def test_two_releases_are_ambiguous(release: Release) -> None:
    release.write_jpg("2.0.0")
    release.write_jpg("2.1.0")
    with pytest.raises(DatasetError, match=r"2 tables fit mimic-cxr-\*-split\.csv\[\.gz\].*expected one"):
        release.read()


def test_jpg_release_2_1_0_keeps_the_names_of_2_0_0_and_adds_a_labelled_test_set(release: Release) -> None:
    release.write_jpg()
    release.write_table("mimic-cxr-2.1.0-test-set-labeled.csv", "study_id,Atelectasis", ["50000004,1.0"])
    for labels in ("chexpert", "negbio"):
        release.write_table(f"mimic-cxr-2.0.0-{labels}.csv.gz", "subject_id,study_id,Atelectasis", ["11000003,50000004,1.0"])
    table, problems = release.read(views=[])
    assert not len(problems)
    assert len(table.images) == 6
    assert [needed.path.name for needed in mimic.required_files(release.settings())][2:] == [
        "mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-metadata.csv.gz",
    ]  # fmt: skip


def test_missing_table(release: Release) -> None:
    with pytest.raises(FileNotFoundError, match=r"Set cxr\.data\.reports\.root"):
        release.read()
    assert [needed.path.name for needed in mimic.required_files(release.settings())] == [
        "files", "files", "mimic-cxr-*-split.csv.gz", "mimic-cxr-*-metadata.csv.gz",
    ]  # fmt: skip


def test_views_are_read_by_the_one_rule(release: Release) -> None:
    """AP takes in every AP view, LATERAL is LL too, unknown names images that name none."""
    release.metadata = [line.replace(",AP,", ",AP AXIAL,").replace(",LATERAL,", ",LL,") for line in release.metadata]
    release.write_jpg()
    table, _ = release.read(views=["pa", "AP"])
    assert sorted(table.images["source_id"]) == ["a-1", "b-1", "c-1", "e-1"]
    assert (table.counts["images_dropped_view_LL"], table.counts["images_dropped_view_unknown"]) == (1, 1)
    table, _ = release.read(views=["lateral", "unknown"])
    assert sorted(table.images["source_id"]) == ["a-2", "d-1"]
    assert table.counts["images_dropped_view_AP AXIAL"] == 2 and sorted(table.images["view"]) == ["", "LL"]


def test_no_image_of_a_wanted_view(release: Release) -> None:
    release.write_jpg()
    with pytest.raises(
        ConfigError, match=r"cxr\.data\.reports\.views: no image has a view of LL; views found: .*LATERAL \(1\)"
    ):
        release.read(views=["LL"])


def test_dicom_release_with_the_tables_of_the_jpg_release(release: Release, tmp_path: Path) -> None:
    release.write_dicom()
    texts = Release(tmp_path / "tables")
    texts.write_jpg()
    table, problems = release.read(format="dicom", report_root=str(texts.root))
    assert not len(problems)
    assert table.images["source_id"].tolist() == ["a-1", "b-1", "c-1", "e-1"]
    assert table.images["path"].tolist()[0] == "files/p10/p10000001/s50000001/a-1.dcm"
    assert table.images["split"].tolist() == ["train", "train", "val", "test"]
    assert table.counts["studies_without_image"] == 1


def test_dicom_release_alone_gets_a_split_by_patient(release: Release) -> None:
    release.write_dicom()
    table, problems = release.read(format="dicom", views=[])
    assert not len(problems)
    assert set(table.images["split"]) == {"train", "val", "test"}
    assert table.images.groupby("subject_id")["split"].nunique().max() == 1
    again, _ = release.read(format="dicom", views=[])
    assert again.images.equals(table.images)
    assert set(table.images["view"]) == {""}


def write_dicom(path: Path, view: str) -> None:
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.ViewPosition = view
    header.Rows = header.Columns = 4
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation, header.SamplesPerPixel = 7, 0, 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelData = bytes(16)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


def test_seed_decides_the_split_of_a_dicom_release(release: Release) -> None:
    release.write_dicom()
    splits = {str(release.read(format="dicom", views=[], split_seed=seed)[0].images["split"].tolist()) for seed in range(6)}
    assert len(splits) > 1


def test_dicom_release_alone_takes_views_from_the_headers(release: Release) -> None:
    release.write_dicom()
    for image, study, subject, _, view in IMAGES:
        write_dicom(release.root / image_path(subject, study) / f"{image}.dcm", view)
    (release.root / image_path("10000002", "50000003") / "c-1.dcm").write_bytes(b"")
    table, problems = release.read(format="dicom")
    assert not len(problems)
    # c-1 is unreadable: it stays, so that the conversion reports it as such and not as an image of another view
    assert dict(zip(table.images["source_id"], table.images["view"], strict=True)) == {
        "a-1": "PA", "b-1": "AP", "c-1": "", "e-1": "AP",
    }  # fmt: skip
    assert table.counts["unreadable_headers"] == 1
    assert (table.counts["images_dropped_view_LATERAL"], table.counts["images_dropped_view_unknown"]) == (1, 1)


def test_dicom_path_outside_the_layout(release: Release) -> None:
    release.records[0] = release.records[0].replace("files/p10", "../../p10")
    release.write_dicom()
    table, problems = release.read(format="dicom", views=[])
    assert kinds_and_text(problems)[0] == ["bad_path"]
    assert "a-1" not in set(table.images["source_id"])


def test_inputs_are_not_written_to(release: Release) -> None:
    release.write_jpg()
    before = {path: path.stat().st_mtime_ns for path in release.root.rglob("*")}
    release.read()
    assert {path: path.stat().st_mtime_ns for path in release.root.rglob("*")} == before


@pytest.mark.parametrize(
    ("section", "says"), [("findings", "their whole text is taken as the findings"), ("impression", "they give no impression")]
)
def test_texts_without_any_header_are_counted_and_warned_of(
    release: Release, section: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    release.write_jpg()
    assert release.read(section=section)[0].counts["reports_without_header"] == 0
    assert caplog.text == ""
    headless = "files/p10/p10000001/s50000001.txt"
    release.reports[headless] = b"Chest film.  The lungs are clear."
    release.write_jpg()
    table, problems = release.read(section=section)
    assert not len(problems)
    assert table.counts["reports_without_header"] == 1
    assert table.counts["studies_with_report"] == (4 if section == "findings" else 3)
    assert "1 of 4 reports have no header that is known" in caplog.text
    assert says in caplog.text and headless in caplog.text


CONTEXT_REPORT = " INDICATION:  Cough.\n \n FINDINGS: \n \n The lungs are\n clear.\n"


def write_with_times(release: Release, times: dict[str, str]) -> None:
    """Write the release with reports that say why, and StudyDate,StudyTime by dicom_id."""
    release.reports |= {path: CONTEXT_REPORT.encode() for path in list(release.reports)[:2]}
    release.write_jpg()
    rows = [f"{row},{times.get(row.split(',')[0], ',')}" for row in release.metadata]
    header = "dicom_id,subject_id,study_id,ViewPosition,Rows,Columns,StudyDate,StudyTime"
    release.write_table("mimic-cxr-2.0.0-metadata.csv.gz", header, rows)


def test_why_and_when_a_study_was_taken(tmp_path: Path) -> None:
    release = Release(tmp_path / "mimic")
    write_with_times(
        release, {"a-1": "21800506,80556.875", "a-2": "21800506,80512", "b-1": "21800506,213014.5", "c-1": "2180,1"}
    )
    table = mimic.read_table(ReportSourceSettings(root=str(release.root), context=True), Problems())
    found = table.reports.set_index("study_id")
    assert found["indication"].to_dict() == {"50000001": "Cough.", "50000002": "Cough.", "50000003": "", "50000005": ""}
    times = found["study_time"].to_dict()
    assert times == {"50000001": "21800506080512.000000", "50000002": "21800506213014.500000", "50000003": "", "50000005": ""}
    assert table.counts["reports_with_indication"] == 2 and table.counts["reports_without_time"] == 2
    assert table.counts["studies_without_time"] == 3 and table.counts["indications_refused"] == 0


def test_without_the_switch_nothing_of_it_is_read(tmp_path: Path) -> None:
    release = Release(tmp_path / "mimic")
    write_with_times(release, {})
    table = mimic.read_table(ReportSourceSettings(root=str(release.root)), Problems())
    assert tuple(table.reports.columns) == REPORT_COLUMNS
    assert not any("indication" in name or "time" in name for name in table.counts)


def test_times_need_their_columns(tmp_path: Path) -> None:
    release = Release(tmp_path / "mimic")
    release.write_jpg()
    with pytest.raises(DatasetError, match="StudyDate"):
        mimic.read_table(ReportSourceSettings(root=str(release.root), context=True), Problems())


def test_a_study_that_no_rule_can_split_says_no_why(tmp_path: Path) -> None:
    release = Release(tmp_path / "mimic")
    write_with_times(release, {})
    (release.root / "section_exceptions.csv").write_text("study_id,section,start,end\n50000001,indication,,\n")
    table = mimic.read_table(ReportSourceSettings(root=str(release.root), context=True), Problems())
    found = table.reports.set_index("study_id").loc["50000001"]
    assert found["report"] == "Cough." and found["indication"] == ""
