"""The gate: what is no frontal chest radiograph is noticed, the certain told from the doubtful; sound files pass."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from d2rnet.cxr.images import reader
from d2rnet.cxr.images.gate import find_doubts, no_chest_radiograph
from d2rnet.cxr.images.radiograph import RadiographHeader
from d2rnet.cxr.images.reader import check_headers, look_at, read_header

SECRET = "Do^Not^Tell"
SIDE = 256


def picture(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width)).astype(np.uint8)


def write_dicom(path: Path, pixels: np.ndarray, *, rle: bool = False, **attributes: Any) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    if rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def doubts_of(path: Path, views: tuple[str, ...] = ("PA", "AP")) -> dict[str, bool]:
    """Kind -> certain or not; no text tells what is no term."""
    doubts = find_doubts(look_at(path, read_header(path)), views=views, max_side_px=1024)
    assert not any(SECRET.upper() in doubt.text.upper() for doubt in doubts)
    return {doubt.kind: doubt.is_certain for doubt in doubts}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {}),
        *(({"Modality": modality}, {}) for modality in ("CR", "DR", "RG", "RF", "", "cr ")),
        *(({"Modality": modality}, {"modality": True}) for modality in ("CT", "MR", "US", "XC", "PT", "MG", "NM", "XA", "PX")),
        *(({"Modality": modality}, {"modality": False}) for modality in ("OT", "SC", SECRET, "XRAY")),
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, {"modality": True}),  # CT
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}, {"modality": True}),  # enhanced MR
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, {"modality": True}),  # ultrasound
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"}, {"modality": True}),  # mammography
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"}, {}),  # digital X-ray
        ({"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, {}),  # secondary capture, as RSNA's
        *(
            ({"BodyPartExamined": part}, {})
            for part in ("", "THORAX", "Thorax a.p.", "CHEST PA", "PORT CHEST", "TORAX", "CHEST_TO_PELVIS", "LUNG", "UNKNOWN")
        ),
        *(
            ({"BodyPartExamined": part}, {"body_part": True})
            for part in ("HAND", "hand", "SKULL", "L-KNEE", "Hand PA", "TSPINE", "THORACIC SPINE", "ABDOMEN", "EXTREMITY")
        ),
        *(({"BodyPartExamined": part}, {"body_part": False}) for part in (SECRET, "RIB", "PROTOCOL 7")),
        *(
            ({"ViewPosition": view}, {"view": False})
            for view in ("LLO", "MLO", "Frontal", "PA oblique", SECRET, "LL", "LATERAL")
        ),
        *(({"ViewPosition": view}, {}) for view in ("", "AP", "pa ", "PA ERECT", "AP SUPINE", "ANTERO-POSTERIOR")),
        *(({"PatientOrientation": list(pair)}, {}) for pair in (("L", "F"), ("LA", "FP"), ("X", "Y"))),
        ({"PatientOrientation": ""}, {}),
        ({"PatientOrientation": "L"}, {}),
        *(
            ({"PatientOrientation": list(pair)}, {"orientation": False})
            for pair in (("R", "F"), ("L", "H"), ("R", "H"), ("F", "L"), ("H", "R"), ("A", "F"), ("P", "F"), ("L", "P"))
        ),
    ],
)
def test_what_the_header_states(tmp_path: Path, attributes: dict[str, Any], expected: dict[str, bool]) -> None:
    assert doubts_of(write_dicom(tmp_path / "a.dcm", picture(), **attributes)) == expected


def code(meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-0", "SRT", meaning
    return Sequence([item])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"AnatomicRegionSequence": code("Hand")}, {"body_part": True}),
        ({"AnatomicRegionSequence": code("Chest")}, {}),
        ({"AnatomicRegionSequence": code(SECRET)}, {"body_part": False}),
        ({"AnatomicRegionSequence": code("Hand"), "BodyPartExamined": "CHEST"}, {}),
        ({"AnatomicRegionSequence": Sequence([])}, {}),
        ({"SeriesDescription": "KNEE AP"}, {"body_part": False}),
        ({"ProtocolName": "Abdomen a.p."}, {"body_part": False}),
        ({"StudyDescription": "XR FOOT LEFT 2 VIEWS"}, {"body_part": False}),
        ({"RequestedProcedureDescription": "X-ray of the skull"}, {"body_part": False}),
        ({"StudyDescription": "XR CHEST AND ABDOMEN"}, {}),
        ({"StudyDescription": "Hip and chest", "SeriesDescription": "Thorax p.a."}, {}),
        ({"StudyDescription": "PORTABLE C-ARM"}, {}),
        ({"StudyDescription": SECRET}, {}),
        ({"SeriesDescription": "KNEE AP", "BodyPartExamined": "CHEST"}, {}),
        ({"ViewCodeSequence": code("Left anterior oblique"), "ViewPosition": ""}, {"view": False}),
        ({"ViewCodeSequence": code(SECRET), "ViewPosition": ""}, {"view": False}),
        ({"ViewCodeSequence": code("postero-anterior"), "ViewPosition": ""}, {}),
        ({"PatientSpeciesDescription": "Canine"}, {"species": True}),
        ({"PatientSpeciesDescription": SECRET}, {"species": False}),
        ({"PatientSpeciesCodeSequence": code("Felis catus")}, {"species": True}),
        ({"PatientSpeciesDescription": "Homo sapiens", "PatientSpeciesCodeSequence": code("homo sapiens")}, {}),
        ({"PatientSpeciesDescription": "unknown"}, {}),
        ({"Modality": "OT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, {"modality": True}),  # a CT slice as "other"
        ({"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"}, {"modality": False}),  # contradicts: mammography
        ({"Modality": "DX\0"}, {}),
    ],
)
def test_what_other_attributes_of_the_header_state(
    tmp_path: Path, attributes: dict[str, Any], expected: dict[str, bool]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(), **({"BodyPartExamined": ""} | attributes))
    assert doubts_of(path) == expected


def test_views_of_the_models_are_read_by_the_one_rule(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(), ViewPosition="postero-anterior")
    assert doubts_of(path, views=("pa",)) == {} and doubts_of(path, views=("PA LLD", "AP")) == {"view": False}


def test_a_lateral_view_runs_to_the_front_or_back(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(), ViewPosition="LL", PatientOrientation=["A", "F"])
    assert doubts_of(path, views=()) == {}
    assert doubts_of(path) == {"view": False}


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("R\\F: mirrored, so that right is left", ["R", "F"]),
        ("R\\H: turned by 180 degrees", ["R", "H"]),
        ("L\\H: upside down", ["L", "H"]),
        ("F\\L: turned on its side", ["F", "L"]),
    ],
)
def test_how_the_picture_is_turned_is_said(tmp_path: Path, text: str, pair: list[str]) -> None:
    path = write_dicom(tmp_path / "a.dcm", picture(), PatientOrientation=pair)
    (doubt,) = find_doubts(read_header(path), views=(), max_side_px=1024)
    assert doubt.text == f"PatientOrientation {text}; expected L\\F"


@pytest.mark.parametrize(
    ("hw", "max_side_px", "expected"),
    [
        ((200, 200), 1024, {}),
        ((199, 400), 1024, {"side": False, "aspect": False}),
        ((31, 31), 64, {"side": True}),
        ((32, 32), 64, {}),
        ((127, 200), 256, {"side": False}),
        ((128, 200), 256, {}),
        ((2000, 401), 1024, {"aspect": False}),
        ((2001, 400), 1024, {"aspect": True}),
        ((800, 400), 1024, {}),
    ],
)
def test_size_and_shape(hw: tuple[int, int], max_side_px: int, expected: dict[str, bool]) -> None:
    header = RadiographHeader(*hw, "PA", "L", "PNG", 8)
    doubts = find_doubts(header, views=(), max_side_px=max_side_px)
    assert {doubt.kind: doubt.is_certain for doubt in doubts} == expected


@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "raw.dcm", "rle.dcm", "deep.dcm"])
def test_one_grey_level_is_noticed_in_every_format(tmp_path: Path, name: str, level: int) -> None:
    path = tmp_path / name
    pixels = np.full((SIDE, SIDE), level, dtype=np.uint8)
    if path.suffix == ".dcm":
        deep = pixels.astype(np.uint16) * 13 if name == "deep.dcm" else pixels
        write_dicom(path, deep, rle=name == "rle.dcm")
    else:
        Image.fromarray(pixels).save(path)
    assert doubts_of(path) == {"one_grey_level": True}
    ((_, header, reason),) = check_headers([path], 1)
    assert reason is None and header is not None and header.one_grey_level


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "raw.dcm"])
def test_a_picture_with_a_black_middle_is_not_of_one_level(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pixels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    pixels[:40, :40] = 255
    write_dicom(path, pixels) if path.suffix == ".dcm" else Image.fromarray(pixels).save(path)
    assert doubts_of(path) == {}


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_colours_are_told_from_greys_stored_as_colour(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    grey = np.repeat(picture()[:, :, None], 3, axis=2)
    marked = grey.copy()
    marked[:12, :12] = (255, 255, 0)  # a burnt-in side marker
    coloured = grey.copy()
    coloured[: SIDE // 3] = (200, 40, 40)
    for pixels, expected in ((grey, {}), (marked, {}), (coloured, {"colour": False})):
        Image.fromarray(pixels).save(path)
        assert doubts_of(path) == expected
    assert doubts_of(write_dicom(tmp_path / "a.dcm", coloured)) == {"colour": False}


def test_the_reason_names_the_file_and_what_is_certain_alone() -> None:
    header = replace(RadiographHeader(300, 300, "", "L", "PNG", 8), modality="CT", other_view="LLO", one_grey_level=True)
    doubts = find_doubts(header, views=("PA",), max_side_px=1024)
    assert no_chest_radiograph(doubts, "x.dcm") == (
        "x.dcm: no chest radiograph: modality CT; expected radiography (CR, DR, DX, RF, RG); all pixels have one grey level. "
        "Leave it out."
    )
    assert no_chest_radiograph([doubt for doubt in doubts if not doubt.is_certain], "x.dcm") == ""


def test_real_chest_radiographs_pass(shared_data: Path) -> None:
    pictures = [*shared_data.glob("nih_chestxray14/images*/*.png"), *shared_data.glob("iu_xray_openi/images/*.png")]
    scans = [*shared_data.glob("rsna_dicom/*.dcm"), shared_data / "nema_wg04_dicom" / "RG1_JLSN.dcm"]
    assert len(pictures) > 100 and len(scans) == 3
    assert {path.name: doubts for path in (*pictures, *scans) if (doubts := doubts_of(path))} == {}


@pytest.mark.parametrize(
    ("coloured", "expected"),
    [
        ((), [False, None, False, None, False]),  # every second one is looked at
        ((1,), [False, None, False, None, False]),  # not among them
        ((2,), [False, False, True, False, False]),  # then all of them are
        ((0, 3), [True, False, False, True, False]),
    ],
)
def test_many_pictures_stored_in_colour_are_looked_at_by_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coloured: tuple[int, ...], expected: list[bool | None]
) -> None:
    monkeypatch.setattr(reader, "MOST_GLANCES", 3)
    files = []
    for number in range(5):
        pixels = np.dstack([picture()] * 3)
        if number in coloured:
            pixels[: SIDE // 3] = (200, 40, 40)
        files.append(tmp_path / f"{number}.jpg")
        Image.fromarray(pixels).save(files[-1])
    found = [header.is_coloured for _, header, _ in check_headers(files, 1) if header is not None]
    assert found == expected
