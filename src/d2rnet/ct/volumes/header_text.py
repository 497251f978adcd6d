"""What headers written as text (MetaImage, NRRD) have in common: fields, numbers, and where the voxels are.

They are parsed here, not by SimpleITK: a damaged header ends its C++ readers with a segmentation fault (NDims = -1), and with
them the whole run; and a spacing or an orientation that is not there they take for 1 mm and the patient's axes. Their reading
is what the tests compare with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.volume import LEAVE_OUT, Rescale, check_shape, unreadable

HEADER_BYTES = 1 << 20
ONE_FILE = "Store header and voxels as one file (.mha, .nrrd), binary."


@dataclass(frozen=True)
class Voxels:
    """Where the voxels of a file are.

    Attributes:
        path: file that holds them.
        offset: first byte; -1: they end the file.
        packing: "", "zlib" or "gzip".
        is_big_endian: byte order.
    """

    path: Path
    offset: int
    packing: str
    is_big_endian: bool


@dataclass(frozen=True)
class HeaderText:
    """The text of a header.

    Attributes:
        path: its file.
        fields: what it says by name.
        length: bytes up to the voxels.
    """

    path: Path
    fields: Mapping[str, str]
    length: int


@dataclass(frozen=True)
class StatedHeader:
    """What a header states.

    Attributes:
        shape_ijk: voxels along the axes of the file, the fastest first.
        dtype: type of the stored numbers, in the machine's byte order.
        scale: to apply to them; None for none.
        spacing_mm: (3,) along i, j, k; 0 where the header does not say it.
        directions: (3, 3), its columns the directions of i, j, k (left, posterior, superior), of length one.
    """

    shape_ijk: tuple[int, int, int]
    dtype: np.dtype
    scale: Rescale | None
    spacing_mm: np.ndarray
    directions: np.ndarray


def damaged(path: Path, file_format: str) -> Exception:
    """Build the error for a header that cannot be parsed."""
    return unreadable(path, got=f"a damaged {file_format} header", expected="a whole file")


def no_orientation(path: Path, fields: str) -> Exception:
    """Build the error for a header that does not say where left and right are; ``fields`` would."""
    return unreadable(
        path,
        got="no orientation in the patient",
        expected=f"{fields} in the header: without, nobody can tell left from right",
        remedy="Convert the volume from DICOM again, or write them.",
    )


def numbers(path: Path, words: str, count: int, what: str) -> np.ndarray:
    """Parse so many numbers, separated by spaces or commas.

    Raises:
        DatasetError: words that are no numbers, or more or fewer of them.
    """
    found = re.split(r"[\s,]+", words.strip())
    try:
        parsed = np.array([float(word) for word in found if word])
    except ValueError:
        parsed = np.array([])
    if len(parsed) != count:
        raise unreadable(path, got=f"{what} {words[:60]!a}", expected=f"{count} numbers")
    return parsed


def shape_of(path: Path, rank: str, sizes: str) -> tuple[int, int, int]:
    """Parse number and lengths of the axes.

    Raises:
        DatasetError: other than three, or a size that no chest CT has.
    """
    if rank.strip() != "3":
        got = f"{rank[:20]!a} dimensions ({sizes[:60]!a} voxels)"
        raise unreadable(path, got=got, expected="a volume of three", remedy=LEAVE_OUT)
    words = sizes.split()
    if len(words) != 3 or not all(re.fullmatch(r"-?\d{1,18}", word) for word in words):
        raise unreadable(path, got=f"sizes {sizes[:60]!a}", expected="three whole numbers")
    i, j, k = (int(word) for word in words)
    check_shape(path, (i, j, k))
    return i, j, k


def beside(path: Path, name: str) -> Path:
    """Return the file of voxels that a header names.

    Raises:
        DatasetError: it is elsewhere, several, or not there.
    """
    name = name.removeprefix("./")
    if not name or Path(name).name != name or "%" in name or name.startswith("LIST") or "\0" in name:
        got = "voxels in several files or in another folder"
        raise unreadable(path, got=got, expected="one file beside the header", remedy=ONE_FILE)
    data = path.with_name(name)
    if data.is_symlink() or not data.is_file():
        raise unreadable(
            path, got="a header whose file of voxels is not there", expected="both", remedy="Fetch the other file."
        )
    return data
