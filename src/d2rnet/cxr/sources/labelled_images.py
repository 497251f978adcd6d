"""Images of a labelled source: safe ids, files found on disk by id, sizes of the original radiographs.

Nothing is opened here but the size table; a file that is missing keeps its expected path, so that verify-inputs and the
conversion report it.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import LABELLED_IMAGE_COLUMNS
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.names import is_safe_id
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile

log = logging.getLogger(__name__)

DICOM_SUFFIXES = (".dicom", ".dcm")
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg")
Sizes = dict[str, tuple[int, int]]


def keep_safe_ids(rows: pd.DataFrame, *, file: str | Path, problems: Problems) -> pd.DataFrame:
    """Return the rows whose ``source_id`` is a safe file name; note each unsafe id once.

    Ids become names of files in our own folders, so that one with ``..`` could overwrite a stranger's file.
    """
    unsafe = {source_id for source_id in rows["source_id"].unique() if not is_safe_id(source_id)}
    for source_id in sorted(unsafe):
        problems.add(
            "unsafe_id",
            file=file,
            record=f"image {source_id[:80]!a}",
            got=f"id {source_id[:80]!a}",
            expected="an id of 1 to 200 bytes without path separator, '..', control character or a full stop at its start",
            remedy="Rename the image.",
        )
    return rows[~rows["source_id"].isin(list(unsafe))] if unsafe else rows


def find_images(
    folder: Path, *, problems: Problems, recursive: bool = False, wanted: Iterable[str] | None = None
) -> dict[str, Path]:
    """Return image id (file name without suffix) -> file, for DICOM, PNG and JPG files of a folder.

    Args:
        folder: folder to search; one that does not exist holds nothing.
        problems: grows by one for each id with more than one file.
        recursive: whether to search the folders below too; linked ones are not followed (logged).
        wanted: ids to look for; None for all.
    """
    names = None if wanted is None else set(wanted)
    found: dict[str, list[Path]] = {}
    linked = []
    for parent, folders, files in os.walk(folder):
        linked += [f"{parent}/{name}" for name in folders if recursive and os.path.islink(f"{parent}/{name}")]  # noqa: PTH114
        folders[:] = sorted(folders) if recursive else []
        for file in files:
            stem, suffix = os.path.splitext(file)  # noqa: PTH122 - 112,000 files: four times faster than Path
            if suffix.lower() in DICOM_SUFFIXES + RASTER_SUFFIXES and (names is None or stem in names):
                found.setdefault(stem, []).append(Path(parent, file))
    if linked:
        log.warning("%s: %d linked folder(s) are not followed: %s", folder, len(linked), ", ".join(linked[:10]))
    for stem, paths in sorted(found.items()):
        if len(paths) > 1:
            problems.add(
                "duplicate_image_id",
                file=folder,
                record=f"image {stem}",
                got=", ".join(sorted(map(str, paths))),
                expected="one file",
                remedy="Remove all but one.",
            )
    return {stem: min(paths) for stem, paths in found.items()}


def size_table_path(settings: LabelledSettings) -> Path | None:
    """Return the path of ``cxr.data.labelled.size_table`` (relative to the root), None where it is not set."""
    return Path(settings.root) / settings.size_table if settings.size_table else None


def required_size_table(settings: LabelledSettings) -> list[RequiredFile]:
    """Return the size table as a required file if one is configured."""
    path = size_table_path(settings)
    return (
        [RequiredFile(path, "cxr.data.labelled.size_table", "sizes of the original radiographs", ("image_id",))]
        if path
        else []
    )


def read_size_table(settings: LabelledSettings, problems: Problems) -> Sizes | None:
    """Read the original sizes of re-encoded copies: image id -> (height, width) in pixels; None where none is configured.

    Columns ``image_id,height,width``; ``dim0,dim1``, as in tables passed around on Kaggle, are height and width.

    Raises:
        DatasetError: the table is empty or lacks a column.
    """
    path = size_table_path(settings)
    if path is None:
        return None
    names = ["height", "width"]
    table = read_table_csv(path, ["image_id"], optional=[*names, "dim0", "dim1"])
    if not set(names) & set(table.columns) and {"dim0", "dim1"} <= set(table.columns):
        table = table.rename(columns={"dim0": "height", "dim1": "width"})
    else:
        table = read_table_csv(path, ["image_id", *names])
    whole = table[names].apply(lambda column: column.str.fullmatch(r"0*[1-9]\d{0,5}(\.0*)?")).all(axis=1)
    for index, row in table[~whole].iterrows():
        problems.add(
            "bad_size",
            file=path,
            record=f"row {index + 1} (image {row['image_id']})",
            got=f"{row['height']}, {row['width']}",
            expected="height and width, whole numbers of pixels > 0",
            remedy="Mend the row.",
        )
    table = table[whole].astype(dict.fromkeys(names, "float64")).astype(dict.fromkeys(names, "int64"))
    table = table.drop_duplicates(["image_id", *names])
    for source_id in table.loc[table["image_id"].duplicated(), "image_id"].unique():
        problems.add(
            "duplicate_image_id",
            file=path,
            record=f"image {source_id}",
            got="two sizes",
            expected="one size",
            remedy="Remove the wrong row.",
        )
    return {row.image_id: (row.height, row.width) for row in table.itertuples()}


def image_table(
    readers: Mapping[str, int], *, split: str, files: Mapping[str, Path], folder: Path, sizes: Sizes | None, problems: Problems
) -> pd.DataFrame:
    """Build the image table of one split, sorted by id.

    Args:
        readers: source_id -> number of readers who looked at the image.
        split: "train", "test" or "".
        files: source_id -> image file found.
        folder: folder that a missing image is expected in.
        sizes: size table; every PNG or JPG must be in it if there is one.
        problems: grows.
    """
    rows = []
    for source_id in sorted(readers):
        path = files.get(source_id, folder / f"{source_id}.dicom")
        height, width = (sizes or {}).get(source_id, (0, 0))
        if sizes is not None and not height and path.suffix.lower() in RASTER_SUFFIXES:
            problems.add(
                "no_size",
                file=path,
                record=f"image {source_id}",
                got="no row in cxr.data.labelled.size_table",
                expected="the size of the original radiograph",
                remedy="Add a row image_id,height,width.",
            )
        rows.append((source_id, str(path), split, "", height, width, readers[source_id]))
    return pd.DataFrame(rows, columns=list(LABELLED_IMAGE_COLUMNS))
