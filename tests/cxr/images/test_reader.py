"""Radiograph reader: every transfer syntax and image mode to the right grey levels, every broken file to a clear error."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_samples import WINDOW, chest, data_set, write
from PIL import Image
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from d2rnet.cxr.images.jpeg2000 import decode_reduced, levels_to_skip, parse_codestream
from d2rnet.cxr.images.reader import RadiographHeader, check_headers, read_header, read_radiograph
from d2rnet.errors import DatasetError

MPEG2 = UID("1.2.840.10008.1.2.4.100")


def windowed(stored: np.ndarray) -> np.ndarray:
    """WINDOW applied by hand: stored / 4095 * 255, half up."""
    return np.floor(stored / 4095 * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_lossless_syntaxes_give_the_same_grey_levels(tmp_path: Path, syntax: UID) -> None:
    stored = chest()
    path = write(tmp_path / "chest.dicom", data_set(stored, syntax, ViewPosition="PA", **WINDOW))
    found = read_header(path)
    assert found == RadiographHeader(60, 50, "PA", "MONOCHROME2", syntax.name, 12, uid_hash=found.uid_hash)
    radiograph = read_radiograph(path)
    assert radiograph.source_hw == (60, 50)
    assert radiograph.pixels.dtype == np.uint8
    assert np.array_equal(radiograph.pixels, windowed(stored))


def test_jpeg_baseline(tmp_path: Path) -> None:
    stored = chest(bits=8)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG", quality=90)
    dataset = data_set(stored, JPEGBaseline8Bit)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    path = write(tmp_path / "chest.dcm", dataset)
    assert read_header(path).transfer_syntax == "JPEG Baseline (Process 1)"
    assert np.array_equal(read_radiograph(path).pixels, np.asarray(Image.open(buffer)))


@pytest.mark.parametrize(
    ("name", "reference", "tolerance"),
    [
        ("RG1_J2KR.dcm", "RG1_UNCR.dcm", 0),  # JPEG 2000 lossless
        ("RG1_J2KI.dcm", "RG1_UNCR.dcm", 8),  # JPEG 2000 lossy, about 10:1
        ("SC_rgb_rle.dcm", "SC_rgb.dcm", 0),
        ("SC_rgb_rle_16bit.dcm", "SC_rgb_16bit.dcm", 0),
        ("SC_rgb_expb_16bit.dcm", "SC_rgb_16bit.dcm", 0),
        ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb.dcm", 3),
        ("MR_small_bigendian.dcm", "MR_small.dcm", 0),
        ("MR_small_RLE.dcm", "MR_small.dcm", 0),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", 0),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", 0),
    ],
)
def test_real_files_agree_with_their_uncompressed_copy(name: str, reference: str, tolerance: int) -> None:
    got, expected = (read_radiograph(str(get_testdata_file(file))).pixels.astype(int) for file in (name, reference))
    assert np.abs(got - expected).max() <= tolerance


@pytest.mark.parametrize(
    "name", ["JPEG2000.dcm", "JPEG-LL.dcm", "JPGExtended.dcm", "vlut_04.dcm", "mlut_18.dcm", "693_J2KI.dcm"]
)
def test_real_files_of_other_kinds_use_the_whole_grey_scale(name: str) -> None:
    pixels = read_radiograph(str(get_testdata_file(name))).pixels
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_every_shared_dicom_is_read(shared_data: Path) -> None:
    files = [path for folder in ("nema_wg04_dicom", "rsna_dicom") for path in sorted((shared_data / folder).rglob("*.dcm"))]
    headers = {path: header for path, header, reason in check_headers(files, 1) if header and reason is None}
    assert len(headers) == len(files) > 0
    for path in files:
        pixels = read_radiograph(path).pixels
        assert pixels.shape == (headers[path].height, headers[path].width)
        assert pixels.std() > 20
    same = [read_radiograph(shared_data / "nema_wg04_dicom" / f"RG3_{kind}.dcm").pixels for kind in ("JLSL", "JPLL", "RLE")]
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], same[2])


def test_monochrome1_copy_is_the_exact_negative(shared_data: Path) -> None:
    folder = shared_data / "rsna_dicom"
    flipped = read_radiograph(folder / "Fake_MONOHR1.dcm").pixels
    original = read_radiograph(next(folder.glob("1.2.*.dcm"))).pixels
    assert np.array_equal(flipped, 255 - original)


@pytest.mark.parametrize("max_side_px", [None, 20])
def test_monochrome1_is_inverted_once(tmp_path: Path, max_side_px: int | None) -> None:
    plain = write(tmp_path / "2.dcm", data_set(chest(), **WINDOW))
    inverted = write(tmp_path / "1.dcm", data_set(4095 - chest(), PhotometricInterpretation="MONOCHROME1", **WINDOW))
    difference = read_radiograph(plain, max_side_px=max_side_px).pixels - read_radiograph(
        inverted, max_side_px=max_side_px
    ).pixels.astype(int)
    assert np.abs(difference).max() <= 1  # a tie of rounding


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("PA", "PA"),
        ("AP ", "AP"),
        ("LL", "LATERAL"),
        ("RL", "LATERAL"),
        ("LATERAL", "LATERAL"),
        ("PA ERECT", "PA"),
        ("AP SUPINE", "AP"),
        ("AP_PORTABLE", "AP"),
        ("ANTERO-POSTERIOR", "AP"),
        ("XTABLE LATERAL", "LATERAL"),
        ("AP OBLIQUE", ""),
        ("Lateral decubitus", ""),
        ("LLO", ""),
        ("JOHN", ""),
        (None, ""),
    ],
)
def test_view_position(tmp_path: Path, value: str | None, expected: str) -> None:
    assert read_header(write(tmp_path / "a.dcm", data_set(chest(), ViewPosition=value))).view == expected


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [
        ("postero-anterior", "PA"),
        ("antero-posterior", "AP"),
        ("Left Lateral", "LATERAL"),
        ("oblique", ""),
        ("antero-posterior oblique", ""),
        ("Anteroposterior projection", "AP"),
    ],
)
def test_view_code(tmp_path: Path, meaning: str, expected: str) -> None:
    code = Dataset()
    code.CodeMeaning = meaning
    assert read_header(write(tmp_path / "a.dcm", data_set(chest(), ViewCodeSequence=Sequence([code])))).view == expected


def test_bits_above_those_stored_are_ignored(tmp_path: Path) -> None:
    noisy = chest() | np.uint16(0xA000)
    assert np.array_equal(read_radiograph(write(tmp_path / "a.dcm", data_set(noisy, **WINDOW))).pixels, windowed(chest()))


def test_high_bit_left_aligned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", data_set((chest() << 4) | np.uint16(9), HighBit=15, **WINDOW))
    assert np.array_equal(read_radiograph(path).pixels, windowed(chest()))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda syntax: syntax.keyword)
def test_signed_bytes_are_averaged(tmp_path: Path, syntax: UID) -> None:
    """OpenCV averages no int8; a file of them ended the whole conversion."""
    unsigned = chest(bits=8)
    signed = (unsigned.astype(np.int16) - 128).astype(np.int8)
    path = write(tmp_path / "signed.dcm", data_set(signed, syntax))
    same = write(tmp_path / "unsigned.dcm", data_set(unsigned))
    for side in (None, 20):
        found, expected = (read_radiograph(file, max_side_px=side).pixels.astype(int) for file in (path, same))
        assert np.abs(found - expected).max() <= 1


def test_signed_12_bit_values_with_garbage_above(tmp_path: Path) -> None:
    signed = chest().astype(np.int16) - 2048
    cells = (signed & 0x0FFF).astype(np.int16) | np.int16(0x5000)
    path = write(tmp_path / "a.dcm", data_set(cells, WindowCenter=0, WindowWidth=4096))
    assert np.array_equal(read_radiograph(path).pixels, windowed(chest()))


def test_padding_becomes_the_darkest_value_shown(tmp_path: Path) -> None:
    stored = np.full((8, 8), 1000, np.uint16)
    stored[4:] = 3000
    stored[:, :2] = 4095
    dataset = data_set(stored, **WINDOW)
    dataset.add_new("PixelPaddingValue", "US", 4095)
    assert np.unique(read_radiograph(write(tmp_path / "a.dcm", dataset)).pixels[:, :2]).tolist() == windowed(np.array([1000]))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    inverted = read_radiograph(write(tmp_path / "b.dcm", dataset)).pixels
    assert np.unique(inverted[:, :2]).tolist() == 255 - windowed(np.array([3000]))


def test_colour_dicom_becomes_luma(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[:, 0], pixels[:, 1], pixels[:, 2] = (255, 0, 0), (0, 255, 0), (77, 77, 77)
    assert read_radiograph(write(tmp_path / "a.dcm", data_set(pixels))).pixels[0].tolist() == [76, 150, 77]


# --- reduction ---------------------------------------------------------------------------------------------------------


def test_longer_side_is_reduced_and_nothing_is_enlarged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", data_set(chest(60, 50), **WINDOW))
    assert read_radiograph(path, max_side_px=30).pixels.shape == (30, 25)
    assert read_radiograph(path, max_side_px=1).pixels.shape == (1, 1)
    assert read_radiograph(path, max_side_px=100).pixels.shape == (60, 50)
    assert read_radiograph(path, max_side_px=30).source_hw == (60, 50)


def slow_recipe(path: Path, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """Window in float64 at full resolution, then resize, then 8 bits: the usual way."""
    dataset = dcmread(path)
    center, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    shown = np.clip((pixel_array(dataset).astype(np.float64) - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    shown = 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown
    resized = Image.fromarray((shown * 255).astype(np.float32)).resize(size, resample)
    return np.clip(np.asarray(resized), 0, 255)


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_J2KR.dcm", "RG3_UNCR.dcm", "RG3_J2KR.dcm"])
def test_reduction_equals_the_slow_recipe(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    fast = read_radiograph(path, max_side_px=256).pixels.astype(float)
    area = slow_recipe(path, fast.shape[::-1], Image.Resampling.BOX)
    lanczos = slow_recipe(path, fast.shape[::-1], Image.Resampling.LANCZOS)
    # measured, uncompressed and JPEG 2000: 0.22 to 0.29 (rounding to 8 bits alone gives 0.25); 0.25 to 0.42; 3.4 to 6.1
    assert np.abs(fast - area).mean() < 0.35
    assert np.abs(fast - lanczos).mean() < 0.5
    assert np.quantile(np.abs(fast - lanczos), 0.999) < 7


@pytest.mark.parametrize(
    ("height", "width", "max_side_px", "levels"),
    [
        (3000, 2500, None, 0),
        (3000, 2500, 1600, 0),
        (3000, 2500, 1201, 0),  # 1500 is less than 1.25 x 1201
        (3000, 2500, 1200, 1),
        (3000, 2500, 750, 1),
        (3000, 2500, 375, 2),
        (3001, 2501, 375, 1),  # 3001 / 4 is rounded down by Pillow, up by the standard
        (3072, 3072, 48, 5),
        (3072, 3072, 10, 5),
    ],
)
def test_levels_to_skip(height: int, width: int, max_side_px: int | None, levels: int) -> None:
    assert levels_to_skip(height, width, max_side_px) == levels


@pytest.mark.parametrize(("levels", "shape"), [(1, (401, 303)), (1, (400, 300)), (2, (400, 302)), (3, (404, 296))])
def test_coarse_jpeg2000_lies_on_the_same_field(levels: int, shape: tuple[int, int]) -> None:
    """A blob's centre of mass must not move: uncorrected it would, by (2**levels - 1) / 2 source pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    centre = (150.0, 210.0)
    blob = np.round(4000 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 2 / 15**2)).astype(np.uint16)
    frame = data_set(blob, JPEG2000Lossless).PixelData
    codestream = frame[frame.index(b"\xff\x4f\xff\x51") :]
    header = parse_codestream(codestream)
    assert header is not None
    assert (header.height, header.width, header.precision, header.is_signed, header.components) == (*shape, 12, False, 1)
    coarse = decode_reduced(codestream, header, levels)
    assert coarse is not None
    assert coarse.shape == tuple(-(-side // 2**levels) for side in shape)
    weights = coarse / coarse.sum()
    for axis, (side, expected) in enumerate(zip(shape, centre, strict=True)):
        coarse_side = coarse.shape[axis]
        positions = (np.arange(coarse_side) + 0.5) * side / coarse_side - 0.5
        assert abs((weights.sum(axis=1 - axis) * positions).sum() - expected) < 0.05


@pytest.mark.parametrize("noise_above", [0, 0xA000])
def test_16_bit_codestream_of_12_bits_stored(tmp_path: Path, noise_above: int) -> None:
    """Bits above those stored are masked, at reduced size too."""
    stored = chest(400, 320)
    dataset = data_set(stored | np.uint16(noise_above), BitsStored=16, HighBit=15, **WINDOW)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 12, 11
    path = write(tmp_path / "a.dcm", dataset)
    assert np.array_equal(read_radiograph(path).pixels, windowed(stored))
    reduced = read_radiograph(path, max_side_px=100).pixels.astype(int)
    expected = windowed(cv2.resize(stored, (80, 100), interpolation=cv2.INTER_AREA))
    assert np.abs(reduced - expected).mean() < (0.02 if noise_above else 0.6)


def test_12_bit_codestream_of_16_bits_stored(tmp_path: Path) -> None:
    stored = chest(400, 320)
    dataset = data_set(stored, JPEG2000Lossless, **WINDOW)
    dataset.BitsStored, dataset.HighBit = 16, 15
    path = write(tmp_path / "a.dcm", dataset)
    assert np.array_equal(read_radiograph(path).pixels, windowed(stored))
    expected = windowed(cv2.resize(stored, (80, 100), interpolation=cv2.INTER_AREA))
    assert np.abs(read_radiograph(path, max_side_px=100).pixels.astype(int) - expected).mean() < 0.6


def test_parse_codestream_refuses_other_data() -> None:
    assert parse_codestream(b"") is None
    assert parse_codestream(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60)) is None


# --- PNG and JPG -------------------------------------------------------------------------------------------------------


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda grey: grey,
        lambda grey: grey.convert("RGB"),
        lambda grey: grey.convert("RGBA"),
        lambda grey: grey.convert("LA"),
        lambda grey: grey.convert("P"),
    ],
    ids=["L", "RGB", "RGBA", "LA", "P"],
)
def test_png_modes_give_the_same_grey_levels(tmp_path: Path, make: Callable[[Image.Image], Image.Image]) -> None:
    grey = chest(bits=8)
    path = save(tmp_path / "a.png", make(Image.fromarray(grey)))
    header = read_header(path)
    assert (header.height, header.width, header.view, header.transfer_syntax) == (60, 50, "", "PNG")
    assert np.array_equal(read_radiograph(path).pixels, grey)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    grey = Image.fromarray(chest(bits=8))
    clear = Image.fromarray(np.zeros((60, 50), np.uint8))
    path = save(tmp_path / "a.png", Image.merge("LA", (grey, clear)))
    assert np.array_equal(read_radiograph(path).pixels, chest(bits=8))


