"""Open-i reports and images, made up in Open-i's layout; the real collection is used where it is present."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.sources import openi
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.cxr.sources.tables import REPORT_COLUMNS, REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("D2RNET_SHARED", REPOSITORY.parent / "shared")) / "data" / "iu_xray_openi"


def xml(number: int, *images: str, findings: str = "Lungs are\n clear. XXXX.", head: str = "") -> bytes:
    parents = "".join(f'<parentImage id="{image}"><caption>PA</caption></parentImage>' for image in images)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<eCitation><uId id="CXR{number}"/><Abstract>'
        f'<AbstractText Label="COMPARISON"/><AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">Normal {number}.</AbstractText></Abstract>{parents}</eCitation>'
    ).encode()


class Collection:
    """A small Open-i collection on disk, editable before it is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reports = {f"{number}.xml": xml(number, f"CXR{number}_IM-000{number}-1001") for number in range(1, 6)}
        self.images = [f"images/CXR{number}_IM-000{number}-1001.png" for number in range(1, 6)]

    def write(self, *, packed: bool = True) -> None:
        for name in self.images:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(b"")
        if packed:
            with tarfile.open(self.root / "NLMCXR_reports.tgz", "w:gz") as archive:
                for name, content in self.reports.items():
                    member = tarfile.TarInfo(f"ecgen-radiology/{name}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            return
        (self.root / "ecgen-radiology").mkdir(parents=True)
        for name, content in self.reports.items():
            (self.root / "ecgen-radiology" / name).write_bytes(content)

    def settings(self, **changes: Any) -> ReportSourceSettings:
        return ReportSourceSettings(source="openi", root=str(self.root), views=()).replaced(**changes)

    def read(self, **changes: Any) -> tuple[ReportTable, Problems]:
        problems = Problems()
        return openi.read_table(self.settings(**changes), problems), problems


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def test_seed_decides_the_split(collection: Collection) -> None:
    collection.write()
    splits = {str(collection.read(split_seed=seed)[0].reports["split"].tolist()) for seed in range(6)}
    assert len(splits) > 1


@pytest.mark.parametrize("packed", [True, False])
def test_collection(collection: Collection, packed: bool) -> None:
    collection.write(packed=packed)
    table, problems = collection.read()
    assert not len(problems)
    assert tuple(table.images.columns) == REPORT_IMAGE_COLUMNS
    assert tuple(table.reports.columns) == REPORT_COLUMNS
    assert table.images["source_id"].tolist() == [f"CXR{number}_IM-000{number}-1001" for number in range(1, 6)]
    assert table.images["path"].tolist() == collection.images
    assert table.images["subject_id"].tolist() == table.images["study_id"].tolist() == [f"CXR{n}" for n in range(1, 6)]
    assert set(table.reports["report"]) == {"Lungs are clear. XXXX."}
    assert set(table.images["split"]) == set(table.reports["split"]) == {"train", "val", "test"}
    again, _ = collection.read()
    assert again.images.equals(table.images)
    assert [needed.path.exists() for needed in openi.required_files(collection.settings())] == [True, True]


@pytest.mark.parametrize("place", ["NLMCXR_reports.tgz", ".", "ecgen-radiology"])
def test_report_root(collection: Collection, tmp_path: Path, place: str) -> None:
    collection.root = tmp_path / "given"
    collection.write(packed=place != "ecgen-radiology")
    images = tmp_path / "given" / "images"
    table, _ = collection.read(root=str(images), report_root=str(tmp_path / "given" / place))
    assert len(table.reports) == 5
    assert table.images["path"].tolist()[0] == "CXR1_IM-0001-1001.png"
    missing = collection.settings(report_root=str(tmp_path / "absent.tgz"))
    assert openi.required_files(missing)[1].path == tmp_path / "absent.tgz"


def test_indication_as_the_xml_names_it_and_nothing_of_the_findings(collection: Collection) -> None:
    comparison = b'<AbstractText Label="COMPARISON"/>'
    density = b"Patchy right basal density"
    collection.reports["4.xml"] = xml(4, "CXR4_IM-0004-1001", findings=f"Heart normal. {density.decode()}.")
    whys = {1: b"Chest pain.\n XXXX", 2: b"Fever. The lungs are clear.", 3: b"Fever, normal 3.", 4: density + b"?"}
    for number, text in whys.items():
        why = b'<AbstractText Label="INDICATION">' + text + b"</AbstractText>" + comparison
        collection.reports[f"{number}.xml"] = collection.reports[f"{number}.xml"].replace(comparison, why)
    collection.write()
    table, _ = collection.read(context=True)
    found = table.reports.set_index("study_id")["indication"].to_dict()
    assert found == {"CXR1": "Chest pain. XXXX", "CXR2": "Fever.", "CXR3": "Fever, normal 3.", "CXR4": "", "CXR5": ""}
    assert table.counts["indications_cut_before_findings"] == 1 and table.counts["indications_refused"] == 1
    assert set(table.reports["study_time"]) == {""}


def test_impression(collection: Collection) -> None:
    collection.write()
    assert collection.read(section="impression")[0].reports["report"].tolist()[1] == "Normal 2."


def test_names_of_the_dicom_collection(collection: Collection) -> None:
    collection.reports["1.xml"] = xml(1, "CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
    collection.images[:2] = ["1/1_IM-0001-3001.dcm", "1/1_IM-0001-4001.dcm", "2/2_IM-0002-1001.dcm"]
    collection.write()
    images = collection.read()[0].images
    assert images["source_id"].tolist()[:3] == ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0002-1001"]
    assert images["path"].tolist()[:3] == ["1/1_IM-0001-3001.dcm", "1/1_IM-0001-4001.dcm", "2/2_IM-0002-1001.dcm"]


def test_names_of_the_copy_on_kaggle(collection: Collection) -> None:
    collection.reports["1.xml"] = xml(1, "CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
    names = ["1_IM-0001-3001.dcm.png", "1_IM-0001-4001.DCM.PNG", *(f"{n}_IM-000{n}-1001.dcm.png" for n in range(2, 6))]
    collection.images = [f"images_normalized/{name}" for name in names]
    collection.write()
    table, problems = collection.read()
    assert not len(problems)
    assert table.counts["images_absent"] == table.counts["images_without_report"] == 0
    assert dict(zip(table.images["source_id"], table.images["path"], strict=True)) == {
        "CXR1_1_IM-0001-3001": collection.images[0],
        "CXR1_1_IM-0001-4001": collection.images[1],
        **{f"CXR{n}_IM-000{n}-1001": f"images_normalized/{n}_IM-000{n}-1001.dcm.png" for n in range(2, 6)},
    }


def test_an_image_under_both_names_is_a_repeated_one(collection: Collection) -> None:
    collection.images.append("kaggle/3_IM-0003-1001.dcm.png")
    collection.write()
    assert collection.read()[1].counts() == {"duplicate_id": 1}


def test_absent_images_and_studies_are_counted(collection: Collection) -> None:
    collection.reports["6.xml"] = xml(6)
    collection.reports["5.xml"] = xml(5, "CXR5_IM-0005-1001", "CXR5_IM-0005-2001")
    collection.images[0] = "images/CXR9_IM-0009-1001.png"
    collection.write()
    table, _ = collection.read()
    assert {key: table.counts[key] for key in ("studies_in_table", "studies_without_image", "studies_with_images_absent",
                                               "images_absent", "images_without_report", "images_in_table")} == {
        "studies_in_table": 6, "studies_without_image": 1, "studies_with_images_absent": 1, "images_absent": 2,
        "images_without_report": 1, "images_in_table": 4,
    }  # fmt: skip
    assert table.images["study_id"].tolist() == ["CXR2", "CXR3", "CXR4", "CXR5"]


def test_study_without_findings_trains_the_detector_alone(collection: Collection) -> None:
    for number in (1, 2):
        collection.reports[f"{number}.xml"] = xml(number, f"CXR{number}_IM-000{number}-1001", findings=" ")
    collection.write()
    table, _ = collection.read()
    assert table.counts["studies_without_findings"] == 2
    assert table.images.set_index("study_id")["split"][["CXR1", "CXR2"]].tolist() == ["train", "train"]
    assert sorted(table.reports["split"]) == ["test", "train", "val"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe<", "byte 0 is not UTF-8"),
        (b"", "not well-formed XML"),
        (b"<eCitation><uId id='CXR1'/>", "not well-formed XML"),
        (b"<eCitation/>", "uId ''; expected an id"),
        (b"<eCitation><uId id='../1'/></eCitation>", "uId '../1'"),
        (xml(1, head='<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]>', findings="&c;"), "declares a document type"),
        (b" " * 1_000_001, "larger than 1000000 bytes"),
    ],
)
def test_unreadable_report_is_set_aside(collection: Collection, content: bytes, reason: str) -> None:
    collection.reports["1.xml"] = content
    collection.write()
    table, problems = collection.read()
    assert not len(problems)
    assert table.counts["reports_unreadable"] == 1
    assert table.unreadable_reports[0]["study_id"] == "CXR1"
    assert reason in table.unreadable_reports[0]["reason"]
    assert table.images["study_id"].tolist() == ["CXR2", "CXR3", "CXR4", "CXR5"]


def test_repeated_report_and_image(collection: Collection) -> None:
    collection.reports["6.xml"] = xml(5)
    collection.reports["7.xml"] = xml(7, "CXR4_IM-0004-1001")
    collection.images.append("again/3_IM-0003-1001.dcm")
    collection.write()
    _, problems = collection.read()
    assert problems.counts() == {"duplicate_id": 2, "image_of_two_reports": 1}
    assert "uId CXR5: got again" in problems.text()
    assert (
        "images/CXR3_IM-0003-1001.png: got the image 3_IM-0003-1001 again, after again/3_IM-0003-1001.dcm" in problems.text()
    )
    assert "parentImage CXR4_IM-0004-1001: got listed by CXR4 too" in problems.text()


def test_no_image_at_all(collection: Collection) -> None:
    collection.images = ["images/other.png"]
    collection.write()
    with pytest.raises(DatasetError, match=r"none of the 5 images.*CXR54_IM-2145-1001\.png.*Set cxr\.data\.reports\.root"):
        collection.read()


def test_no_reports_and_damaged_archive(collection: Collection) -> None:
    collection.write()
    archive = collection.root / "NLMCXR_reports.tgz"
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DatasetError, match="damaged or truncated archive"):
        collection.read()
    archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"set cxr\.data\.reports\.report_root to NLMCXR_reports\.tgz"):
        collection.read()
    (collection.root / "ecgen-radiology").mkdir()
    with pytest.raises(DatasetError, match="none readable"):
        collection.read()


def test_views_cannot_be_asked_for(collection: Collection) -> None:
    collection.write()
    with pytest.raises(ConfigError, match=r"Open-i.*need views: \[\]"):
        collection.read(views=["PA"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the Open-i sample is not on this machine (D2RNET_SHARED)")
def test_real_sample() -> None:
    settings = ReportSourceSettings(source="openi", root=str(SHARED), views=())
    problems = Problems()
    table = openi.read_table(settings, problems)
    assert not len(problems)
    assert table.counts["studies_in_table"] == 3955
    assert table.counts["studies_without_image"] == 104
    assert (len(table.images), len(table.reports)) == (8, 5)
    assert set(table.reports["split"]) == {"train", "val", "test"}
    assert table.reports["report"].str.len().min() > 20
