"""Decides whether the numbers of a volume are Hounsfield units, once per volume, from the values themselves.

CT-RATE's first release stores raw values, to be scaled by the slope and intercept of its metadata table; its second release
stores Hounsfield units, and the table still has the old slope and intercept. Applying them twice shifts a volume by -1024.

A chest in Hounsfield units has soft tissue round 0 and air or lung below -600, whatever the scanner; shifted by 1024 or 8192
it has not. Both readings of the numbers are tried; the one that shows a body is taken, and a contradiction stops the volume.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from d2rnet.ct.volumes.stored_values import INT16, PIECE_VOXELS
from d2rnet.ct.volumes.volume import AIR_HU, LEAVE_OUT, Rescale, unreadable

HounsfieldChoice = Literal["auto", "raw", "already"]
PADDING_BELOW_HU = -1250  # below air with its noise: values that scanners and tools write outside the field of view
_UINT8_MAX = 255
_AIR_HU = (PADDING_BELOW_HU, -600)
_TISSUE_HU = (-200, 200)  # fat, muscle, blood
_MIN_TISSUE = 0.02  # share of the voxels that are no padding
_MIN_AIR = 0.002
_NEVER_BELOW_HU = -200
_MOST_LABELS = 130  # TotalSegmentator has 117; an 8-bit picture of a chest has over 200 levels
_MOST_AT_THE_TOP = 0.01  # share of voxels; metal at the 3071 HU of a scanner is rarer, bone above a window is not
_SAMPLED = 500_000  # voxels looked at; the decision rests on shares of per cents


@dataclass(frozen=True)
class _Reading:
    """One way to read the numbers, and how much of a body it shows."""

    name: str
    rescale: Rescale  # on top of the values as they are
    lowest: float
    air: float  # share in _AIR_HU, of voxels that are no padding
    tissue: float  # share in _TISSUE_HU

    @property
    def shows_a_body(self) -> bool:
        """Whether there is soft tissue, and air in or round it."""
        return self.tissue >= _MIN_TISSUE and self.air >= _MIN_AIR

    def __str__(self) -> str:
        return f"{self.name}: lowest {self.lowest:.0f}, {self.air:.1%} air or lung, {self.tissue:.1%} soft tissue"


def to_hounsfield(
    path: Path,
    values: np.ndarray,
    *,
    choice: HounsfieldChoice,
    table: Rescale | None,
    header: Rescale | None,
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Turn the numbers of a volume into Hounsfield units, in place where they are not yet.

    Args:
        path: file of the volume, for messages.
        values: int16 of any shape, after the header's own scaling; changed in place.
        choice: auto: decide; raw: the table's scaling must be applied; already: the values are Hounsfield units.
        table: slope and intercept of a metadata table, for the numbers as stored; None where there is none.
        header: the file's own scaling, applied already; None for none.

    Returns:
        The same array, int16 with padding set to air; how the decision fell; what was changed.

    Raises:
        DatasetError: no reading, or two different ones, show a body; the choice contradicts the values; raw without a table;
            a table whose slope is no number or zero.
    """
    sample = sample_of(values)
    _check_kind(path, sample)
    as_is = _reading(
        f"as the header has it, slope {header.slope:g}, intercept {header.intercept:g}" if header else "already",
        sample,
        Rescale(1.0, 0.0),
    )
    readings = [as_is]
    if table is not None:
        readings += _table_reading(path, sample, table, header)
    chosen = _choose(path, readings, choice)
    saturated = _apply(values, chosen.rescale)
    notes = [f"{saturated} voxels beyond 16 bits were set to its ends."] if saturated else []
    if len(readings) > 1 and table is not None and not table.is_identity and chosen is as_is:
        notes.append(
            f"slope {table.slope:g} and intercept {table.intercept:g} of the table were not applied: the values are HU."
        )
    notes += _window(sample * chosen.rescale.slope + chosen.rescale.intercept)
    padded = _padding_to_air(values)
    if padded:
        share = f"{padded} voxels ({padded / values.size:.2%})"
        notes.append(f"{share} below {PADDING_BELOW_HU} HU are padding: set to {AIR_HU}.")
    return values, chosen.name, tuple(notes)


def sample_of(values: np.ndarray) -> np.ndarray:
    """Return float64 values from places all over a volume, the same ones each time; all of a small volume.

    Places are drawn, not every n-th: n can be the length of a row, and then one column would speak for the volume.

    Args:
        values: of any shape.
    """
    if values.size <= _SAMPLED:
        return values.ravel().astype(np.float64)
    places = np.random.default_rng(0).integers(0, values.size, _SAMPLED)
    return values.reshape(-1)[places].astype(np.float64)  # a view: the readers' arrays are contiguous


def _check_kind(path: Path, sample: np.ndarray) -> None:
    """Refuse a mask, a label map and a volume of one value by their names.

    Raises:
        DatasetError: one value; or few whole numbers from 0 on.
    """
    lowest, highest = float(sample.min()), float(sample.max())
    if lowest == highest:
        raise unreadable(path, got=f"the value {lowest:.0f} in every voxel looked at", expected="a body", remedy=LEAVE_OUT)
    distinct = len(np.unique(sample)) if lowest >= 0 and highest <= _UINT8_MAX else _UINT8_MAX
    if distinct <= _MOST_LABELS:
        got = (
            f"a mask, a label map or a picture of few levels ({distinct} different values from {lowest:.0f} to {highest:.0f})"
        )
        raise unreadable(path, got=got, expected="a CT volume", remedy="Name the CT volume that it belongs to.")


