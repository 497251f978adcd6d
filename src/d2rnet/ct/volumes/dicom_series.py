"""A folder of DICOM files to one volume: which series, which slices, in which place.

The place of a slice is its position in the patient, nothing else: not the file's name, the instance number, the slice location
or the thickness. SimpleITK and most converters average uneven positions without a word; here missing and doubled slices are
named, uneven steps are resampled, and a tilted gantry is straightened (:mod:`d2rnet.ct.volumes.orientation`).

Source: DICOM PS3.3 C.7.6.2.1.1 (position and orientation).
"""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.dicom_slices import Plane, Slice, is_dicom, read_slice, read_slice_hu
from d2rnet.ct.volumes.orientation import SQUARE_DEGREES, canonical_order, canonical_spacing
from d2rnet.ct.volumes.stored_values import Counts, check_counts
from d2rnet.ct.volumes.volume import LEAVE_OUT, StoredVolume, VolumeHeader, check_shape, check_spacing, unreadable

MAX_FILES = 20_000
_LEAST_OWN_SLICES = 10
_SAME_PLACE_MM = 0.01
_EVEN = 0.02  # of the median step: positions are written with two decimals
_EVEN_MM = 0.05
_WIDEST_STEP = 2.5  # of the median; what lies in a wider gap is not known
_STRAY_MM = 1.0  # of a slice from the line through the first and the last
_PARALLEL = 1e-3
_MIXED = "The folder mixes two acquisitions: store each in a folder of its own."


def read_series_header(folder: Path) -> VolumeHeader:
    """Read the headers of a folder's files and check that they make one volume; no pixel is read.

    Raises:
        DatasetError: as :func:`read_series`, as far as headers tell.
    """
    slices, notes = _chosen_series(folder)
    ordered, doubled, affine, more = _placed(folder, slices)
    del doubled
    shape = (len(ordered), *ordered[0].shape)
    order, _, _ = canonical_order(affine)
    shape_zyx = (shape[order[0]], shape[order[1]], shape[order[2]])
    return VolumeHeader(shape_zyx, canonical_spacing(affine), "DICOM series", ordered[0].syntax, (*notes, *more))


def read_series(folder: Path) -> StoredVolume:
    """Read a series; its array has the axes (slice, row, column), slices in the order of their positions.

    Raises:
        DatasetError: no CT slices, a single one, no positions, mixed sizes, spacings or directions, missing slices, doubled
            slices that differ, gaps too wide to fill, slices off the line, or pixels that are cut off or cannot be decoded.
    """
    slices, notes = _chosen_series(folder)
    ordered, doubled, affine, more = _placed(folder, slices)
    hu = np.empty((len(ordered), *ordered[0].shape), np.int16)
    counts = Counts()
    for index, described in enumerate(ordered):
        hu[index] = read_slice_hu(described, counts)
        for other in doubled.get(index, ()):
            if not np.array_equal(read_slice_hu(other, Counts()), hu[index]):
                got = f"two different slices in one place, the second {other.path.name}"
                raise unreadable(folder, got=got, expected="one slice a place", remedy=_MIXED)
    more = (*more, *check_counts(folder, counts, hu.size))
    normal = ordered[0].placed.normal
    places = np.array([described.placed.position @ normal for described in ordered])
    steps = np.diff(places)
    if not _is_even(steps):
        hu, affine = _evenly_spaced(hu, places, affine)
        more = (*more, f"uneven steps of {steps.min():.2f} to {steps.max():.2f} mm: resampled at {np.median(steps):.2f} mm.")
    scales = {described.rescale for described in ordered}
    scale = next(iter(scales)) if len(scales) == 1 else None
    if len(scales) > 1:
        more = (*more, f"{len(scales)} different rescales: each slice by its own.")
    return StoredVolume(hu, affine, scale, "DICOM series", (*notes, *more))


def series_slices(folder: Path) -> list[Path]:
    """Return the files of the series that :func:`read_series` reads; no pixel is read.

    Raises:
        DatasetError: no CT slices, or headers that cannot be parsed.
    """
    slices, _ = _chosen_series(folder)
    return [described.path for described in slices]


