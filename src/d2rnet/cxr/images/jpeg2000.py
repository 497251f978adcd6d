"""JPEG 2000 at reduced resolution: skip the finest wavelet levels where the image is reduced further anyway.

JPEG 2000 (the syntax of VinDr-CXR) is bound by its entropy decoder, and most of the bits are in the finest level: leaving it
out decodes a radiograph four times faster. Every decoder on the package index that may be used here is OpenJPEG and takes the
same time for all levels; Pillow's lets levels be left out.

The coarse image is a low-pass image sampled at positions 0, 2**r, 2 * 2**r, ... of the source, not at pixel centres;
:func:`d2rnet.cxr.images.radiograph.align_coarse` corrects that, or boxes would be off by (2**r - 1) / 2 source pixels.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from d2rnet.cxr.images.radiograph import align_coarse, is_fine_enough

MAX_LEVELS = 5
_CODESTREAM_START = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class CodestreamHeader:
    """What a JPEG 2000 codestream says about itself (SIZ marker segment)."""

    height: int
    width: int
    precision: int
    is_signed: bool
    components: int
    has_offset: bool


def parse_codestream(data: bytes) -> CodestreamHeader | None:
    """Read the SIZ marker segment (ISO/IEC 15444-1, A.5.1); None if ``data`` is not a bare codestream."""
    if not data.startswith(_CODESTREAM_START) or len(data) < 43:
        return None
    width, height, x_offset, y_offset = struct.unpack_from(">4I", data, 8)
    tile_x_offset, tile_y_offset, components, size_code = struct.unpack_from(">2IHB", data, 32)
    return CodestreamHeader(
        height=height - y_offset,
        width=width - x_offset,
        precision=(size_code & 0x7F) + 1,
        is_signed=bool(size_code & 0x80),
        components=components,
        has_offset=any((x_offset, y_offset, tile_x_offset, tile_y_offset)),
    )


def levels_to_skip(height: int, width: int, max_side_px: int | None) -> int:
    """Return how many wavelet levels can be left out when the longer side will be reduced to ``max_side_px``.

    Pillow rounds the reduced size to nearest where the standard rounds up; a number of levels at which the two differ is not
    taken.
    """
    if max_side_px is None:
        return 0
    for levels in range(MAX_LEVELS, 0, -1):
        step = 1 << levels
        sizes_agree = all((side + step // 2) // step == -(-side // step) for side in (height, width))
        if sizes_agree and is_fine_enough(max(height, width), levels, max_side_px):
            return levels
    return 0


def decode_reduced(data: bytes, header: CodestreamHeader, levels: int) -> np.ndarray | None:
    """Decode a single-component unsigned codestream without its ``levels`` finest levels.

    Args:
        data: bare codestream.
        header: of ``data``.
        levels: number of levels to leave out, as :func:`levels_to_skip` says.

    Returns:
        (ceil(height / 2**levels), ceil(width / 2**levels)) uint8 or uint16 sample values that cover the same field as the
        full image, pixel centre on pixel centre; None if this codestream cannot be decoded so (fewer levels, damaged).
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG2000"]) as image:
            image.reduce = levels  # type: ignore[method-assign, assignment]
            coarse = np.asarray(image)
    except (OSError, ValueError, SyntaxError):
        return None
    # Pillow scales samples up to 8 or 16 bits
    coarse = coarse >> (8 * coarse.dtype.itemsize - header.precision)
    return align_coarse(coarse, (header.height, header.width), 1 << levels, 0.0)