def _reading(name: str, sample: np.ndarray, rescale: Rescale) -> _Reading:
    hu = sample * rescale.slope + rescale.intercept
    lowest = float(hu.min())
    body = hu[hu != lowest] if lowest < PADDING_BELOW_HU else hu  # one constant outside the field of view is no evidence
    if body.size == 0:
        return _Reading(name, rescale, lowest, 0.0, 0.0)
    air = float(((body >= _AIR_HU[0]) & (body <= _AIR_HU[1])).mean())
    tissue = float(((body >= _TISSUE_HU[0]) & (body <= _TISSUE_HU[1])).mean())
    return _Reading(name, rescale, lowest, air, tissue)


def _table_reading(path: Path, sample: np.ndarray, table: Rescale, header: Rescale | None) -> list[_Reading]:
    """Return the reading by the table, or nothing where it says nothing.

    The header's scaling, applied before, is taken back for it.
    """
    if np.isnan(table).any():
        return []
    if not np.isfinite(table).all() or table.slope == 0:
        got = f"slope {table.slope:g} and intercept {table.intercept:g} in the metadata table"
        raise unreadable(path, got=got, expected="two numbers, the slope other than 0", remedy="Mend the table.")
    back = header or Rescale(1.0, 0.0)
    slope = table.slope / back.slope
    combined = Rescale(slope, table.intercept - slope * back.intercept)
    return [_reading(f"raw, by the table's slope {table.slope:g}, intercept {table.intercept:g}", sample, combined)]


def _choose(path: Path, readings: list[_Reading], choice: HounsfieldChoice) -> _Reading:
    as_is = readings[0]
    raw = readings[1] if len(readings) > 1 else None
    if choice == "raw":
        if raw is None:
            remedy = "Give the table, or set ct.data.volumes.hu to auto or already."
            raise unreadable(path, got="hu: raw without slope and intercept", expected="a metadata table", remedy=remedy)
        return _accepted(path, raw, "raw", as_is)
    if choice == "already" or raw is None:
        return _accepted(path, as_is, choice, raw)
    if raw.shows_a_body and as_is.shows_a_body and not raw.rescale.is_identity:
        got = f"numbers that are a body with and without the table's scaling ({as_is}; {raw})"
        remedy = "Say which: hu raw or already."
        raise unreadable(path, got=got, expected="one of them", remedy=remedy)
    if as_is.shows_a_body or not raw.shows_a_body:
        return _accepted(path, as_is, "auto", raw)
    return raw


def _accepted(path: Path, reading: _Reading, choice: str, other: _Reading | None) -> _Reading:
    """Return the reading if it can be Hounsfield units."""
    if reading.shows_a_body:
        return reading
    others = f"; {other}" if other is not None else ""
    if other is not None and other.shows_a_body:
        remedy = "Choose auto, or mend the table."
        raise unreadable(path, got=f"hu: {choice} against the values ({reading}{others})", expected="a body", remedy=remedy)
    if reading.lowest > _NEVER_BELOW_HU:
        got = f"values never below {reading.lowest:.0f} ({reading}{others})"
        expected = "Hounsfield units, with air near -1000"
        remedy = "An 8-bit picture: leave it out. Raw values: give slope and intercept of the metadata table."
        raise unreadable(path, got=got, expected=expected, remedy=remedy)
    got = f"values that are no body in Hounsfield units ({reading}{others})"
    raise unreadable(path, got=got, expected="soft tissue near 0 and air near -1000", remedy=LEAVE_OUT)


def _window(hu: np.ndarray) -> list[str]:
    """Say that a sample was cut off at a value: bone and contrast agent above it are gone."""
    top = float(hu.max())
    share = float((hu == top).mean())
    if share <= _MOST_AT_THE_TOP:
        return []
    return [f"windowed: {share:.1%} of the voxels have the highest value, {top:.0f} HU; expected few."]


def _apply(values: np.ndarray, rescale: Rescale) -> int:
    """Scale int16 in place, piece by piece; return how many voxels int16 could not hold."""
    if rescale.is_identity:
        return 0
    saturated = 0
    flat = values.reshape(-1)  # a view: the readers' arrays are contiguous
    for start in range(0, flat.size, PIECE_VOXELS):
        scaled = np.rint(flat[start : start + PIECE_VOXELS] * np.float64(rescale.slope) + rescale.intercept)
        saturated += int(np.count_nonzero((scaled < INT16.min) | (scaled > INT16.max)))
        flat[start : start + PIECE_VOXELS] = np.clip(scaled, INT16.min, INT16.max)
    return saturated


def _padding_to_air(values: np.ndarray) -> int:
    """Set padding to air, piece by piece; return the number of voxels."""
    found = 0
    flat = values.reshape(-1)
    if flat.min() >= PADDING_BELOW_HU:
        return 0
    for start in range(0, flat.size, PIECE_VOXELS):
        piece = flat[start : start + PIECE_VOXELS]
        padding = piece < PADDING_BELOW_HU
        found += int(np.count_nonzero(padding))
        piece[padding] = AIR_HU
    return found