def test_16_bit_png_is_stretched_over_its_data(tmp_path: Path) -> None:
    stored = np.repeat(np.arange(1000, 2000, 10, dtype=np.uint16)[None], 100, axis=0)
    assert cv2.imwrite(str(tmp_path / "a.png"), stored)
    assert read_header(tmp_path / "a.png").bits_stored == 16
    pixels = read_radiograph(tmp_path / "a.png").pixels
    # quantiles 0.001 and 0.999 are 1000 and 1990
    assert pixels[0, [0, 33, 66, 99]].tolist() == [0, 85, 170, 255]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpg(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(chest(bits=8)).convert(mode), quality=95)
    assert read_header(path).transfer_syntax == "JPEG"
    pixels = read_radiograph(path).pixels.astype(int)
    assert np.abs(pixels - chest(bits=8)).mean() < 2


@pytest.mark.parametrize(("max_side_px", "mean"), [(400, 0.0), (320, 0.9), (150, 0.4), (60, 0.3), (40, 0.4)])
def test_coarsely_decoded_jpg_equals_the_full_one_reduced(tmp_path: Path, max_side_px: int, mean: float) -> None:
    """Not at 400; halved at 320, at 150 a quarter, then an eighth. Uncorrected for the odd size, 40 would differ by 1.5."""
    noisy = chest(801, 603, bits=8) * 0.9 + np.random.default_rng(0).normal(12, 4, (801, 603))
    path = save(tmp_path / "a.jpg", Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), quality=95)
    got = read_radiograph(path, max_side_px=max_side_px)
    full = read_radiograph(path).pixels
    expected = cv2.resize(full, got.pixels.shape[::-1], interpolation=cv2.INTER_AREA)
    assert got.source_hw == (801, 603)
    assert np.abs(got.pixels.astype(int) - expected).mean() <= mean
    assert np.quantile(np.abs(got.pixels.astype(int) - expected), 0.99) <= 4


