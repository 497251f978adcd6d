"""The items of encapsulated pixel data: whether they are whole, and their bytes where pydicom's reader gives them up.

Hundreds of public files end behind their last fragment, without the delimiter of the sequence, or have zeros in its place; the
frame is whole, and pydicom drops it. Reads: an open DICOM file. Source: DICOM PS3.5 A.4.
"""

import struct
from typing import BinaryIO

_ITEM = (0xFFFE, 0xE000)
_DELIMITER = (0xFFFE, 0xE0DD)
_DELIMITER_BYTES = struct.pack("<HHI", *_DELIMITER, 0)
_MOST_ZEROS = 4096  # in place of the delimiter


def whole_items(stream: BinaryIO, offset: int, size: int) -> int | None:
    """Walk the items of encapsulated pixel data.

    Args:
        stream: the file.
        offset: where its pixel data begin: the first item is the offset table.
        size: bytes of the file.

    Returns:
        Where the last item ends; None if an item is cut off, or there is no compressed byte.
    """
    position = offset
    compressed_bytes = 0
    is_offset_table = True
    while position < size:
        stream.seek(position)
        head = stream.read(8)
        group, number, length = struct.unpack("<HHI", head.ljust(8, b"\0"))
        if (group, number) == _DELIMITER or _only_zeros(stream, position, size):
            break
        if len(head) < 8 or (group, number) != _ITEM or position + 8 + length > size:
            return None
        compressed_bytes += 0 if is_offset_table else length
        is_offset_table = False
        position += 8 + length
    return position if compressed_bytes > 0 else None


def _only_zeros(stream: BinaryIO, position: int, size: int) -> bool:
    if size - position > _MOST_ZEROS:
        return False
    stream.seek(position)
    return not any(stream.read(size - position))


def read_items(stream: BinaryIO, offset: int, end: int) -> bytes:
    """Return the items of encapsulated pixel data with the delimiter that may be missing behind them."""
    stream.seek(offset)
    return stream.read(end - offset) + _DELIMITER_BYTES


def first_bytes(stream: BinaryIO, offset: int, most: int) -> bytes:
    """Return the beginning of the first fragment that is no offset table, at most so many bytes."""
    stream.seek(offset + 4)
    table_bytes = int.from_bytes(stream.read(4), "little")
    stream.seek(offset + 8 + table_bytes + 4)
    fragment_bytes = int.from_bytes(stream.read(4), "little")
    return stream.read(min(fragment_bytes, most))
