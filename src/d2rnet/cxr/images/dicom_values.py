"""Numbers of a DICOM data set as real files write them: blank, with a decimal comma, as text, or with a sign lost.

A value that cannot be read counts as absent; what depends on it then does what the standard says of an absent one. Every use
of a number of a header goes through here, in the check of the header as in the decoding, so that both see the same.

Source: DICOM PS3.5 6.2 (value representations), PS3.3 C.7.5.1.1.2 (pixel padding).
"""

import math

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

_MOST_CHARACTERS = 64  # of a number; DS has 16


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return an attribute as a finite number, the first of several; None where it is absent, blank or no number."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises ValueError, TypeError, struct.error, NotImplementedError on odd values
        value = _raw_text(dataset, keyword)
    return _finite(value)


def whole_number(dataset: Dataset, keyword: str) -> int | None:
    """Return an attribute as a whole number; None where it is absent, blank, no number or has a fraction."""
    value = number(dataset, keyword)
    return int(value) if value is not None and value == int(value) else None


def _raw_text(dataset: Dataset, keyword: str) -> object:
    """Return what stands in the file for an attribute that pydicom cannot convert."""
    try:
        element = dataset.get_item(Tag(keyword))
    except Exception:
        return None
    return element.value if isinstance(element, RawDataElement) else None


def _finite(value: object) -> float | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        text = value.split("\\")[0].strip(" \0")
        try:
            value = float(text.replace(",", ".")) if len(text) <= _MOST_CHARACTERS else None
        except ValueError:
            return None
    elif value is not None and not isinstance(value, int | float) and hasattr(value, "__iter__"):
        items = list(value)
        return _finite(items[0]) if items else None
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def is_padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Return the mask of padding (outside the collimator) among stored values; None where the file names none.

    Padding may be written without its sign (US 63536 for -2000) or in more bits than are stored: values are compared modulo
    two to the power of the bits stored. The range goes from one limit to the other the short way round, whichever comes first.
    """
    first = whole_number(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = whole_number(dataset, "PixelPaddingRangeLimit")
    values = 2 ** int(dataset.BitsStored)
    span = (first if last is None else last) % values - first % values
    span %= values
    if span > values // 2:
        first, span = first + span, values - span
    return (stored.astype(np.int64) - first) % values <= span


def without_padding(stored: np.ndarray, dataset: Dataset, *, is_inverted: bool) -> np.ndarray:
    """Replace padding (outside the collimator) by the value shown darkest, before any averaging mixes it in.

    Args:
        stored: (h, w) stored values.
        dataset: names the padding.
        is_inverted: whether the greatest value is shown darkest.
    """
    padding = is_padding(stored, dataset)
    if padding is None or not padding.any() or padding.all():
        return stored
    image = stored[~padding]
    return np.where(padding, image.max() if is_inverted else image.min(), stored)
