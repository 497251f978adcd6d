"""From stored DICOM values to 8-bit grey: modality LUT, VOI LUT or window, MONOCHROME1 inversion, in this order and once.

The whole chain is a function of one stored value, so it is evaluated in float64 for each value that occurs (at most 65,536)
and applied to the pixels as one table look-up.

Source: DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT; window functions in C.11.2.1.2 and C.11.2.1.3).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from d2rnet.cxr.images.dicom_values import number
from d2rnet.cxr.images.radiograph import data_range, unreadable

log = logging.getLogger(__name__)
_MOST_LUT_BITS = 16
WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_ASK_THE_SOURCE = "Fetch the file again; if the original is the same, leave the image out."


@dataclass(frozen=True)
class Window:
    """Window centre and width in modality units, and the VOI LUT function that uses them."""

    center: float
    width: float
    function: str = "LINEAR"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Map modality values to display values in [0, 1]."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4.0 * (values - self.center) / self.width, -700.0, 700.0)
            return 1.0 / (1.0 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.center) / self.width + 0.5, 0.0, 1.0)
        if self.width == 1.0:
            return (values > self.center - 0.5).astype(np.float64)
        return np.clip((values - (self.center - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class LookupTable:
    """A DICOM LUT: ``outputs[0]`` for every input up to ``first``, the last entry for all beyond the end."""

    first: int
    outputs: np.ndarray  # (n,) float64
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Look values up, in the LUT's own output units."""
        index = np.rint(values).astype(np.int64) - self.first
        return self.outputs[np.clip(index, 0, self.outputs.size - 1)]