def series_files(folder: Path) -> list[Path]:
    """Return what lies below a folder, sorted; linked folders are named and not entered.

    Raises:
        DatasetError: more than MAX_FILES, or a folder that cannot be opened.
    """

    def stop(error: OSError) -> None:
        remedy = "Check the permissions and that the download is complete."
        raise unreadable(
            Path(error.filename), got=f"'{error.strerror}'", expected="a folder of slices", remedy=remedy
        ) from error

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=stop, followlinks=False):
        folders.sort()
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name) for name in [*sorted(names), *linked]]
        if len(found) > MAX_FILES:
            raise unreadable(folder, got=f"more than {MAX_FILES} files", expected="one CT study", remedy="Name its folder.")
    return found


def _chosen_series(folder: Path) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of the folder's largest CT series, its own before those of subfolders, and what was left out."""
    counts: Counter[str] = Counter()
    series: dict[str, list[Slice]] = defaultdict(list)
    for path in series_files(folder):
        if not path.is_file() or not is_dicom(path):
            counts["linked folders" if path.is_dir() else "other files"] += 1
            continue
        described = read_slice(path)
        if described.left_out:
            counts[described.left_out] += 1
            continue
        series[described.series].append(described)
    left_out = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
    if not series:
        got = f"no CT slices ({left_out or 'no files'})"
        raise unreadable(folder, got=got, expected="the DICOM files of a CT series", remedy="Correct the path.")
    # A series in the folder itself goes before larger ones in its subfolders, which are scans of their own; not a few stray
    # slices, as of a timing bolus.
    direct = [uid for uid, slices in series.items() if sum(one.path.parent == folder for one in slices) >= _LEAST_OWN_SLICES]
    chosen = min(direct or series, key=lambda uid: (-len(series[uid]), uid))
    if len(series) > 1 and len(series[chosen]) == 1:
        remedy = "Store the slices of one series under one SeriesInstanceUID."
        raise unreadable(folder, got=f"{len(series)} series of one slice each", expected="a series", remedy=remedy)
    notes = [f"left out: {left_out}."] if left_out else []
    if "" in series:
        notes.append(f"{len(series[''])} slices have no SeriesInstanceUID: taken as one series.")
    if len(series) > 1:
        others = ", ".join(map(str, sorted((len(slices) for uid, slices in series.items() if uid != chosen), reverse=True)))
        notes.append(f"{len(series)} series: the one of {len(series[chosen])} slices is taken; the others have {others}.")
    return series[chosen], tuple(notes)


def _placed(folder: Path, slices: Sequence[Slice]) -> tuple[list[Slice], dict[int, list[Slice]], np.ndarray, tuple[str, ...]]:
    """Put slices in order; return them, doubled ones by the place of the first, index to millimetres, and notes."""
    planes = _checked_planes(folder, slices)
    first = planes[0]
    along = np.array([plane.position @ first.normal for plane in planes])  # (n,) mm
    ordered: list[int] = []
    doubled: dict[int, list[Slice]] = defaultdict(list)
    for index in np.argsort(along, kind="stable"):
        if ordered and abs(along[index] - along[ordered[-1]]) < _SAME_PLACE_MM:
            doubled[len(ordered) - 1].append(slices[index])
        else:
            ordered.append(int(index))
    if len(ordered) < 2:
        raise unreadable(folder, got="a single slice", expected="a volume", remedy=LEAVE_OUT)
    check_shape(folder, (len(ordered), *slices[0].shape), where="the series")
    places = along[ordered]
    positions = np.array([planes[index].position for index in ordered])  # (n, 3)
    steps = np.diff(places)
    _check_gaps(folder, steps)
    _check_line(folder, positions, places)
    notes = [f"{sum(map(len, doubled.values()))} slices are there twice, with the same pixels."] if doubled else []
    step = (positions[-1] - positions[0]) / (places[-1] - places[0]) * float(np.median(steps))
    tilt = float(np.degrees(np.arccos(np.clip(step @ first.normal / np.linalg.norm(step), -1, 1))))
    if tilt > SQUARE_DEGREES:
        notes.append(f"a gantry tilt of {tilt:.1f} degrees is straightened.")
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.column * first.spacing[0]
    affine[:3, 2] = first.row * first.spacing[1]
    affine[:3, 3] = positions[0]
    check_spacing(folder, canonical_spacing(affine), where="the slices")
    return [slices[index] for index in ordered], dict(doubled), affine, tuple(notes)