def test_exif_orientation_is_reported_and_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(chest(bits=8)), exif=exif)
    assert read_header(path).exif_orientation == 6
    assert read_radiograph(path).pixels.shape == (60, 50)
    with caplog.at_level(logging.WARNING):
        check_headers([path], 1)
    assert "1 image(s) carry an EXIF orientation; pixels are taken as stored" in caplog.text


def test_the_first_bytes_tell_the_format_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(chest(bits=8)))
    path.rename(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg").transfer_syntax == "PNG"


# --- broken files ------------------------------------------------------------------------------------------------------


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def broken_file(kind: str, folder: Path) -> Path:
    """Make a file with the named defect."""
    path = folder / "broken.dcm"
    if kind == "missing":
        return path
    if kind in ("zero_byte.png", "text"):
        path.write_bytes(b"" if kind != "text" else b"<html>404 not found</html>")
    elif kind in ("cut.png", "cut.jpg"):
        image_format = "PNG" if kind.endswith("png") else "JPEG"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(path, image_format)
        cut(path, 0.6)
    elif kind == "png_header":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    elif kind == "cut_header":
        cut(write(path, data_set(chest())), 0.04)
    elif kind.startswith("cut_"):
        cut(
            write(
                path,
                data_set(chest(), {"cut_rle": RLELossless, "cut_j2k": JPEG2000Lossless}.get(kind, ExplicitVRLittleEndian)),
            ),
            0.6,
        )
    else:
        dataset = data_set(chest())
        if kind == "no_pixels":
            del dataset.PixelData
        elif kind == "empty_pixels":
            dataset.PixelData = b""
        elif kind == "no_rows":
            del dataset.Rows
        elif kind == "frames":
            dataset.NumberOfFrames = 2
            dataset.PixelData *= 2
        elif kind == "palette":
            dataset.PhotometricInterpretation = "PALETTE COLOR"
        elif kind == "bits":
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 32, 32, 31
        elif kind == "syntax":
            dataset.file_meta.TransferSyntaxUID = MPEG2
            dataset.PixelData = encapsulate([b"\x00\x00\x01\xb3" * 8])
        elif kind == "short":
            dataset.Rows = 61
        elif kind == "wider_cells":
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 1, None
        elif kind == "two_frames":
            dataset.PixelData *= 2
        write(path, dataset)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "got 'No such file or directory'; expected an image file"),
        ("zero_byte.png", r"got an empty file \(0 bytes\); expected DICOM, PNG or JPG"),
        ("text", "got a text file; expected DICOM, PNG or JPG"),
        ("cut.png", r"got a truncated PNG \(\d+ bytes, no end marker\); expected a whole file"),
        ("cut.jpg", r"got a truncated JPEG \(\d+ bytes, no end marker\)"),
        ("png_header", "got an unreadable header"),
        ("cut_header", "got (a damaged DICOM header|no )"),
        ("cut_native", r"got pixel data cut off at \d+ bytes; expected 6000 bytes"),
        ("cut_rle", "got compressed pixel data cut off"),
        ("cut_j2k", "got compressed pixel data cut off"),
        ("short", "got pixel data cut off at 6000 bytes; expected 6100 bytes"),
        ("wider_cells", "got 6000 bytes of pixel data; expected 3000 bytes, by rows, columns and bits of the header"),
        ("two_frames", "got 12000 bytes of pixel data; expected 6000 bytes"),
        ("no_pixels", "got no pixel data"),
        ("empty_pixels", "got no pixel data"),
        ("no_rows", "got no Rows; expected the attributes of an image"),
        ("syntax", r"got transfer syntax 1.2.840.10008.1.2.4.100 \(MPEG2.*which no installed decoder reads"),
        ("frames", "got 2 frames; expected a single radiograph"),
        ("palette", "got photometric interpretation PALETTE COLOR; expected one of MONOCHROME1"),
        ("bits", "got 32 bits stored in 32; expected 1 to 16"),
    ],
)
def test_broken_file_is_an_error_naming_file_found_and_expected(tmp_path: Path, kind: str, message: str) -> None:
    path = broken_file(kind, tmp_path)
    for read in (read_header, read_radiograph):
        with pytest.raises(DatasetError, match=f"broken.dcm: {message}") as caught:
            read(path)
        assert "Do^Not^Tell" not in str(caught.value)


