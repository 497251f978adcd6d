"""The presentation state: outlines on the edges of pixels, labels, notice, grey levels as the reading saw them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from document_samples import BOXES, documents_of, errors_of, make_reading, run_program, write, write_image
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from radiograph_samples import draw_chest

from d2rnet.errors import DatasetError
from d2rnet.reading.content import Box

COLOUR_STATE = "1.2.840.10008.5.1.4.1.1.11.2"


def graphics(document: Dataset) -> list[Dataset]:
    """Outlines, in the order in which a viewer draws them."""
    annotations = document.GraphicAnnotationSequence
    return [graphic for annotation in annotations for graphic in annotation.get("GraphicObjectSequence", [])]


def labels(document: Dataset) -> list[Dataset]:
    return [text for one in document.GraphicAnnotationSequence for text in one.get("TextObjectSequence", [])]


def test_outlines_and_labels_refer_to_the_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "chest.dcm")
    state = documents_of(make_reading(path))["presentation"]
    last = graphics(state)[-1]
    assert last.GraphicData == [200, 500, 600, 500, 600, 800, 200, 800, 200, 500], "the surest box lies on top"
    assert (last.GraphicAnnotationUnits, last.GraphicType, last.GraphicFilled) == ("PIXEL", "POLYLINE", "N")
    nodule, heart, notice = labels(state)
    assert heart.UnformattedTextValue == "1 Cardiomegaly 0.91" and heart.AnchorPoint == [200, 500]
    assert nodule.UnformattedTextValue == "2 Nodule/Mass 0.55" and nodule.AnchorPoint == [100.5, 100.25]
    assert "not a medical device" in notice.UnformattedTextValue and "not verified" in notice.UnformattedTextValue
    assert notice.BoundingBoxAnnotationUnits == "DISPLAY"
    uid = dcmread(path).SOPInstanceUID
    for one in state.GraphicAnnotationSequence:
        assert one.ReferencedImageSequence[0].ReferencedSOPInstanceUID == uid
    (area,) = state.DisplayedAreaSelectionSequence
    assert (area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner) == ([1, 1], [800, 1000])


def test_each_class_has_a_layer_in_its_colour(tmp_path: Path) -> None:
    state = documents_of(make_reading(write_image(tmp_path / "chest.dcm")))["presentation"]
    layers = {layer.GraphicLayer: layer for layer in state.GraphicLayerSequence}
    assert list(layers) == ["CXR04", "CXR16", "NOTICE"] and layers["CXR04"].GraphicLayerDescription == "Cardiomegaly"
    assert len({tuple(layer.GraphicLayerRecommendedDisplayCIELabValue) for layer in layers.values()}) == 3


def test_drawn_outline_runs_along_the_edges_of_a_painted_rectangle(tmp_path: Path) -> None:
    """Drawn at eight times the size from the file alone, it separates painted pixels from the others, to an eighth of one."""
    pixels = np.full((40, 50), 20, np.uint8)
    pixels[12:20, 5:30] = 200
    box = Box(0, "ILD", 0.5, (5.0, 12.0, 25.0, 8.0))
    file = write(make_reading(write_image(tmp_path / "a.dcm", pixels), boxes=(box,)), tmp_path)["presentation"]
    (outline,) = graphics(dcmread(file))
    corners = np.array(outline.GraphicData).reshape(-1, 2) * 8
    inside = np.zeros((320, 400), bool)
    (left, top), (right, bottom) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int)
    inside[top:bottom, left:right] = True
    large = pixels.repeat(8, axis=0).repeat(8, axis=1)
    np.testing.assert_array_equal(inside, large == 200)


def lut(first: int, entries: np.ndarray, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


GREY: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": "2000", "WindowWidth": "1500"},
    "several windows": {"WindowCenter": ["1800", "900"], "WindowWidth": ["2600", "100"]},
    "exact window": {"WindowCenter": "2000", "WindowWidth": "1500", "VOILUTFunction": "LINEAR_EXACT"},
    "rescaled": {"RescaleSlope": "0.5", "RescaleIntercept": "-100", "WindowCenter": "900", "WindowWidth": "700"},
    "negative": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "2000", "WindowWidth": "1500"},
    "decimal comma": {"WindowCenter": "2000.5", "WindowWidth": "1500"},
    "VOI LUT": {"VOILUTSequence": lut(0, np.sqrt(np.arange(4096) / 4095) * 4095, 12)},
    "modality LUT": {
        "ModalityLUTSequence": lut(0, np.arange(4096)[::-1] * 16, 16),
        "WindowCenter": "32000",
        "WindowWidth": "28000",
    },
}


@pytest.mark.parametrize("kind", GREY)
@pytest.mark.filterwarnings("ignore")
def test_grey_levels_are_those_that_the_reading_saw(tmp_path: Path, kind: str) -> None:
    """As DCMTK renders the image through the presentation state, with its own reading of the header."""
    stored = (draw_chest((120, 90), 4).astype(np.uint16) * 16 + 7) % 4096
    attributes = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelData": stored.astype("<u2").tobytes()}
    path = write_image(tmp_path / "chest.dcm", stored.astype(np.uint8), **attributes, **GREY[kind])
    if kind == "decimal comma":
        path.write_bytes(path.read_bytes().replace(b"2000.5", b"2000,5"))
    reading = make_reading(path, boxes=(Box(0, "ILD", 0.5, (5.0, 12.0, 25.0, 8.0)),))
    file = write(reading, tmp_path)["presentation"]
    run_program(["dcmp2pgm", "-p", file, path, tmp_path / "shown.pgm"], "dcmtk")
    shown = np.asarray(Image.open(tmp_path / "shown.pgm")).astype(int)
    seen = reading.images[0].pixels.astype(int)
    assert np.ptp(seen) > 150, "the case shows nothing"
    assert np.abs(shown - seen).max() <= 1, "rounding"
    assert errors_of(file) == []


def test_dcmtk_accepts_it(tmp_path: Path) -> None:
    plain = {"PatientName": "Smith^Jane", "ReferringPhysicianName": ""}  # it knows no character sets
    file = write(make_reading(write_image(tmp_path / "chest.dcm", **plain)), tmp_path)["presentation"]
    assert "Test passed" in run_program(["dcmpschk", file], "dcmtk")


def test_picture_in_colour_has_a_state_of_its_kind(tmp_path: Path) -> None:
    pixels = np.stack([draw_chest((60, 50), seed) for seed in range(3)], axis=-1)
    path = write_image(
        tmp_path / "colour.dcm",
        pixels[..., 0],
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=pixels.tobytes(),
    )
    file = write(make_reading(path, boxes=(Box(0, "ILD", 0.5, (5.0, 12.0, 25.0, 8.0)),)), tmp_path)["presentation"]
    state = dcmread(file)
    assert state.SOPClassUID == COLOUR_STATE and state.ICCProfile and len(graphics(state)) == 1
    assert errors_of(file) == []


@pytest.mark.filterwarnings("ignore")
def test_grey_levels_that_cannot_be_stated_are_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "chest.dcm", draw_chest((60, 50), 1), RescaleSlope="0")
    reading = make_reading(write_image(tmp_path / "sound.dcm", draw_chest((60, 50), 1)), boxes=BOXES[:1])
    from d2rnet.reading.dicom.documents import DicomExport

    export = DicomExport(tmp_path)
    with pytest.raises(DatasetError, match=r"chest\.dcm: got rescale slope 0"):
        export.documents(reading, export.sources([path]))


def test_nothing_of_it_changes_the_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "chest.dcm", SeriesInstanceUID=generate_uid())
    before = path.read_bytes()
    state = documents_of(make_reading(path))["presentation"]
    assert path.read_bytes() == before and "PixelData" not in state and state.Modality == "PR"
