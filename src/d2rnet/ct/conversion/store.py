"""Stores converted volumes: one NumPy file each, mapped by readers; or its gzip, where the disk is short."""

from pathlib import Path

import numpy as np
from isal import igzip

from d2rnet.errors import DatasetError
from d2rnet.files.atomic import atomic_path

ARRAY_SUFFIX = ".npy"
COMPRESSED_SUFFIX = ".npy.gz"
_GZIP_LEVEL = 1  # of ISA-L: levels 2 and 3 gain 1 to 3 % in twice the time (docs/reference/ct-volumes.md)


def array_name(volume_id: str, *, compress: bool) -> str:
    """Return the file name of a volume."""
    return volume_id + (COMPRESSED_SUFFIX if compress else ARRAY_SUFFIX)


def write_array(target: Path, array: np.ndarray) -> None:
    """Write a converted volume atomically, compressed if the name ends in .gz.

    Args:
        target: file that ends in .npy or .npy.gz.
        array: (Z, Y, X) uint8 or int16.

    Raises:
        OSError: the disk is full; no half file remains.
    """
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        if target.suffix == ".gz":
            # no name and no time in the header: the same array is the same file
            with igzip.IGzipFile("", "wb", _GZIP_LEVEL, stream, 0) as packed:
                np.save(packed, np.ascontiguousarray(array), allow_pickle=False)
        else:
            np.save(stream, array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Read a converted volume: (Z, Y, X), mapped read-only where it is not compressed.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: not a NumPy file of three axes, cut off, or of another type than uint8 and int16.
    """
    try:
        if path.suffix == ".gz":
            with igzip.open(path, "rb") as stream:
                array = np.load(stream, allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError) as error:
        got = f"a damaged array ({type(error).__name__})"
        raise DatasetError(f"{path}: got {got}; expected a converted volume. Convert it again.") from error
    if array.ndim != 3 or array.dtype not in (np.uint8, np.int16):
        got = f"{array.dtype} of shape {array.shape}"
        raise DatasetError(f"{path}: got {got}; expected three axes of uint8 or int16. Convert it again.")
    return array
