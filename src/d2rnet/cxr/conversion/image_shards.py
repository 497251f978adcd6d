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

from d2rnet.cxr.conversion.image_conversion import ConversionJob, ConversionResult, check_unreadable, convert_images
from d2rnet.cxr.conversion.settings import ImageConversionSettings
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
    jobs = [ConversionJob(*_files_of(record, folder, images)) for record in islice(read_jsonl(images), first, last)]
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


def _files_of(record: dict[str, Any], folder: Path, file: Path) -> tuple[Path, Path]:
    """Return radiograph and PNG that a line of a list or of a shard names.

    Raises:
        DatasetError: one of them is missing or no path, or the PNG would lie outside ``folder``.
    """
    source, file_name = record.get("source"), record.get("file_name")
    if not isinstance(source, str) or not source or "\0" in source or not is_path_below(file_name):
        raise DatasetError(
            f"{file}: a line has source {source!a:.200} and file_name {file_name!a:.200}; expected two paths, the second "
            "below its folder and without '..'. Make the file again."
        )
    return Path(source), folder / str(file_name)


def _record(result: ConversionResult, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"source": str(result.job.source), "file_name": str(result.job.target.relative_to(folder))}
    return record | {name: getattr(result, name) for name in SIZES} | {"reason": result.reason}


def join_shards(
    shards: Sequence[Path], images: pd.DataFrame, folder: Path, *, max_bad_fraction: float
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return the sizes of each image from the records of all shards; their number and order do not matter.

    Args:
        shards: records of :func:`convert_images_shard`.
        images: columns ``source`` and ``file_name`` of what should have been converted.
        folder: folder that ``file_name`` is relative to.
        max_bad_fraction: share of unreadable images, 0 to 1, above which this stops.

    Returns:
        SIZES in pixels, indexed as ``images``, and the mask of the images that were readable; the others have sizes of 0.

    Raises:
        DatasetError: the shards are not all of one run, each once, and of just these images, or too many images are
            unreadable.
    """
    runs = read_records(shards, command="convert-images-shard", files={}, alike=("images",), counted="images")
    records: dict[tuple[Path, Path], dict[str, Any]] = {}
    for path, run in zip(shards, runs, strict=True):
        before = len(records)
        for record in read_jsonl(path):
            records[_files_of(record, folder, path)] = _sizes_of(record, path)
        check_count(path, run, "images", len(records) - before)  # fewer, too, if an image is in two shards
    pairs = zip(images["source"], images["file_name"], strict=True)
    jobs = [ConversionJob(Path(source), folder / file_name) for source, file_name in pairs]
    lost = [job for job in jobs if (job.source, job.target) not in records]
    if lost or len(records) != len(jobs):
        shown = f", the first {lost[0].source}" if lost else ""
        raise DatasetError(
            f"convert images: {len(lost)} of {len(jobs)} images are in none of {len(shards)} shard(s){shown}, and "
            f"{len(records) - len(jobs) + len(lost)} in the shards are not in the tables. {_REMEDY}"
        )
    results = [ConversionResult(job, **records[job.source, job.target]) for job in jobs]
    for result in check_unreadable(results, max_bad_fraction):
        log.warning("%s: unreadable, left out: %s", result.job.source, result.reason)
    sizes = {name: [getattr(result, name) for result in results] for name in SIZES}
    readable = np.array([result.reason is None for result in results], dtype=bool)
    return pd.DataFrame(sizes, index=images.index, dtype="int64"), readable


def _sizes_of(record: dict[str, Any], shard: Path) -> dict[str, Any]:
    """Return SIZES and reason of a line of a shard.

    Raises:
        DatasetError: they are not whole numbers, all above 0 for an image with a PNG and all 0 for one with a reason.
    """
    sizes, reason = {name: record.get(name) for name in SIZES}, record.get("reason")
    is_png = reason is None and all(type(size) is int and size > 0 for size in sizes.values())
    is_unreadable = isinstance(reason, str) and all(type(size) is int and size == 0 for size in sizes.values())
    if not is_png and not is_unreadable:
        raise DatasetError(
            f"{shard}: image {record['source']!a:.200}: got sizes {list(sizes.values())!r:.200}, reason {reason!r:.200}; "
            f"expected numbers of pixels and no reason, or 0 and a reason. {_REMEDY}"
        )
    return sizes | {"reason": reason}