@pytest.mark.parametrize("max_side_px", [None, 8])
def test_damaged_codestream_behind_a_good_header(tmp_path: Path, max_side_px: int | None) -> None:
    dataset = data_set(chest(), JPEG2000Lossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[:60] + bytes(200)])  # its size is there, and nothing else
    path = write(tmp_path / "a.dcm", dataset)
    assert read_header(path).height == 60
    with pytest.raises(DatasetError, match=r"a.dcm: got JPEG 2000 .* data that cannot be decoded"):
        read_radiograph(path, max_side_px=max_side_px)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda syntax: syntax.keyword)
def test_colour_without_its_planar_configuration(tmp_path: Path, syntax: UID) -> None:
    """Samples of a pixel beside each other are what files without the attribute hold."""
    stored = np.dstack([chest(bits=8)] * 3)
    dataset = data_set(stored, syntax)
    del dataset.PlanarConfiguration
    found = read_radiograph(write(tmp_path / "a.dcm", dataset)).pixels.astype(int)
    assert np.abs(found - chest(bits=8)).max() <= 1


@pytest.mark.parametrize("samples", [1, 3])
def test_colour_space_of_other_cells_than_bytes(tmp_path: Path, samples: int) -> None:
    stored = chest() if samples == 1 else np.dstack([chest()] * 3)
    path = write(tmp_path / "a.dcm", data_set(stored, PhotometricInterpretation="YBR_FULL"))
    with pytest.raises(DatasetError, match=f"got YBR_FULL of {samples} sample.* of 16 bits; expected 3 samples of 8 bits"):
        read_header(path)


