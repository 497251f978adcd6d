"""convert-images-shard: one run of the images of a list becomes 8-bit PNG; the records of all shards are joined later.

Reads: a list of verify_inputs and the radiographs it names. Writes: the PNG files; the record of the shard, JSON lines
``source, file_name, height, width, source_height, source_width, reason`` (an unreadable image has sizes of 0 and a reason);
beside it ``<shard>.run.json``, and ``<shard>.manifest.jsonl``, from which an interrupted conversion goes on.

A shard is a contiguous run of the list, and an image is converted by itself, so any number of shards gives the same files.
"""

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from d2rnet.cxr.conversion.image_conversion import SHOWN_BAD, ConversionJob, ConversionResult, convert_images
from d2rnet.cxr.conversion.settings import ConversionSettings, ImageConversionSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import check_regular_file, read_jsonl, write_jsonl
from d2rnet.files.names import is_path_below
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.shards import advice, check_count, read_records, record_path, remove_record

log = logging.getLogger(__name__)

SIZES = ("height", "width", "source_height", "source_width")
_REMEDY = advice("convert-images-shard")


def convert_images_shard(
    *, images: Path, folder: Path, shard: int, shards: int, output: Path, workers: int, settings: ImageConversionSettings
) -> None:
    """Convert one shard of a list of images.

    Args:
        images: list of verify_inputs.
        folder: folder that ``file_name`` is relative to.
        shard: which shard, 1 to ``shards``.
        shards: number of shards.
        output: record of the shard.
        workers: processes.
        settings: size of the PNG.

    Raises:
        ConfigError: no such shard.
        DatasetError: the list is damaged or names a PNG outside ``folder``.
    """
    if not 1 <= shard <= shards:
        raise ConfigError(f"--shard {shard} --shards {shards}: expected a shard from 1 to {shards}.")
    check_regular_file(images)
    with images.open("rb") as stream:  # counted first: a shard keeps its own part of 377,110 images
        listed = sum(1 for line in stream if line.strip())
    first, last = (listed * place // shards for place in (shard - 1, shard))
    log.info("shard %d of %d: %d of %d images", shard, shards, last - first, listed)
    files = (_files_of(record, images) for record in islice(read_jsonl(images), first, last))
    jobs = [ConversionJob(Path(source), folder / file_name) for source, file_name in files]
    results = convert_images(
        jobs,
        max_side_px=settings.max_side_px,
        workers=workers,
        manifest=output.with_suffix(".manifest.jsonl"),
    )
    remove_record(output)
    write_jsonl(output, (_record(result, folder) for result in results))
    counts = {"images": len(results), "unreadable": sum(result.reason is not None for result in results)}
    write_run_record(
        record_path(output),
        command="convert-images-shard",
        settings=settings,
        inputs={"images": images},
        counts={**counts, "listed": listed, "shard": shard, "shards": shards},
    )


def _files_of(record: dict[str, Any], file: Path) -> tuple[str, str]:
    """Return radiograph and PNG that a line of a list or of a shard names, the PNG relative to its folder.

    Raises:
        DatasetError: one of them is missing or no path, or the PNG would lie outside its folder.
    """
    source = record.get("source")
    file_name = record.get("file_name")
    if not isinstance(source, str) or not source or "\0" in source or not is_path_below(file_name):
        raise DatasetError(
            f"{file}: a line has source {source!a:.200} and file_name {file_name!a:.200}; expected two paths, the second "
            "below its folder and without '..'. Make the file again."
        )
    return source, str(file_name)


def _record(result: ConversionResult, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"source": str(result.job.source), "file_name": str(result.job.target.relative_to(folder))}
    return record | {name: getattr(result, name) for name in SIZES} | {"reason": result.reason}


def join_shards(
    shards: Sequence[Path], images: pd.DataFrame, settings: ConversionSettings, *, quarantined: int
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return the sizes of each image from the records of all shards; their number and order do not matter.

    Args:
        shards: records of :func:`convert_images_shard`.
        images: columns ``source`` and ``file_name`` of what should have been converted.
        settings: the shards must have been made with its size; and the share of unreadable images above which this stops.
        quarantined: images that verify_inputs set aside, which ``images`` lacks; they are of the same share.

    Returns:
        SIZES in pixels, indexed as ``images``, and the mask of the images that were readable; the others have sizes of 0.

    Raises:
        DatasetError: the shards are not all of one run, each once, of this size and of just these images, or too many images
            are unreadable.
    """
    made_with = ImageConversionSettings(max_side_px=settings.max_side_px)
    runs = read_records(
        shards, command="convert-images-shard", settings=made_with, files={}, alike=("images",), counted="images"
    )
    records: dict[tuple[str, str], dict[str, Any]] = {}
    for path, run in zip(shards, runs, strict=True):
        before = len(records)
        for record in read_jsonl(path):
            records[_files_of(record, path)] = _sizes_of(record, path)
        check_count(path, run, "images", len(records) - before)  # fewer, too, if an image is in two shards
    wanted = list(zip(images["source"], images["file_name"], strict=True))
    lost = [source for source, file_name in wanted if (source, file_name) not in records]
    if lost or len(records) != len(wanted):
        shown = f", the first {lost[0]}" if lost else ""
        raise DatasetError(
            f"convert images: {len(lost)} of {len(wanted)} images are in none of {len(shards)} shard(s){shown}, and "
            f"{len(records) - len(wanted) + len(lost)} in the shards are not in the tables. {_REMEDY}"
        )
    found = pd.DataFrame([records[pair] for pair in wanted], index=images.index, columns=[*SIZES, "reason"])
    is_bad = found["reason"].notna()
    _check_unreadable(found.loc[is_bad, "reason"].tolist(), len(wanted), quarantined, settings.max_bad_fraction)
    for source, reason in zip(images.loc[is_bad, "source"], found.loc[is_bad, "reason"], strict=True):
        log.warning("%s: unreadable, left out: %s", source, reason)
    return found[list(SIZES)].astype("int64"), (~is_bad).to_numpy()


def _check_unreadable(reasons: Sequence[str], converted: int, quarantined: int, max_bad_fraction: float) -> None:
    """Raise if too many of all images, those that the check set aside among them, are unreadable; the first ten are named."""
    total = converted + quarantined
    found = len(reasons) + quarantined
    if reasons and found > max_bad_fraction * total:
        earlier = f" ({quarantined} of them by the check)" if quarantined else ""
        raise DatasetError(
            f"convert images: {found} of {total} images are unreadable{earlier}; expected at most {max_bad_fraction:.2%} "
            "(cxr.data.conversion.max_bad_fraction). Mend or remove them and convert their shards again "
            "(--forcerun convert_images_shard), or raise that setting. The first:\n  " + "\n  ".join(reasons[:SHOWN_BAD])
        )


def _sizes_of(record: dict[str, Any], shard: Path) -> dict[str, Any]:
    """Return SIZES and reason of a line of a shard.

    Raises:
        DatasetError: they are not whole numbers, all above 0 for an image with a PNG and all 0 for one with a reason.
    """
    sizes = {name: record.get(name) for name in SIZES}
    reason = record.get("reason")
    is_png = reason is None and all(type(size) is int and size > 0 for size in sizes.values())
    is_unreadable = isinstance(reason, str) and all(type(size) is int and size == 0 for size in sizes.values())
    if not is_png and not is_unreadable:
        raise DatasetError(
            f"{shard}: image {record['source']!a:.200}: got sizes {list(sizes.values())!r:.200}, reason {reason!r:.200}; "
            f"expected numbers of pixels and no reason, or 0 and a reason. {_REMEDY}"
        )
    return sizes | {"reason": reason}
