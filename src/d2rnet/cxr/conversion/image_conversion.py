"""Conversion of many radiographs to 8-bit PNG: parallel, resumable, bad files set aside.

Reads: DICOM, PNG and JPG files. Writes: PNG files, each atomically, and a manifest that a later run resumes from: one JSON
object per line, appended as each PNG is finished. A PNG is not made again while its source's path, size and time of change,
the wanted size and the recipe are those of its line, and the PNG has the size that the line says.
"""

import json
import logging
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.files.atomic import atomic_path, full_disk_named
from d2rnet.files.documents import check_regular_file
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track
from d2rnet.runs.workdir import hold_lock

log = logging.getLogger(__name__)
RECIPE = 1  # raise it when the same source and size would give other pixels than before
PNG_COMPRESSION = 1  # 6 takes several times as long for files about a seventh smaller
SHOWN_BAD = 10
_PNG_SIZE_START = 16  # PNG specification, IHDR
_PNG_SIZE_END = 24


@dataclass(frozen=True)
class ConversionJob:
    """One image to convert: source file and the PNG to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class ConversionResult:
    """What came of a job.

    Attributes:
        job: the job.
        height: rows of the PNG, pixels; 0 where there is none.
        width: columns of the PNG, pixels; 0 where there is none.
        source_height: rows of the source, pixels; 0 where it is unreadable.
        source_width: columns of the source, pixels; 0 where it is unreadable.
        reason: why the source is unreadable; None where all is well.
    """

    job: ConversionJob
    height: int
    width: int
    source_height: int
    source_width: int
    reason: str | None = None


@dataclass(frozen=True)
class _Done:
    """A line of the manifest."""

    source: str
    size: int
    mtime_ns: int
    target: str
    height: int
    width: int
    source_height: int
    source_width: int


def convert_images(
    jobs: Sequence[ConversionJob],
    *,
    max_side_px: int,
    workers: int,
    manifest: Path,
) -> list[ConversionResult]:
    """Convert radiographs to 8-bit PNG.

    Args:
        jobs: what to convert; every target differs.
        max_side_px: longer side of the PNG, pixels; smaller images are not enlarged.
        workers: processes.
        manifest: JSON lines file to resume from; made if missing. Others beside it whose names end in ``.manifest.jsonl`` are
            read too: those of the same images in another number of shards.

    Returns:
        One result a job, in the order of the jobs.

    Raises:
        DatasetError: two jobs have one target.
        D2RNetError: a worker process was killed, or another process is converting with this manifest.
        OSError: a PNG cannot be written (disk full); no half file remains.
    """
    _check_targets(jobs)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(manifest.with_name(f"{manifest.name}.lock"), what=manifest, doing="converting these images"):
        _remove_leftovers(jobs)
        known = _read_manifests(manifest, max_side_px, {str(job.target) for job in jobs})
        return _convert_all(jobs, known, manifest, max_side_px, workers)


def _convert_all(
    jobs: Sequence[ConversionJob],
    known: dict[str, _Done],
    manifest: Path,
    max_side_px: int,
    workers: int,
) -> list[ConversionResult]:
    results: list[ConversionResult] = []
    counts: Counter[str] = Counter()
    tasks = [(job, known.get(str(job.target))) for job in jobs]
    convert = partial(_convert, max_side_px=max_side_px)
    outcomes = map_in_processes(convert, tasks, workers=workers, what="convert images")
    with manifest.open("a", encoding="utf-8") as stream:
        for job, (done, reason) in zip(jobs, track(outcomes, total=len(jobs), what="convert images"), strict=True):
            if done is None:
                counts["unreadable"] += 1
                results.append(ConversionResult(job, 0, 0, 0, 0, reason))
                continue
            if done != known.get(str(job.target)):
                line = {"recipe": RECIPE, "max_side_px": max_side_px, **asdict(done)}
                with full_disk_named(manifest):
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                    stream.flush()
                counts["new"] += 1
            results.append(ConversionResult(job, done.height, done.width, done.source_height, done.source_width))
    kept = len(jobs) - counts["new"] - counts["unreadable"]
    log.info("images: %d converted, %d kept from before, %d unreadable", counts["new"], kept, counts["unreadable"])
    return results


def _convert(task: tuple[ConversionJob, _Done | None], max_side_px: int) -> tuple[_Done | None, str | None]:
    """Convert one image unless its PNG is up to date; return its manifest line, or the reason why it is unreadable."""
    job, known = task
    try:
        check_regular_file(job.source)
        status = job.source.stat()
        identity = (str(job.source), status.st_size, status.st_mtime_ns)
        is_same = known is not None and identity == (known.source, known.size, known.mtime_ns)
        if known is not None and is_same and _png_hw(job.target) == (known.height, known.width):
            return known, None
        radiograph = read_radiograph(job.source, max_side_px=max_side_px)
    except FileNotFoundError:
        return None, f"{job.source}: no such file. Check that the download is complete."
    except DatasetError as error:
        return None, str(error)
    write_png(job.target, radiograph.pixels)
    height, width = radiograph.pixels.shape
    source_height, source_width = radiograph.source_hw
    return _Done(*identity, str(job.target), height, width, source_height, source_width), None


def _png_hw(path: Path) -> tuple[int, int] | None:
    """Return height and width of a PNG from its first bytes; None where there is no such file."""
    try:
        with path.open("rb") as stream:
            width, height = struct.unpack(">2I", stream.read(_PNG_SIZE_END)[_PNG_SIZE_START:])
    except (FileNotFoundError, struct.error):
        return None
    return height, width


def write_png(target: Path, pixels: np.ndarray) -> None:
    """Write (h, w) uint8 pixels as a PNG, atomically.

    Raises:
        OSError: the file cannot be written (disk full, no permission); no half file remains.
    """
    # encoded in memory first: cv2.imwrite does not tell a full disk
    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])[1]
    with atomic_path(target) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _check_targets(jobs: Sequence[ConversionJob]) -> None:
    """Raise if two jobs would write one file."""
    sources: dict[Path, Path] = {}
    clashes = []
    for job in jobs:
        if job.target in sources:
            clashes.append(f"{job.target}: from {sources[job.target]} and from {job.source}")
        sources[job.target] = job.source
    if clashes:
        raise DatasetError(
            f"convert images: {len(clashes)} PNG(s) would be written twice; expected one image a file name. Rename or drop "
            "one of each pair:\n  " + "\n  ".join(clashes[:SHOWN_BAD])
        )


def _remove_leftovers(jobs: Sequence[ConversionJob]) -> None:
    """Remove temporary files that a killed conversion left; those of other shards, which may be running, stay."""
    own = {job.target.with_suffix("") for job in jobs}
    parts = [path for folder in {job.target.parent for job in jobs} for path in folder.glob(".*.part.png")]
    leftovers = [path for path in parts if path.parent / path.name[1:].rsplit(".", 3)[0] in own]  # .<stem>.<random>.part.png
    for path in leftovers:
        path.unlink(missing_ok=True)
    if leftovers:
        log.info("removed %d unfinished PNG(s) of an interrupted run", len(leftovers))


def _read_manifests(manifest: Path, max_side_px: int, wanted: set[str]) -> dict[str, _Done]:
    """Return the lines of all manifests that hold for this size and recipe, by target; the newest manifest counts most."""
    known: dict[str, _Done] = {}
    found = [path for path in {manifest, *manifest.parent.glob("*.manifest.jsonl")} if path.exists()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns):
        _read_manifest(path, max_side_px, wanted, known, is_own=path == manifest)
    return known


def _read_manifest(manifest: Path, max_side_px: int, wanted: set[str], known: dict[str, _Done], *, is_own: bool) -> None:
    """Take the lines of one manifest into ``known``; end a torn last line of one's own so that appending is safe.

    A line that cannot be read costs no more than converting its image again, so it is counted, not an error.
    """
    torn = 0
    last = "\n"
    with manifest.open(encoding="utf-8", errors="replace") as stream:
        for last in stream:
            try:
                line: dict[str, Any] = json.loads(last)
                holds = (line.pop("recipe"), line.pop("max_side_px")) == (RECIPE, max_side_px)
                done = _Done(**line)
                known.pop(done.target, None)  # the last line of a target counts, whatever its size
                if holds and done.target in wanted:
                    known[done.target] = done
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                torn += 1
    if is_own and not last.endswith("\n"):
        with manifest.open("a", encoding="utf-8") as stream:
            stream.write("\n")
    if torn:
        log.warning("%s: %d unreadable line(s), left by an interrupted run; their images are converted again", manifest, torn)
