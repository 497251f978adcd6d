"""PNG and JPG radiographs: header check and decoding to 8-bit grey.

Pixels are taken as stored. An EXIF orientation is reported in the header and never applied (boxes and tables of sizes refer to
the stored pixels); an alpha channel is dropped, because about 1 NIH PNG in 160 has one and it carries no image.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from d2rnet.cxr.images.radiograph import (
    Radiograph,
    RadiographHeader,
    align_coarse,
    check_pixel_count,
    data_range,
    is_fine_enough,
    reduced_hw,
    resize_area,
    unreadable,
)

_REMEDY = "Fetch the file again."
_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 16}
_COLOUR_MODES = frozenset({"RGB", "RGBA", "CMYK", "YCbCr", "P", "PA", "LAB", "HSV"})
_TAIL_BYTES = 64
_GLANCE_PX = 64
_LEAST_CHROMA = 16  # between the largest and the least of red, green and blue, of 255
_LEAST_COLOURED = 0.01
_SEARCHED_AT_ONCE = 1 << 20


def read_image_header(path: Path, image_format: str) -> RadiographHeader:
    """Read size and mode of a PNG or JPG, and check that its end is there; no pixel is decoded.

    Args:
        path: image file.
        image_format: "PNG" or "JPEG", as its first bytes say.

    Raises:
        DatasetError: the header is damaged or promises more pixels than a radiograph has, or the file stops before its end
            marker.
    """
    try:
        with path.open("rb") as stream:
            with Image.open(stream, formats=[image_format]) as image:
                width, height = image.size
                mode = image.mode
                # a PNG without EXIF before its pixels would be decoded by getexif() in search of one behind them
                has_exif = image_format == "JPEG" or "exif" in image.info
                orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1)) if has_exif else 1
            has_end = _has_end(stream, image_format)
    except Exception as error:  # Pillow raises its own, OSError, SyntaxError, ValueError, struct.error
        raise unreadable(path, got=f"an unreadable header ({error})", expected=image_format, remedy=_REMEDY) from error
    check_pixel_count(path, height, width, where="the header")
    if not has_end:
        got = f"a truncated {image_format} ({path.stat().st_size} bytes, no end marker)"
        raise unreadable(path, got=got, expected="a whole file", remedy=_REMEDY)
    return RadiographHeader(
        height=height,
        width=width,
        view="",
        photometric=mode,
        transfer_syntax=image_format,
        bits_stored=_BITS.get(mode, 8),
        exif_orientation=orientation,
        is_coloured=None if mode in _COLOUR_MODES else False,
    )


def _has_end(stream: BinaryIO, image_format: str) -> bool:
    marker = b"IEND" if image_format == "PNG" else b"\xff\xd9"
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    if marker in stream.read():
        return True
    # anything may follow the end marker; such files are rare enough to be searched whole
    stream.seek(0)
    end = b""
    while part := stream.read(_SEARCHED_AT_ONCE):
        if marker in end + part:
            return True
        end = part[-len(marker) :]
    return False


def is_coloured(path: Path, image_format: str) -> bool:
    """Say whether a PNG or JPG has colours; greys that are stored as colour are none.

    Looks at the picture reduced to some 64 px: one pixel in a hundred that is not grey makes it coloured, so that a coloured
    marker on a radiograph does not.

    Raises:
        DatasetError: the pixel data are damaged.
    """
    try:
        with Image.open(path, formats=[image_format]) as image:
            image.draft("RGB", (_GLANCE_PX, _GLANCE_PX))  # an eighth of the sides, or as little as leaves 64 px
            pixels = np.asarray(image.convert("RGB").resize((_GLANCE_PX, _GLANCE_PX), Image.Resampling.BOX))
    except Exception as error:  # Pillow raises its own, OSError, SyntaxError, ValueError, zlib.error
        raise unreadable(path, got=f"undecodable data ({error})", expected="a whole, valid file", remedy=_REMEDY) from error
    return bool((np.ptp(pixels.astype(np.int16), axis=2) > _LEAST_CHROMA).mean() > _LEAST_COLOURED)


def read_image_pixels(path: Path, header: RadiographHeader, sides_px: Sequence[int | None]) -> list[Radiograph]:
    """Decode a PNG or JPG to 8-bit grey, in several sizes.

    Colour becomes luma (ITU-R 601). 16-bit grey, which has no window, is stretched over the range of its data
    (:func:`d2rnet.cxr.images.radiograph.data_range`).

    Args:
        path: image file.
        header: of ``path``.
        sides_px: longer side of each result, pixels; None for the file's own.

    Raises:
        DatasetError: the pixel data are damaged or cut off.
    """
    decoded: dict[int, np.ndarray] = {}
    found = []
    for side in sides_px:
        halvings = _halvings(header, side)
        if halvings not in decoded:
            decoded[halvings] = _decode(path, header, halvings)
        pixels = decoded[halvings]
        reduced = resize_area(pixels, reduced_hw(header.height, header.width, side))
        if pixels.dtype != np.uint8:
            low, high = data_range(pixels)
            shown = np.clip((reduced.astype(np.float32) - low) / max(high - low, 1.0), 0.0, 1.0)
            reduced = np.floor(shown * 255.0 + 0.5).astype(np.uint8)
        found.append(Radiograph(np.ascontiguousarray(reduced), (header.height, header.width)))
    return found


def _halvings(header: RadiographHeader, max_side_px: int | None) -> int:
    """Return how often the sides of a JPG may be halved in decoding and still be fine enough; 0 for others."""
    if max_side_px is None or header.transfer_syntax != "JPEG":
        return 0
    sides = (header.height, header.width)
    fitting = (n for n in (3, 2, 1) if is_fine_enough(max(sides), n, max_side_px) and min(sides) >> n > 0)
    return next(fitting, 0)


def _decode(path: Path, header: RadiographHeader, halvings: int) -> np.ndarray:
    """Return (h, w) grey, decoded at a half, a quarter or an eighth of its sides where that is wanted."""
    try:
        with Image.open(path, formats=[header.transfer_syntax]) as image:
            if halvings:
                image.draft(image.mode, (image.width >> halvings, image.height >> halvings))
            pixels = _to_grey(image)
    except Exception as error:  # Pillow raises its own, OSError, SyntaxError, ValueError, zlib.error
        got = f"undecodable {header.transfer_syntax} data ({error})"
        raise unreadable(path, got=got, expected="a whole, valid file", remedy=_REMEDY) from error
    step = 1 << halvings
    return align_coarse(pixels, (header.height, header.width), step, (step - 1) / 2)


def _to_grey(image: Image.Image) -> np.ndarray:
    """Return (h, w) uint8, or uint16 for 16-bit grey."""
    if _BITS.get(image.mode) == 16:
        return np.asarray(image).clip(0, 2**16 - 1).astype(np.uint16)
    if image.mode == "P":
        return np.asarray(image.convert("RGB").convert("L"))
    return np.asarray(image.convert("L"))
