"""What the check of a DICOM header passes, the pixel stage reads: headers drawn by mutation."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from dicom_samples import WINDOW, chest, data_set
from hypothesis import given
from hypothesis import strategies as st
from property_settings import QUICK
from pydicom import Dataset, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from d2rnet.cxr.images.radiograph import reduced_hw
from d2rnet.cxr.images.reader import read_header, read_radiograph
from d2rnet.errors import DatasetError

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless)
STORED = {bits: chest(64, 64, bits) for bits in (8, 12)}
_TEXTS = st.sampled_from(["", " ", "1", "0", "-1", "2,5", "1e3", "nan", "inf", "abc", "1\\2", "999999999999", "4096", "2048"])
_WHOLE = st.sampled_from([None, 0, 1, 7, 8, 11, 12, 15, 16, 255, 4095, 32768, 65535])


def _lut() -> st.SearchStrategy[list[Dataset]]:
    def item(descriptor: list[int] | None, entries: int | None, explanation: bool) -> Dataset:
        made = Dataset()
        if descriptor is not None:
            made.add(DataElement("LUTDescriptor", "US", descriptor))
        if entries is not None:
            made.add(DataElement("LUTData", "OW", bytes(range(256)) * (entries // 128) + bytes(2 * (entries % 128))))
        if explanation:
            made.LUTExplanation = "drawn"
        return made

    descriptors = st.one_of(
        st.none(), st.lists(_WHOLE.filter(lambda value: value is not None), max_size=3).map(lambda values: values or [])
    )
    return st.lists(st.builds(item, descriptors, st.sampled_from([None, 0, 1, 256, 4096]), st.booleans()), max_size=2)


_CHANGES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "WindowCenter": ("DS", _TEXTS),
    "WindowWidth": ("DS", _TEXTS),
    "RescaleSlope": ("DS", _TEXTS),
    "RescaleIntercept": ("DS", _TEXTS),
    "NumberOfFrames": ("IS", st.sampled_from(["", "1", "0", "2"])),
    "VOILUTFunction": ("CS", st.sampled_from(["", "LINEAR", "SIGMOID", "LINEAR_EXACT", "OTHER"])),
    "HighBit": ("US", _WHOLE),
    "BitsStored": ("US", _WHOLE),
    "BitsAllocated": ("US", _WHOLE),
    "PixelRepresentation": ("US", st.sampled_from([None, 0, 1, 2])),
    "SamplesPerPixel": ("US", st.sampled_from([None, 1, 3])),
    "PlanarConfiguration": ("US", st.sampled_from([None, 0, 1])),
    "PixelPaddingValue": ("US", _WHOLE),
    "PixelPaddingRangeLimit": ("US", _WHOLE),
    "Rows": ("US", st.sampled_from([None, 0, 64, 63, 65])),
    "PhotometricInterpretation": ("CS", st.sampled_from(["", "MONOCHROME1", "MONOCHROME2", "RGB", "ODD"])),
    "ViewPosition": ("CS", st.sampled_from(["", "PA", "odd"])),
    "ModalityLUTSequence": ("SQ", _lut()),
    "VOILUTSequence": ("SQ", _lut()),
}


_GEOMETRY = ("Rows", "BitsStored", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation")


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(_CHANGES)), max_size=4, unique=True))
    return {name: draw(_CHANGES[name][1]) for name in names}


@QUICK
@given(st.sampled_from(SYNTAXES), st.sampled_from(sorted(STORED)), changes(), st.sampled_from([0, 0, 0, 8, 9, 40]))
def test_what_the_header_check_passes_is_read(syntax, bits, changed, cut):
    if syntax.is_encapsulated:  # what compressed data hold is known once they are decoded
        changed = {name: value for name, value in changed.items() if name not in _GEOMETRY}
    dataset = data_set(STORED[bits], syntax, **WINDOW)
    written: dict[bytes, bytes] = {}
    for number, (name, value) in enumerate(changed.items()):
        representation = _CHANGES[name][0]
        if representation in ("DS", "IS"):  # pydicom writes no wrong number: a right one is replaced in the file
            right = f"{90000000 + number:012d}"
            written[right.encode()] = value[:12].ljust(12).encode()
            value = right
        dataset[name] = DataElement(name, representation, value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.dcm"
        dcmwrite(path, dataset, enforce_file_format=True)
        content = path.read_bytes()
        for right, odd in written.items():
            content = content.replace(right, odd)
        path.write_bytes(content[: len(content) - cut])
        try:
            header = read_header(path)
        except DatasetError as error:
            assert "expected" in str(error)
            return
        for side in (None, 16):  # whole and averaged
            radiograph = read_radiograph(path, max_side_px=side)
            assert radiograph.pixels.shape == reduced_hw(header.height, header.width, side)
            assert radiograph.pixels.dtype == np.uint8
