"""DICOM files that are odd and whole: blank tables, lost signs, missing delimiters and preambles; read, not refused."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_samples import WINDOW, chest, data_set, write
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from d2rnet.cxr.images.reader import read_header, read_radiograph
from d2rnet.errors import DatasetError

DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def pixels(path: Path) -> np.ndarray:
    """Read a file as verify_inputs and then the conversion do."""
    read_header(path)
    return read_radiograph(path).pixels


@pytest.fixture
def good(tmp_path: Path) -> np.ndarray:
    return pixels(write(tmp_path / "good.dcm", data_set(chest(), **WINDOW)))


def lut_item(**values: Any) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        representation = {"LUTDescriptor": "US", "LUTData": "US", "LUTExplanation": "LO"}[name]
        item.add(DataElement(name, representation, value))
    return item


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize(
    "items",
    [
        [lut_item()],
        [lut_item(LUTExplanation="linear")],
        [lut_item(LUTDescriptor=[4, 0, 8])],
        [lut_item(LUTDescriptor=None, LUTData=None)],
        [lut_item(LUTDescriptor=[], LUTData=[])],
        [],
    ],
    ids=["empty item", "explanation only", "no entries", "blank", "blank of another kind", "no item"],
)
def test_a_table_without_entries_is_none(tmp_path, good, keyword, items):
    path = write(tmp_path / "odd.dcm", data_set(chest(), **WINDOW, **{keyword: items}))
    np.testing.assert_array_equal(pixels(path), good)


def test_the_first_table_that_is_one_counts(tmp_path):
    table = lut_item(LUTDescriptor=[4096, 0, 8], LUTData=[255 - value // 16 for value in range(4096)])
    alone = pixels(write(tmp_path / "alone.dcm", data_set(chest(), VOILUTSequence=[table])))
    second = pixels(write(tmp_path / "second.dcm", data_set(chest(), VOILUTSequence=[lut_item(LUTExplanation="none"), table])))
    np.testing.assert_array_equal(second, alone)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("representation", ["OW", "US"])
def test_tables_in_either_byte_order(tmp_path, syntax, representation):
    entries = [(value * 16 + 5) % 65536 for value in range(4096)]
    item = lut_item(LUTDescriptor=[4096, 0, 16])
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    value = np.array(entries, dtype=f"{order}u2").tobytes() if representation == "OW" else entries
    item.add(DataElement("LUTData", representation, value))
    stored = chest()
    found = pixels(write(tmp_path / "lut.dcm", data_set(stored, syntax, VOILUTSequence=[item])))
    expected = np.floor(np.array(entries)[stored] / 65535 * 255 + 0.5)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "representation", "value"),
    [
        ("HighBit", "US", None),
        ("PixelPaddingValue", "US", None),
        ("PixelPaddingRangeLimit", "US", None),
        ("RescaleSlope", "DS", ""),
        ("RescaleIntercept", "DS", ""),
        ("NumberOfFrames", "IS", ""),
        ("VOILUTFunction", "CS", ""),
        ("WindowCenter", "DS", "2048\\1000"),
    ],
)
def test_blank_and_repeated_numbers(tmp_path, good, name, representation, value):
    dataset = data_set(chest(), **WINDOW)
    dataset[name] = DataElement(name, representation, value)
    if name == "WindowCenter":
        dataset["WindowWidth"] = DataElement("WindowWidth", "DS", "4096\\50")
    np.testing.assert_array_equal(pixels(write(tmp_path / "odd.dcm", dataset)), good)


@pytest.mark.parametrize(("written", "meant"), [(b"2048,0", 2048.0), (b"2.048E3 ", 2048.0), (b" 2048", 2048.0)])
def test_numbers_as_people_write_them(tmp_path, good, written, meant):
    dataset = data_set(chest(), WindowCenter="2048.00", WindowWidth=4096)
    path = write(tmp_path / "odd.dcm", dataset)
    path.write_bytes(path.read_bytes().replace(b"2048.00 ", written.ljust(8)))
    assert meant == 2048.0
    np.testing.assert_array_equal(pixels(path), good)


def test_a_number_that_is_none_counts_as_absent(tmp_path):
    dataset = data_set(chest(), RescaleSlope="2.00000", **WINDOW)
    path = write(tmp_path / "odd.dcm", dataset)
    path.write_bytes(path.read_bytes().replace(b"2.00000 ", b"unknown "))
    expected = pixels(write(tmp_path / "none.dcm", data_set(chest(), **WINDOW)))
    np.testing.assert_array_equal(pixels(path), expected)


@pytest.mark.parametrize(
    ("padding", "limit"),
    [(32768, None), (-32768, None), (32768, 32770), (32770, 32768), (98304, None), (32760, 32770)],
    ids=["without sign", "with sign", "a range without sign", "ends exchanged", "in more bits", "across the sign"],
)
def test_padding_without_its_sign(tmp_path, padding, limit):
    stored = chest().astype(np.int16) - 1000
    stored[:, :10] = -32768
    dataset = data_set(stored, BitsStored=16, HighBit=15)
    representation = "US" if 0 <= padding < 65536 else "SS" if padding < 0 else "UL"
    dataset[0x00280120] = DataElement(0x00280120, representation, padding)
    if limit is not None:
        dataset[0x00280121] = DataElement(0x00280121, "US", limit)
    found = pixels(write(tmp_path / "padded.dcm", dataset))
    clean = stored.copy()
    clean[:, :10] = stored[:, 10:].min()
    expected = pixels(write(tmp_path / "clean.dcm", data_set(clean, BitsStored=16, HighBit=15)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("tail", [b"", bytes(8), bytes(3), bytes(200)], ids=["cut", "eight zeros", "three", "many"])
def test_the_delimiter_may_be_missing(tmp_path, syntax, tail):
    path = write(tmp_path / "whole.dcm", data_set(chest(), syntax, **WINDOW))
    expected = pixels(path)
    whole = path.read_bytes()
    assert whole.endswith(DELIMITER)
    odd = tmp_path / "odd.dcm"
    odd.write_bytes(whole[: -len(DELIMITER)] + tail)
    np.testing.assert_array_equal(pixels(odd), expected)


@pytest.mark.parametrize("cut", [9, 20, 200])
def test_a_fragment_that_is_cut_off_is_refused_by_the_header(tmp_path, cut):
    path = write(tmp_path / "whole.dcm", data_set(chest(), JPEG2000Lossless, **WINDOW))
    odd = tmp_path / "odd.dcm"
    odd.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DatasetError, match="cut off"):
        read_header(odd)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("with_meta", [True, False])
def test_files_without_preamble(tmp_path, good, syntax, with_meta):
    dataset = data_set(chest(), syntax, ImageType=["ORIGINAL", "PRIMARY"], **WINDOW)
    path = write(tmp_path / "whole.dcm", dataset)
    whole = path.read_bytes()
    odd = tmp_path / "odd"
    if with_meta:
        odd.write_bytes(whole[132:])
    else:
        meta_length = struct.unpack("<I", whole[140:144])[0]
        odd.write_bytes(whole[144 + meta_length :])
    assert read_header(odd).transfer_syntax == syntax.name
    np.testing.assert_array_equal(pixels(odd), good)


def without_syntax(path: Path) -> None:
    """Take the transfer syntax out of the file meta information."""
    data = path.read_bytes()
    start = data.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack_from("<H", data, start + 6)[0]
    group_length = struct.unpack_from("<I", data, 140)[0] - 8 - length
    path.write_bytes(data[:140] + struct.pack("<I", group_length) + data[144:start] + data[start + 8 + length :])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_syntax_that_is_not_said_is_the_one_the_file_is_written_in(tmp_path, good, syntax):
    path = write(tmp_path / "odd.dcm", data_set(chest(), syntax, **WINDOW))
    without_syntax(path)
    assert read_header(path).transfer_syntax == syntax.name
    np.testing.assert_array_equal(pixels(path), good)


def test_compressed_pixels_of_no_known_syntax_are_refused(tmp_path):
    path = write(tmp_path / "odd.dcm", data_set(chest(), JPEG2000Lossless, **WINDOW))
    without_syntax(path)
    with pytest.raises(DatasetError, match="compressed pixel data in transfer syntax"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"08 00 plain text that happens to begin with digits\n" * 9, "a text file"),
        ("Befund: unauffällig.\n".encode() * 20, "a text file"),
        (b"\x08\x00\x05\x00ZZ\xff\xff" + bytes(200), "starts with 08 00"),
        (b"\x02\x00\x10\x00UI\xff\xff" + bytes(200), "starts with 02 00"),
        (b"PK\x03\x04" + bytes(200), "starts with 50 4b"),
        (b"\x08\x00", "starts with 08 00"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, named):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=named):
        read_header(path)


def test_a_dicom_file_without_an_image_is_named(tmp_path):
    report = data_set(chest(), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")
    for name in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        del report[name]
    path = write(tmp_path / "sr.dcm", report)
    with pytest.raises(DatasetError, match=r"Enhanced SR Storage without an image.*leave it out"):
        read_header(path)


def test_a_decoder_that_refuses_leads_to_a_converter(tmp_path):
    path = write(tmp_path / "whole.dcm", data_set(chest(), JPEG2000Lossless, **WINDOW))
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\x93")  # start of data: what follows is no codestream any more
    content[start + 2 : start + 60] = b"\xff" * 58
    path.write_bytes(bytes(content))
    read_header(path)
    try:
        read_radiograph(path)
    except DatasetError as error:
        assert "gdcmconv --raw" in str(error)


def test_whole_file_is_not_needed_for_the_header(tmp_path):
    """The check of 377,110 headers reads no pixel data."""
    path = write(tmp_path / "whole.dcm", data_set(chest(), **WINDOW))
    dataset = dcmread(path, stop_before_pixels=True)
    assert "PixelData" not in dataset
    assert read_header(path).height == 60
