"""What documents take over from images: patient and study word for word, nothing else; what has no study is refused."""

from pathlib import Path

import numpy as np
import pytest
from document_samples import PATIENT, STUDY, documents_of, make_reading, write, write_image
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.uid import generate_uid
from radiograph_samples import draw_chest, write_dicom

from d2rnet.errors import DatasetError
from d2rnet.reading.content import Sentence
from d2rnet.reading.dicom.source import IDENTITY, read_sources

NOT_TOLD = "Do^Not^Tell"


def test_patient_and_study_are_taken_over_in_every_document(tmp_path: Path) -> None:
    files = write(make_reading(write_image(tmp_path / "chest.dcm")), tmp_path)
    for document in map(dcmread, files.values()):
        assert {name: document[name].value for name in PATIENT} == PATIENT
        assert document.SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 100", "Müller^Jürgen"), ("ISO_IR 144", "Щукин^Ждан"), ("ISO_IR 192", "李^明"), (None, "Smith^Jane")],
)
@pytest.mark.parametrize("text", ["Size: 3 cm.", "Größe: 3 µm, 心."])
def test_names_in_any_character_set_stay_names(tmp_path: Path, character_set: str | None, name: str, text: str) -> None:
    path = write_image(tmp_path / "a.dcm", SpecificCharacterSet=character_set, PatientName=name, ReferringPhysicianName="")
    report = dcmread(write(make_reading(path, sentences=(Sentence(text, (), None),)), tmp_path)["report"])
    assert str(report.PatientName) == name
    assert report.ContentSequence[-1].ContentSequence[0].TextValue == text
    kept = dcmread(path).get("SpecificCharacterSet") or None
    assert report.get("SpecificCharacterSet") == (kept if text.isascii() else "ISO_IR 192")


def test_nothing_else_of_the_header_is_told(tmp_path: Path) -> None:
    unwanted = {"InstitutionName": NOT_TOLD, "OperatorsName": NOT_TOLD, "PatientComments": NOT_TOLD, "StationName": NOT_TOLD}
    path = write_image(tmp_path / "chest.dcm", **unwanted, SeriesDescription=NOT_TOLD, PatientAddress=NOT_TOLD)
    for file in write(make_reading(path), tmp_path).values():
        assert NOT_TOLD.encode() not in file.read_bytes()


def test_what_is_absent_is_blank_or_absent(tmp_path: Path) -> None:
    path = write_image(tmp_path / "chest.dcm", **dict.fromkeys(set(PATIENT) - {"StudyInstanceUID"}, ""))
    dataset = dcmread(path)
    for name in set(PATIENT) - {"StudyInstanceUID"}:
        del dataset[name]
    dcmwrite(path, dataset)
    for document in documents_of(make_reading(path)).values():
        assert document.StudyInstanceUID == STUDY and document.PatientID == "" and str(document.PatientName) == ""
        assert "StudyDescription" not in document


@pytest.mark.filterwarnings("ignore")
def test_odd_values_of_patient_and_study_stay_as_they_are(tmp_path: Path) -> None:
    odd = {
        "PatientSex": "U",
        "PatientBirthDate": "19 May 1950",
        "PatientID": "x" * 80,
        "StudyTime": "noon",
        "StudyDate": "2020",
    }
    files = write(make_reading(write_image(tmp_path / "chest.dcm", **odd)), tmp_path)
    for document in map(dcmread, files.values()):
        assert {name: document[name].value for name in odd} == odd


def test_no_dicom_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG")):
        picture = tmp_path / f"chest.{suffix}"
        Image.fromarray(draw_chest((90, 80), 5)).save(picture)
        with pytest.raises(DatasetError, match=rf"chest\.{suffix}: got {kind}; expected a DICOM file.*leave out --dicom-sr"):
            read_sources([picture])
    (tmp_path / "scan.nii").write_bytes(b"\0" * 400)
    with pytest.raises(DatasetError, match=r"scan\.nii: got no DICOM file; expected a DICOM file"):
        read_sources([tmp_path / "scan.nii"])


@pytest.mark.parametrize("value", ["", "1.2.x", "1." * 40 + "1"])
@pytest.mark.filterwarnings("ignore")
def test_image_without_study_is_refused_by_name(tmp_path: Path, value: str) -> None:
    path = write_image(tmp_path / "chest.dcm", StudyInstanceUID=value)
    with pytest.raises(DatasetError, match=r"chest\.dcm: got no valid StudyInstanceUID; expected .*leave out --dicom-sr"):
        read_sources([path])


def test_all_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "chest.dcm", draw_chest((60, 50), 1))
    with pytest.raises(DatasetError, match="no valid SeriesInstanceUID and no valid StudyInstanceUID"):
        read_sources([path])


def test_identity_of_the_file_meta_information_counts(tmp_path: Path) -> None:
    path = write_image(tmp_path / "chest.dcm", draw_chest((60, 50), 1))
    whole = dcmread(path)
    uid = whole.SOPInstanceUID
    del whole.SOPInstanceUID
    dcmwrite(path, whole)
    (source,) = read_sources([path])
    assert source.identity.SOPInstanceUID == uid and all(source.identity[name].value for name in IDENTITY)


def test_images_of_two_studies_or_patients_make_no_document(tmp_path: Path) -> None:
    first = write_image(tmp_path / "a.dcm", draw_chest((60, 50), 1))
    other_study = write_image(tmp_path / "b.dcm", draw_chest((60, 50), 1), StudyInstanceUID=generate_uid())
    other_patient = write_image(tmp_path / "c.dcm", draw_chest((60, 50), 1), PatientID="somebody else")
    with pytest.raises(DatasetError, match=r"a\.dcm and 1 more: got images of 2 studies; expected those of one study"):
        read_sources([first, other_study])
    with pytest.raises(DatasetError, match="got images of 2 patients") as refused:
        read_sources([first, other_patient])
    assert "somebody" not in str(refused.value)


def test_damaged_header_is_refused_without_its_text(tmp_path: Path) -> None:
    path = write_image(tmp_path / "chest.dcm", np.zeros((4, 4), np.uint8), PatientName=NOT_TOLD)
    content = path.read_bytes()
    place = content.index(NOT_TOLD.encode())
    path.write_bytes(content[:place] + b"\xff" * 8)
    with pytest.raises(DatasetError) as refused:
        read_sources([path])
    assert "chest.dcm: got" in str(refused.value) and NOT_TOLD not in str(refused.value)
