"""What the compressed pixel data of a DICOM file say about their own size, before any decoder believes it.

Decoders take the memory that the codestream asks for, whatever the header of the file says; a few hundred bytes can ask for
gigabytes. The same goes for deflated data sets, which are unpacked whole. Nothing is decoded here.

Source: ISO/IEC 10918-1 B.2.2 (JPEG frame header), 14495-1 C.2.2 (JPEG-LS), 15444-1 A.5.1 and I.5.3.1 (JPEG 2000).
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from d2rnet.cxr.images.jpeg2000 import parse_codestream
from d2rnet.cxr.images.radiograph import MAX_PIXELS, unreadable

MAX_COMPONENTS = 4
MAX_INFLATED_BYTES = 4 * MAX_PIXELS
_REMEDY = "Leave the file out; it asks for far more memory than a radiograph needs."
_UNPACKED_AT_ONCE = 1 << 20
_META_BYTES = 1024  # more than the file meta information of any file
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_PREAMBLE_BYTES = 132 + 12  # preamble, "DICM", and the element that tells the length of the file meta information
_NO_FRAME_HEADER = frozenset({0xC4, 0xC8, 0xCC})  # within C0..CF: tables and an extension
_JPEG_LS_FRAME = 0xF7
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})


def declared_size(frame: bytes) -> tuple[int, int, int] | None:
    """Return height, width and components that a codestream of the JPEG family asks for; None where it does not say."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    codestream = parse_codestream(frame)
    if codestream is not None:
        return codestream.height, codestream.width, codestream.components
    box = frame.find(b"ihdr", 0, 256)  # JPEG 2000 in its file format
    return struct.unpack_from(">2IH", frame, box + 4) if 0 <= box <= len(frame) - 14 else None


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Walk the marker segments of a JPEG or JPEG-LS stream to its frame header."""
    position = 2
    while position + 10 <= len(frame):
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER) or marker == _JPEG_LS_FRAME:
            return struct.unpack_from(">2HB", frame, position + 5)
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def check_codestream(frame: bytes, path: Path, header_hw: tuple[int, int]) -> None:
    """Refuse a codestream of another size than its file says, which may ask for more memory than any radiograph.

    Args:
        frame: compressed frame, or its beginning.
        path: file, for the message.
        header_hw: height and width that the header of the file states, within the bounds of a radiograph.

    Raises:
        DatasetError: another height or width, or more than MAX_COMPONENTS components.
    """
    size = declared_size(frame)
    if size is None:
        return
    height, width, components = size
    if (height, width) != header_hw or components > MAX_COMPONENTS:
        got = f"compressed pixel data of {height} x {width} pixels (height x width), {components} component(s)"
        expected = f"the {header_hw[0]} x {header_hw[1]} pixels of the header, and at most {MAX_COMPONENTS} components"
        raise unreadable(path, got=got, expected=expected, remedy="Fetch the file again, or leave it out.")


def check_deflated(stream: BinaryIO, path: Path) -> None:
    """Unpack a deflated data set piece by piece, keeping nothing, and refuse one that grows beyond measure.

    Args:
        stream: the open file; its position is where it was afterwards.
        path: the same file, for the message.

    Raises:
        DatasetError: more than MAX_INFLATED_BYTES, or no length of the file meta information to find the data by.
    """
    try:
        meta = read_file_meta_info(path)
    except InvalidDicomError:  # no preamble
        if _DEFLATED in stream.read(_META_BYTES):
            got = "deflated data without preamble"
            raise unreadable(path, got=got, expected="a whole DICOM file", remedy=_REMEDY) from None
        stream.seek(0)
        return
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    length = meta.get("FileMetaInformationGroupLength")
    if not isinstance(length, int) or length <= 0:
        raise unreadable(path, got="deflated data of unknown start", expected="(0002,0000) in the header", remedy=_REMEDY)
    start = stream.tell()
    inflated = 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    stream.seek(_PREAMBLE_BYTES + length)
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or stream.read(_UNPACKED_AT_ONCE)
        if not packed:
            break
        inflated += len(unpacker.decompress(packed, _UNPACKED_AT_ONCE))
        if inflated > MAX_INFLATED_BYTES:
            got = f"{path.stat().st_size} bytes that unpack to more than {MAX_INFLATED_BYTES}"
            raise unreadable(path, got=got, expected="a radiograph", remedy=_REMEDY)
    stream.seek(start)
