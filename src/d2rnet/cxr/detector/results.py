"""Boxes of predict-boxes as JSON lines, a COCO result each: written image by image, and joined from shards.

Neither step holds the boxes of many images as Python objects: 377,110 images with 31 boxes each would need 7 GB.

Reads: shards of predict-boxes-shard with the run records beside them. Writes: predictions.jsonl, the same as a COCO results
list in predictions.json, run.json.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.cxr.images.views import other_views, shows_view, views_looked_at
from d2rnet.errors import DatasetError
from d2rnet.files.atomic import atomic_path
from d2rnet.files.collection import collection_paused
from d2rnet.files.documents import read_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.shards import advice, check_count, read_records, record_path

log = logging.getLogger(__name__)
Result = dict[str, Any]
_REMEDY = advice("predict-boxes-shard")
_encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps makes an encoder for each record: half as fast


def result_lines(results: Iterable[Result]) -> str:
    """Lay out the results of one image, one per line; "" if there are none."""
    return "".join(_encode(result) + "\n" for result in results)


def write_results(target: Path, images: Iterable[str]) -> None:
    """Write JSON lines atomically.

    Args:
        target: file to write.
        images: texts of :func:`result_lines`, image by image.
    """
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(images)


def export_coco(lines: Path, target: Path) -> None:
    """Write the COCO results list that JSON lines hold, for other programs; a line is in memory at a time."""
    with (
        atomic_path(target) as temporary,
        lines.open(encoding="utf-8") as source,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        separator = "[\n"
        for line in source:
            stream.write(separator + line.rstrip("\n"))
            separator = ",\n"
        stream.write("[]\n" if separator == "[\n" else "\n]\n")


@collection_paused()
def gather_boxes(*, unlabelled: Path, shards: list[Path], output: Path, settings: PredictionSettings) -> None:
    """Join the shards of predict-boxes-shard; the result does not depend on their number or order.

    Args:
        unlabelled: the COCO json that the shards were predicted on.
        shards: JSON lines of every shard, its run record beside it.
        output: JSON lines to write, sorted by image; the COCO results list of the same name and ``run.json`` are written
            beside it.
        settings: those of the shards.

    Raises:
        DatasetError: a shard is missing, there twice, cut, or of another run, image list, detector, setting or views; an image
            is not in ``unlabelled``, not of these views, or in two shards; a number is not finite.
    """
    records = read_records(
        shards,
        command="predict-boxes-shard",
        settings=settings,
        files={"unlabelled": sha256_file(unlabelled)},
        alike=("weights",),
        counted="boxes",
    )
    views = _common_views(shards, records)
    images = load_coco(unlabelled)["images"]
    known = {image["id"] for image in images if shows_view(image.get("view") or "", views)}
    others = other_views([image.get("view") or "" for image in images], views, source=unlabelled, asked_by="--view")
    lines, boxes = _lines_by_image(shards, records, known, unlabelled)
    write_results(output, (lines[image_id] for image_id in sorted(lines)))
    export_coco(output, output.with_suffix(".json"))
    counts = {
        "images": len(known),
        "images_with_boxes": len(lines),
        "boxes": boxes,
        "shards": len(shards),
        **({"images_of_other_views": others} if views else {}),
    }
    inputs: dict[str, str | Path] = {"unlabelled": unlabelled}
    inputs |= {f"shard_{record['counts']['shard']}": path for path, record in zip(shards, records, strict=True)}
    write_run_record(
        output.with_name("run.json"),
        command="predict-boxes",
        settings=settings,
        inputs=dict(sorted(inputs.items())),
        counts=counts,
        extra={"detector": records[0]["inputs"]["weights"], "views": views},
    )
    log.info("%d boxes on %d of %d images from %d shard(s)", boxes, len(lines), len(known), len(shards))


def _common_views(shards: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the views that the shards looked at, [] for any.

    Raises:
        DatasetError: two shards looked at different ones.
    """
    views = [views_looked_at(record, source=record_path(path)) for path, record in zip(shards, records, strict=True)]
    for path, own in zip(shards, views, strict=True):
        if own != views[0]:
            told, first = (" or ".join(names) or "any view" for names in (own, views[0]))
            raise DatasetError(f"{path}: made from images of {told}, {shards[0]} from those of {first}. {_REMEDY}")
    return views[0]


def _lines_by_image(
    shards: Sequence[Path], records: Sequence[Mapping[str, Any]], known: set[int], unlabelled: Path
) -> tuple[dict[int, str], int]:
    """Return the results of each image, as :func:`result_lines` lays them out, and the number of all."""
    owner: dict[int, Path] = {}
    lines: dict[int, str] = {}
    boxes = 0
    for path, record in zip(shards, records, strict=True):
        before = boxes
        for image_id, group in groupby(read_jsonl(path), key=lambda result: result.get("image_id")):
            if type(image_id) is not int or image_id not in known:
                raise DatasetError(f"{path}: image {image_id!r} is not in {unlabelled}, or of another view. {_REMEDY}")
            if owner.setdefault(image_id, path) != path:
                raise DatasetError(f"{path}: image {image_id} is in {owner[image_id]} too. {_REMEDY}")
            results = list(group)
            try:
                text = result_lines(results)
            except ValueError as error:
                raise DatasetError(f"{path}: image {image_id} has a number that is not finite. {_REMEDY}") from error
            lines[image_id] = lines.get(image_id, "") + text
            boxes += len(results)
        check_count(path, record, "boxes", boxes - before)
    return lines, boxes