@pytest.mark.parametrize("side", ["Rows", "Columns"])
@pytest.mark.parametrize("form", ["JPEG 2000", "JPEG"])
def test_codestream_of_another_size_than_the_header_says(tmp_path: Path, form: str, side: str) -> None:
    dataset = data_set(chest(bits=8), JPEG2000Lossless)
    if form == "JPEG":
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        buffer = io.BytesIO()
        Image.fromarray(chest(bits=8)).save(buffer, "JPEG")
        dataset.PixelData = encapsulate([buffer.getvalue()])
    setattr(dataset, side, 41)
    path = write(tmp_path / "a.dcm", dataset)
    stated = {"Rows": "41 x 50", "Columns": "60 x 41"}[side]
    for read in (read_header, read_radiograph):
        with pytest.raises(DatasetError, match=rf"data of 60 x 50 pixels .*expected the {stated} pixels of the header"):
            read(path)


def test_damaged_png_behind_a_good_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(chest(bits=8)))
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(10)
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"a.png: got undecodable PNG data"):
        read_radiograph(path)


def test_file_that_no_decoder_reads() -> None:
    with pytest.raises(DatasetError, match=r"JPEG-lossy.dcm: got JPEG Extended .* cannot be decoded"):
        read_radiograph(str(get_testdata_file("JPEG-lossy.dcm")))


@pytest.mark.parametrize("workers", [1, 2])
def test_check_headers_keeps_the_order_and_the_reasons(tmp_path: Path, workers: int) -> None:
    good = write(tmp_path / "good.dcm", data_set(chest(), ViewPosition="AP"))
    paths = [good, broken_file("no_pixels", tmp_path), good]
    checked = check_headers(paths, workers)
    assert [path for path, _, _ in checked] == paths
    assert checked[0][1] == checked[2][1] == read_header(good)
    assert checked[1][1] is None
    assert checked[1][2] is not None
    assert "broken.dcm: got no pixel data" in checked[1][2]
    assert check_headers([], workers) == []