@dataclass(frozen=True)
class GrayscaleTransform:
    """The chain of one file; see the module's docstring."""

    path: Path
    bits_stored: int
    is_signed: bool
    is_inverted: bool
    slope: float = 1.0
    intercept: float = 0.0
    modality_table: LookupTable | None = None
    voi_table: LookupTable | None = None
    window: Window | None = None

    def modality(self, stored: np.ndarray) -> np.ndarray:
        """Map stored values to modality units (float64)."""
        stored = np.asarray(stored, np.float64)
        if self.modality_table is not None:
            return self.modality_table.apply(stored)
        return stored * self.slope + self.intercept

    def display_range(self, pixels: np.ndarray) -> tuple[float, float]:
        """Modality values shown as black and white where the file names no VOI LUT and no window.

        Up to 8 bits stored: the range that the bits can hold, because such pixels are made for display. More: the range of the
        data (:func:`d2rnet.cxr.images.radiograph.data_range`).
        """
        if self.bits_stored <= 8:
            low = -(2 ** (self.bits_stored - 1)) if self.is_signed else 0
            ends: tuple[float, float] = (low, low + 2**self.bits_stored - 1)
        else:
            ends = data_range(pixels)
        values = self.modality(np.array(ends))
        return float(values.min()), float(values.max())

    def to_8_bit(self, pixels: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Map stored values to grey levels.

        Args:
            pixels: (h, w) stored integers, possibly averaged over areas.
            source: the pixels before averaging; their range counts where the file has no VOI LUT or window, or one that shows
                nothing because every value of the file lies on one side of it (logged).

        Returns:
            (h, w) uint8, rounded half up, bright where the body absorbs.
        """
        low = int(pixels.min())
        high = int(pixels.max())
        values = self.modality(np.arange(low, high + 1))
        if self.voi_table is not None:
            shown = self.voi_table.apply(values) / (2**self.voi_table.bits - 1)
        elif self.window is not None:
            shown = self.window.apply(values)
        else:
            shown = _stretch(values, self.display_range(source))
        if high > low and shown.max() == shown.min() and (self.window or self.voi_table):
            log.warning("%s: its window lies outside its pixel values; the range of the data is shown instead", self.path)
            shown = _stretch(values, self.display_range(source))
        if self.is_inverted:
            shown = 1.0 - shown
        table = np.floor(shown * 255.0 + 0.5).astype(np.uint8)
        return table[pixels if low == 0 else np.subtract(pixels, low, dtype=np.int32)]


def _stretch(values: np.ndarray, display_range: tuple[float, float]) -> np.ndarray:
    low, high = display_range
    return np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)


def read_grayscale(dataset: Dataset, path: Path) -> GrayscaleTransform:
    """Read the chain from a DICOM data set.

    A VOI LUT wins over a window, the first of several is used; a modality LUT wins over rescale. PresentationLUTShape is not
    read: for MONOCHROME1 it must be INVERSE and says the same a second time.

    Raises:
        DatasetError: a LUT is shorter than its descriptor says, or the rescale slope is zero.
    """
    is_signed = bool(dataset.PixelRepresentation)
    slope = number(dataset, "RescaleSlope")
    intercept = number(dataset, "RescaleIntercept")
    if slope == 0.0:
        raise unreadable(path, got=f"rescale slope {slope}", expected="a number other than 0", remedy=_ASK_THE_SOURCE)
    return GrayscaleTransform(
        path=path,
        bits_stored=int(dataset.BitsStored),
        is_signed=is_signed,
        is_inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        modality_table=_first_table(dataset, "ModalityLUTSequence", path),
        voi_table=_first_table(dataset, "VOILUTSequence", path),
        window=_first_window(dataset, path),
    )


def _first_window(dataset: Dataset, path: Path) -> Window | None:
    center = number(dataset, "WindowCenter")
    width = number(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function not in WINDOW_FUNCTIONS:
        expected = f"one of {', '.join(WINDOW_FUNCTIONS)}"
        raise unreadable(path, got="an unknown VOI LUT function", expected=expected, remedy=_ASK_THE_SOURCE)
    is_usable = width >= 1.0 if function == "LINEAR" else width > 0.0
    if not is_usable:
        log.warning("%s: window width %s is not usable; the range of the data is shown instead", path, width)
        return None
    return Window(center, width, function)


def _first_table(dataset: Dataset, keyword: str, path: Path) -> LookupTable | None:
    """Return the first LUT of a sequence that is one; an item without descriptor or entries is none.

    Raises:
        DatasetError: a LUT has fewer entries than its descriptor says.
    """
    for item in _items(dataset, keyword):
        descriptor = _descriptor(item)
        words = _lut_words(item, is_little=_is_little(dataset))
        if descriptor is not None and words is not None:
            return _table(descriptor, words, dataset, keyword, path)
    return None


def _is_little(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    return meta is None or meta.get("TransferSyntaxUID") != ExplicitVRBigEndian


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    try:
        return list(dataset.get(keyword) or [])
    except Exception:  # an element of that name that is no sequence
        return []


def _descriptor(item: Dataset) -> tuple[int, int, int] | None:
    """Return number of entries, first input and bits of a LUT; None where they are blank or no numbers."""
    try:
        entries, first, bits = (int(part) for part in item.LUTDescriptor)
    except Exception:  # absent, blank, of another length, or of a type that pydicom cannot convert
        return None
    return entries % 2**16 or 2**16, first, bits  # PS3.3 C.11.1.1: 0 stands for 2**16


def _lut_words(item: Dataset, *, is_little: bool) -> NDArray[np.uint16] | None:
    """Return the entries of a LUT as they stand, None where there are none."""
    try:
        data = item.LUTData
    except Exception:
        return None
    if data is None or (isinstance(data, bytes | str) and not data):
        return None
    if isinstance(data, bytes):
        return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little else ">u2").astype(np.uint16)
    try:
        words = np.atleast_1d(np.asarray(data)).astype(np.int64) % 2**16  # some files write them as signed
    except (TypeError, ValueError):
        return None
    return words.astype(np.uint16)


def _table(
    descriptor: tuple[int, int, int], words: NDArray[np.uint16], dataset: Dataset, keyword: str, path: Path
) -> LookupTable:
    entries, first, bits = descriptor
    values: NDArray[Any] = words
    if bits <= 8 and words.size < entries:
        values = words.astype("<u2").view(np.uint8)  # two 8-bit entries a word, the first in its low byte
    if values.size < entries:
        expected = f"the {entries} of its descriptor"
        raise unreadable(path, got=f"a {keyword} of {values.size} entries", expected=expected, remedy=_ASK_THE_SOURCE)
    outputs = values[:entries].astype(np.float64)
    # Some files state 8 bits beside 16-bit entries; full scale must not lie below the largest entry.
    bits = max(bits if bits <= _MOST_LUT_BITS else 0, int(outputs.max()).bit_length(), 1)
    if dataset.PixelRepresentation and first >= 2**15:
        first -= 2**16
    return LookupTable(first, outputs, bits)
