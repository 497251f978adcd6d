"""Numbers of a file to int16, piece by piece: memory for the result and one piece, whatever type the file has.

Nothing is lost in silence: NaN and infinity are refused, what int16 cannot hold is counted, fractions are rounded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from d2rnet.ct.volumes.volume import AIR_HU, LEAVE_OUT, Rescale, unreadable

PIECE_VOXELS = 1 << 22
MAX_INFLATION = 1032  # deflate packs at most so many bytes into one
_LARGE_BYTES = 1 << 28
_READ_BYTES = 1 << 18  # stays in the cache: the gzip stream makes a copy of what is asked for
_LIKELY_INFLATION = 200  # CT noise hardly packs: real volumes have 2 to 5, padded ones 20
INT16 = np.iinfo(np.int16)
MAX_SATURATED = 1e-3  # share of voxels beyond int16; metal and padding are rarer


def check_held(path: Path, needed: int, size: int, *, is_packed: bool) -> None:
    """Refuse voxels that a file cannot hold, or could only if they were made up, before memory is taken.

    Args:
        path: file of the volume, for messages.
        needed: bytes of the voxels that the header tells.
        size: bytes of the file that may be voxels.
        is_packed: whether they are compressed.

    Raises:
        DatasetError: more than the file can hold; or above 256 MiB more than 200 times its size.
    """
    inflation = (_LIKELY_INFLATION if needed > _LARGE_BYTES else MAX_INFLATION) if is_packed else 1
    if needed > size * inflation:
        got = f"{needed} bytes of voxels in the header, {size} bytes of them in the file"
        raise unreadable(path, got=got, expected="as many voxels as the file can hold")


def exact_filler(path: Path, stream: BinaryIO, needed: int) -> Callable[[memoryview], None]:
    """Return a function that fills a buffer from a stream and raises where the stream ends before.

    Args:
        path: file of the volume, for messages.
        stream: stands at the first voxel.
        needed: bytes of all voxels, for messages.
    """
    read = 0

    def fill(view: memoryview) -> None:
        nonlocal read
        got = 0
        while got < len(view) and (piece := stream.readinto(view[got : got + _READ_BYTES])):  # type: ignore[attr-defined]
            got += piece
        read += got
        if got < len(view):
            raise unreadable(path, got=f"{read} bytes of voxels", expected=f"{needed} bytes, as the header says")

    return fill


@dataclass
class Counts:
    """What was met while numbers became int16.

    Attributes:
        saturated: values beyond int16.
        lowest: lowest value before rounding.
        highest: highest.
        fractions: values that are no whole numbers.
        padding: voxels that the header's padding value told, set to air.
    """

    saturated: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    fractions: int = 0
    padding: int = 0


def read_values(
    path: Path,
    fill: Callable[[memoryview], None],
    count: int,
    dtype: np.dtype,
    scale: Rescale | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read numbers one after the other and round them to int16.

    Args:
        path: file of the volume, for messages.
        fill: fills a buffer with the next bytes of the file; raises where there are too few.
        count: numbers.
        dtype: real type of the numbers, with byte order.
        scale: scaling to apply; None for none.

    Returns:
        (count,) int16, and what was changed.

    Raises:
        DatasetError: NaN, infinity, intensities normalised to about 0 to 1, or too many values beyond int16.
    """
    values = np.empty(count, np.int16)
    if dtype.newbyteorder("=") == np.int16 and scale is None:
        for start in range(0, count, PIECE_VOXELS):
            fill(values[start : start + PIECE_VOXELS].data.cast("B"))
        if not dtype.isnative:
            values.byteswap(inplace=True)
        return values, ()
    counts = Counts()
    buffer = bytearray(min(count, PIECE_VOXELS) * dtype.itemsize)
    for start in range(0, count, PIECE_VOXELS):
        end = min(start + PIECE_VOXELS, count)
        view = memoryview(buffer)[: (end - start) * dtype.itemsize]
        fill(view)
        values[start:end] = to_int16(path, np.frombuffer(view, dtype), scale, counts)
    return values, check_counts(path, counts, count)


def to_int16(path: Path, stored: np.ndarray, scale: Rescale | None, counts: Counts) -> np.ndarray:
    """Scale and round numbers of any real type to int16.

    Args:
        path: file of the volume, for messages.
        stored: numbers of any shape.
        scale: scaling to apply; None for none.
        counts: what is met is added here.

    Raises:
        DatasetError: NaN or infinity.
    """
    is_float = stored.dtype.kind == "f"
    if is_float and not np.isfinite(stored).all():
        bad = int((~np.isfinite(stored)).sum())
        got = f"NaN or infinity in at least {bad} voxels"
        raise unreadable(
            path, got=got, expected="finite numbers", remedy="Fill them with -1024 (air) and store the file again."
        )
    numbers = stored
    if scale is not None:
        exact = np.float64 if stored.dtype.itemsize >= 4 else np.float32  # float32 holds integers up to 2^24
        numbers = stored.astype(exact)
        numbers *= scale.slope
        numbers += scale.intercept
    if numbers.size == 0:
        return np.empty(numbers.shape, np.int16)
    lowest, highest = float(numbers.min()), float(numbers.max())
    counts.lowest = min(counts.lowest, lowest)
    counts.highest = max(counts.highest, highest)
    if numbers.dtype.kind == "f":
        rounded = np.rint(numbers)
        counts.fractions += int(np.count_nonzero(rounded != numbers))
        numbers = rounded
    if lowest < INT16.min or highest > INT16.max:
        counts.saturated += int(np.count_nonzero((numbers < INT16.min) | (numbers > INT16.max)))
        numbers = np.clip(numbers, INT16.min, INT16.max)
    return numbers.astype(np.int16)


def check_counts(path: Path, counts: Counts, count: int) -> tuple[str, ...]:
    """Say what was changed.

    Raises:
        DatasetError: see :func:`read_values`.
    """
    if counts.fractions and counts.lowest >= -2 and counts.highest <= 2:
        got = f"fractions between {counts.lowest:.3g} and {counts.highest:.3g}"
        remedy = "Intensities were normalised: take the volume that they were made from."
        raise unreadable(path, got=got, expected="Hounsfield units or stored values", remedy=remedy)
    if counts.saturated > MAX_SATURATED * count:
        got = f"values from {counts.lowest:.6g} to {counts.highest:.6g}, {counts.saturated} of {count} beyond 16 bits"
        raise unreadable(path, got=got, expected="Hounsfield units or stored values", remedy=LEAVE_OUT)
    notes = []
    if counts.saturated:
        notes.append(f"{counts.saturated} voxels beyond 16 bits (up to {counts.highest:.6g}) were set to its ends.")
    if counts.padding:
        notes.append(f"{counts.padding} voxels of the header's padding value were set to {AIR_HU}.")
    return tuple(notes)
