"""Numbers of a file to int16, piece by piece: memory for the result and one piece, whatever type the file has.

Nothing is lost in silence: NaN and infinity are refused, what int16 cannot hold is counted, fractions are rounded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.volume import LEAVE_OUT, Rescale, unreadable

PIECE_VOXELS = 1 << 22
INT16 = np.iinfo(np.int16)
MAX_SATURATED = 1e-3  # share of voxels beyond int16; metal and padding are rarer


@dataclass
class _Counts:
    """What was met on the way."""

    saturated: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    fractions: int = 0


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
    counts = _Counts()
    buffer = bytearray(min(count, PIECE_VOXELS) * dtype.itemsize)
    for start in range(0, count, PIECE_VOXELS):
        end = min(start + PIECE_VOXELS, count)
        view = memoryview(buffer)[: (end - start) * dtype.itemsize]
        fill(view)
        values[start:end] = to_int16(path, np.frombuffer(view, dtype), scale, counts)
    return values, check_counts(path, counts, count)


def to_int16(path: Path, stored: np.ndarray, scale: Rescale | None, counts: _Counts | None = None) -> np.ndarray:
    """Scale and round numbers of any real type to int16.

    Raises:
        DatasetError: NaN or infinity.
    """
    counts = counts if counts is not None else _Counts()
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


def check_counts(path: Path, counts: _Counts, count: int) -> tuple[str, ...]:
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
    if counts.saturated:
        return (f"{counts.saturated} voxels beyond 16 bits (up to {counts.highest:.6g}) were set to its ends.",)
    return ()