def _checked_planes(folder: Path, slices: Sequence[Slice]) -> list[Plane]:
    """Return where the slices lie; refuse those without a place or scaling, or of another size, spacing or direction."""
    planes = [described.plane for described in slices if described.plane is not None]
    if len(planes) < len(slices):
        got = f"{len(slices) - len(planes)} of {len(slices)} slices without position, orientation or pixel spacing"
        remedy = "Export the series again, from the scanner."
        raise unreadable(folder, got=got, expected="all three in every slice", remedy=remedy)
    unscaled = sum(described.rescale is None for described in slices)
    if 0 < unscaled < len(slices):
        got = f"{unscaled} of {len(slices)} slices without rescale slope and intercept"
        raise unreadable(folder, got=got, expected="them in every slice or in none", remedy=_MIXED)
    shapes = Counter(described.shape for described in slices)
    if len(shapes) > 1:
        shown = ", ".join(f"{number} of {rows} x {columns}" for (rows, columns), number in shapes.most_common())
        raise unreadable(folder, got=f"slices of several sizes ({shown})", expected="one size", remedy=_MIXED)
    first = planes[0]
    for described, plane in zip(slices, planes, strict=True):
        same_way = np.allclose([plane.row, plane.column], [first.row, first.column], atol=_PARALLEL)
        if not same_way or not np.allclose(plane.spacing, first.spacing, rtol=_PARALLEL):
            what = "pixel spacings" if same_way else "directions"
            got = f"slices of several {what}, such as {described.path.name}"
            raise unreadable(folder, got=got, expected="one volume", remedy=_MIXED)
    return planes


def _is_even(steps: np.ndarray) -> bool:
    median = float(np.median(steps))
    return bool(np.abs(steps - median).max() <= max(_EVEN * median, _EVEN_MM))


def _check_gaps(folder: Path, steps: np.ndarray) -> None:
    """Refuse missing slices (steps of two or more times the common one) and gaps too wide to fill."""
    median = float(np.median(steps))
    times = steps / median
    whole = np.rint(times)
    near = np.abs(times - whole) <= 0.05 * whole
    gaps = (whole >= 2) & near  # one uneven step elsewhere hides no missing slice
    if gaps.any():
        missing = int((whole[gaps] - 1).sum())
        places = int(gaps.sum())
        got = f"{missing} missing slice(s) in {places} place(s): steps of {median:.2f} mm and up to {steps.max():.2f} mm"
        raise unreadable(folder, got=got, expected="every slice of the series", remedy="Fetch the missing files.")
    if times.max() > _WIDEST_STEP:
        got = f"a gap of {steps.max():.2f} mm between slices that are {median:.2f} mm apart"
        raise unreadable(folder, got=got, expected=f"at most {_WIDEST_STEP} times that", remedy="Fetch the missing files.")


def _check_line(folder: Path, positions: np.ndarray, places: np.ndarray) -> None:
    """Refuse slices that do not lie behind each other on one line."""
    share = ((places - places[0]) / (places[-1] - places[0]))[:, None]
    expected = positions[0] + share * (positions[-1] - positions[0])
    stray = float(np.linalg.norm(positions - expected, axis=1).max())
    if stray > _STRAY_MM:
        raise unreadable(folder, got=f"a slice {stray:.1f} mm off the line of the others", expected="one stack", remedy=_MIXED)


def _evenly_spaced(hu: np.ndarray, places: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate between neighbouring slices so that all steps are the median one; ``affine`` has that step."""
    median = float(np.median(np.diff(places)))
    count = int(np.floor((places[-1] - places[0]) / median + 1e-6)) + 1
    wanted = places[0] + median * np.arange(count)
    below = np.clip(np.searchsorted(places, wanted, side="right") - 1, 0, len(places) - 2)
    share = (wanted - places[below]) / (places[below + 1] - places[below])  # (count,) in 0..1
    even = np.empty((count, *hu.shape[1:]), np.int16)
    for index in range(count):
        lower, upper = hu[below[index]], hu[below[index] + 1]
        mixed = lower * np.float32(1 - share[index]) + upper * np.float32(share[index])
        even[index] = np.rint(mixed)
    return even, affine
