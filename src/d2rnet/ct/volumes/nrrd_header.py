"""Headers of NRRD (.nrrd, .nhdr).

Source: NRRD0005 (dimension, sizes, type, endian, encoding, data file, byte skip, line skip, space, space directions, space
units). Names are written in small letters without spaces here.
"""

import re
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.header_text import (
    HEADER_BYTES,
    ONE_FILE,
    HeaderText,
    StatedHeader,
    Voxels,
    beside,
    no_orientation,
    numbers,
    shape_of,
)
from d2rnet.ct.volumes.volume import LEAVE_OUT, unreadable

_LPS_OF_SPACE = {  # directions (x, y, z) of the space in (left, posterior, superior)
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_MM = {"mm", "millimeter", "millimeters", ""}
_WORDS = {"char": "i1", "short": "i2", "int": "i4", "long long": "i8", "longlong": "i8"}
_TYPES = {"float": "f4", "double": "f8"}
for _word, _kind in _WORDS.items():
    for _end in ("", " int"):
        _TYPES |= {f"signed {_word}{_end}": _kind, f"unsigned {_word}{_end}": f"u{_kind[1]}"}
        _TYPES |= {f"{_word}{_end}": _kind, f"u{_word}": f"u{_kind[1]}"}
    _TYPES |= {f"{sign}int{8 * int(_kind[1])}{end}": f"{sign or 'i'}{_kind[1]}" for sign in ("", "u") for end in ("", "_t")}


def is_nrrd(start: bytes) -> bool:
    """Whether the first bytes are those of an NRRD header."""
    return start.startswith(b"NRRD000")


def read_nrrd_text(path: Path) -> HeaderText:
    """Read the text up to the empty line that ends it, or to the end of the file."""
    with path.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    end = re.search(rb"\r?\n\r?\n|\Z", start)
    assert end is not None
    lines = start[: end.end()].decode("latin-1")
    # key/value pairs (key:=value) and comments (#) are no fields
    found = re.findall(r"(?m)^([A-Za-z][\w ]*): ([^\r\n]*?)[ \t]*\r?$", lines)
    return HeaderText(path, {name.replace(" ", "").lower(): said for name, said in found}, end.end())


def nrrd_voxels(text: HeaderText) -> Voxels:
    """Find the voxels.

    Raises:
        DatasetError: they are text, in several files, in another folder, or not there.
    """
    fields, path = text.fields, text.path
    encoding = fields.get("encoding", "").lower()
    packing = {"raw": "", "gz": "gzip", "gzip": "gzip"}.get(encoding)
    if packing is None:
        raise unreadable(path, got=f"the encoding {encoding[:20]!a}", expected="raw or gzip", remedy=ONE_FILE)
    if any(fields.get(key, "0") != "0" for key in ("byteskip", "lineskip")):
        raise unreadable(path, got="bytes or lines to skip before the voxels", expected="none", remedy=ONE_FILE)
    name = fields.get("datafile")
    is_big_endian = fields.get("endian", "").lower() == "big"
    return Voxels(beside(path, name) if name else path, 0 if name else text.length, packing, is_big_endian)


def stated_by_nrrd(text: HeaderText) -> StatedHeader:
    """Return what the header states.

    Raises:
        DatasetError: no volume of three dimensions, no orientation, another unit than mm, no byte order, or fields that are
            no numbers.
    """
    fields, path = text.fields, text.path
    shape = shape_of(path, fields.get("dimension", ""), fields.get("sizes", ""))
    kind = _TYPES.get(" ".join(fields.get("type", "").lower().split()))
    if kind is None:
        got = f"voxels of type {fields.get('type', '')[:20]!a}"
        raise unreadable(path, got=got, expected="real numbers", remedy=LEAVE_OUT)
    dtype = np.dtype(kind)
    if dtype.itemsize > 1 and fields.get("endian", "").lower() not in ("little", "big"):
        raise unreadable(path, got="no byte order", expected="endian: little or big in the header")
    signs = _LPS_OF_SPACE.get(fields.get("space", "").lower())
    vectors = re.findall(r"\(([^()]*)\)", fields.get("spacedirections", ""))
    if signs is None or len(vectors) != 3 or "none" in fields["spacedirections"].lower():
        raise no_orientation(path, "space and space directions")
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if not {unit.strip().lower() for unit in units} <= _MM:
        remedy = "Write the directions in millimetres."
        raise unreadable(path, got="another unit of space in the header", expected="mm", remedy=remedy)
    columns = np.array([numbers(path, vector, 3, "space directions") for vector in vectors]).T * np.array(signs)[:, None]
    spacing = np.linalg.norm(columns, axis=0)  # (3,) along i, j, k
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise no_orientation(path, "space directions of a length")
    return StatedHeader(shape, dtype, None, spacing, columns / spacing)
